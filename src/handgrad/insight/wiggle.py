"""Learning without derivatives: wiggle a weight, see whether the loss falls, keep the better side.

    L = loss(θ),   L' = loss(θ + ε e_i),   θ_i <- θ_i + step · sign(L - L')

A sweep over N weights needs N losses and more, where backprop needs the time of about three for all of them. In float32
a wiggle of 1e-6 moves most losses by less than they are rounded to: the sign is then 0, and the weight stays.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from handgrad.compile import jit
from handgrad.gradient import Objective, grad
from handgrad.layers.activation import Tanh
from handgrad.layers.affine import Dense
from handgrad.layers.container import Chain
from handgrad.layers.layer import Array, Params, State
from handgrad.losses import SoftmaxCrossEntropy
from handgrad.timing import interleaved


def wiggle(objective: Objective, eps: float = 1e-6, step: float | None = None) -> Callable[..., tuple[Params, Array]]:
    """One sweep of the lecture's trainer: every weight in turn is wiggled and moved, each after those before it.

    Args:
        objective: whose loss is made small.
        eps: how far a weight is wiggled, above 0.
        step: how far it is moved; eps unless given.

    Returns:
        A function of (params, x, y, state=(), key=None) that gives (params, losses): the loss before each move, (N,)
        in the order of `jax.tree.leaves`. One key's masks hold for the whole sweep. A weight is NaN where a loss was.

    Raises:
        TypeError: something that is no Objective, or an eps or step that is no number.
        ValueError: eps that is not above 0, a step that is not finite, or params without a number in them.

    Example:
        >>> import handgrad as hg
        >>> objective = hg.Objective(hg.Chain(hg.Dense(1, use_bias=False)), hg.MeanSquaredError())
        >>> params = {"dense1": {"kernel": jnp.zeros((2, 1))}}  # L = (w·x - 1)² with x = (3, -1)
        >>> moved, losses = wiggle(objective, 1e-3, step=0.1)(params, jnp.array([[3.0, -1.0]]), jnp.ones((1, 1)))
        >>> print(moved["dense1"]["kernel"].ravel().round(3), losses.round(3))
        [ 0.1 -0.1] [1.   0.49]
    """
    _check("wiggle", objective, eps)
    move = eps if step is None else step
    if not math.isfinite(move):
        raise ValueError(f"wiggle: step must be finite, got {move}")

    def sweep(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> tuple[Params, Array]:
        flat, unravel, loss = _flat_loss("wiggle", objective, params, x, y, state, key)

        def one(flat: Array, i: Array) -> tuple[Array, Array]:
            before, after = jax.vmap(lambda by: loss(flat.at[i].add(by)))(jnp.array([0, eps], flat.dtype))  # as one
            return flat.at[i].add(-move * _sign(after, before).astype(flat.dtype)), before

        flat, losses = lax.scan(one, flat, jnp.arange(flat.size))
        return unravel(flat), losses

    return sweep


def wiggle_signs(objective: Objective, eps: float = 1e-6, *, at_once: int = 64) -> Callable[..., Any]:
    """The sign of each weight's slope by one wiggle of it, all from the same point: sign(L' - L), one loss a weight.

    Args:
        objective: whose loss is looked at.
        eps: how far a weight is wiggled, above 0.
        at_once: how many losses are computed side by side by vmap, at least 2; memory grows with it.

    Returns:
        A function of (params, x, y, state=(), key=None) that gives a tree like params of -1, 0 and 1; 0 where the loss
        did not change, and NaN where it is NaN.

    Raises:
        TypeError: something that is no Objective, an eps that is no number, or at_once that is no int.
        ValueError: eps that is not above 0, at_once below 2, or params without a number in them.

    Example:
        >>> import handgrad as hg
        >>> objective = hg.Objective(hg.Chain(hg.Dense(1, use_bias=False)), hg.MeanSquaredError())
        >>> params = {"dense1": {"kernel": jnp.zeros((3, 1))}}
        >>> signs = wiggle_signs(objective, 1e-3)(params, jnp.array([[3.0, -1.0, 0.0]]), jnp.ones((1, 1)))
        >>> signs["dense1"]["kernel"].ravel().tolist()
        [-1.0, 1.0, 0.0]
    """
    _check("wiggle_signs", objective, eps)
    if not isinstance(at_once, Integral):
        raise TypeError(f"wiggle_signs: at_once must be an int, got {at_once!r}")
    if at_once < 2:
        raise ValueError(f"wiggle_signs: at_once must be at least 2, got {at_once}")

    def signs(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> Any:
        flat, unravel, loss = _flat_loss("wiggle_signs", objective, params, x, y, state, key)
        size = min(at_once, flat.size + 1) - 1  # wiggles beside one loss that is not wiggled
        moves = jnp.full(size + 1, eps, flat.dtype).at[0].set(0)

        def some(places: Array) -> Array:
            """The signs at some places; the unmoved loss is one of the batch, so that all are rounded alike."""
            losses = jax.vmap(lambda place, by: loss(flat.at[place].add(by)))(jnp.append(0, places), moves)
            return _sign(losses[1:], losses[0])

        rounds = -(-flat.size // size)
        places = jnp.arange(rounds * size) % flat.size
        return unravel(lax.map(some, places.reshape(rounds, size)).ravel()[: flat.size].astype(flat.dtype))

    return signs


def wiggle_value_and_grad(eps: float = 1e-6) -> Callable:
    """A `value_and_grad` whose gradient is the wiggles' signs: with `hg.sgd(r)` each weight moves by r the better way.

    Args:
        eps: how far a weight is wiggled.

    Example:
        >>> import handgrad as hg
        >>> net, optimizer = hg.Chain(hg.Dense(2)), hg.sgd(0.1)
        >>> objective = hg.Objective(net, hg.SoftmaxCrossEntropy())
        >>> step = hg.make_train_step(objective, optimizer, value_and_grad=wiggle_value_and_grad(1e-3))
        >>> train_state = hg.init_train_state(net, optimizer, jax.random.key(0), (2,))
        >>> for _ in range(20):
        ...     train_state, metrics = step(train_state, jnp.eye(2, dtype="float32"), jnp.array([0, 1]))
        >>> float(metrics.accuracy)
        1.0
    """

    def wiggled(objective: Objective, argnums: int = 0, has_aux: bool = True) -> Callable:
        if argnums != 0:
            raise ValueError(f"wiggle_value_and_grad: argnums must be 0, the parameters, got {argnums!r}")
        signs = wiggle_signs(objective, eps)

        def both(
            params: Params, x: Array, y: Array, state: State = (), key: Array | None = None, weights: Any = None
        ) -> tuple[Any, Any]:
            if weights is not None:
                raise ValueError("wiggle_value_and_grad: takes no weights of examples")
            return objective(params, x, y, state, key), signs(params, x, y, state, key)

        return both

    return wiggled


class WiggleCost(NamedTuple):
    """One size of net: its parameters, and the milliseconds of a sweep of wiggles and of one gradient by hand.

    Attributes:
        parameters: of the net.
        wiggle: milliseconds of a sweep of wiggles, one forward pass for each parameter.
        backprop: milliseconds of one gradient by hand.

    Example:
        >>> (row,) = wiggle_cost((16,), batch=2, seconds=0)
        >>> row.parameters, row.wiggle > 0, row.backprop > 0
        (612, True, True)
    """

    parameters: int
    wiggle: float
    backprop: float


def wiggle_cost(
    widths: Sequence[int] = (4, 8, 16, 32, 64), *, batch: int = 32, seconds: float = 2.0
) -> list[WiggleCost]:
    """Measure what the slopes of all weights cost, by wiggles and by backprop, as a net grows.

    Args:
        widths: of the two hidden layers of nets of 16 inputs and 4 outputs.
        batch: how many examples.
        seconds: about how long to measure each, once compiled; five rounds at least.

    Returns:
        A row for each width.

    Raises:
        ValueError: no width, or one below 1, or such a batch.

    Example:
        >>> [row.parameters for row in wiggle_cost((2, 4), batch=2, seconds=0)]
        [52, 108]
    """
    if not widths or min(widths) < 1:
        raise ValueError(f"wiggle_cost: widths must be at least 1, got {list(widths)}")
    if batch < 1:
        raise ValueError(f"wiggle_cost: batch must be at least 1, got {batch}")
    return [_one_cost(width, batch, seconds) for width in widths]


def _one_cost(width: int, batch: int, seconds: float) -> WiggleCost:
    net = Chain(Dense(width), Tanh(), Dense(width), Tanh(), Dense(4))
    params, _ = net.init(jax.random.key(0), (16,), jnp.float32)
    x, y = jax.random.normal(jax.random.key(1), (batch, 16), jnp.float32), jnp.arange(batch) % 4
    objective = Objective(net, SoftmaxCrossEntropy())
    ways = {"wiggle": jit(wiggle_signs(objective, 1e-3)), "backprop": jit(grad(objective))}
    calls = {name: lambda way=way: jax.block_until_ready(way(params, x, y)) for name, way in ways.items()}
    times = interleaved(calls, seconds=seconds)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return WiggleCost(count, times["wiggle"].median, times["backprop"].median)


def _check(tool: str, objective: Any, eps: float) -> None:
    if not isinstance(objective, Objective):
        raise TypeError(f"{tool}: wants an hg.Objective, got {objective!r}; write hg.Objective(net, loss)")
    if not isinstance(eps, Real | Array):
        raise TypeError(f"{tool}: eps must be a number, got {eps!r}")
    if not 0 < eps < math.inf:
        raise ValueError(f"{tool}: eps must be above 0 and finite, got {eps}")


def _sign(after: Array, before: Array) -> Array:
    """sign(after - before) of the numbers as they are rounded; NaN where one of them is.

    XLA would fuse the subtraction with the division of the mean, and see differences below the loss's last digit.
    """
    after, before = lax.optimization_barrier((after, jnp.broadcast_to(before, after.shape)))
    sign = (after > before).astype(after.dtype) - (after < before).astype(after.dtype)
    return jnp.where(jnp.isnan(after) | jnp.isnan(before), jnp.nan, sign)


def _flat_loss(
    tool: str, objective: Objective, params: Params, x: Array, y: Array, state: State, key: Array | None
) -> tuple[Array, Callable, Callable[[Array], Array]]:
    """The parameters in a row, the way back, and the loss as a function of the row."""
    flat, unravel = ravel_pytree(params)
    if flat.size == 0:
        raise ValueError(f"{tool}: params have no numbers to wiggle, got {params!r}")
    return flat, unravel, lambda flat: objective(unravel(flat), x, y, state, key)[0]

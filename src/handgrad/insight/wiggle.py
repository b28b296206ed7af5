"""The lecture's trainer: change one weight a little, and keep what lets the loss fall. No derivative anywhere.

    L = loss(θ)      L_i = loss(θ + ε e_i)      θ_i ← θ_i + s · sign(L - L_i)

Why it works: by Taylor L_i - L = ε g_i + ε²/2 H_ii + O(ε³), so sign(L_i - L) is the sign of the gradient g_i as long as
ε |H_ii| < 2 |g_i|. Why it fails: L is known to its last bit only, u |L| with u = 6e-8 in float32 and 1e-16 in float64,
so the difference drowns where ε |g_i| < u |L|, and θ_i + ε is θ_i itself where ε < u |θ_i|. What it costs: a loss for
each weight, N + 1 in all, where backward gets all N slopes for about two losses more.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.gradient import Aux, Objective
from handgrad.layers.layer import Array, Params, State
from handgrad.optimizers.optimizer import check_floating

NONE = -1  # the number of no weight


def wiggle(objective: Objective, eps: float | Array = 1e-6, *, chunk: int = 64, has_aux: bool = True) -> Callable:
    """The sign of each weight's slope by wiggling it, all from one point; in the place of `hg.value_and_grad`.

    signs_i = sign(L(θ + ε e_i) - L(θ)): 1, -1, or 0 where the loss did not change. `hg.sgd(s)` on them is the lecture's
    move θ_i += s sign(L - L_i), with s = ε in the lecture. Every loss gets the same key, so the same dropout mask.

    Args:
        objective: whose loss.
        eps: by how much a weight is changed; a positive number, or a traced scalar.
        chunk: how many weights are wiggled at once, by vmap: memory is that of so many nets.
        has_aux: must be True, as in `hg.value_and_grad`.

    Returns:
        A function of (params, x, y, state=(), key=None, weights=None) that gives ((loss, Aux(logits, state)), signs);
        signs have the structure, shapes and dtypes of params, and are NaN where a loss is.

    Raises:
        TypeError: something that is no `Objective`, or parameters that are not floating point.
        ValueError: eps or chunk not positive, has_aux=False, or a net without parameters.

    Source: the lecture behind this library; signs of differences as in Bernstein et al., signSGD, 2018.

    Example:
        >>> import functools, handgrad as hg
        >>> net, key = hg.Chain(hg.Dense(2)), jax.random.key(0)
        >>> state = hg.init_train_state(net, hg.sgd(0.1), key, (2,))
        >>> step = hg.make_train_step(
        ...     hg.Objective(net, hg.SoftmaxCrossEntropy()), hg.sgd(0.1), functools.partial(hg.wiggle, eps=1e-3)
        ... )
        >>> for _ in range(20):
        ...     state, metrics = step(state, jnp.eye(2, dtype="float32"), jnp.array([0, 1]))
        >>> float(metrics.accuracy)
        1.0
    """
    check_wiggle("wiggle", objective, has_aux, eps=eps)
    if not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"wiggle: chunk must be a positive int, got {chunk!r}")

    def wiggled(
        params: Params, x: Array, y: Array, state: State = (), key: Array | None = None, weights: Any = None
    ) -> tuple[tuple[Array, Aux], Any]:
        count = weight_count("wiggle", params)
        loss, aux = objective(params, x, y, state, key, weights)
        size = min(chunk, count)

        def signs_of(places: Array) -> Array:
            """Beside each loss stands that of no change, by the same compiled sums, so that equal weights give 0."""
            losses = _losses(objective, params, (x, y, state, key, weights), jnp.append(NONE, places), eps)
            return jnp.sign(losses[1:] - losses[0])

        places = jnp.arange(-(-count // size) * size).reshape(-1, size)  # those beyond the last weight change none
        return (loss, aux), _as_tree(jax.lax.map(signs_of, places).ravel()[:count], params)

    return wiggled


def wiggle_in_turn(
    objective: Objective, eps: float | Array = 1e-6, *, step: float | Array | None = None, has_aux: bool = True
) -> Callable:
    """The same as the lecture does it: weight after weight, each seeing the moves of those before it.

    For i = 1 … N: L = loss(θ), L_i = loss(θ + ε e_i), θ_i ← θ_i + s sign(L - L_i). A weight moves once in a sweep, so
    θ after it is θ - s · signs: `hg.sgd(s)` with the same s takes the step. The loss falls more surely than when all
    move at once, but a sweep takes 2 N losses one after the other, which no vmap can shorten.

    Args:
        objective: whose loss.
        eps: by how much a weight is changed to look; a positive number, or a traced scalar.
        step: s, by how much it then moves; None is eps.
        has_aux: must be True, as in `hg.value_and_grad`.

    Returns:
        A function of (params, x, y, state=(), key=None, weights=None) that gives ((loss, Aux(logits, state)), signs),
        loss and aux those before the sweep. The weights are in the order of `jax.tree.leaves(params)`.

    Raises:
        TypeError: as for `wiggle`.
        ValueError: eps or step not positive, has_aux=False, or a net without parameters.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(1, use_bias=False))
        >>> objective = hg.Objective(net, hg.MeanSquaredError())
        >>> params, x = {"dense1": {"kernel": jnp.array([[1.0], [1.0]])}}, jnp.ones((1, 2))
        >>> (loss, _), signs = hg.wiggle_in_turn(objective, step=1.0)(params, x, jnp.full((1, 1), 1.1))
        >>> signs["dense1"]["kernel"].ravel().tolist()  # 2 is too much, 1 too little
        [1.0, -1.0]
    """
    step = eps if step is None else step
    check_wiggle("wiggle_in_turn", objective, has_aux, eps=eps, step=step)

    def wiggled(
        params: Params, x: Array, y: Array, state: State = (), key: Array | None = None, weights: Any = None
    ) -> tuple[tuple[Array, Aux], Any]:
        count = weight_count("wiggle_in_turn", params)

        def one_weight(theta: Params, i: Array) -> tuple[Params, Array]:
            losses = _losses(objective, theta, (x, y, state, key, weights), jnp.stack([jnp.full_like(i, NONE), i]), eps)
            sign = jnp.sign(losses[1] - losses[0])
            return _nudged(theta, i, -jnp.asarray(step, sign.dtype) * sign), sign

        _, signs = jax.lax.scan(one_weight, params, jnp.arange(count))
        return objective(params, x, y, state, key, weights), _as_tree(signs, params)

    return wiggled


def _losses(objective: Objective, params: Params, batch: tuple, places: Array, eps: float | Array) -> Array:
    """The losses (m,) after each of m weights alone is changed."""
    return jax.vmap(lambda i: objective(_nudged(params, i, eps), *batch)[0])(places)


def _nudged(params: Params, index: Array, by: float | Array) -> Params:
    """The params with weight number `index`, counted through the leaves, changed by so much."""
    leaves, structure = jax.tree.flatten(params)
    first, moved = 0, []
    for leaf in leaves:
        places = jnp.arange(first, first + leaf.size).reshape(leaf.shape)
        moved.append(jnp.where(places == index, leaf + jnp.asarray(by, leaf.dtype), leaf))
        first += leaf.size
    return structure.unflatten(moved)


def _as_tree(flat: Array, params: Params) -> Params:
    """A number for each weight (N,), as a tree of the structure, shapes and dtypes of params."""
    leaves, structure = jax.tree.flatten(params)
    parts = zip(jnp.split(flat, np.cumsum([leaf.size for leaf in leaves])[:-1]), leaves, strict=True)
    return structure.unflatten([part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in parts])


def weight_count(name: str, params: Params) -> int:
    """How many weights there are, all floating point."""
    check_floating(name, params)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    if count == 0:
        raise ValueError(f"{name}: params must hold a weight to wiggle, got {params!r}; the net has nothing to learn")
    return count


def check_wiggle(name: str, objective: Any, has_aux: bool, **sizes: Any) -> None:
    """An Objective, has_aux as in value_and_grad, and positive sizes; a traced one is never looked at."""
    if not isinstance(objective, Objective):
        raise TypeError(f"{name}: wants an hg.Objective, got {objective!r}; write hg.Objective(net, loss)")
    if has_aux is not True:
        raise ValueError(f"{name}: an Objective always has aux, got has_aux={has_aux!r}")
    for argument, value in sizes.items():
        if isinstance(value, int | float) and not 0 < value < math.inf:
            raise ValueError(f"{name}: {argument} must be a positive number, got {value!r}")

"""The objective of training, and its gradient by the chain rule written by hand.

L(θ) = loss(net_θ(x), y) + λ Σ_kernels ‖W‖²

The loss hands down dL/do, the net's backward turns it into dL/dθ and dL/dx, and each kernel gains 2 λ W.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad import mesh
from handgrad.layers.layer import Array, Layer, Params, State, check_is_layer
from handgrad.losses import Loss


class Aux(NamedTuple):
    """What an objective gives beside the loss.

    Attributes:
        logits: the net's output (N, ...), as the loss got it.
        state: the net's new state, such as running statistics.

    Example:
        >>> import handgrad as hg
        >>> objective = hg.Objective(hg.Chain(hg.Dense(2, use_bias=False)), hg.SoftmaxCrossEntropy())
        >>> params, y = {"dense1": {"kernel": jnp.array([[1.0, -1.0]])}}, jnp.array([0, 1])
        >>> (loss, aux), grads = hg.value_and_grad(objective)(params, jnp.array([[2.0], [-3.0]]), y)
        >>> aux.logits.tolist(), float(hg.accuracy(aux.logits, y))
        ([[2.0, -2.0], [-3.0, 3.0]], 1.0)
    """

    logits: Array
    state: Any


@dataclass(frozen=True, eq=False)
class Objective:
    """The function that training makes small: a net, a loss on its output, and a penalty on its kernels.

    Called, it is plain JAX, to be differentiated by `jax.value_and_grad(objective, has_aux=True)`;
    `hg.value_and_grad(objective)` gives the same by hand.

    Args:
        net: a layer, in training mode unless it comes from `hg.inference`.
        loss: a loss from `handgrad.losses`, or your own subclass of `Loss`.
        l2: the penalty λ, a number or a traced scalar: λ times the sum of the squares of all leaves named `kernel`.

    Raises:
        TypeError: `net` is no layer or `loss` no loss.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(3))
        >>> params, state = net.init(jax.random.key(0), (2,))
        >>> x, y = jnp.ones((4, 2), jnp.float32), jnp.array([0, 1, 2, 0])
        >>> objective = hg.Objective(net, hg.SoftmaxCrossEntropy(), l2=0.1)
        >>> loss, aux = objective(params, x, y, state)
        >>> loss.shape, aux.logits.shape
        ((), (4, 3))
    """

    net: Layer
    loss: Loss
    l2: float | Array = 0.0

    def __post_init__(self) -> None:
        """Check that net and loss are what they should be."""
        check_is_layer(self.net, "Objective, net")
        if not isinstance(self.loss, Loss):
            own = "; a loss of your own is an hg.Loss with per_example(logits, y)" if callable(self.loss) else ""
            hint = f"; write {self.loss.__name__}()" if isinstance(self.loss, type) else own
            raise TypeError(f"Objective: loss must be an hg.losses.Loss, got {self.loss!r}{hint}")

    def __call__(
        self, params: Params, x: Array, y: Array, state: State = (), key: Array | None = None, weights: Any = None
    ) -> tuple[Array, Aux]:
        """The loss on a batch and, as aux, logits and new state.

        Args:
            params: the net's parameters.
            x: inputs (N, ...).
            y: labels, as the loss wants them.
            state: the net's state, such as running statistics.
            key: for dropout; None where nothing is random.
            weights: one weight an example (N,), or None for all alike.

        Returns:
            The loss, a scalar, and Aux(logits, state).
        """
        logits, new_state = self.net.apply_train(params, x, state, key)
        loss = self.loss(logits, y, weights)
        return loss + self.penalty(params, loss.dtype), Aux(logits, new_state)

    def penalty(self, params: Params, dtype: Any) -> Array:
        """λ times the sum of the squares of all kernels, a scalar of that dtype."""
        squares = [jnp.sum(jnp.square(leaf.astype(dtype))) for leaf in jax.tree.leaves(_kernels(params))]
        if not squares or is_off(self.l2):
            return jnp.zeros((), dtype)
        return jnp.asarray(self.l2, dtype) * sum(squares[1:], start=squares[0])


def value_and_grad(objective: Objective, argnums: int | tuple[int, ...] = 0, has_aux: bool = True) -> Callable:
    """The loss and its gradient by the hand-derived backward pass; the call of `jax.value_and_grad`.

    dL/do from the loss, then down the layers: (dL/dx, dL/dθ) = net.backward(dL/do), and dL/dW += 2 λ W for kernels.

    Args:
        objective: an `Objective`.
        argnums: 0 for the gradient in params, 1 in x, or a tuple of these, as in JAX.
        has_aux: must be True; it is there so that the call is that of `jax.value_and_grad(objective, has_aux=True)`.

    Returns:
        A function of (params, x, y, state=(), key=None, weights=None) that gives ((loss, Aux(logits, state)), grads).

    Raises:
        TypeError: something that is no `Objective`.
        ValueError: argnums other than 0 and 1, or has_aux=False.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(3))
        >>> params, state = net.init(jax.random.key(0), (2,))
        >>> x, y = jnp.ones((4, 2), jnp.float32), jnp.array([0, 1, 2, 0])
        >>> objective = hg.Objective(net, hg.SoftmaxCrossEntropy())
        >>> (loss, aux), grads = hg.value_and_grad(objective)(params, x, y, state)
        >>> jax.tree.map(jnp.shape, grads)
        {'dense1': {'bias': (3,), 'kernel': (2, 3)}}
    """
    if not isinstance(objective, Objective):
        raise TypeError(
            f"value_and_grad: wants an hg.Objective, got {objective!r}; "
            f"for a function of your own use jax.value_and_grad with hg.bridge"
        )
    if has_aux is not True:
        raise ValueError(f"value_and_grad: an Objective always has aux, got has_aux={has_aux!r}")
    wanted = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not wanted or any(number not in (0, 1) for number in wanted):
        raise ValueError(f"value_and_grad: argnums must be 0 (params), 1 (x) or a tuple of these, got {argnums!r}")

    def by_hand(
        params: Params, x: Array, y: Array, state: State = (), key: Array | None = None, weights: Any = None
    ) -> tuple[tuple[Array, Aux], Any]:
        logits, new_state, residuals = objective.net.forward(params, x, state, key)
        loss, dlogits = objective.loss.value_and_grad(logits, y, weights)
        dx, dparams = objective.net.backward(params, residuals, dlogits)
        dparams = with_penalty(dparams, params, objective.l2)
        loss = loss + objective.penalty(params, loss.dtype)
        return (loss, Aux(logits, new_state)), chosen(*mesh.summed((dparams, dx), (params, x)))

    def chosen(dparams: Any, dx: Any) -> Any:
        grads = tuple((dparams, dx)[number] for number in wanted)
        return grads[0] if isinstance(argnums, int) else grads

    return on_its_mesh(by_hand, chosen)


def on_its_mesh(gradient: Callable, chosen: Callable[[Any, Any], Any] = lambda dparams, dx: dparams) -> Callable:
    """The gradient on whatever mesh of Explicit axes its arguments lie, or on none.

    Args:
        gradient: (params, x, y, state, key, weights) -> (loss, Aux(logits, state)), grads.
        chosen: what stands in the place of grads, of a thing for params and one for x.
    """

    def anywhere(
        params: Params, x: Array, y: Array, state: State = (), key: Array | None = None, weights: Any = None
    ) -> tuple[tuple[Array, Aux], Any]:
        args = (params, x, y, state, key, weights)
        explicit = mesh.explicit_mesh(args)
        if explicit is None:
            return gradient(*args)
        aux = mesh.along_batch(x, explicit), mesh.shardings_of(state, explicit)
        out = (mesh.replicated(explicit), Aux._make(aux)), chosen(*mesh.shardings_of((params, x), explicit))
        return mesh.on_mesh(gradient, explicit, out)(*args)

    return anywhere


def grad(objective: Objective, argnums: int | tuple[int, ...] = 0) -> Callable:
    """The gradient by hand and aux, as `jax.grad(objective, argnums, has_aux=True)` gives them.

    Args:
        objective: an `Objective`.
        argnums: 0 for the gradient in params, 1 in x, or a tuple of these.

    Returns:
        A function of (params, x, y, state=(), key=None, weights=None) that gives (grads, Aux(logits, state)).

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(3))
        >>> params, state = net.init(jax.random.key(0), (2,))
        >>> x, y = jnp.ones((4, 2), jnp.float32), jnp.array([0, 1, 2, 0])
        >>> objective = hg.Objective(net, hg.SoftmaxCrossEntropy())
        >>> dx, aux = hg.grad(objective, argnums=1)(params, x, y, state)
        >>> dx.shape
        (4, 2)
    """
    gradient = value_and_grad(objective, argnums)

    def by_hand(*args: Any, **kwargs: Any) -> tuple[Any, Aux]:
        (_, aux), grads = gradient(*args, **kwargs)
        return grads, aux

    return by_hand


def is_kernel(path: tuple) -> bool:
    """Whether a leaf at this path is one that the penalty is on."""
    return bool(path) and getattr(path[-1], "key", None) == "kernel"


def _kernels(params: Params) -> Any:
    """The tree with every leaf but those named `kernel` taken out."""
    return jax.tree.map_with_path(lambda path, leaf: leaf if is_kernel(path) else None, params)


def is_off(l2: float | Array) -> bool:
    """Whether the penalty is known to be nothing; a traced λ is never looked at."""
    return isinstance(l2, int | float) and l2 == 0


def with_penalty(dparams: Any, params: Params, l2: float | Array) -> Any:
    """The gradients, with 2 λ W added for kernels."""
    if is_off(l2):
        return dparams

    def leaf_gradient(path: tuple, dleaf: Array, leaf: Array) -> Array:
        return dleaf + jnp.asarray(2 * l2, leaf.dtype) * leaf if is_kernel(path) else dleaf

    return jax.tree.map_with_path(leaf_gradient, dparams, params)

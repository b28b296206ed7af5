"""The chain rule laid open: a backward pass by hand, and for each leaf layer what went in, came out and was kept.

Every leaf is wrapped in a `Tap`, whose backward answers with all it saw in the place of dparams alone; containers hand
that up under the layer's name as they hand up gradients. Nothing is written down on the side, so it runs under jit,
vmap and grad.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from handgrad.gradient import Aux, Objective, with_penalty
from handgrad.insight.leaves import Wrapped, by_path, is_open, with_leaves, wrap_leaves
from handgrad.layers.container import Container, entry
from handgrad.layers.layer import Array, Layer, Params, Residuals, State


class Seen(NamedTuple):
    """What one leaf layer met in a forward and a backward pass over a batch.

    Attributes:
        params: its parameters; () where it has none.
        x: its input (N, ...).
        y: its output (N, ...).
        dy: the gradient of the loss in y, which came down to it.
        dx: the gradient of the loss in x, which it hands on.
        dparams: the gradient of the loss in its parameters, summed over the batch; without the objective's penalty.
        residuals: what its forward kept for its backward.
        state: its state before the pass, such as running statistics.
        key: its own key, or None.
    """

    params: Any
    x: Array
    y: Array
    dy: Array
    dx: Array
    dparams: Any
    residuals: Any
    state: Any
    key: Array | None


@dataclass(frozen=True)
class Answer:
    """Carries a `Seen` up through the containers. No pytree, so that a container that would add gradients fails."""

    seen: Seen


@dataclass(frozen=True, repr=False)
class Tap(Wrapped):
    """Computes what the wrapped layer does; its backward gives (dx, Answer) in the place of (dx, dparams)."""

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The layer's forward, keeping also its input, its output, and what else it was given."""
        y, new_state, residuals = self.layer.forward(params, x, state, key)
        return y, new_state, {"x": x, "y": y, "state": state, "key": key, "own": residuals}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """The layer's backward, and beside dx all that was seen."""
        dx, dparams = self.layer.backward(params, residuals["own"], dy)
        r = residuals
        return dx, Answer(Seen(params, r["x"], r["y"], dy, dx, dparams, r["own"], r["state"], r["key"]))


class Opened(NamedTuple):
    """A gradient by hand and how it came about.

    Attributes:
        loss: of the objective.
        aux: logits and new state.
        dlogits: the gradient of the loss in the logits.
        grads: the gradient in the parameters, as `hg.value_and_grad` gives it.
        dx: the gradient in the input.
        layers: a `Seen` for each leaf layer by its path, `residual1/body/conv1`. Jit sorts a dict; the order of the
            layers is that of `leaf_layers(net)`.
    """

    loss: Array
    aux: Aux
    dlogits: Array
    grads: Any
    dx: Array
    layers: dict[str, Seen]


def opened(objective: Objective, loss_value_and_grad: Callable | None = None) -> Callable:
    """The gradient by hand with every step of the chain rule laid open.

    Args:
        objective: what is differentiated.
        loss_value_and_grad: (logits, y) -> loss, dlogits in place of the loss's own, as per-example tools need it.

    Returns:
        A function of (params, x, y, state=(), key=None) that gives an `Opened`.

    Raises:
        ValueError: two leaves of one path.

    Example:
        >>> import jax, jax.numpy as jnp, handgrad as hg
        >>> net = hg.Chain(hg.Dense(3), hg.Relu())
        >>> params, state = net.init(jax.random.key(0), (2,), jnp.float64)
        >>> objective = hg.Objective(net, hg.SoftmaxCrossEntropy())
        >>> seen = opened(objective)(params, jnp.ones((4, 2)), jnp.array([0, 1, 2, 0]), state).layers
        >>> {name: layer.dy.shape for name, layer in seen.items()}
        {'dense1': (4, 3), 'relu1': (4, 3)}
    """
    loss_value_and_grad = loss_value_and_grad or objective.loss.value_and_grad

    def by_hand(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> Opened:
        def of_loss(logits: Array) -> tuple[Array, Array]:
            return loss_value_and_grad(logits, y)

        passes = open_passes(objective.net, params, x, state, key, of_loss)
        dparams = {path: seen.dparams for path, seen in passes.layers.items()}
        grads = with_penalty(with_leaves(objective.net, params, dparams), params, objective.l2)
        loss = passes.value + objective.penalty(params, passes.value.dtype)
        aux = Aux(passes.logits, passes.state)
        return Opened(loss, aux, passes.dlogits, grads, passes.dx, passes.layers)

    return by_hand


class Passes(NamedTuple):
    """A forward and a backward pass laid open: what `of_logits` made of the logits, and what each layer met."""

    value: Array
    dlogits: Array
    logits: Array
    state: Any
    dx: Array
    layers: dict[str, Seen]


def open_passes(
    net: Layer, params: Params, x: Array, state: State, key: Array | None, of_logits: Callable[[Array], Any]
) -> Passes:
    """Forward, then backward from the cotangent that of_logits(logits) -> (value, dlogits) gives."""
    logits, new_state, back = open_forward(net, params, x, state, key)
    value, dlogits = of_logits(logits)
    return Passes(value, dlogits, logits, new_state, *back(dlogits))


def open_forward(net: Layer, params: Params, x: Array, state: State, key: Array | None) -> tuple[Array, Any, Callable]:
    """Logits, the new state, and back(dlogits) -> (dx, {path: Seen}), which may be called more than once."""
    every = with_every_leaf(net, params)
    tapped = wrap_leaves(Tap, net)
    logits, new_state, residuals = tapped.forward(every, x, state, key)

    def back(dlogits: Array) -> tuple[Array, dict[str, Seen]]:
        try:
            dx, tree = tapped.backward(every, residuals, dlogits)
        except TypeError as error:
            if Answer.__name__ not in str(error):
                raise
            raise TypeError(
                f"a container within {net.class_name()} reckons with its layers' gradients, so that they cannot be "
                f"looked at one by one; derive it from hg.Layer, and it is seen as one layer"
            ) from error
        return dx, {path: answer.seen for path, answer in by_path(net, tree).items()}

    return logits, new_state, back


def with_every_leaf(net: Layer, params: Params) -> Any:
    """Params with an entry for each leaf, () where it has none: containers hand up gradients by the names in params."""
    if not is_open(net):
        return params
    return {name: with_every_leaf(layer, entry(params, name)) for name, layer in cast(Container, net).items()}

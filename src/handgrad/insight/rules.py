"""Backward rules as data: the same net and parameters, with another rule in the backward of some of its layers.

A rule is a function (layer, params, residuals, dy) -> (dx, dparams); `swap_backward` puts it in the place of a layer's
own, in a net or in a single layer. The forward pass, the names and the parameters stay, and so does the gradient of
`jax.grad`, which does not ask `backward`. Most rules here change dx alone; what comes out is then no gradient of any
function, but what its paper is about.

    hg.rules.swap_backward(net, lambda layer, params, residuals, dy: (2 * dy, {}), hg.Relu)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from handgrad import initializers
from handgrad.layers.activation import Relu, Relu6
from handgrad.layers.affine import Conv, ConvTranspose, Dense
from handgrad.layers.container import Container, map_layers
from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State, check_is_layer

Rule = Callable[[Layer, Any, Any, Array], tuple[Array, Any]]


@dataclass(frozen=True, repr=False)
class WithRule(Layer):
    """A layer with another backward: rule(layer, params, residuals, dy)."""

    layer: Layer
    rule: Rule

    @property
    def kind(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]  # the wrapped layer's, per instance
        """That of the layer, so that its name in a container stays."""
        return self.layer.kind

    def init(self, key: Array, in_shape: Shape, dtype: Any = jnp.float32) -> tuple[dict[str, Any], dict[str, Any]]:
        """The params and state of the layer."""
        return self.layer.init(key, in_shape, dtype)

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """The layer's inference."""
        return self.layer.apply(params, x, state)

    def apply_train(self, params: Params, x: Array, state: State = (), key: Array | None = None) -> tuple[Array, State]:
        """The layer's training."""
        return self.layer.apply_train(params, x, state, key)

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The layer's forward."""
        return self.layer.forward(params, x, state, key)

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """What the rule says."""
        return self.rule(self.layer, params, residuals, dy)

    def inference(self) -> Layer:
        """The layer's inference, with the same rule."""
        return WithRule(self.layer.inference(), self.rule, name=self.name)


def swap_backward(net: Layer, rule: Rule, *kinds: type[Layer]) -> Layer:
    """The net with a rule in the place of the backward of its layers of some kinds.

    Args:
        net: any layer.
        rule: (layer, params, residuals, dy) -> (dx, dparams). `layer.backward` is the rule that it replaces. Give the
            same function again and the net is equal to the one before, and compiles once.
        *kinds: classes of layers, their subclasses included; every leaf where none is named.

    Returns:
        The net, of the same params, state and names.

    Raises:
        TypeError: a net that is no layer, a rule that cannot be called, a kind that is no class of layers.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(4), hg.Relu())
        >>> hg.rules.swap_backward(net, guided, hg.Relu)
        Chain(Dense(4), WithRule(Relu(), guided))
    """
    check_is_layer(net, "swap_backward, net")
    if not callable(rule):
        raise TypeError(f"swap_backward: rule must be a function (layer, params, residuals, dy), got {rule!r}")
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Layer)) or issubclass(kind, Container):
            raise TypeError(f"swap_backward: kinds must be classes of layers that are no containers, got {kind!r}")

    def swapped(layer: Layer) -> Layer:
        inner = layer.layer if isinstance(layer, WithRule) else layer
        return WithRule(layer, rule, name=layer.name) if not kinds or isinstance(inner, kinds) else layer

    return map_layers(swapped, net)


def guided(layer: Layer, params: Any, residuals: Any, dy: Array) -> tuple[Array, Any]:
    """Only what is positive in dy passes, where the layer lets it pass."""
    dx, dparams = layer.backward(params, residuals, dy)
    return jnp.where(dy <= 0, 0, dx), dparams


def positive(layer: Layer, params: Any, residuals: Any, dy: Array) -> tuple[Array, Any]:
    """Only what is positive in dy passes, whatever the input was."""
    return jnp.where(dy <= 0, 0, dy), layer.backward(params, residuals, dy)[1]


def straight(layer: Layer, params: Any, residuals: Any, dy: Array) -> tuple[Array, Any]:
    """Dx = dy, as if the layer were the identity."""
    return dy, layer.backward(params, residuals, dy)[1]


@dataclass(frozen=True)
class ClippedTo:
    """Each example's dx at most max_norm long."""

    max_norm: float

    def __call__(self, layer: Layer, params: Any, residuals: Any, dy: Array) -> tuple[Array, Any]:
        """Dx_i min(1, max_norm / |dx_i|)."""
        dx, dparams = layer.backward(params, residuals, dy)
        length = jnp.sqrt(jnp.sum(jnp.square(dx.reshape(dx.shape[0], -1)), 1))
        scale = jnp.where(length > self.max_norm, self.max_norm / jnp.where(length == 0, 1, length), 1)
        return dx * scale.astype(dx.dtype).reshape(-1, *(1,) * (dx.ndim - 1)), dparams


@dataclass(frozen=True)
class ThroughRandomKernel:
    """Dx by a fixed random kernel B in the place of W; dW does not depend on W, and is as it was."""

    seed: int
    layer_number: int

    def __call__(self, layer: Layer, params: Any, residuals: Any, dy: Array) -> tuple[Array, Any]:
        """The layer's own backward, given B for W."""
        key = jax.random.fold_in(jax.random.key(self.seed), self.layer_number)
        kernel = params["kernel"]
        return layer.backward(
            params | {"kernel": initializers.he_normal(key, kernel.shape, kernel.dtype)}, residuals, dy
        )


def guided_backprop(net: Layer) -> Layer:
    """Each ReLU passes only what is positive, of dy as of x: dx = dy [x > 0] [dy > 0].

    Source: Springenberg, Dosovitskiy, Brox and Riedmiller, Striving for simplicity, 2014, section 3.4.

    Example:
        >>> net = guided_backprop(Relu())
        >>> _, _, residuals = net.forward({}, jnp.array([-1.0, 2.0, 3.0]))
        >>> net.backward({}, residuals, jnp.array([5.0, 5.0, -5.0]))[0].tolist()
        [0.0, 5.0, 0.0]
    """
    return swap_backward(net, guided, Relu, Relu6)


def deconvnet(net: Layer) -> Layer:
    """Each ReLU is applied to dy in the place of x: dx = dy [dy > 0]. Max pools keep their switches, as they do anyway.

    Source: Zeiler and Fergus, Visualizing and understanding convolutional networks, 2014, section 2.1.

    Example:
        >>> net = deconvnet(Relu())
        >>> _, _, residuals = net.forward({}, jnp.array([-1.0, 2.0, 3.0]))
        >>> net.backward({}, residuals, jnp.array([5.0, 5.0, -5.0]))[0].tolist()
        [5.0, 5.0, 0.0]
    """
    return swap_backward(net, positive, Relu, Relu6)


def straight_through(net: Layer, *kinds: type[Layer]) -> Layer:
    """Layers that pass dy on as it is: dx = dy. For thresholds and rounding, whose gradient is 0 almost everywhere.

    Args:
        net: a net, or one layer that keeps the shape of its input.
        *kinds: which of its layers; every leaf where none is named, for a single layer.

    Source: Bengio, Léonard and Courville, Estimating or propagating gradients through stochastic neurons, 2013.

    Example:
        >>> import handgrad as hg
        >>> step = hg.Lambda(lambda x: jnp.where(x > 0, 1.0, 0.0))
        >>> net = straight_through(step)
        >>> y, _, residuals = net.forward({}, jnp.array([-1.0, 2.0]))
        >>> y.tolist(), net.backward({}, residuals, jnp.array([3.0, 4.0]))[0].tolist()
        ([0.0, 1.0], [3.0, 4.0])
    """
    return swap_backward(net, straight, *kinds)


def clip_between(net: Layer, max_norm: float, *kinds: type[Layer]) -> Layer:
    """Each layer hands on a dx whose part of each example is at most max_norm long, so that none explodes on its way.

    Args:
        net: a net.
        max_norm: above 0.
        *kinds: which of its layers; all where none is named.

    Raises:
        ValueError: a max_norm that is not above 0.

    Example:
        >>> import handgrad as hg
        >>> net = clip_between(hg.Relu(), 1.0)
        >>> _, _, residuals = net.forward({}, jnp.ones((2, 2)))
        >>> net.backward({}, residuals, jnp.array([[3.0, 4.0], [0.3, 0.4]]))[0].round(3).tolist()
        [[0.6, 0.8], [0.3, 0.4]]
    """
    if not max_norm > 0:
        raise ValueError(f"clip_between: max_norm must be above 0, got {max_norm}")
    return swap_backward(net, ClippedTo(float(max_norm)), *kinds)


def feedback_alignment(net: Layer, seed: int = 0) -> Layer:
    """Dense and convolutional layers send dy back through fixed random kernels: dx = dy Bᵀ, dW = xᵀ dy.

    Learning does not need the transposed weights: W comes to align with B. Each layer has a B of its own, drawn by He's
    rule from (seed, place of the layer); it never changes.

    Args:
        net: a net.
        seed: of the random kernels.

    Source: Lillicrap, Cownden, Tweed and Akerman, Random synaptic feedback weights support error backpropagation, 2016.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(4), hg.Relu(), hg.Dense(2))
        >>> feedback_alignment(net, seed=1).layers[2]
        WithRule(Dense(2), ThroughRandomKernel(seed=1, layer_number=1))
    """
    count = iter(range(10**9))

    def swapped(layer: Layer) -> Layer:
        if not isinstance(layer, Dense | Conv | ConvTranspose):
            return layer
        return WithRule(layer, ThroughRandomKernel(seed, next(count)), name=layer.name)

    return map_layers(swapped, net)

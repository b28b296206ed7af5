"""Backward rules as data: the same net and parameters, with another rule in the backward of some of its layers.

A rule is a function (layer, params, residuals, dy) -> (dx, dparams); `swap_backward` puts it in the place of a layer's
own, in a net or in a single layer. The forward pass, the names and the parameters stay, and so does the gradient of
`jax.grad`, which does not ask `backward`. Most rules here change dx alone; what comes out is then no gradient of any
function, but what its paper is about.

    hg.rules.swap_backward(net, lambda layer, params, residuals, dy: (2 * dy, {}), hg.Relu)

Rules stack: swapped again, a layer gets a rule whose `layer.backward` is the first rule.
"""

import itertools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp

from handgrad import initializers
from handgrad.insight.leaves import Around, innermost, is_open
from handgrad.layers.activation import Relu, Relu6
from handgrad.layers.affine import Conv, ConvTranspose, Dense
from handgrad.layers.container import Container, map_layers
from handgrad.layers.layer import Array, Inference, Layer, Params, Residuals, check_is_layer, parameter
from handgrad.ops.precision import wide

__all__ = [
    "clip_between",
    "deconvnet",
    "feedback_alignment",
    "guided",
    "guided_backprop",
    "positive",
    "straight",
    "straight_through",
    "swap_backward",
]

Rule = Callable[[Layer, Any, Any, Array], tuple[Array, Any]]


@dataclass(frozen=True, repr=False)
class WithRule(Around):
    """A layer with another backward: rule(layer, params, residuals, dy)."""

    rule: Rule

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
        ValueError: a container that `jax.vjp` differentiates whole, and so asks none of its layers' rules.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(4), hg.Relu())
        >>> hg.rules.swap_backward(net, guided, hg.Relu)
        Chain(Dense(4), WithRule(Relu(), guided))
    """
    if not callable(rule):
        raise TypeError(f"swap_backward: rule must be a function (layer, params, residuals, dy), got {rule!r}")
    _check_kinds("swap_backward", net, kinds)
    return _with_rules(net, kinds, lambda: rule)


def _check_kinds(tool: str, net: Layer, kinds: tuple[type[Layer], ...]) -> None:
    """Raise a TypeError unless net is a layer and kinds are classes of leaf layers."""
    check_is_layer(net, f"{tool}, net")
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Layer)) or issubclass(kind, Container):
            raise TypeError(f"{tool}: kinds must be classes of layers that are no containers, got {kind!r}")


def _with_rules(net: Layer, kinds: tuple[type[Layer], ...], next_rule: Callable[[], Rule]) -> Layer:
    """The net with next_rule() on each leaf of these kinds, on every leaf where none is named."""

    def swapped(layer: Layer) -> Layer:
        inner = innermost(layer)
        inner = innermost(inner.layer) if isinstance(inner, Inference) else inner
        return WithRule(layer, next_rule(), name=layer.name) if not kinds or isinstance(inner, kinds) else layer

    new = map_layers(swapped, net)
    _check_asked(net, new)
    return new


def _check_asked(net: Layer, new: Layer) -> None:
    """Raise a ValueError for a container with new rules in it that asks none of its layers' backwards."""
    if not isinstance(net, Container) or not isinstance(new, Container) or new == net:
        return
    if not is_open(net):
        raise ValueError(
            f"swap_backward: {type(net).__name__} has no backward of its own, so that jax.vjp differentiates it whole "
            f"and asks none of its layers' rules; give it a backward, or swap the rules of other layers"
        )
    for (_, layer), (_, swapped) in zip(net.items(), new.items(), strict=True):
        _check_asked(layer, swapped)


def guided(layer: Layer, params: Any, residuals: Any, dy: Array) -> tuple[Array, Any]:
    """Only what is positive in dy passes, where the layer lets it pass.

    Args:
        layer: any whose dx has the shape of dy.
        params: its parameters.
        residuals: what its forward kept.
        dy: the gradient of its output.

    Returns:
        dx where dy is positive, 0 elsewhere; and the layer's own dparams.

    Example:
        >>> net = swap_backward(Relu(), guided)
        >>> _, _, residuals = net.forward({}, jnp.array([-1.0, 2.0, 2.0]))
        >>> net.backward({}, residuals, jnp.array([5.0, 5.0, -5.0]))[0].tolist()
        [0.0, 5.0, 0.0]
    """
    dx, dparams = layer.backward(params, residuals, dy)
    return jnp.where(dy <= 0, 0, dx), dparams


def positive(layer: Layer, params: Any, residuals: Any, dy: Array) -> tuple[Array, Any]:
    """Only what is positive in dy passes, whatever the input was.

    Args:
        layer: any whose dx has the shape of dy.
        params: its parameters.
        residuals: what its forward kept.
        dy: the gradient of its output.

    Returns:
        dy where it is positive, 0 elsewhere; and the layer's own dparams.

    Example:
        >>> net = swap_backward(Relu(), positive)
        >>> _, _, residuals = net.forward({}, jnp.array([-1.0, 2.0, 2.0]))
        >>> net.backward({}, residuals, jnp.array([5.0, 5.0, -5.0]))[0].tolist()
        [5.0, 5.0, 0.0]
    """
    return jnp.where(dy <= 0, 0, dy), layer.backward(params, residuals, dy)[1]


def straight(layer: Layer, params: Any, residuals: Any, dy: Array) -> tuple[Array, Any]:
    """Dx = dy, as if the layer were the identity.

    Args:
        layer: any that keeps the shape of its input.
        params: its parameters.
        residuals: what its forward kept.
        dy: the gradient of its output.

    Returns:
        dy, and the layer's own dparams.

    Raises:
        ValueError: a layer that changes the shape.

    Example:
        >>> net = swap_backward(Relu(), straight)
        >>> _, _, residuals = net.forward({}, jnp.array([-1.0, 2.0, 2.0]))
        >>> net.backward({}, residuals, jnp.array([5.0, 5.0, -5.0]))[0].tolist()
        [5.0, 5.0, -5.0]
    """
    dx, dparams = layer.backward(params, residuals, dy)
    if dx.shape != dy.shape:
        raise ValueError(
            f"straight_through: wants layers that keep the shape of their input, {layer} makes {dy.shape} of {dx.shape}"
        )
    return dy, dparams


@dataclass(frozen=True)
class ClippedTo:
    """Each example's dx at most max_norm long."""

    max_norm: float

    def __call__(self, layer: Layer, params: Any, residuals: Any, dy: Array) -> tuple[Array, Any]:
        """Dx_i min(1, max_norm / |dx_i|), the length by its largest number first, since squares overflow early."""
        dx, dparams = layer.backward(params, residuals, dy)
        rows = jnp.abs(wide(dx).reshape(dx.shape[0], -1))
        largest = rows.max(1, keepdims=True, initial=0)
        squares = jnp.sum(jnp.square(rows / jnp.where(largest == 0, 1, largest)), 1, keepdims=True)
        length = largest * jnp.sqrt(jnp.where(squares == 0, 1, squares))  # at 0 the root has no derivative
        scale = jnp.where(length > self.max_norm, self.max_norm / jnp.where(length == 0, 1, length), 1)
        clipped = wide(dx) * scale.reshape(-1, *(1,) * (dx.ndim - 1))
        return clipped.astype(dx.dtype), dparams


@dataclass(frozen=True)
class ThroughRandomKernel:
    """Dx by a fixed random kernel B in the place of W; dW does not depend on W, and is as it was."""

    seed: int
    layer_number: int

    def __call__(self, layer: Layer, params: Any, residuals: Any, dy: Array) -> tuple[Array, Any]:
        """The layer's own backward, given B for W."""
        key = jax.random.fold_in(jax.random.key(self.seed), self.layer_number)
        kernel = parameter(innermost(layer), params, "kernel")
        other = initializers.he_normal(key, kernel.shape, kernel.dtype)
        return layer.backward({**params, "kernel": other}, residuals, dy)


def guided_backprop(net: Layer) -> Layer:
    """Each ReLU passes only what is positive, of dy as of x: dx = dy [x > 0] [dy > 0].

    Args:
        net: a net, or a single layer.

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

    Args:
        net: a net, or a single layer.

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
        net: a net, or a single layer.
        *kinds: which of its layers, such as `hg.Lambda`; they keep the shape of their input. For a single layer none
            need be named.

    Raises:
        TypeError: as `swap_backward`.
        ValueError: as `swap_backward`, or a net of several layers and no kind; in backward, a layer that changes shape.

    Source: Bengio, Léonard and Courville, Estimating or propagating gradients through stochastic neurons, 2013.

    Example:
        >>> import handgrad as hg
        >>> step = hg.Lambda(lambda x: jnp.where(x > 0, 1.0, 0.0))
        >>> net = straight_through(step)
        >>> y, _, residuals = net.forward({}, jnp.array([-1.0, 2.0]))
        >>> y.tolist(), net.backward({}, residuals, jnp.array([3.0, 4.0]))[0].tolist()
        ([0.0, 1.0], [3.0, 4.0])
    """
    if isinstance(net, Container) and not kinds:
        raise ValueError(
            f"straight_through: say which layers of the {type(net).__name__} pass dy on, such as hg.Lambda"
        )
    return swap_backward(net, straight, *kinds)


def clip_between(net: Layer, max_norm: float, *kinds: type[Layer]) -> Layer:
    """Each layer hands on a dx whose part of each example is at most max_norm long, so that none explodes on its way.

    dx_i min(1, max_norm / |dx_i|)   for each example i. The loss is a mean over the batch, so |dx_i| is 1/N of what it
    is for the example alone.

    Args:
        net: a net.
        max_norm: the longest, above 0; NaN and inf in dx are left as they are, to be seen.
        *kinds: which of its layers; all where none is named.

    Raises:
        TypeError: as `swap_backward`, or a max_norm that is no number.
        ValueError: as `swap_backward`, or a max_norm that is not above 0.

    Example:
        >>> import handgrad as hg
        >>> net = clip_between(hg.Relu(), 1.0)
        >>> _, _, residuals = net.forward({}, jnp.ones((2, 2)))
        >>> net.backward({}, residuals, jnp.array([[3.0, 4.0], [0.3, 0.4]]))[0].round(3).tolist()
        [[0.6, 0.8], [0.3, 0.4]]
    """
    if not isinstance(max_norm, Real):
        raise TypeError(f"clip_between: max_norm must be a number, which is part of the layer, got {max_norm!r}")
    if not max_norm > 0:
        raise ValueError(f"clip_between: max_norm must be above 0, got {max_norm}")
    return swap_backward(net, ClippedTo(float(max_norm)), *kinds)


def feedback_alignment(net: Layer, seed: int = 0, *kinds: type[Layer]) -> Layer:
    """Dense and convolutional layers send dy back through fixed random kernels: dx = dy Bᵀ, dW = xᵀ dy.

    Learning does not need the transposed weights: W comes to align with B. Each layer has a B of its own, drawn by He's
    rule from (seed, place of the layer) in each backward pass anew, and so always the same.

    Args:
        net: a net.
        seed: of the random kernels.
        *kinds: which of its layers, with a parameter `kernel`; Dense, Conv and ConvTranspose where none is named.

    Raises:
        TypeError: as `swap_backward`, or a seed that is no int.
        ValueError: as `swap_backward`; in backward, a layer without a kernel.

    Source: Lillicrap, Cownden, Tweed and Akerman, Random synaptic feedback weights support error backpropagation, 2016.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(4), hg.Relu(), hg.Dense(2))
        >>> feedback_alignment(net, seed=1).layers[2]
        WithRule(Dense(2), ThroughRandomKernel(seed=1, layer_number=1))
    """
    try:
        seed = operator.index(seed)
    except TypeError:
        raise TypeError(f"feedback_alignment: seed must be an int, which is part of the layer, got {seed!r}") from None
    _check_kinds("feedback_alignment", net, kinds)
    number = itertools.count()
    kinds = kinds or (Dense, Conv, ConvTranspose)
    return _with_rules(net, kinds, lambda: ThroughRandomKernel(seed, next(number)))

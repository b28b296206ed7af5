"""What in an image speaks for a class: gradients of a class's logit in the input, and what has been made of them.

Everything here is inference: dropout is off, batch norm uses its running statistics. The backward pass is the net's
own, so a net with swapped rules (`hg.rules.guided_backprop(net)`) gives the map of that rule.
"""

from functools import partial
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from handgrad.compile import jit
from handgrad.insight.leaves import leaf_layers
from handgrad.insight.tap import Passes, open_passes
from handgrad.layers.container import inference
from handgrad.layers.layer import Array, Layer, Params, State, check_is_layer
from handgrad.ops.precision import wide


def saliency(net: Layer, params: Params, x: Any, target: Any = None, state: State = ()) -> Array:
    """The gradient of a class's logit in the input, do_t/dx.

    Args:
        net: a layer with logits (N, K).
        params: its parameters.
        x: inputs (N, ...), floating point.
        target: the classes, an int or ints (N,); None for what the net predicts. One that is no class is an error, and
            NaN where its value is not known, under jit.
        state: its state.

    Returns:
        An array like x.

    Raises:
        TypeError: a net that is no layer, or an x that is not floating point.
        ValueError: logits that are not (N, K), or targets out of range or of another number.

    Source: Simonyan, Vedaldi and Zisserman, Deep inside convolutional networks, 2013.

    Example:
        >>> import handgrad as hg
        >>> params = {"dense1": {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}}
        >>> saliency(hg.Chain(hg.Dense(2, use_bias=False)), params, jnp.ones((1, 2)), target=1).tolist()
        [[2.0, 4.0]]
    """
    net, x, target = _checked("saliency", net, params, x, target, state)
    return _gradient(net, params, x, target, state)


def integrated_gradients(
    net: Layer, params: Params, x: Any, target: Any = None, state: State = (), *, baseline: Any = 0.0, steps: int = 32
) -> Array:
    """The input times the gradient, averaged on the way from a baseline: (x - b) ∫₀¹ do_t/dx(b + a(x - b)) da.

    The sum over an example's numbers is o_t(x) - o_t(b), up to the error of the midpoint rule.

    Args:
        net: as in `saliency`, and so are params, x, target and state.
        params: as in `saliency`.
        x: as in `saliency`.
        target: as in `saliency`; None for what the net predicts at x.
        state: as in `saliency`.
        baseline: b, what counts as nothing: a number or an array that broadcasts to x.
        steps: how many points of the way; one is in memory at a time.

    Returns:
        An array like x.

    Raises:
        TypeError: as `saliency`, or steps that are no int.
        ValueError: as `saliency`, or steps below 1, or a baseline that does not broadcast.

    Source: Sundararajan, Taly and Yan, Axiomatic attribution for deep networks, 2017.

    Example:
        >>> import handgrad as hg
        >>> params = {"dense1": {"kernel": jnp.array([[1.0], [3.0]])}}
        >>> net = hg.Chain(hg.Dense(1, use_bias=False), hg.Relu())
        >>> integrated_gradients(net, params, jnp.array([[2.0, 1.0]]), target=0).tolist()
        [[2.0, 3.0]]
    """
    net, x, target = _checked("integrated_gradients", net, params, x, target, state)
    _check_count("integrated_gradients", "steps", steps)
    try:
        start = jnp.broadcast_to(jnp.asarray(baseline, x.dtype), x.shape)
    except ValueError:
        shape = jnp.shape(baseline)
        raise ValueError(
            f"integrated_gradients: baseline must be a number or broadcast to x {x.shape}, got {shape}"
        ) from None
    return _integrated(net, params, x, start, target, state, steps)


def smooth_grad(
    net: Layer,
    params: Params,
    x: Any,
    target: Any = None,
    state: State = (),
    *,
    key: Array,
    noise: float = 0.15,
    samples: int = 32,
) -> Array:
    """The gradient of the logit, averaged over copies of the input with noise: E do_t/dx(x + ε).

    Args:
        net: as in `saliency`, and so are params, x, target and state.
        params: as in `saliency`.
        x: as in `saliency`.
        target: as in `saliency`.
        state: as in `saliency`.
        key: of the noise.
        noise: its standard deviation, as a share of each example's range.
        samples: how many copies; one is in memory at a time.

    Returns:
        An array like x.

    Raises:
        TypeError: as `saliency`, or samples that are no int.
        ValueError: as `saliency`, or samples below 1, noise below 0, or no key.

    Source: Smilkov, Thorat, Kim, Viégas and Wattenberg, SmoothGrad, 2017.

    Example:
        >>> import handgrad as hg
        >>> params = {"dense1": {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}}
        >>> net = hg.Chain(hg.Dense(2, use_bias=False))
        >>> smooth_grad(net, params, jnp.ones((1, 2)), 1, key=jax.random.key(0)).tolist()  # linear: no noise is seen
        [[2.0, 4.0]]
    """
    net, x, target = _checked("smooth_grad", net, params, x, target, state)
    _check_count("smooth_grad", "samples", samples)
    if not isinstance(noise, Tracer) and not noise >= 0:
        raise ValueError(f"smooth_grad: noise must be at least 0, got {noise}")
    if key is None:
        raise ValueError("smooth_grad: the noise needs a key; pass key=jax.random.key(...)")
    return _smooth(net, params, x, target, state, key, noise, samples)


def grad_cam(
    net: Layer, params: Params, x: Any, target: Any = None, state: State = (), *, layer: str | None = None
) -> Array:
    """Where those channels of a layer are active that speak for a class: relu(Σ_c α_c A_c), α_c = mean_p do_t/dA_pc.

    Args:
        net: as in `saliency`, and so are params, x, target and state.
        params: as in `saliency`.
        x: as in `saliency`.
        target: as in `saliency`.
        state: as in `saliency`.
        layer: the path of a layer with an output (N, *places, C); None for the last one that has such.

    Returns:
        A map (N, *places), of the layer's resolution.

    Raises:
        TypeError: as `saliency`.
        ValueError: as `saliency`, or no such layer, or one whose output has no places.

    Source: Selvaraju et al., Grad-CAM, 2017, equations 1 and 2.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Conv(1, 1, use_bias=False), hg.Flatten(), hg.Dense(1, use_bias=False))
        >>> params = {"conv1": {"kernel": jnp.ones((1, 1, 1))}, "dense1": {"kernel": jnp.array([[1.0], [3.0]])}}
        >>> grad_cam(net, params, jnp.array([[[1.0], [-1.0]]])).tolist()
        [[2.0, 0.0]]
    """
    net, x, target = _checked("grad_cam", net, params, x, target, state)
    seen = jax.eval_shape(lambda *args: _passes(net, *args).layers, params, x, target, state)
    shapes = {name: layer.y.shape for name, layer in seen.items()}
    placed = [name for name, _ in leaf_layers(net) if len(shapes[name]) > 2]
    layer = layer if layer is not None or not placed else placed[-1]
    if layer not in placed:
        raise ValueError(f"grad_cam: layer must be one whose output has places, {placed}, got {layer!r}")
    return _cam(net, params, x, target, state, layer)


def activations(net: Layer, params: Params, x: Any, state: State = ()) -> dict[str, Array]:
    """The output of every leaf layer in inference, by its path and in order.

    Args:
        net: any layer.
        params: its parameters.
        x: inputs (N, ...), floating point.
        state: its state.

    Returns:
        {path: y (N, ...)}.

    Raises:
        TypeError: a net that is no layer, or an x that is not floating point.

    Example:
        >>> import handgrad as hg
        >>> outputs = activations(hg.Chain(hg.Relu(), hg.Flatten()), {}, jnp.array([[[-1.0], [2.0]]]))
        >>> {name: y.tolist() for name, y in outputs.items()}
        {'relu1': [[[0.0], [2.0]]], 'flatten1': [[0.0, 2.0]]}
    """
    x = _floating("activations", net, x)
    outputs = _outputs(inference(net), params, x, state)
    return {name: outputs[name] for name, _ in leaf_layers(net)}


def _floating(tool: str, net: Layer, x: Any) -> Array:
    check_is_layer(net, f"{tool}, net")
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{tool}: x must be floating point, got {x.dtype}; see hg.data.normalise")
    return x


def _checked(tool: str, net: Layer, params: Params, x: Any, target: Any, state: State) -> tuple[Layer, Array, Array]:
    """The net in inference, x and the targets (N,), once they fit."""
    x, net = _floating(tool, net, x), inference(net)
    logits = jax.eval_shape(net.apply, params, x, state)
    if len(logits.shape) != 2:
        raise ValueError(f"{tool}: the net must give logits (N, K), got {logits.shape}")
    if target is None:
        return net, x, jnp.argmax(_apply(net, params, x, state), -1)
    target = jnp.asarray(target)
    if target.shape not in ((), (x.shape[0],)) or not jnp.issubdtype(target.dtype, jnp.integer):
        raise ValueError(f"{tool}: target must be an int or {x.shape[0]} of them, got {target.dtype} {target.shape}")
    if not isinstance(target, Tracer) and not bool(((target >= 0) & (target < logits.shape[1])).all()):
        raise ValueError(f"{tool}: target must be a class from 0 to {logits.shape[1] - 1}, got {target.tolist()}")
    return net, x, jnp.broadcast_to(target, x.shape[:1])


def _check_count(tool: str, argument: str, count: Any) -> None:
    if not isinstance(count, Integral):
        raise TypeError(f"{tool}: {argument} must be an int, got {count!r}")
    if count < 1:
        raise ValueError(f"{tool}: {argument} must be at least 1, got {count}")


@partial(jit, static_argnums=0)
def _apply(net: Layer, params: Params, x: Array, state: State) -> Array:
    return net.apply(params, x, state)


@partial(jit, static_argnums=0)
def _outputs(net: Layer, params: Params, x: Array, state: State) -> dict[str, Array]:
    passes = open_passes(net, params, x, state, None, lambda logits: (jnp.zeros(()), jnp.zeros_like(logits)))
    return {name: seen.y for name, seen in passes.layers.items()}


def _passes(net: Layer, params: Params, x: Array, target: Array, state: State) -> Passes:
    """Both passes, backward from the logit of each example's class."""

    def of_class(logits: Array) -> tuple[Array, Array]:
        dlogits = jax.nn.one_hot(target, logits.shape[1], dtype=logits.dtype)
        known = (target >= 0) & (target < logits.shape[1])  # under jit no error can be raised: NaN tells
        dlogits = jnp.where(known[:, None], dlogits, jnp.nan)
        return jnp.sum(logits * dlogits), dlogits

    return open_passes(net, params, x, state, None, of_class)


@partial(jit, static_argnums=0)
def _gradient(net: Layer, params: Params, x: Array, target: Array, state: State) -> Array:
    return _passes(net, params, x, target, state).dx


@partial(jit, static_argnums=(0, 6))
def _integrated(net: Layer, params: Params, x: Array, start: Array, target: Array, state: State, steps: int) -> Array:
    way = wide(x) - wide(start)

    def at(total: Array, a: Array) -> tuple[Array, None]:
        point = (wide(start) + a * way).astype(x.dtype)
        return total + wide(_passes(net, params, point, target, state).dx), None

    shares = (jnp.arange(steps, dtype=way.dtype) + 0.5) / steps
    return (way * lax.scan(at, jnp.zeros_like(way), shares)[0] / steps).astype(x.dtype)


@partial(jit, static_argnums=(0, 7))
def _smooth(
    net: Layer, params: Params, x: Array, target: Array, state: State, key: Array, noise: float, samples: int
) -> Array:
    flat = x.reshape(x.shape[0], -1)
    spread = (flat.max(1) - flat.min(1)).reshape(-1, *(1,) * (x.ndim - 1)) * noise

    def at(total: Array, k: Array) -> tuple[Array, None]:
        nearby = x + jnp.broadcast_to(spread, x.shape) * jax.random.normal(k, x.shape, x.dtype)
        return total + wide(_passes(net, params, nearby, target, state).dx), None

    total, _ = lax.scan(at, jnp.zeros_like(wide(x)), jax.random.split(key, samples))
    return (total / samples).astype(x.dtype)


@partial(jit, static_argnums=(0, 5))
def _cam(net: Layer, params: Params, x: Array, target: Array, state: State, layer: str) -> Array:
    seen = _passes(net, params, x, target, state).layers[layer]
    importance = seen.dy.mean(tuple(range(1, seen.dy.ndim - 1)), keepdims=True)
    return jnp.maximum(jnp.sum(seen.y * jnp.broadcast_to(importance, seen.y.shape), -1), 0)

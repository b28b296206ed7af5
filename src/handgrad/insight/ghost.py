"""Dense and convolution as one: y = Σ_k a_k W_k + b for each example, with rows a_k (T, I) at the T places of y.

A dense layer has one k; a convolution one for each element of its kernel, whose rows are the input moved by it. All
that is said of a kernel's gradient in an example, dW_k = a_kᵀ δ, follows from these rows and from δ (T, O).
"""

from functools import reduce
from typing import Any

import jax.numpy as jnp
from jax import lax

from handgrad.insight.tap import Seen
from handgrad.layers.affine import Conv, Dense
from handgrad.layers.layer import Array, Layer
from handgrad.ops.conv import patches

AT_ONCE = 2**23  # numbers in a convolution's rows: more leave the caches, and the norms take half as long again
NARROW = 8  # inputs of a row, below which the rows of all k are put side by side: one product in the place of many


def is_affine(layer: Layer) -> bool:
    """Whether a layer is y = a W + b with the backward of Dense or Conv, not one that was swapped."""
    return isinstance(layer, Dense | Conv) and type(layer).backward in (Dense.backward, Conv.backward)


def rows(layer: Any, params: Any, x: Array) -> list[Array]:
    """The rows a_k, (N, G, T, I) each, with G groups."""
    if isinstance(layer, Dense):
        return [x.reshape(x.shape[0], 1, -1, x.shape[-1])]
    return patches(x, params["kernel"], **layer.settings())


def deltas(layer: Any, dy: Array) -> Array:
    """δ as (N, G, T, O/G)."""
    groups = getattr(layer, "groups", 1)
    return jnp.swapaxes(dy.reshape(dy.shape[0], -1, groups, dy.shape[-1] // groups), 1, 2)


def ghost_products(layer: Layer, seen: Seen, form: str | None = None) -> tuple[Array, Array] | None:
    """|g_i|² over kernel and bias, and g_i · W over the kernel, (N,) each; None for a layer that is not affine.

    g_i · W = Σ_t δ_t · Σ_k a_kt W_k = Σ_t δ_t · (y_t - b): the output is at hand.

    Args:
        layer: the layer.
        seen: what it met.
        form: "gram" or "direct"; None for the cheaper one by shape.
    """
    if not is_affine(layer):
        return None
    bias = seen.params.get("bias")
    linear = seen.y if bias is None else seen.y - jnp.broadcast_to(bias, seen.y.shape)
    along = jnp.sum((seen.dy * linear).reshape(seen.dy.shape[0], -1), 1)
    squares = kernel_squares(layer, seen.params, seen.x, seen.dy, form)
    return squares if bias is None else squares + jnp.sum(jnp.square(_bias(seen)), 1), along


def kernel_squares(layer: Layer, params: Any, x: Array, dy: Array, form: str | None = None) -> Array:
    """|dW|² of each example, (N,): Σ_k |a_kᵀ δ|², or by the products of places alone, Σ_k Σ_ts (a_kt·a_ks)(δ_t·δ_s).

    For an example the first takes K·T·I·O products, the second T²(K·I + O).
    """
    together = AT_ONCE // max(params["kernel"].size // dy.shape[-1] * (dy[0].size // dy.shape[-1]), 1) or 1
    if isinstance(layer, Conv) and x.shape[0] > together:

        def alone(one: tuple[Array, Array]) -> Array:
            return kernel_squares(layer, params, one[0][None], one[1][None], form)[0]

        return lax.map(alone, (x, dy), batch_size=together)
    parts, delta = rows(layer, params, x), deltas(layer, dy)
    (places, inputs), features = parts[0].shape[2:], delta.shape[3]
    inputs *= len(parts)
    form = form or ("gram" if places * (inputs + features) < inputs * features else "direct")
    if parts[0].shape[3] < NARROW:
        parts = [jnp.concatenate(parts, -1)]
    if form == "gram":
        alike = reduce(jnp.add, [jnp.matmul(a, jnp.swapaxes(a, 2, 3)) for a in parts])
        return jnp.sum(alike * jnp.matmul(delta, jnp.swapaxes(delta, 2, 3)), (1, 2, 3))
    return reduce(jnp.add, [jnp.sum(jnp.square(_product(a, delta)), (1, 2, 3)) for a in parts])


def per_example_kernels(layer: Layer, seen: Seen) -> Any:
    """The gradients of kernel and bias for each example, (N, ...)."""
    delta = deltas(layer, seen.dy)
    kernel = jnp.stack([_product(a, delta) for a in rows(layer, seen.params, seen.x)], 1)  # (N, K, G, I, O/G)
    kernel = jnp.moveaxis(kernel, 2, -2)  # groups beside their features, as the kernel has them
    grads = {"kernel": kernel.reshape(kernel.shape[0], *seen.params["kernel"].shape)}
    return grads | {"bias": _bias(seen)} if "bias" in seen.params else grads


def _product(a: Array, delta: Array) -> Array:
    """aᵀ δ for each example and group."""
    return jnp.matmul(jnp.swapaxes(a, 2, 3), delta)


def _bias(seen: Seen) -> Array:
    """The gradient of the bias for each example: Σ_t δ_t."""
    return seen.dy.reshape(seen.dy.shape[0], -1, seen.dy.shape[-1]).sum(1)

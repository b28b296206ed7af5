"""Dense, Conv and ConvTranspose as one: y = Σ_k a_k W_k + b for each example, with rows a_k (T, I) at T places.

A dense layer has one k; a convolution one for each element of its kernel, whose rows are the input moved by it. All
that is said of a kernel's gradient in an example, dW_k = a_kᵀ δ, follows from these rows and from δ (T, O). In a
transposed convolution, the dual, it is δ that is moved: dW_k = xᵀ δ_k.
"""

from functools import reduce
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.insight.tap import Seen
from handgrad.layers.affine import Conv, ConvTranspose, Dense
from handgrad.layers.layer import Array, Layer
from handgrad.ops.conv import patches
from handgrad.ops.conv_transpose import patches as transposed_patches
from handgrad.ops.precision import sum_places, wide

# Numbers in the rows of the examples that are taken at once: on CPU about what its caches hold, else what memory does.
AT_ONCE_ON_CPU, AT_ONCE = 2**20, 2**28
NARROW = 8  # inputs of a row, below which the rows of all k make one product in the place of many


def is_affine(layer: Layer) -> bool:
    """Whether a layer is y = a W + b with the backward of Dense, Conv or ConvTranspose, not one that was swapped."""
    return any(isinstance(layer, cls) and type(layer).backward is cls.backward for cls in (Dense, Conv, ConvTranspose))


def rows(layer: Any, params: Any, x: Array) -> list[Array]:
    """The rows a_k of Dense and Conv, (N, G, T, I) each, with G groups."""
    if isinstance(layer, Dense):
        return [x.reshape(x.shape[0], 1, -1, x.shape[-1])]
    return patches(x, params["kernel"], **layer.settings())


def deltas(layer: Any, dy: Array) -> Array:
    """δ as (N, G, T, O/G); or any other array (N, ..., channels) by place and group."""
    groups = getattr(layer, "groups", 1)
    return jnp.swapaxes(dy.reshape(dy.shape[0], -1, groups, dy.shape[-1] // groups), 1, 2)


def factors(layer: Any, params: Any, x: Array, dy: Array) -> tuple[list[Array], Array]:
    """What is moved by each k, (N, G, T, I), and what stays, (N, G, T, O): the kernel's gradient is of their products.

    T, I and O are those of the convolution whose kernel gradient it is; for a transposed one O are its inputs.
    """
    if isinstance(layer, ConvTranspose):
        return transposed_patches(x, params["kernel"], dy, **layer.settings()), deltas(layer, x)
    return rows(layer, params, x), deltas(layer, dy)


def ghost_products(layer: Layer, seen: Seen) -> tuple[Array, Array]:
    """|g_i|² over kernel and bias, and g_i · W over the kernel, (N,) each, of an affine layer.

    g_i · W = Σ_t δ_t · Σ_k a_kt W_k = Σ_t δ_t · (y_t - b): the output is at hand.
    """
    bias = seen.params.get("bias")
    linear = seen.y if bias is None else seen.y - jnp.broadcast_to(bias, seen.y.shape)
    squares = kernel_squares(layer, seen.params, seen.x, seen.dy)
    return squares if bias is None else squares + sum_squares(_bias(seen)), sum_each(seen.dy * linear)


def kernel_squares(layer: Layer, params: Any, x: Array, dy: Array, form: str | None = None) -> Array:
    """|dW|² of each example, (N,): Σ_k |a_kᵀ δ|², or by the products of places alone, Σ_k Σ_ts (a_kt·a_ks)(δ_t·δ_s).

    For an example the first takes K·T·I·O products, the second T²(K·I + O). A convolution's rows are K times its
    input, so only a few examples are taken at once.

    Args:
        layer: Dense, Conv or ConvTranspose.
        params: its parameters, of which only the kernel's shape counts.
        x: its input (N, ...).
        dy: the gradient in its output (N, ...).
        form: "direct" is the first, "gram" the second; None for the cheaper one by shape.
    """
    n, together = x.shape[0], _together(layer, params, x, dy)
    if together == n:
        return _squares(*factors(layer, params, x, dy), form)
    some = jax.tree.map(lambda array: array.reshape(n // together, together, *array.shape[1:]), (x, dy))
    return lax.map(lambda pair: _squares(*factors(layer, params, *pair), form), some).reshape(n)


def _together(layer: Layer, params: Any, x: Array, dy: Array) -> int:
    """How many examples are taken at once, a divisor of N."""
    n = x.shape[0]
    if isinstance(layer, Dense) or n == 0:
        return n
    moved, still = (dy, x) if isinstance(layer, ConvTranspose) else (x, dy)
    numbers = prod(params["kernel"].shape[:-2]) * moved.shape[-1] * prod(still.shape[1:-1])
    most = (AT_ONCE_ON_CPU if jax.default_backend() == "cpu" else AT_ONCE) // max(numbers, 1)
    return max(b for b in range(1, n + 1) if n % b == 0 and (b == 1 or b <= most))


def _squares(parts: list[Array], delta: Array, form: str | None) -> Array:
    (places, inputs), features = parts[0].shape[2:], delta.shape[3]
    inputs *= len(parts)
    form = form or ("gram" if places * (inputs + features) < inputs * features else "direct")
    if form == "gram":
        alike = reduce(jnp.add, [wide(jnp.matmul(a, jnp.swapaxes(a, 2, 3))) for a in parts])
        return sum_each(alike * wide(jnp.matmul(delta, jnp.swapaxes(delta, 2, 3))))
    if parts[0].shape[3] < NARROW:
        return sum_squares(jnp.einsum("ngkti,ngto->ngkio", jnp.stack(parts, 2), delta))
    return sum_each(reduce(jnp.add, [jnp.square(wide(_product(a, delta))) for a in parts]))


def per_example_kernels(layer: Layer, seen: Seen) -> Any:
    """The gradients of kernel and bias for each example, (N, ...)."""
    parts, still = factors(layer, seen.params, seen.x, seen.dy)
    kernel = jnp.stack([_product(a, still) for a in parts], 1)  # (N, K, G, I, O)
    transposed = isinstance(layer, ConvTranspose)  # its kernel is (K, C, O/G), that of the others (K, C/G, O)
    kernel = jnp.swapaxes(kernel, -1, -2) if transposed else jnp.moveaxis(kernel, 2, -2)
    grads = {"kernel": kernel.reshape(kernel.shape[0], *seen.params["kernel"].shape)}
    return grads | {"bias": _bias(seen)} if "bias" in seen.params else grads


def sum_squares(x: Array) -> Array:
    """|x_i|² of each example, (N,) from (N, ...), in float32 at least."""
    return sum_each(jnp.square(wide(x)))


def sum_each(x: Array) -> Array:
    """The sum over all axes but the first, in float32 at least."""
    return wide(x).reshape(x.shape[0], -1).sum(1)


def _product(a: Array, delta: Array) -> Array:
    """aᵀ δ for each example and group."""
    return jnp.einsum("ngti,ngto->ngio", a, delta)


def _bias(seen: Seen) -> Array:
    """The gradient of the bias for each example: Σ_t δ_t."""
    return sum_places(seen.dy).reshape(seen.dy.shape[0], seen.dy.shape[-1])

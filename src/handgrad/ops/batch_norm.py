"""Batch normalisation: every channel brought to mean 0 and variance 1 over the batch, then scaled and shifted.

Forward     μ[c] = 1/m Σ_i x[i, c]                  v[c] = 1/m Σ_i (x[i, c] - μ[c])²
            x̂[i, c] = (x[i, c] - μ[c]) r[c]         with r = 1/√(v + ε)
            y[i, c] = γ[c] x̂[i, c] + β[c]
Residual    x, μ, v (a layer reads μ and v for its running statistics)
Backward    dβ[c] = Σ_i dy[i, c]
            dγ[c] = Σ_i dy[i, c] x̂[i, c]
            dx[i, c] = γ[c] r[c] (dy[i, c] - dβ[c]/m - x̂[i, c] dγ[c]/m)

Here i runs over all m places of batch and space. x reaches y by three ways: itself, μ and r. With dx̂ = γ dy,
∂μ/∂x[i] = 1/m takes away the mean of dx̂; ∂r/∂x[i] = -x̂[i] r²/m takes away its part along x̂. So dx is dx̂ without its
components along 1 and x̂, times r; exact for any ε, since r² x̂ (x - μ) = r x̂².
The variance is the biased one (divided by m), by a second pass over x - μ: E[x²] - μ² would lose its digits.
At m = 1: x̂ = 0, so y = β and dx = 0. In inference μ and v are constants, and dx = γ r dy alone.
Shapes: x, y, dx, dy (..., C) of rank 2 or more; scale γ, bias β, μ, v (C,). Statistics and sums in float32 at least.
Source: Ioffe and Szegedy 2015.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.ops import check
from handgrad.ops.precision import sum_rows, wide

Residuals = tuple[jax.Array, jax.Array, jax.Array]


def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, *, eps: float = 1e-5) -> jax.Array:
    """Normalise x by the mean and variance of this batch, in each channel.

    Args:
        x: (..., C), floating point, rank 2 or more.
        scale: (C,).
        bias: (C,).
        eps: added to the variance.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x, scale or bias is not floating point.
        ValueError: shapes that do not fit, an empty batch, or a negative eps.

    Example:
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> print(batch_norm(x, jnp.ones(2), jnp.zeros(2), eps=0.0))
        [[-1. -1.]
         [ 1.  1.]]
    """
    return batch_norm_forward(x, scale, bias, eps=eps)[0]


def batch_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, eps: float = 1e-5
) -> tuple[jax.Array, Residuals]:
    """The output y (..., C) and the residuals x (..., C), mean (C,), var (C,); mean and var in float32 at least."""
    _check("batch_norm", x, eps, scale=scale, bias=bias)
    places, count = wide(x), math.prod(x.shape[:-1])
    mean = sum_rows(places) / count
    var = sum_rows(jnp.square(places - _along_last(mean, x))) / count
    return _affine(_normalised(x, mean, var, eps), scale, bias).astype(x.dtype), (x, mean, var)


def batch_norm_backward(
    residuals: Residuals, scale: jax.Array, dy: jax.Array, *, eps: float = 1e-5
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of `batch_norm`.

    Args:
        residuals: x (..., C), mean (C,), var (C,), as `batch_norm_forward` gave them.
        scale: (C,).
        dy: the gradient of the output, (..., C).
        eps: as in forward.

    Returns:
        dx (..., C) in dy's dtype; dscale (C,) and dbias (C,) in scale's dtype.

    Example:
        >>> y, residuals = batch_norm_forward(jnp.array([[1.0], [2.0], [6.0]]), jnp.ones(1), jnp.zeros(1))
        >>> dx, dscale, dbias = batch_norm_backward(residuals, jnp.ones(1), jnp.array([[1.0], [0.0], [0.0]]))
        >>> print(bool(abs(dx.sum()) < 1e-5), dbias)
        True [1.]
    """
    x, mean, var = residuals
    normalised, dwide = _normalised(x, mean, var, eps), wide(dy)
    dbias = sum_rows(dwide)
    dscale = sum_rows(dwide * normalised)
    count = math.prod(x.shape[:-1])
    inner = dwide - _along_last(dbias / count, x) - normalised * _along_last(dscale / count, x)
    dx = _gain(x, scale, var, eps) * inner
    return dx.astype(dy.dtype), dscale.astype(scale.dtype), dbias.astype(scale.dtype)


def batch_norm_inference(
    x: jax.Array, scale: jax.Array, bias: jax.Array, mean: jax.Array, var: jax.Array, *, eps: float = 1e-5
) -> jax.Array:
    """Normalise x by given statistics, which are constants: an affine map of each channel.

    Args:
        x: (..., C), floating point, rank 2 or more.
        scale: (C,).
        bias: (C,).
        mean: (C,), the running mean.
        var: (C,), the running variance.
        eps: added to the variance.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: an array is not floating point.
        ValueError: shapes that do not fit, an empty batch, or a negative eps.

    Example:
        >>> one = jnp.ones(1)
        >>> print(batch_norm_inference(jnp.array([[7.0]]), 2 * one, one, mean=3 * one, var=4 * one, eps=0.0))
        [[5.]]
    """
    return batch_norm_inference_forward(x, scale, bias, mean, var, eps=eps)[0]


def batch_norm_inference_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, mean: jax.Array, var: jax.Array, *, eps: float = 1e-5
) -> tuple[jax.Array, Residuals]:
    """The output y (..., C) and the residuals x (..., C), mean (C,), var (C,)."""
    _check("batch_norm_inference", x, eps, scale=scale, bias=bias, mean=mean, var=var)
    return _affine(_normalised(x, mean, var, eps), scale, bias).astype(x.dtype), (x, mean, var)


def batch_norm_inference_backward(
    residuals: Residuals, scale: jax.Array, dy: jax.Array, *, eps: float = 1e-5
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients dx (..., C), dscale (C,), dbias (C,) of `batch_norm_inference`; mean and var have none."""
    x, mean, var = residuals
    dwide = wide(dy)
    dx = _gain(x, scale, var, eps) * dwide
    dscale = sum_rows(dwide * _normalised(x, mean, var, eps))
    return dx.astype(dy.dtype), dscale.astype(scale.dtype), sum_rows(dwide).astype(scale.dtype)


def _normalised(x: jax.Array, mean: jax.Array, var: jax.Array, eps: float) -> jax.Array:
    """x̂ (..., C), in float32 at least."""
    return (wide(x) - _along_last(mean, x)) * lax.rsqrt(_along_last(var, x) + eps)


def _affine(normalised: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return normalised * _along_last(scale, normalised) + _along_last(bias, normalised)


def _along_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """A vector (C,) with ones before its axis, so that it meets the last axis of x, in x's wide dtype."""
    return vector.astype(wide(x).dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def _gain(x: jax.Array, scale: jax.Array, var: jax.Array, eps: float) -> jax.Array:
    """γ r, shaped to meet the last axis of x."""
    return _along_last(scale, x) * lax.rsqrt(_along_last(var, x) + eps)


def _check(op: str, x: jax.Array, eps: float, **vectors: jax.Array) -> None:
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"{op}: x must be (..., channels) of rank 2 or more and not empty, got shape {x.shape}")
    if isinstance(eps, (int, float)) and eps < 0:
        raise ValueError(f"{op}: eps must not be negative, got {eps}")
    check.floating(op, x=x)
    for name, vector in vectors.items():
        check.floating(op, **{name: vector})
        if vector.shape != x.shape[-1:]:
            raise ValueError(f"{op}: {name} must have shape {x.shape[-1:]} to match x {x.shape}, got {vector.shape}")

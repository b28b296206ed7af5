"""Layer normalisation: the channels of every place brought to mean 0 and variance 1, then scaled and shifted.

Forward     μ[i] = 1/C Σ_c x[i, c]                  v[i] = 1/C Σ_c (x[i, c] - μ[i])²
            x̂[i, c] = (x[i, c] - μ[i]) r[i]         with r = 1/√(v + ε)
            y[i, c] = γ[c] x̂[i, c] + β[c]
Residual    x, μ, v
Backward    dβ[c] = Σ_i dy[i, c]
            dγ[c] = Σ_i dy[i, c] x̂[i, c]
            dx[i, c] = r[i] (dx̂[i, c] - 1/C Σ_k dx̂[i, k] - x̂[i, c] 1/C Σ_k dx̂[i, k] x̂[i, k])    with dx̂ = γ dy

Here i runs over all axes but the last. `ops/normalise.py` derives dx. γ stands inside the sums over channels, which
batch norm's sums leave outside, so these two sums and those of dβ and dγ are four different ones.
At C = 1, and where all channels are equal: x̂ = 0, so y = β; dx = r (dx̂ - mean dx̂), which at C = 1 is 0.
Shapes: x, y, dx, dy (..., C) of rank 1 or more; scale γ, bias β (C,); μ, v (..., 1). Sums in float32 at least.
Source: Ba, Kiros and Hinton 2016.
"""

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.ops.normalise import Residuals, affine, along_last, check_norm, normalised, statistics
from handgrad.ops.precision import sum_rows, wide


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, *, eps: float = 1e-5) -> jax.Array:
    """Normalise x by the mean and variance of the last axis, at each place by itself.

    Args:
        x: (..., C), floating point, rank 1 or more.
        scale: (C,).
        bias: (C,).
        eps: added to the variance.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x, scale or bias is not floating point.
        ValueError: shapes that do not fit, no channel, or a negative eps.

    Example:
        >>> x = jnp.array([[1.0, 3.0], [30.0, 10.0]])
        >>> print(layer_norm(x, jnp.ones(2), jnp.zeros(2), eps=0.0))
        [[-1.  1.]
         [ 1. -1.]]
    """
    x = _checked("layer_norm", x, scale, bias, eps)
    places = wide(x)
    mean = places.mean(-1, keepdims=True)
    var = jnp.square(places - mean).mean(-1, keepdims=True)
    return affine((places - mean) / jnp.sqrt(var + eps), scale, bias).astype(x.dtype)


def layer_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, eps: float = 1e-5
) -> tuple[jax.Array, Residuals]:
    """The output y (..., C) and the residuals x (..., C), mean (..., 1), var (..., 1); these in float32 at least.

    Example:
        >>> y, (x, mean, var) = layer_norm_forward(jnp.array([[1.0, 3.0]]), jnp.ones(2), jnp.zeros(2), eps=0.0)
        >>> y.tolist(), x.tolist(), mean.tolist(), var.tolist()
        ([[-1.0, 1.0]], [[1.0, 3.0]], [[2.0]], [[1.0]])
    """
    x = _checked("layer_norm_forward", x, scale, bias, eps)
    mean, var = statistics(x, _over_channels)
    return affine(normalised(x, mean, var, eps), scale, bias).astype(x.dtype), (x, mean, var)


def layer_norm_backward(
    residuals: Residuals, scale: jax.Array, dy: jax.Array, *, eps: float = 1e-5
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of `layer_norm`.

    Args:
        residuals: x (..., C), mean (..., 1), var (..., 1), as `layer_norm_forward` gave them.
        scale: (C,).
        dy: the gradient of the output, (..., C).
        eps: as in forward.

    Returns:
        dx (..., C) in dy's dtype; dscale (C,) and dbias (C,) in scale's dtype.

    Example:
        >>> y, residuals = layer_norm_forward(jnp.array([[1.0, 2.0, 6.0]]), jnp.ones(3), jnp.zeros(3))
        >>> dx, dscale, dbias = layer_norm_backward(residuals, jnp.ones(3), jnp.array([[1.0, 0.0, 0.0]]))
        >>> print(bool(abs(dx.sum()) < 1e-5), dbias)
        True [1. 0. 0.]
    """
    x, mean, var = residuals
    unit, dwide = normalised(x, mean, var, eps), wide(dy)
    dunit = along_last(scale, x) * dwide
    dx = lax.rsqrt(var + eps) * (dunit - _over_channels(dunit) - unit * _over_channels(dunit * unit))
    dscale, dbias = sum_rows(dwide * unit), sum_rows(dwide)
    return dx.astype(dy.dtype), dscale.astype(scale.dtype), dbias.astype(scale.dtype)


def _over_channels(x: jax.Array) -> jax.Array:
    """The mean of each place's channels, (..., 1)."""
    return x.mean(-1, keepdims=True)


def _checked(op: str, x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    x = jnp.asarray(x)
    if x.ndim < 1 or x.shape[-1] == 0:
        raise ValueError(f"{op}: x must be (..., channels) with at least one channel, got shape {x.shape}")
    check_norm(op, x, eps, scale=scale, bias=bias)
    return x

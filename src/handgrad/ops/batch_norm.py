"""Batch normalisation: every channel brought to mean 0 and variance 1 over the batch, then scaled and shifted.

Forward     μ[c] = 1/m Σ_i x[i, c]                  v[c] = 1/m Σ_i (x[i, c] - μ[c])²
            x̂[i, c] = (x[i, c] - μ[c]) r[c]         with r = 1/√(v + ε)
            y[i, c] = γ[c] x̂[i, c] + β[c]
Residual    x, μ, v (a layer reads μ and v for its running statistics)
Backward    dβ[c] = Σ_i dy[i, c]
            dγ[c] = Σ_i dy[i, c] x̂[i, c]
            dx[i, c] = γ[c] r[c] (dy[i, c] - dβ[c]/m - x̂[i, c] dγ[c]/m)

Here i runs over all m places of batch and space. `ops/normalise.py` derives dx; γ is the same at all of them, so the
sums of dβ and dγ are its two means as well.
With a mask w[i] of 0 and 1 the sums of μ and v run over the places where w is 1, and m = Σ w. All places are normalised
and give y, so dβ and dγ sum over all, and so does what reaches μ and v: dx[i] = γ r (dy[i] - w[i] (dβ + x̂[i] dγ)/m).
A masked place does not move μ and v, so it has the direct term alone. Where a loss leaves masked examples out, dy is 0
there: then nothing but the valid ones counts anywhere, and dx of the others is 0. A masked x must be finite, or dγ is
not. A mask without any place: m = 0, and all is NaN.
At m = 1: x̂ = 0, so y = β and dx = 0. In inference μ and v are constants, and dx = γ r dy alone.
Shapes: x, y, dx, dy (..., C) of rank 2 or more; scale γ, bias β, μ, v (C,); mask (N,) or (N, P..), 1 in the place of
any. Statistics and sums in float32 at least.
Source: Ioffe and Szegedy 2015.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad.ops.normalise import Residuals, affine, along_last, check_norm, normalised, statistics
from handgrad.ops.precision import sum_rows, wide

Mask = jax.Array | np.ndarray | None


def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, mask: Mask = None, *, eps: float = 1e-5) -> jax.Array:
    """Normalise x by the mean and variance of this batch, in each channel.

    Args:
        x: (..., C), floating point, rank 2 or more.
        scale: (C,).
        bias: (C,).
        mask: which examples (N,) or places (N, P..) count in the statistics: booleans, or numbers that are 0 for none.
            An axis of it may be 1. None for all. It has no gradient.
        eps: added to the variance.

    Returns:
        y, of the shape and dtype of x, normalised where the mask is 0 too.

    Raises:
        TypeError: x, scale or bias is not floating point, or mask is complex.
        ValueError: shapes that do not fit, an empty batch, a negative eps, or a NumPy mask that counts nothing; where
            its values can't be read, such a mask makes y NaN.

    Example:
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> print(batch_norm(x, jnp.ones(2), jnp.zeros(2), eps=0.0))
        [[-1. -1.]
         [ 1.  1.]]
        >>> padded = jnp.array([[1.0, 10.0], [3.0, 30.0], [0.0, 0.0]])
        >>> print(batch_norm(padded, jnp.ones(2), jnp.zeros(2), jnp.array([True, True, False]), eps=0.0))
        [[-1. -1.]
         [ 1.  1.]
         [-2. -2.]]
    """
    return batch_norm_forward(x, scale, bias, mask, eps=eps)[0]


def batch_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, mask: Mask = None, *, eps: float = 1e-5
) -> tuple[jax.Array, Residuals]:
    """The output y (..., C) and the residuals x (..., C), mean (C,), var (C,); mean and var in float32 at least.

    Example:
        >>> y, (x, mean, var) = batch_norm_forward(jnp.array([[1.0], [3.0]]), jnp.ones(1), jnp.zeros(1), eps=0.0)
        >>> y.tolist(), x.tolist(), mean.tolist(), var.tolist()
        ([[-1.0], [1.0]], [[1.0], [3.0]], [2.0], [1.0])
    """
    x = _checked("batch_norm", x, eps, scale=scale, bias=bias)
    valid = _valid("batch_norm", x, mask)
    count = _count(x, valid)

    def over_batch(numbers: jax.Array) -> jax.Array:
        return along_last(sum_rows(_only(valid, numbers)) / count, x)

    mean, var = statistics(x, over_batch)
    y = affine(normalised(x, mean, var, eps), scale, bias).astype(x.dtype)
    return y, (x, mean.ravel(), var.ravel())


def batch_norm_backward(
    residuals: Residuals, scale: jax.Array, dy: jax.Array, mask: Mask = None, *, eps: float = 1e-5
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of `batch_norm`.

    Args:
        residuals: x (..., C), mean (C,), var (C,), as `batch_norm_forward` gave them.
        scale: (C,).
        dy: the gradient of the output, (..., C).
        mask: as in forward.
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
    valid = _valid("batch_norm_backward", x, mask)
    unit, dwide, count = _unit(x, mean, var, eps), wide(dy), _count(x, valid)
    dbias = sum_rows(dwide)
    dscale = sum_rows(dwide * unit)
    through_statistics = along_last(dbias / count, x) + unit * along_last(dscale / count, x)
    dx = _gain(x, scale, var, eps) * (dwide - _only(valid, through_statistics))
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
    """The output y (..., C) and the residuals x (..., C), mean (C,), var (C,).

    Example:
        >>> one = jnp.ones(1)
        >>> y, residuals = batch_norm_inference_forward(jnp.array([[7.0]]), 2 * one, one, 3 * one, 4 * one, eps=0.0)
        >>> y.tolist(), [array.tolist() for array in residuals]
        ([[5.0]], [[[7.0]], [3.0], [4.0]])
    """
    x = _checked("batch_norm_inference", x, eps, scale=scale, bias=bias, mean=mean, var=var)
    return affine(_unit(x, mean, var, eps), scale, bias).astype(x.dtype), (x, mean, var)


def batch_norm_inference_backward(
    residuals: Residuals, scale: jax.Array, dy: jax.Array, *, eps: float = 1e-5
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients dx (..., C), dscale (C,), dbias (C,) of `batch_norm_inference`; mean and var have none.

    Args:
        residuals: x (..., C), mean (C,), var (C,), as `batch_norm_inference_forward` gave them.
        scale: (C,).
        dy: the gradient of the output, (..., C).
        eps: as in forward.

    Returns:
        dx in dy's dtype; dscale and dbias in scale's dtype.

    Example:
        >>> residuals = jnp.array([[7.0]]), jnp.array([3.0]), jnp.array([4.0])  # x̂ = (7 - 3)/√4
        >>> dx, dscale, dbias = batch_norm_inference_backward(residuals, jnp.array([6.0]), jnp.ones((1, 1)), eps=0.0)
        >>> dx.tolist(), dscale.tolist(), dbias.tolist()  # γ/√v, x̂ and 1, each times dy
        ([[3.0]], [2.0], [1.0])
    """
    x, mean, var = residuals
    dwide = wide(dy)
    dx = _gain(x, scale, var, eps) * dwide
    dscale = sum_rows(dwide * _unit(x, mean, var, eps))
    return dx.astype(dy.dtype), dscale.astype(scale.dtype), sum_rows(dwide).astype(scale.dtype)


def _unit(x: jax.Array, mean: jax.Array, var: jax.Array, eps: float) -> jax.Array:
    """x̂ (..., C), in float32 at least, for statistics (C,)."""
    return normalised(x, along_last(mean, x), along_last(var, x), eps)


def _gain(x: jax.Array, scale: jax.Array, var: jax.Array, eps: float) -> jax.Array:
    """γ r, shaped to meet the last axis of x."""
    return along_last(scale, x) * lax.rsqrt(along_last(var, x) + eps)


def _valid(op: str, x: jax.Array, mask: Mask) -> jax.Array | None:
    """The mask as booleans with the rank of x, (N, P.., 1) or with ones; None for no mask."""
    if mask is None:
        return None
    if jnp.iscomplexobj(mask):
        raise TypeError(f"{op}: mask must be booleans or real numbers, got {mask.dtype}")
    if mask.ndim not in (1, x.ndim - 1) or any(m not in (1, a) for m, a in zip(mask.shape, x.shape, strict=False)):
        raise ValueError(
            f"{op}: mask must be {x.shape[:1]} or {x.shape[:-1]}, or 1 in the place of an axis, to match x {x.shape}, "
            f"got {mask.shape}"
        )
    if isinstance(mask, np.ndarray) and not mask.any():
        raise ValueError(f"{op}: mask counts no place at all, so there are no statistics; leave such a batch out")
    return jnp.asarray(mask).astype(bool).reshape(mask.shape + (1,) * (x.ndim - mask.ndim))


def _only(valid: jax.Array | None, numbers: jax.Array) -> jax.Array:
    """The numbers of valid places, 0 elsewhere: selected, since a masked place may hold anything."""
    return numbers if valid is None else jnp.where(valid, numbers, 0)


def _count(x: jax.Array, valid: jax.Array | None) -> int | jax.Array:
    """m, the valid places of x."""
    places = math.prod(x.shape[:-1])
    return places if valid is None else (valid.sum() * (places // valid.size)).astype(wide(x).dtype)


def _checked(op: str, x: jax.Array, eps: float, **vectors: jax.Array) -> jax.Array:
    x = jnp.asarray(x)
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"{op}: x must be (..., channels) of rank 2 or more and not empty, got shape {x.shape}")
    check_norm(op, x, eps, **vectors)
    return x

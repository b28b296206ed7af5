"""Group normalisation: a group of channels of one example, over all its places, brought to mean 0 and variance 1.

Forward     μ[n, g] = 1/m Σ_p Σ_{c in g} x[n, p, c]         v[n, g] = 1/m Σ_p Σ_{c in g} (x[n, p, c] - μ[n, g])²
            x̂[n, p, c] = (x[n, p, c] - μ[n, g]) r[n, g]     with r = 1/√(v + ε), c in g
            y[n, p, c] = γ[c] x̂[n, p, c] + β[c]
Residual    x, μ, v
Backward    b[n, c] = Σ_p dy[n, p, c]                       dβ[c] = Σ_n b[n, c]
            s[n, c] = Σ_p dy[n, p, c] x̂[n, p, c]            dγ[c] = Σ_n s[n, c]
            dx[n, p, c] = r (γ[c] dy[n, p, c] - 1/m Σ_{k in g} γ[k] b[n, k] - x̂[n, p, c] 1/m Σ_{k in g} γ[k] s[n, k])

There are G groups of C/G neighbouring channels, and m = P C/G numbers in each. `ops/normalise.py` derives dx. γ is the
same at all places, so the two sums over places serve both the parameters and dx. They go channel by channel first:
XLA adds up rows of all C numbers far faster than the few of a group.
Instance norm is the case G = C: every channel of every example by itself. G = 1 takes all of an example.
Examples do not meet: the gradient of one says nothing about the others, and batches of one are as good as any.
At m = 1: x̂ = 0, so y = β and dx = 0; instance norm refuses it, as PyTorch does in training.
Shapes: x, y, dx, dy (N, P.., C) of rank 2 or more, at rank 2 with P = 1; scale γ, bias β (C,); μ, v (N, 1.., C), each
channel with the numbers of its group. Sums in float32 at least.
Source: Wu and He 2018; for instance norm Ulyanov, Vedaldi and Lempitsky 2016.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.ops.normalise import Residuals, affine, along_last, check_norm, normalised, statistics
from handgrad.ops.precision import sum_places, wide


def group_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, *, num_groups: int, eps: float = 1e-5) -> jax.Array:
    """Normalise x by the mean and variance of each group of channels in each example.

    Args:
        x: (N, P.., C), floating point, rank 2 or more.
        scale: (C,).
        bias: (C,).
        num_groups: G, into how many groups of neighbours the channels fall; it divides C.
        eps: added to the variance.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x, scale or bias is not floating point, or num_groups is no int.
        ValueError: shapes that do not fit, an empty example, groups that do not divide C, or a negative eps.

    Example:
        >>> x = jnp.array([[1.0, 3.0, 50.0, 10.0]])
        >>> print(group_norm(x, jnp.ones(4), jnp.zeros(4), num_groups=2, eps=0.0))
        [[-1.  1.  1. -1.]]
    """
    x = _checked("group_norm", x, scale, bias, num_groups, eps)
    return _plain(x, scale, bias, num_groups, eps)


def group_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, num_groups: int, eps: float = 1e-5
) -> tuple[jax.Array, Residuals]:
    """The output y (N, P.., C) and the residuals x, mean (N, 1.., C), var (N, 1.., C); these in float32 at least.

    Example:
        >>> x = jnp.array([[1.0, 3.0, 50.0, 10.0]])
        >>> y, (x, mean, var) = group_norm_forward(x, jnp.ones(4), jnp.zeros(4), num_groups=2, eps=0.0)
        >>> print(y, mean, var)
        [[-1.  1.  1. -1.]] [[ 2.  2. 30. 30.]] [[  1.   1. 400. 400.]]
    """
    x = _checked("group_norm_forward", x, scale, bias, num_groups, eps)
    return _forward(x, scale, bias, num_groups, eps)


def group_norm_backward(
    residuals: Residuals, scale: jax.Array, dy: jax.Array, *, num_groups: int, eps: float = 1e-5
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of `group_norm`.

    Args:
        residuals: x (N, P.., C), mean (N, 1.., C), var (N, 1.., C), as `group_norm_forward` gave them.
        scale: (C,).
        dy: the gradient of the output, (N, P.., C).
        num_groups: as in forward.
        eps: as in forward.

    Returns:
        dx (N, P.., C) in dy's dtype; dscale (C,) and dbias (C,) in scale's dtype.

    Example:
        >>> one, zero = jnp.ones(2), jnp.zeros(2)
        >>> y, residuals = group_norm_forward(jnp.array([[[1.0, 2.0], [6.0, 4.0]]]), one, zero, num_groups=1)
        >>> dx, dscale, dbias = group_norm_backward(residuals, one, jnp.eye(2)[None], num_groups=1)
        >>> print(bool(abs(dx.sum()) < 1e-5), dbias)
        True [1. 1.]
    """
    x, mean, var = residuals
    unit, dwide, gain = normalised(x, mean, var, eps), wide(dy), along_last(scale, x)
    shifts, scales = sum_places(dwide), sum_places(dwide * unit)
    along_one, along_unit = (_over_group(gain * sums, x, num_groups) for sums in (shifts, scales))
    dx = lax.rsqrt(var + eps) * (gain * dwide - along_one - unit * along_unit)
    channels = x.shape[-1]
    dscale, dbias = (sums.reshape(-1, channels).sum(0).astype(scale.dtype) for sums in (scales, shifts))
    return dx.astype(dy.dtype), dscale, dbias


def instance_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, *, eps: float = 1e-5) -> jax.Array:
    """Normalise x by the mean and variance of each channel of each example over its places.

    Args:
        x: (N, P.., C), floating point, with more than one place: a channel of one place would only give its bias.
        scale: (C,).
        bias: (C,).
        eps: added to the variance.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x, scale or bias is not floating point.
        ValueError: shapes that do not fit, fewer than two places, or a negative eps.

    Example:
        >>> x = jnp.array([[[1.0, 50.0], [3.0, 10.0]]])
        >>> print(instance_norm(x, jnp.ones(2), jnp.zeros(2), eps=0.0))
        [[[-1.  1.]
          [ 1. -1.]]]
    """
    x = _checked_instances("instance_norm", x, scale, bias, eps)
    return _plain(x, scale, bias, x.shape[-1], eps)


def instance_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, eps: float = 1e-5
) -> tuple[jax.Array, Residuals]:
    """The output y (N, P.., C) and the residuals x, mean (N, 1.., C), var (N, 1.., C); these in float32 at least.

    Example:
        >>> x = jnp.array([[[1.0, 9.0], [3.0, 5.0]]])
        >>> y, (x, mean, var) = instance_norm_forward(x, jnp.ones(2), jnp.zeros(2), eps=0.0)
        >>> y.tolist(), mean.tolist(), var.tolist()
        ([[[-1.0, 1.0], [1.0, -1.0]]], [[[2.0, 7.0]]], [[[1.0, 4.0]]])
    """
    x = _checked_instances("instance_norm_forward", x, scale, bias, eps)
    return _forward(x, scale, bias, x.shape[-1], eps)


def instance_norm_backward(
    residuals: Residuals, scale: jax.Array, dy: jax.Array, *, eps: float = 1e-5
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients dx (N, P.., C), dscale (C,), dbias (C,) of `instance_norm`: those of as many groups as channels.

    Args:
        residuals: x (N, P.., C), mean (N, 1.., C), var (N, 1.., C), as `instance_norm_forward` gave them.
        scale: (C,).
        dy: the gradient of the output, (N, P.., C).
        eps: as in forward.

    Returns:
        dx in dy's dtype; dscale and dbias in scale's dtype.

    Example:
        >>> one, zero = jnp.ones(1), jnp.zeros(1)
        >>> y, residuals = instance_norm_forward(jnp.array([[[1.0], [3.0]]]), one, zero, eps=0.0)
        >>> dx, dscale, dbias = instance_norm_backward(residuals, one, jnp.array([[[5.0], [7.0]]]), eps=0.0)
        >>> y.ravel().tolist(), dx.ravel().tolist()  # two places become -1 and 1 whatever x is, so dx is 0
        ([-1.0, 1.0], [0.0, 0.0])
        >>> dscale.tolist(), dbias.tolist()  # 7 - 5 and 7 + 5
        ([2.0], [12.0])
    """
    return group_norm_backward(residuals, scale, dy, num_groups=scale.shape[0], eps=eps)


def check_groups(op: str, channels: int, num_groups: int) -> None:
    """Raise unless the channels fall into that many groups."""
    if isinstance(num_groups, bool) or not isinstance(num_groups, int):
        raise TypeError(f"{op}: num_groups must be an int, got {num_groups!r}")
    if num_groups < 1 or channels % num_groups:
        raise ValueError(f"{op}: num_groups must divide the {channels} channels, got {num_groups}")


def _plain(x: jax.Array, scale: jax.Array, bias: jax.Array, num_groups: int, eps: float) -> jax.Array:
    """The formula, on x as (N, P, G, C/G)."""
    groups = wide(x).reshape(x.shape[0], math.prod(x.shape[1:-1]), num_groups, x.shape[-1] // num_groups)
    mean = groups.mean((1, 3), keepdims=True)
    var = jnp.square(groups - mean).mean((1, 3), keepdims=True)
    return affine(((groups - mean) / jnp.sqrt(var + eps)).reshape(x.shape), scale, bias).astype(x.dtype)


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, num_groups: int, eps: float
) -> tuple[jax.Array, Residuals]:
    mean, var = statistics(x, lambda numbers: _over_group(sum_places(numbers), x, num_groups))
    return affine(normalised(x, mean, var, eps), scale, bias).astype(x.dtype), (x, mean, var)


def _over_group(sums: jax.Array, x: jax.Array, num_groups: int) -> jax.Array:
    """1/m Σ_{k in g} sums[n, k] at every channel of its group, (N, 1.., C) from (N, 1.., C)."""
    groups = sums.reshape(x.shape[0], num_groups, x.shape[-1] // num_groups)
    count = math.prod(x.shape[1:]) // num_groups
    means = groups.sum(-1, keepdims=True) / count
    return jnp.broadcast_to(means, groups.shape).reshape(sums.shape)


def _checked(op: str, x: jax.Array, scale: jax.Array, bias: jax.Array, num_groups: int, eps: float) -> jax.Array:
    x = jnp.asarray(x)
    if x.ndim < 2 or math.prod(x.shape[1:]) == 0:
        raise ValueError(f"{op}: x must be (N, *spatial, channels), each example not empty, got shape {x.shape}")
    check_groups(op, x.shape[-1], num_groups)
    check_norm(op, x, eps, scale=scale, bias=bias)
    return x


def _checked_instances(op: str, x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    x = jnp.asarray(x)
    if math.prod(x.shape[1:-1]) < 2:
        raise ValueError(
            f"{op}: x must be (N, *spatial, channels) with more than one place, got shape {x.shape}; "
            f"a channel of one place would give its bias alone"
        )
    return _checked(op, x, scale, bias, max(x.shape[-1], 1), eps)

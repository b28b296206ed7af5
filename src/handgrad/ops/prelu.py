"""PReLU: a leaky relu whose slope is learned, one for all or one for each channel.

Forward     y[i, c] = x[i, c] if x[i, c] > 0 else a[c] x[i, c]                  residual: x
Backward    dx[i, c] = dy[i, c] (1 if x[i, c] > 0 else a[c])
            da[c] = Σ_i dy[i, c] x[i, c] [x[i, c] <= 0]

y is bilinear in a and the negative part of x, so each one's gradient is dy times the other, and a, which all places i
share, gathers the sum over them. x itself is kept: y gives it back only where a is not 0.
At 0: the slope in x is a, as torch.nn.functional.prelu, the oracle.
NaN: passes through forward. Backward treats it as a live unit, dx = dy, which leaves nothing to a.
-inf: y is -inf (inf for a negative a, NaN for a of 0).
Shapes: x, y, dx, dy (..., C); the slope a and da (C,), or (1,) or () for one slope for all. Sums in float32 at least.
Source: He, Zhang, Ren and Sun 2015.
"""

import jax
import jax.numpy as jnp

from handgrad.ops import check
from handgrad.ops.precision import sum_rows, wide


def prelu(x: jax.Array, slope: jax.Array) -> jax.Array:
    """The input where it is positive, elsewhere the input times a slope that is a parameter.

    Args:
        x: (..., C), floating point.
        slope: a, (C,), or (1,) or () for one slope for all.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x or slope is not floating point.
        ValueError: a slope that fits neither one number nor the channels.

    Example:
        >>> print(prelu(jnp.array([[-1.0, -1.0], [2.0, 2.0]]), jnp.array([0.25, 0.5])))
        [[-0.25 -0.5 ]
         [ 2.    2.  ]]
    """
    check.floating("prelu", x=x)
    check.floating("prelu", slope=slope)
    x, slope = jnp.asarray(x), jnp.asarray(slope)
    fitting = dict.fromkeys([(), (1,), x.shape[-1:]] if x.ndim else [()])
    if slope.shape not in fitting:
        raise ValueError(
            f"prelu: slope must have shape {' or '.join(map(str, fitting))} for x {x.shape}, got {slope.shape}"
        )
    return jnp.where(x <= 0, _along_last(slope, x) * _negative(x), x)


def prelu_forward(x: jax.Array, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The output y, and x as the residual.

    Example:
        >>> y, x = prelu_forward(jnp.array([[-1.0, -1.0, 2.0]]), jnp.array([0.25, 0.5, 0.5]))
        >>> print(y, x)
        [[-0.25 -0.5   2.  ]] [[-1. -1.  2.]]
    """
    return prelu(x, slope), x


def prelu_backward(x: jax.Array, slope: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradients of `prelu`.

    Args:
        x: the residual that `prelu_forward` gave.
        slope: a, as in forward.
        dy: the gradient of the output, of the shape of x.

    Returns:
        dx, of the shape and dtype of dy; dslope, of the shape and dtype of slope.

    Example:
        >>> dx, dslope = prelu_backward(jnp.array([-3.0, -1.0, 2.0]), jnp.array(0.5), jnp.array([1.0, 1.0, 7.0]))
        >>> print(dx, dslope)
        [0.5 0.5 7. ] -4.0
    """
    dx = jnp.where(x <= 0, _along_last(slope, dy) * dy, dy)
    dslope = sum_rows(wide(dy) * wide(_negative(x)))
    return dx, (dslope if slope.shape == dslope.shape else dslope.sum().reshape(slope.shape)).astype(slope.dtype)


def _negative(x: jax.Array) -> jax.Array:
    """X where it is at most 0, and 0 elsewhere, NaN and inf included, which would spoil the slope's gradient."""
    return jnp.where(x <= 0, x, 0)


def _along_last(slope: jax.Array, x: jax.Array) -> jax.Array:
    """The slope with ones before its axis, so that it meets the last axis of x, in x's dtype."""
    slope = slope.astype(x.dtype)
    return slope if slope.ndim == 0 else slope.reshape((1,) * (x.ndim - 1) + (-1,))

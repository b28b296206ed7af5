"""Softmax along one axis, and its logarithm.

softmax       y[k]  = e^x[k] / Σ_j e^x[j]
              dx[k] = y[k] (dy[k] - Σ_j dy[j] y[j])             residual: y
log_softmax   y[k]  = x[k] - log Σ_j e^x[j]
              dx[k] = dy[k] - e^y[k] Σ_j dy[j]                  residual: y

∂y[j]/∂x[k] = y[j] ([j = k] - y[k]) for softmax, and [j = k] - e^y[k] for its logarithm; summed over j against dy.
Both subtract the maximum first, which changes neither: e^(x[k] - m) is at most 1, so nothing overflows.
At -inf: a class is masked out: softmax gives exactly 0 and dx is exactly 0. A row of nothing but -inf is NaN, as in
jax.nn.softmax, the oracle. So is a row with +inf or NaN.
Shapes: x, y, dx, dy have one shape, any of rank 1 or more; sums run in float32 at least.
"""

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.ops import check
from handgrad.ops.precision import wide


def softmax(x: jax.Array, *, axis: int = -1) -> jax.Array:
    """Positive numbers that sum to one along an axis.

    Args:
        x: scores, rank 1 or more, floating point.
        axis: the axis of the classes.

    Returns:
        y, probabilities of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.
        ValueError: x has no such axis, or the axis is empty.

    Example:
        >>> print(softmax(jnp.array([1002.0, 1002.0, -jnp.inf])))
        [0.5 0.5 0. ]
    """
    shifted = _shifted("softmax", x, axis)
    powers = jnp.exp(shifted)
    return (powers / powers.sum(axis, keepdims=True)).astype(x.dtype)


def softmax_forward(x: jax.Array, *, axis: int = -1) -> tuple[jax.Array, jax.Array]:
    """The output y, and y again as the residual.

    Example:
        >>> y, residual = softmax_forward(jnp.array([0.0, 0.0]))
        >>> print(y, residual is y)
        [0.5 0.5] True
    """
    y = softmax(x, axis=axis)
    return y, y


def softmax_backward(y: jax.Array, dy: jax.Array, *, axis: int = -1) -> jax.Array:
    """The gradient dx = y (dy - Σ dy y).

    Args:
        y: the output that `softmax_forward` gave.
        dy: its gradient, of the same shape.
        axis: the axis of the classes.

    Returns:
        dx, of the shape and dtype of dy. It sums to zero along the axis.

    Example:
        >>> y, _ = softmax_forward(jnp.array([0.0, 0.0]))
        >>> print(softmax_backward(y, jnp.array([1.0, 0.0])))
        [ 0.25 -0.25]
    """
    p, dp = wide(y), wide(dy)
    return (p * (dp - (dp * p).sum(axis, keepdims=True))).astype(dy.dtype)


def log_softmax(x: jax.Array, *, axis: int = -1) -> jax.Array:
    """The logarithm of softmax, exact where a probability is too small to be a number.

    Args:
        x: scores, rank 1 or more, floating point.
        axis: the axis of the classes.

    Returns:
        y, log-probabilities of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.
        ValueError: x has no such axis, or the axis is empty.

    Example:
        >>> print(log_softmax(jnp.array([0.0, -10000.0])))
        [     0. -10000.]
    """
    shifted = _shifted("log_softmax", x, axis)
    return (shifted - jnp.log(jnp.exp(shifted).sum(axis, keepdims=True))).astype(x.dtype)


def log_softmax_forward(x: jax.Array, *, axis: int = -1) -> tuple[jax.Array, jax.Array]:
    """The output y, and y again as the residual.

    Example:
        >>> y, residual = log_softmax_forward(jnp.array([0.0, 0.0]))
        >>> print(y.round(4), residual is y)
        [-0.6931 -0.6931] True
    """
    y = log_softmax(x, axis=axis)
    return y, y


def log_softmax_backward(y: jax.Array, dy: jax.Array, *, axis: int = -1) -> jax.Array:
    """The gradient dx = dy - e^y Σ dy, of the shape and dtype of dy. It sums to zero along the axis.

    Args:
        y: the output that `log_softmax_forward` gave.
        dy: its gradient, of the same shape.
        axis: the axis of the classes.

    Example:
        >>> y, _ = log_softmax_forward(jnp.array([0.0, 0.0]))
        >>> print(log_softmax_backward(y, jnp.array([-1.0, 0.0])))  # cross-entropy's p - (1, 0)
        [-0.5  0.5]
    """
    dlog = wide(dy)
    return (dlog - jnp.exp(wide(y)) * dlog.sum(axis, keepdims=True)).astype(dy.dtype)


def _shifted(op: str, x: jax.Array, axis: int) -> jax.Array:
    """The difference of x and its maximum along the axis, which is a constant to every derivative."""
    check.floating(op, x=x)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{op}: axis must be an axis of x, got axis {axis} for x of shape {x.shape}")
    if x.shape[axis] == 0:
        raise ValueError(f"{op}: axis {axis} must hold at least one class, got x of shape {x.shape}")
    return wide(x) - lax.stop_gradient(wide(x).max(axis, keepdims=True))

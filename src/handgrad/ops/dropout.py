"""Dropout: in training each unit is kept with probability 1 - r, else it is 0. The mask comes from outside.

                     training                   test                residual
inverted (default)   y = [keep] x / (1 - r)     y = x               the mask
classic              y = [keep] x               y = (1 - r) x       the mask
Backward             dx = [keep] dy / (1 - r), or [keep] dy: the same map, for it is linear and diagonal

Both give E[y] in training the value of test: E[[keep]] = 1 - r. The classic form halves the outgoing weights at test
time where r = 1/2, as in the lecture; the inverted one leaves the test formula alone.
NaN and inf: a dropped unit is selected away, y = 0, and not multiplied by 0.
Shapes: x, y, dx, dy have one shape, any; keep has it too, or 1 on axes where all places share a decision.
Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014.
"""

import jax
import jax.numpy as jnp

from handgrad.ops import check
from handgrad.ops.precision import wide


def dropout(x: jax.Array, keep: jax.Array, *, rate: float | jax.Array, inverted: bool = True) -> jax.Array:
    """The input where the mask says keep, 0 elsewhere.

    Args:
        x: any shape, floating point.
        keep: boolean, of the shape of x or with 1 in the place of an axis.
        rate: the probability r of dropping with which the mask was drawn, 0 <= r < 1; it may be traced.
        inverted: whether kept units are divided by 1 - r here, or all are scaled by it in `dropout_inference`.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point, or keep is not boolean.
        ValueError: keep does not fit x, or rate is outside [0, 1).

    Example:
        >>> keep = jnp.array([True, False, True])
        >>> print(dropout(jnp.array([1.0, 2.0, 3.0]), keep, rate=0.5))
        [2. 0. 6.]
        >>> print(dropout(jnp.array([1.0, 2.0, 3.0]), keep, rate=0.5, inverted=False))
        [1. 0. 3.]
    """
    check.floating("dropout", x=x)
    _check_rate("dropout", rate)
    if keep.dtype != jnp.bool_:
        raise TypeError(f"dropout: keep must be boolean (True keeps a unit), got {keep.dtype}")
    if keep.ndim != x.ndim or any(k not in (1, size) for k, size in zip(keep.shape, x.shape, strict=True)):
        raise ValueError(f"dropout: keep must have the shape of x or 1 on an axis, got {keep.shape} for x {x.shape}")
    return jnp.where(keep, _scaled(x, rate) if inverted else x, 0)


def dropout_forward(
    x: jax.Array, keep: jax.Array, *, rate: float | jax.Array, inverted: bool = True
) -> tuple[jax.Array, jax.Array]:
    """The output y, and the mask again as the residual: one byte an element.

    Example:
        >>> y, keep = dropout_forward(jnp.array([1.0, 2.0, 3.0]), jnp.array([True, False, True]), rate=0.5)
        >>> print(y, keep)
        [2. 0. 6.] [ True False  True]
    """
    return dropout(x, keep, rate=rate, inverted=inverted), keep


def dropout_backward(keep: jax.Array, dy: jax.Array, *, rate: float | jax.Array, inverted: bool = True) -> jax.Array:
    """The gradient dx, of the shape and dtype of dy: dropout of dy by the same mask. The mask has no gradient.

    Args:
        keep: the mask that `dropout_forward` gave.
        dy: the gradient of the output, of x's shape.
        rate: as in forward.
        inverted: as in forward.

    Example:
        >>> print(dropout_backward(jnp.array([True, False, True]), jnp.array([5.0, 6.0, 7.0]), rate=0.5))
        [10.  0. 14.]
    """
    return dropout(dy, keep, rate=rate, inverted=inverted)


def dropout_inference(x: jax.Array, *, rate: float | jax.Array, inverted: bool = True) -> jax.Array:
    """The test-time form: x itself, or (1 - r) x where dropout is classic. Applied to dy it is its own backward.

    Args:
        x: any shape, floating point.
        rate: the probability r of dropping in training, 0 <= r < 1.
        inverted: the form used in training.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.
        ValueError: rate is outside [0, 1).

    Example:
        >>> print(dropout_inference(jnp.array([1.0, 2.0]), rate=0.5, inverted=False))
        [0.5 1. ]
    """
    check.floating("dropout_inference", x=x)
    _check_rate("dropout_inference", rate)
    return x if inverted else (wide(x) * _kept_share(x, rate)).astype(x.dtype)


def _scaled(x: jax.Array, rate: float | jax.Array) -> jax.Array:
    return (wide(x) / _kept_share(x, rate)).astype(x.dtype)


def _kept_share(x: jax.Array, rate: float | jax.Array) -> jax.Array:
    """1 - r in float32 at least: rounded to bfloat16 it would scale every unit wrongly."""
    return jnp.asarray(1 - rate, wide(x).dtype)


def _check_rate(op: str, rate: float | jax.Array) -> None:
    if isinstance(rate, (int, float)) and not 0 <= rate < 1:
        raise ValueError(f"{op}: rate, the probability of dropping, must be at least 0 and below 1, got {rate}")

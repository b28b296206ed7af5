"""Global max pooling: the maximum over all places, one number a channel.

Forward     y[n, c]     = max_a x[n, a, c]
Residual    w[n, c]     = the winner: the smallest a, counted row by row, with x[n, a, c] = y[n, c]
Backward    dx[n, a, c] = [a = w[n, c]] dy[n, c]

Index a runs over all spatial axes: one window of `max_pool` that spans the whole input, with its rules, its winner and
its dual, but by two sums of one pass each, as no window overlaps another.
Ties: the first maximum takes all of dy; with ties="split" the m tied maxima take dy/m each, as in jax.grad of jnp.max,
the oracle there, and the residual is a mask.
NaN: a NaN is the maximum, and the first one takes all of dy. An input of -inf gives to its first place ("split": all).
Shapes: x and dx (N, A.., C) for one to three axes A, y, w and dy (N, C); with "split" the mask is of the shape of x.
Source: Oquab et al., CVPR 2015 (global max pooling for localization).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.ops import check
from handgrad.ops.precision import wide


def global_max_pool(x: jax.Array, *, ties: str = "first") -> jax.Array:
    """The maximum over all spatial axes, by the plain formula.

    Args:
        x: floating (N, L, C), (N, H, W, C) or (N, D, H, W, C).
        ties: "first" gives the gradient to the first maximum, "split" shares it among equal maxima.

    Returns:
        y (N, C), dtype of x.

    Raises:
        ValueError: a wrong rank or `ties`, or a spatial axis of size 0.
        TypeError: x is not floating.

    Example:
        >>> global_max_pool(jnp.array([1.0, 6.0, 2.0]).reshape(1, 3, 1)).tolist()
        [[6.0]]
    """
    flat = _flat("global_max_pool", x, ties)
    if ties == "split":
        return flat.max(1)  # its derivative in JAX shares among equal maxima
    return jnp.take_along_axis(flat, flat.argmax(1, keepdims=True), 1).squeeze(1)  # argmax takes the first


def global_max_pool_forward(x: jax.Array, *, ties: str = "first") -> tuple[jax.Array, jax.Array]:
    """The maximum over all spatial axes, and what backward needs.

    A maximum and the smallest number of a place that has it are two sums that run over dense arrays; argmax, which
    carries both at once, is several times as slow on CPU.

    Args:
        x: as in `global_max_pool`.
        ties: as in `global_max_pool`.

    Returns:
        y (N, C), dtype of x, and the winner: (N, C), the smallest unsigned dtype that holds the number of places; with
        "split" which places are tied, booleans of the shape of x.

    Raises:
        ValueError: as in `global_max_pool`.
        TypeError: as in `global_max_pool`.

    Example:
        >>> y, winner = global_max_pool_forward(jnp.array([1.0, 6.0, 2.0]).reshape(1, 3, 1))
        >>> winner.tolist(), str(winner.dtype)
        ([[1]], 'uint8')
    """
    flat = _flat("global_max_pool_forward", x, ties)
    places = flat.shape[1]
    number = np.arange(places, dtype=np.int32)[None, :, None]
    most = jax.lax.stop_gradient(flat).max(1, keepdims=True)
    wins = (flat == most) | jnp.isnan(flat)
    winner = jnp.where(wins, number, places).min(1, keepdims=True)
    if ties == "split":
        tied = (flat == most) | (jnp.isnan(most) & (number == winner))
        return flat.max(1), tied.reshape(x.shape)
    y = jnp.take_along_axis(flat, winner, 1)  # and not `most`, whose derivative shares among equal maxima
    return y.squeeze(1), winner.squeeze(1).astype(np.min_scalar_type(places))


def global_max_pool_backward(
    winner: jax.Array, dy: jax.Array, *, in_shape: Sequence[int], ties: str = "first"
) -> jax.Array:
    """The gradient by x: dy at the winner, 0 elsewhere; one comparison a place.

    Args:
        winner: the residual of `global_max_pool_forward`.
        dy: (N, C), the gradient by y.
        in_shape: the shape of x.
        ties: as in `global_max_pool_forward`.

    Returns:
        dx of shape in_shape, dtype of dy.

    Raises:
        ValueError: a wrong rank or an empty axis in in_shape, or winner or dy are not of the shape that it gives.
        TypeError: dy is not floating, or winner is not what `global_max_pool_forward` returned.

    Example:
        >>> winner, dy = jnp.array([[1]], jnp.uint8), jnp.array([[3.0]])
        >>> global_max_pool_backward(winner, dy, in_shape=(1, 3, 1)).ravel().tolist()
        [0.0, 3.0, 0.0]
    """
    op = "global_max_pool_backward"
    check.floating(op, dy=dy)
    check.ties(op, ties)
    places = check.places(op, in_shape)
    flat = (in_shape[0], places, in_shape[-1])
    _check_shapes(op, winner, dy, in_shape, ties)
    if ties == "split":
        tied = winner.reshape(flat)
        count = jnp.maximum(tied.sum(1, dtype=jnp.int32), 1)
        share = (wide(dy) / count.astype(wide(dy).dtype)).astype(dy.dtype)
    else:
        number = np.arange(places, dtype=winner.dtype)[None, :, None]
        tied, share = winner[:, None] == number, dy
    return jnp.where(tied, share[:, None], 0).reshape(in_shape)


def _flat(op: str, x: jax.Array, ties: str) -> jax.Array:
    """(N, A, C): the places in one row."""
    check.floating(op, x=x)
    check.ties(op, ties)
    return jnp.asarray(x).reshape(x.shape[0], check.places(op, x.shape), x.shape[-1])


def _check_shapes(op: str, winner: jax.Array, dy: jax.Array, in_shape: Sequence[int], ties: str) -> None:
    out_shape = (in_shape[0], in_shape[-1])
    for name, array, wanted in (
        ("dy", dy, out_shape),
        ("winner", winner, tuple(in_shape) if ties == "split" else out_shape),
    ):
        if array.shape != wanted:
            raise ValueError(f"{op}: {name} must have shape {wanted} for in_shape {tuple(in_shape)}, got {array.shape}")
    kind, words = (jnp.bool_, "booleans") if ties == "split" else (jnp.unsignedinteger, "unsigned integers")
    if not jnp.issubdtype(winner.dtype, kind):
        raise TypeError(f"{op}: winner must hold {words}, got {winner.dtype}; pass what forward returned")

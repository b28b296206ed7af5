"""Adaptive pooling: means or maxima of P windows an axis, which cover it as evenly as whole places allow.

Mean        y[n, p, c] = 1/m[p] Σ_{a ∈ W[p]} x[n, a, c],    dx[n, a, c] = Σ_{p: a ∈ W[p]} dy[n, p, c] / m[p]
Maximum     y[n, p, c] = max_{a ∈ W[p]} x[n, a, c],         dx[n, a, c] = Σ_{p: a ∈ W[p]} [a = w[n, p, c]] dy[n, p, c]
Windows     W[p] = {a: ⌊pA/P⌋ ≤ a < ⌈(p+1)A/P⌉}, for P windows on an axis of A places

Indices p, a run over all spatial axes, a window is the product of its axes' windows, m[p] its number of places.
Dual: a ∈ W[p] says ⌊aP/A⌋ ≤ p < ⌈(a+1)P/A⌉ (ops/adaptive_windows.py). So the transpose of the sum over windows from A
to P is the sum over windows from P to A: backward is forward with the two sizes swapped.
Where the windows are those of a plain pool, as where P divides A, its faster forward and backward are taken; one window
is a global pool.
Mean: linear, no residual, no kinks. A NaN spoils its own windows only.
Maximum: the residual w is a place's number in its window, row by row over rows as wide as the widest window. Ties, NaN
and -inf as in ops/max_pool.py: the first maximum takes all of dy, or with ties="split" the m tied maxima dy/m each; a
NaN wins, the first one; a window of -inf gives to its first place ("split": to all its places; jax.grad of the plain op
counts those too which a smaller window lacks).
Shapes: x and dx (N, A.., C), y, w and dy (N, P.., C) for one to three axes A.
Source: He et al., ECCV 2014 (spatial pyramid pooling). The windows are those of PyTorch, the oracle.
"""

from collections.abc import Sequence
from math import prod

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.ops import check
from handgrad.ops.adaptive_windows import (
    adaptive_sizes,
    all_windows,
    as_plain_pool,
    axis_windows,
    largest,
    on_axis,
    over_windows,
)
from handgrad.ops.avg_pool import avg_pool_backward, avg_pool_forward, global_avg_pool, global_avg_pool_backward
from handgrad.ops.global_max_pool import global_max_pool_backward, global_max_pool_forward
from handgrad.ops.max_pool import max_pool_backward, max_pool_forward
from handgrad.ops.precision import wide
from handgrad.ops.spatial import MANY_TAPS, Sizes

Size = int | Sequence[int]
Winner = jax.Array | tuple[jax.Array, jax.Array]


def adaptive_avg_pool(x: jax.Array, *, output_size: Size) -> jax.Array:
    """The mean of each of the P windows, by the plain formula; sums are kept in float32 at least.

    Args:
        x: floating (N, L, C), (N, H, W, C) or (N, D, H, W, C).
        output_size: windows P, an int or one an axis; there may be more of them than places.

    Returns:
        y (N, P.., C), dtype of x.

    Raises:
        ValueError: a wrong rank or size, or an empty spatial axis.
        TypeError: x is not floating, or a size is no int.

    Example:
        >>> x = jnp.array([1.0, 2.0, 6.0, 4.0, 8.0]).reshape(1, 5, 1)
        >>> adaptive_avg_pool(x, output_size=2).ravel().tolist()  # places 0 to 2 and 2 to 4
        [3.0, 6.0]
    """
    x, sizes = _checked("adaptive_avg_pool", x, output_size)
    values, own = all_windows(wide(x), sizes)
    return values.mean(_within(x), where=own).astype(x.dtype)


def adaptive_avg_pool_forward(x: jax.Array, *, output_size: Size) -> tuple[jax.Array, None]:
    """The mean of each window; backward needs nothing of it.

    Summed along one axis after the other, for each axis tap by tap: dense arrays, about H/P + W/Q terms for P × Q
    windows in place of the product.

    Args:
        x: as in `adaptive_avg_pool`.
        output_size: as in `adaptive_avg_pool`.

    Returns:
        y (N, P.., C), dtype of x, and None.

    Raises:
        ValueError: as in `adaptive_avg_pool`.
        TypeError: as in `adaptive_avg_pool`.

    Example:
        >>> y, nothing = adaptive_avg_pool_forward(jnp.ones((2, 13, 8, 3)), output_size=(6, 7))
        >>> y.shape, nothing
        ((2, 6, 7, 3), None)
    """
    x, sizes = _checked("adaptive_avg_pool_forward", x, output_size)
    if all(count == 1 for count in sizes):
        return jnp.expand_dims(global_avg_pool(x), _spatial(x)), None
    if plain := as_plain_pool(x.shape[1:-1], sizes):
        return avg_pool_forward(x, **plain)
    return (_sums(wide(x), sizes) / _counts(x.shape[1:-1], sizes, wide(x).dtype)).astype(x.dtype), None


def adaptive_avg_pool_backward(dy: jax.Array, *, in_shape: Sequence[int], output_size: Size) -> jax.Array:
    """The gradient by x: dy/m summed over the windows that share each place, which are adaptive windows as well.

    Args:
        dy: (N, P.., C), the gradient by y.
        in_shape: the shape of x.
        output_size: as in `adaptive_avg_pool`.

    Returns:
        dx of shape in_shape, dtype of dy; sums are kept in float32 at least.

    Raises:
        ValueError: as in `adaptive_avg_pool`, or dy is not of the shape that in_shape and output_size give.
        TypeError: dy is not floating.

    Example:
        >>> dy = jnp.array([3.0, 30.0]).reshape(1, 2, 1)
        >>> adaptive_avg_pool_backward(dy, in_shape=(1, 5, 1), output_size=2).ravel().tolist()
        [1.0, 1.0, 11.0, 10.0, 10.0]
    """
    dy, in_sizes, out_sizes = _checked_cotangent("adaptive_avg_pool_backward", dy, in_shape, output_size)
    if all(count == 1 for count in out_sizes):
        return global_avg_pool_backward(dy.squeeze(_spatial(dy)), in_shape=in_shape)
    if plain := as_plain_pool(in_sizes, out_sizes):
        return avg_pool_backward(dy, in_shape=in_shape, **plain)
    share = wide(dy) / _counts(in_sizes, out_sizes, wide(dy).dtype)
    return _sums(share, in_sizes).astype(dy.dtype)


def adaptive_max_pool(x: jax.Array, *, output_size: Size, ties: str = "first") -> jax.Array:
    """The maximum of each of the P windows, by the plain formula.

    Args:
        x: floating (N, L, C), (N, H, W, C) or (N, D, H, W, C).
        output_size: windows P, an int or one an axis; there may be more of them than places.
        ties: "first" gives the gradient to the first maximum, "split" shares it among equal maxima.

    Returns:
        y (N, P.., C), dtype of x.

    Raises:
        ValueError: a wrong rank, size or `ties`, or an empty spatial axis.
        TypeError: x is not floating, or a size is no int.

    Example:
        >>> x = jnp.array([1.0, 2.0, 6.0, 4.0, 8.0]).reshape(1, 5, 1)
        >>> adaptive_max_pool(x, output_size=2).ravel().tolist()
        [6.0, 8.0]
    """
    x, sizes = _checked("adaptive_max_pool", x, output_size)
    check.ties("adaptive_max_pool", ties)
    values, own = all_windows(x, sizes)
    values = jnp.where(own, values, -jnp.inf)
    if ties == "split":
        return values.max(_within(x))  # its derivative in JAX shares among equal maxima
    for axis in reversed(_within(x)):  # the first of each row, then the first row
        values = jnp.take_along_axis(values, values.argmax(axis, keepdims=True), axis).squeeze(axis)
    return values


def adaptive_max_pool_forward(x: jax.Array, *, output_size: Size, ties: str = "first") -> tuple[jax.Array, Winner]:
    """The maximum of each window, and what backward needs.

    A running maximum goes over the taps of one axis after the other and carries the winner's number, as in `max_pool`.

    Args:
        x: as in `adaptive_max_pool`.
        output_size: as in `adaptive_max_pool`.
        ties: as in `adaptive_max_pool`.

    Returns:
        y (N, P.., C), dtype of x, and the winner: (N, P.., C), the smallest unsigned dtype that holds the places of the
        largest window. With "split" a pair: for each place and each window that may share it whether the place is
        tied, and for each window how many are.

    Raises:
        ValueError: as in `adaptive_max_pool`.
        TypeError: as in `adaptive_max_pool`.

    Example:
        >>> x = jnp.array([1.0, 2.0, 6.0, 4.0, 8.0]).reshape(1, 5, 1)
        >>> y, winner = adaptive_max_pool_forward(x, output_size=2)
        >>> winner.ravel().tolist(), str(winner.dtype)
        ([2, 2], 'uint8')
    """
    x, sizes = _checked("adaptive_max_pool_forward", x, output_size)
    check.ties("adaptive_max_pool_forward", ties)
    if ties == "split":
        return _max_forward_split(x, sizes)
    if all(count == 1 for count in sizes):
        y, winner = global_max_pool_forward(x)
        return jnp.expand_dims(y, _spatial(x)), jnp.expand_dims(winner, _spatial(x))
    if plain := as_plain_pool(x.shape[1:-1], sizes):
        return max_pool_forward(x, **plain)
    return _first_maxima(x, sizes)


def adaptive_max_pool_backward(
    winner: Winner, dy: jax.Array, *, in_shape: Sequence[int], output_size: Size, ties: str = "first"
) -> jax.Array:
    """The gradient by x: each place looks at the windows that share it and sums the dy of those that it has won.

    Args:
        winner: the residual of `adaptive_max_pool_forward`.
        dy: (N, P.., C), the gradient by y.
        in_shape: the shape of x.
        output_size: as in `adaptive_max_pool`.
        ties: as in `adaptive_max_pool_forward`.

    Returns:
        dx of shape in_shape, dtype of dy; sums are kept in float32 at least.

    Raises:
        ValueError: as in `adaptive_max_pool`, or winner or dy are not of the shape that in_shape and output_size give.
        TypeError: dy is not floating, or winner does not hold what `adaptive_max_pool_forward` returned.

    Example:
        >>> winner, dy = jnp.array([2, 0], jnp.uint8).reshape(1, 2, 1), jnp.array([1.0, 10.0]).reshape(1, 2, 1)
        >>> adaptive_max_pool_backward(winner, dy, in_shape=(1, 5, 1), output_size=2).ravel().tolist()
        [0.0, 0.0, 11.0, 0.0, 0.0]
    """
    op = "adaptive_max_pool_backward"
    dy, in_sizes, out_sizes = _checked_cotangent(op, dy, in_shape, output_size)
    check.ties(op, ties)
    _check_winner(op, winner, dy.shape, ties)
    if isinstance(winner, tuple):
        tied, count = winner
        share = all_windows(wide(dy) / count.astype(wide(dy).dtype), in_sizes)[0]
        return jnp.where(tied, share, 0).sum(_within(dy)).astype(dy.dtype)
    if all(count == 1 for count in out_sizes):
        places = _spatial(dy)
        return global_max_pool_backward(winner.squeeze(places), dy.squeeze(places), in_shape=in_shape)
    if plain := as_plain_pool(in_sizes, out_sizes):
        return max_pool_backward(winner, dy, in_shape=in_shape, **plain)
    return _to_winners(winner, dy, in_sizes)


def _sums(x: jax.Array, out_sizes: Sizes) -> jax.Array:
    """Σ_{a ∈ W[p]} x[n, a, c], along one axis after the other."""
    for axis, count in enumerate(out_sizes, 1):
        x = over_windows(lambda own, value: jnp.where(own, value, 0), (x,), axis, count)
    return x


def _counts(in_sizes: Sizes, out_sizes: Sizes, dtype: np.dtype) -> jax.Array:
    """The number of places m[p] of each window, (1, P.., 1)."""
    counts = np.ones(1)
    for places, count in zip(in_sizes, out_sizes, strict=True):
        counts = counts[..., None] * axis_windows(places, count)[1].sum(1)
    return jnp.asarray(counts[..., None], dtype)


def _first_maxima(x: jax.Array, out_sizes: Sizes) -> tuple[jax.Array, jax.Array]:
    """The maximum and its number in the window, along the last axis first. A place that stands twice wins only once."""
    sizes = largest(x.shape[1:-1], out_sizes)
    dtype = np.min_scalar_type(prod(sizes))
    y, winner = x, jnp.zeros(x.shape, dtype)
    for axis in reversed(_spatial(x)):
        index, before = axis_windows(x.shape[axis], out_sizes[axis - 1])[0], (y, winner)
        step = prod(sizes[axis:])  # winner numbers between one place of this axis and the next
        if index.shape[1] > MANY_TAPS:
            y, winner = (jnp.take(array, index, axis, mode="clip") for array in before)
            number = y.argmax(axis + 1, keepdims=True)
            y, within = (jnp.take_along_axis(a, number, axis + 1).squeeze(axis + 1) for a in (y, winner))
            winner = within + number.squeeze(axis + 1).astype(dtype) * dtype.type(step)
            continue
        taps = ([jnp.take(array, places, axis, mode="clip") for array in before] for places in index.T)
        y, winner = next(taps)
        for number, (tap, within) in enumerate(taps, start=1):
            stays = (tap <= y) | jnp.isnan(y)
            y, winner = jnp.where(stays, y, tap), jnp.where(stays, winner, within + dtype.type(number * step))
    return y, winner


def _to_winners(winner: jax.Array, dy: jax.Array, in_sizes: Sizes) -> jax.Array:
    """Each dy at its winner, along the first axis first: w // step is its number on this axis, w % step within its row.

    Windows that chose the same row of the same columns have the same winner within it, for it is that row's own.
    """
    total, winner = wide(dy), winner.astype(jnp.int32)
    sizes = largest(in_sizes, dy.shape[1:-1])
    for axis, places in enumerate(in_sizes, 1):
        step = prod(sizes[axis:])
        start = axis_windows(places, dy.shape[axis])[0][:, 0].astype(np.int32)
        chosen = winner // step + on_axis(start, axis, dy.ndim)
        here = on_axis(np.arange(places, dtype=np.int32), axis, dy.ndim + 1)

        def term(own, chosen, value, here=here):
            return jnp.where(own & (chosen == here), value, 0)

        total, winner = (
            over_windows(term, (chosen, total), axis, places),
            over_windows(term, (chosen, winner % step), axis, places, add=jnp.maximum),
        )
    return total.astype(dy.dtype)


def _max_forward_split(x: jax.Array, out_sizes: Sizes) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The maximum; which places are tied in the windows that share them, (N, H, K, W, L, C); how many a window has."""
    y, winner = _first_maxima(x, out_sizes)
    values, own = all_windows(x, out_sizes)
    tied = own & (values == jnp.expand_dims(y, _within(y)))
    count = jnp.where(jnp.isnan(y), 1, tied.sum(_within(y), dtype=jnp.int32))
    (above, own), (winner, _) = all_windows(y, x.shape[1:-1]), all_windows(winner.astype(jnp.int32), x.shape[1:-1])
    first_nan = jnp.isnan(above) & (winner == _numbers(x.shape[1:-1], out_sizes))
    return y, (own & ((jnp.expand_dims(x, _within(x)) == above) | first_nan), count)


def _numbers(in_sizes: Sizes, out_sizes: Sizes) -> np.ndarray:
    """The number of place a in each window that shares it, (1, H, K, W, L, 1)."""
    numbers, sizes = np.zeros(1, np.int32), largest(in_sizes, out_sizes)
    for axis, (places, count) in enumerate(zip(in_sizes, out_sizes, strict=True)):
        start = axis_windows(places, count)[0][:, 0]
        number = (np.arange(places)[:, None] - start[axis_windows(count, places)[0]]) * prod(sizes[axis + 1 :])
        numbers = numbers + on_axis(number.astype(np.int32), 2 * axis + 1, 2 * len(in_sizes) + 2)
    return numbers


def _spatial(x: jax.Array) -> tuple[int, ...]:
    """The spatial axes of (N, A.., C)."""
    return tuple(range(1, x.ndim - 1))


def _within(x: jax.Array) -> tuple[int, ...]:
    """The axes within windows of `all_windows` of x, as many as x has spatial ones: 2, 4, .."""
    return tuple(range(2, 2 * x.ndim - 3, 2))


def _checked(op: str, x: jax.Array, output_size: Size) -> tuple[jax.Array, Sizes]:
    check.floating(op, x=x)
    return jnp.asarray(x), adaptive_sizes(op, x.shape, output_size)[1]


def _checked_cotangent(op: str, dy: jax.Array, in_shape: Sequence[int], output_size: Size):
    check.floating(op, dy=dy)
    in_sizes, out_sizes = adaptive_sizes(op, in_shape, output_size)
    wanted = (in_shape[0], *out_sizes, in_shape[-1])
    if dy.shape != wanted:
        raise ValueError(
            f"{op}: dy must have shape {wanted} for in_shape {tuple(in_shape)}, got {dy.shape}; "
            f"pass the settings that forward had"
        )
    return jnp.asarray(dy), in_sizes, out_sizes


def _check_winner(op: str, winner: Winner, wanted: tuple[int, ...], ties: str) -> None:
    if isinstance(winner, tuple) != (ties == "split"):
        raise TypeError(f"{op}: winner must be what forward returned with ties={ties!r}, got {type(winner).__name__}")
    numbers = winner[1] if isinstance(winner, tuple) else winner
    if numbers.shape != wanted:
        raise ValueError(
            f"{op}: winner must have shape {wanted}, got {numbers.shape}; pass the settings that forward had"
        )
    if not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise TypeError(f"{op}: winner must hold integers, got {numbers.dtype}; pass what forward returned")

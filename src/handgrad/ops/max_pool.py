"""Max pooling over windows of k places (h × w in two dimensions), s apart, d between their taps, l of padding before.

Forward     y[n, p, c]  = max_{0≤i<k} x[n, ps + id - l, c]
Residual    w[n, p, c]  = the winner: the smallest i, counted row by row, whose tap is the maximum
Backward    dx[n, a, c] = Σ_{p, i: ps + id - l = a} [i = w[n, p, c]] dy[n, p, c]

Indices p, i, a run over all spatial axes. y depends on one place of each window, with slope 1, so dy goes back to that
place and sums where windows overlap: pool and unpool are dual, Σ y·dy = Σ x·dx. Backward needs w alone, a byte for
windows up to 255 places; neither x nor y.
Dual: backward is `max_unpool` of dy, and the backward of max_unpool gathers at the winners, as this forward does.
Ties: the first maximum takes all of dy, as in jax.grad of jax.lax.reduce_window, the oracle, to the bit (above 64 taps,
where sums are ordered otherwise, to rounding). With ties="split" the m tied maxima take dy/m each, as in jax.grad of
jnp.max, the oracle there; the residual is a bit a tap.
NaN: a NaN is its window's maximum, and the first one takes all of dy. (The value is also reduce_window's; its gradient
goes to a place after the NaN. PyTorch: the last NaN. jax.grad of jnp.max: NaN for the whole window.)
Padding is -inf. A window whose places are all -inf gives dy to the first place that is no padding (with "split": to
all such), so none is lost and Σ dx = Σ dy. PyTorch does the same; jax.grad of reduce_window lets the padding take it.
Only a window that lies wholly in the padding has no place to give to: y = -inf, and its dy is dropped.
Shapes: x and dx (N, A.., C), y, w and dy (N, P.., C) for one to three axes A, with P as in ops/spatial.py. "split" over
more than 32 places: w (N, P.., C, words).
Source: Ranzato et al., CVPR 2007 (max pooling); Krizhevsky et al., NeurIPS 2012 (overlapping windows).
"""

import functools
from collections.abc import Sequence
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad.ops import check
from handgrad.ops.precision import wide
from handgrad.ops.spatial import MANY_TAPS, Padding, Windows, from_tiles, pool_windows, sum_by_phases, taps, to_tiles

Size = int | Sequence[int]
WORD = 32  # bits in the widest word that holds tied taps


def max_pool(
    x: jax.Array,
    *,
    window: Size,
    strides: Size | None = None,
    padding: Padding = "VALID",
    dilation: Size = 1,
    ceil_mode: bool = False,
    ties: str = "first",
) -> jax.Array:
    """The maximum of each window, by the plain formula.

    Args:
        x: floating (N, L, C), (N, H, W, C) or (N, D, H, W, C).
        window: places of a window, an int or one an axis.
        strides: steps between windows; None means the window.
        padding: "VALID", "SAME", an int, an int an axis, or (low, high) pairs. Padding never wins.
        dilation: steps between the taps of a window.
        ceil_mode: keep a last window that hangs over the end, as in PyTorch.
        ties: "first" gives the gradient to the first maximum, "split" shares it among equal maxima.

    Returns:
        y (N, P.., C), dtype of x.

    Raises:
        ValueError: a wrong rank, size, padding or `ties`, or a window that does not fit.
        TypeError: x is not floating, or a size is no int.

    Example:
        >>> x = jnp.array([1.0, 2.0, 5.0, 3.0, 0.0]).reshape(1, 5, 1)
        >>> max_pool(x, window=3, strides=2).ravel().tolist()
        [5.0, 5.0]
    """
    x, windows = _checked("max_pool", x, window, strides, padding, dilation, ceil_mode, ties)
    if ties == "first" and all(d == 1 for d in windows.dilation):
        sizes, steps = (1, *windows.window, 1), (1, *windows.strides, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, sizes, steps, ((0, 0), *windows.covered, (0, 0)))
    stacked = jnp.stack(taps(x, windows, -jnp.inf))
    if ties == "split":
        return stacked.max(0)  # its derivative in JAX shares among equal maxima
    return jnp.take_along_axis(stacked, stacked.argmax(0)[None], 0)[0]  # argmax takes the first


def max_pool_forward(
    x: jax.Array,
    *,
    window: Size,
    strides: Size | None = None,
    padding: Padding = "VALID",
    dilation: Size = 1,
    ceil_mode: bool = False,
    ties: str = "first",
) -> tuple[jax.Array, jax.Array]:
    """The maximum of each window, and what backward needs.

    A window's maximum is the maximum over its rows of the maximum over its columns. So a running maximum over taps,
    strided slices of x, goes along one axis after the other and carries the winner's number: dense arrays, h + w
    comparisons instead of hw, where reduce_window walks each window by itself and its backward searches it again.

    Args:
        x: as in `max_pool`, and so are the settings.
        window: as in `max_pool`.
        strides: as in `max_pool`.
        padding: as in `max_pool`.
        dilation: as in `max_pool`.
        ceil_mode: as in `max_pool`.
        ties: as in `max_pool`.

    Returns:
        y (N, P.., C), dtype of x, and the winner: (N, P.., C), the smallest unsigned dtype that holds the number of
        taps, with the number of the winning one; with "split" a bit for each tied tap, (N, P.., C, words) above 32.

    Raises:
        ValueError: as in `max_pool`.
        TypeError: as in `max_pool`.

    Example:
        >>> x = jnp.array([1.0, 2.0, 5.0, 3.0, 0.0]).reshape(1, 5, 1)
        >>> y, winner = max_pool_forward(x, window=3, strides=2)
        >>> winner.ravel().tolist(), str(winner.dtype)
        ([2, 0], 'uint8')
    """
    x, windows = _checked("max_pool_forward", x, window, strides, padding, dilation, ceil_mode, ties)
    if ties == "split":
        return _forward_split(x, windows)
    dtype = np.min_scalar_type(prod(windows.window))
    y, winner = x, jnp.zeros(x.shape, dtype)
    for axis in reversed(range(x.ndim - 2)):
        along = windows.along(axis, y.shape[1:-1])
        step = prod(windows.window[axis + 1 :])  # winner numbers between one tap of this axis and the next
        candidates = zip(taps(y, along, -jnp.inf), taps(winner, along, 0), strict=True)
        y, winner = next(candidates)
        for number, (tap, within) in enumerate(candidates, start=1):
            stays = (tap <= y) | jnp.isnan(y)  # a tie leaves the earlier winner in place, and so does a NaN before
            y, winner = jnp.where(stays, y, tap), jnp.where(stays, winner, within + dtype.type(number * step))
    if any(low or high for low, high in windows.covered):
        winner = jnp.where(y == -jnp.inf, jnp.asarray(_in_input(windows).argmax(0), dtype), winner)
    return y, winner


def max_pool_backward(
    winner: jax.Array,
    dy: jax.Array,
    *,
    in_shape: Sequence[int],
    window: Size,
    strides: Size | None = None,
    padding: Padding = "VALID",
    dilation: Size = 1,
    ceil_mode: bool = False,
    ties: str = "first",
) -> jax.Array:
    """The gradient by x: each dy at the winner of its window, summed where windows overlap.

    By tiles, where windows lie side by side: every place is in one window, so dx is dy spread over its tile and kept
    where the place is the winner; no sum, no shift.
    By phases, where they overlap: a few dense shifted sums in place of XLA's select-and-scatter, which searches each
    window again and adds one number at a time.
    By axes, where they overlap and are large: phases along one axis after the other, h + w terms instead of hw.

    Args:
        winner: the residual of `max_pool_forward`.
        dy: (N, P.., C), the gradient by y.
        in_shape: the shape of x.
        window: as in `max_pool_forward`, and so are the other settings.
        strides: as in `max_pool_forward`.
        padding: as in `max_pool_forward`.
        dilation: as in `max_pool_forward`.
        ceil_mode: as in `max_pool_forward`.
        ties: as in `max_pool_forward`.

    Returns:
        dx of shape in_shape, dtype of dy; sums are kept in float32 at least.

    Raises:
        ValueError: as in `max_pool`, or winner or dy are not of the shape that in_shape and the settings give.
        TypeError: dy is not floating, or winner holds no unsigned integers.

    Example:
        >>> winner, dy = jnp.array([2, 0], jnp.uint8).reshape(1, 2, 1), jnp.array([1.0, 10.0]).reshape(1, 2, 1)
        >>> max_pool_backward(winner, dy, in_shape=(1, 5, 1), window=3, strides=2).ravel().tolist()
        [0.0, 0.0, 11.0, 0.0, 0.0]
    """
    op = "max_pool_backward"
    windows = pool_windows(op, in_shape, window, strides, padding, dilation, ceil_mode)
    _check_cotangent(op, winner, dy, in_shape, windows, ties)
    winner, dy = jnp.asarray(winner), jnp.asarray(dy)
    if ties == "split":
        return _backward_split(winner, dy, windows)
    if windows.side_by_side:
        return _backward_by_tiles(winner, dy, windows)
    if prod(windows.window) <= MANY_TAPS:
        return _backward_by_phases(winner, dy, windows)
    return _backward_by_axes(winner, dy, windows)


def _backward_by_tiles(winner: jax.Array, dy: jax.Array, windows: Windows) -> jax.Array:
    """Tiles: dx[n, pk + i - l, c] = [i = w[n, p, c]] dy[n, p, c]: window and stride are k."""
    within = (1, *(size for k in windows.window for size in (1, k)), 1)  # (1, 1, h, 1, w, 1)
    number = jnp.asarray(np.arange(prod(windows.window), dtype=winner.dtype).reshape(within))
    wins = to_tiles(lax.optimization_barrier(winner)) == number
    return from_tiles(jnp.where(wins, to_tiles(dy), 0), windows)


def _backward_by_phases(winner: jax.Array, dy: jax.Array, windows: Windows) -> jax.Array:
    """Phases: Σ_i of [i = w] dy at the places of tap i."""

    def term(number, winner, dy):
        return wide(jnp.where(winner == winner.dtype.type(number), dy, 0))

    return sum_by_phases(term, (winner, dy), windows).astype(dy.dtype)


def _backward_by_axes(winner: jax.Array, dy: jax.Array, windows: Windows) -> jax.Array:
    """Phases from the first axis to the last: i = w // step is the winner along this axis, w % step within its row.

    Windows that chose the same row of the same columns have the same winner within it, for it is that row's own.
    """
    total, winner = wide(dy), winner.astype(jnp.int32)  # a library that XLA may call rounds 8-bit quotients
    for axis in range(dy.ndim - 2):
        step = winner.dtype.type(prod(windows.window[axis + 1 :]))
        along = windows.along(axis, (*windows.in_sizes[: axis + 1], *windows.out_sizes[axis + 1 :]))

        def term(number, winner, values, step=step):
            return jnp.where(winner // step == winner.dtype.type(number), values, values.dtype.type(0))

        total, winner = (
            sum_by_phases(term, (winner, total), along),
            sum_by_phases(term, (winner, winner % step), along, add=jnp.maximum),
        )
    return total.astype(dy.dtype)


def _forward_split(x: jax.Array, windows: Windows) -> tuple[jax.Array, jax.Array]:
    """The maximum and the tied taps: bit i of a window is set where tap i is the maximum and no padding."""
    found = taps(x, windows, -jnp.inf)
    y, real = functools.reduce(jnp.maximum, found), _in_input(windows)
    words = [jnp.zeros(y.shape, _word_dtype(windows)) for _ in range(0, len(found), WORD)]
    nan_before = jnp.zeros(y.shape, bool)
    for number, tap in enumerate(found):
        nan = jnp.isnan(tap)
        tied = ((tap == y) & jnp.asarray(real[number])) | (nan & ~nan_before)
        nan_before |= nan
        word, bit = divmod(number, WORD)
        words[word] |= tied.astype(words[word].dtype) << bit
    return y, words[0] if len(words) == 1 else jnp.stack(words, -1)


def _backward_split(tied: jax.Array, dy: jax.Array, windows: Windows) -> jax.Array:
    """Phases: Σ_i of [i is tied] dy/m at the places of tap i, m the number of tied taps."""
    words = [tied] if prod(windows.window) <= WORD else [tied[..., word] for word in range(tied.shape[-1])]
    bits = sum(lax.population_count(word).astype(jnp.int32) for word in words)
    share = wide(dy) / jnp.maximum(bits, 1).astype(wide(dy).dtype)

    def term(number, share, *words):
        word, bit = divmod(number, WORD)
        return jnp.where((words[word] >> bit) & 1 == 1, share, 0)

    return sum_by_phases(term, (share, *words), windows).astype(dy.dtype)


def _in_input(windows: Windows) -> np.ndarray:
    """Whether tap i of window p is a place of the input, not padding: (taps, 1, P.., 1), known before any data."""
    inside = np.ones((1, 1), bool)
    sizes = zip(windows.in_sizes, windows.window, windows.strides, windows.dilation, windows.padding, strict=True)
    for (a, k, s, d, (low, _)), count in zip(sizes, windows.out_sizes, strict=True):
        place = np.arange(k)[:, None] * d + np.arange(count) * s - low
        axis = (place >= 0) & (place < a)
        inside = (inside[:, None, :, None] & axis[None, :, None, :]).reshape(len(inside) * k, -1)
    return inside.reshape(len(inside), 1, *windows.out_sizes, 1)


def _word_dtype(windows: Windows) -> np.dtype:
    return np.min_scalar_type(2 ** min(prod(windows.window), WORD) - 1)


def _checked(op, x, window, strides, padding, dilation, ceil_mode, ties) -> tuple[jax.Array, Windows]:
    check.floating(op, x=x)
    check.ties(op, ties)
    return jnp.asarray(x), pool_windows(op, x.shape, window, strides, padding, dilation, ceil_mode)


def _check_cotangent(op, winner, dy, in_shape, windows: Windows, ties) -> None:
    check.floating(op, dy=dy)
    check.ties(op, ties)
    out_shape = (in_shape[0], *windows.out_sizes, in_shape[-1])
    words = -(-prod(windows.window) // WORD) if ties == "split" else 1
    for name, array, wanted in (("dy", dy, out_shape), ("winner", winner, out_shape + (words,) * (words > 1))):
        if array.shape != wanted:
            raise ValueError(
                f"{op}: {name} must have shape {wanted} for in_shape {tuple(in_shape)}, got {array.shape}; "
                f"pass the settings that forward had"
            )
    if not jnp.issubdtype(winner.dtype, jnp.unsignedinteger):
        raise TypeError(f"{op}: winner must hold unsigned integers, got {winner.dtype}; pass what forward returned")

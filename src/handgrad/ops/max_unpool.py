"""Max unpooling: each value at the place where its window of a max pool had the maximum, zeros elsewhere.

Forward     y[n, a, c]  = Σ_{p, i: ps + id - l = a} [i = w[n, p, c]] x[n, p, c]
Backward    dx[n, p, c] = dy[n, ps + wd - l, c] with w = w[n, p, c], and 0 where that place is padding

Indices p, i, a run over all spatial axes; w is the winner that `max_pool_forward` returns, window, strides s, padding l
and dilation d are its settings.
Dual: for a given w, max pool and max unpool are each other's transpose, Σ_a y·z = Σ_p x·z[ps + wd - l]: the backward of
max_pool is max_unpool of dy, the backward of max_unpool picks dy at the winners as the forward of max_pool picks x.
Ties: where windows overlap and chose the same place, their values are summed, as a transpose must. PyTorch's MaxUnpool
keeps one of them; without overlap the two are equal, and PyTorch is the oracle there.
The winner has no gradient. One that names no tap, or a tap in the padding (a window wholly in it), drops its value.
No kinks in x. NaN and inf go to their place and nowhere else.
Shapes: x, w and dx (N, P.., C), y and dy (N, A.., C) for one to three axes A, P as in ops/spatial.py.
Source: Zeiler and Fergus, ECCV 2014 (unpooling with switches); Badrinarayanan et al., SegNet, PAMI 2017.
"""

from collections.abc import Sequence
from math import prod

import jax
import jax.numpy as jnp

from handgrad.ops import check
from handgrad.ops.max_pool import max_pool_backward
from handgrad.ops.precision import wide
from handgrad.ops.spatial import MANY_TAPS, Padding, Windows, per_axis, pool_windows, taps

Size = int | Sequence[int]


def max_unpool(
    x: jax.Array,
    winner: jax.Array,
    *,
    output_size: Size,
    window: Size,
    strides: Size | None = None,
    padding: Padding = "VALID",
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> jax.Array:
    """The values at the places of their winners, summed where windows overlap; by the plain formula.

    Args:
        x: floating (N, L, C), (N, H, W, C) or (N, D, H, W, C).
        winner: of the shape of x, the second result of `max_pool_forward` (with ties="first").
        output_size: the spatial sizes of the max pool's input, an int or one an axis.
        window: as in `max_pool`, and so are the other settings: those that made the winner.
        strides: as in `max_pool`.
        padding: as in `max_pool`.
        dilation: as in `max_pool`.
        ceil_mode: as in `max_pool`.

    Returns:
        y (N, A.., C) with A the output_size, dtype of x; sums are kept in float32 at least.

    Raises:
        ValueError: as in `max_pool`, or x and winner are not of the shape that output_size and the settings give.
        TypeError: x is not floating, winner holds no unsigned integers, or a size is no int.

    Example:
        >>> from handgrad.ops import max_pool_forward
        >>> y, winner = max_pool_forward(jnp.array([1.0, 5.0, 3.0, 2.0]).reshape(1, 4, 1), window=2)
        >>> max_unpool(y, winner, output_size=4, window=2).ravel().tolist()
        [0.0, 5.0, 3.0, 0.0]
    """
    x, winner, windows = _checked("max_unpool", x, winner, output_size, window, strides, padding, dilation, ceil_mode)
    n, channels = len(x), x.shape[-1]
    places, values = _in_a_row(_places(winner, windows)), _in_a_row(wide(x))
    nothing = jnp.zeros((n, prod(windows.in_sizes), channels), values.dtype)
    y = nothing.at[jnp.arange(n)[:, None, None], places, jnp.arange(channels)].add(values, mode="drop")
    return y.reshape(n, *windows.in_sizes, channels).astype(x.dtype)


def max_unpool_forward(
    x: jax.Array,
    winner: jax.Array,
    *,
    output_size: Size,
    window: Size,
    strides: Size | None = None,
    padding: Padding = "VALID",
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """The values at the places of their winners by `max_pool_backward`, whose dense sums replace a scatter.

    Args:
        x: as in `max_unpool`, and so are the winner and the settings.
        winner: as in `max_unpool`.
        output_size: as in `max_unpool`.
        window: as in `max_unpool`.
        strides: as in `max_unpool`.
        padding: as in `max_unpool`.
        dilation: as in `max_unpool`.
        ceil_mode: as in `max_unpool`.

    Returns:
        y (N, A.., C), dtype of x, and the winner again, which is all that backward needs.

    Raises:
        ValueError: as in `max_unpool`.
        TypeError: as in `max_unpool`.

    Example:
        >>> x, winner = jnp.array([5.0, 3.0]).reshape(1, 2, 1), jnp.array([1, 0], jnp.uint8).reshape(1, 2, 1)
        >>> y, winner = max_unpool_forward(x, winner, output_size=3, window=2, strides=1)
        >>> y.ravel().tolist()
        [0.0, 8.0, 0.0]
    """
    op = "max_unpool_forward"
    x, winner, windows = _checked(op, x, winner, output_size, window, strides, padding, dilation, ceil_mode)
    settings = {"window": window, "strides": strides, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    if windows.side_by_side or prod(windows.window) <= MANY_TAPS:
        in_shape = (len(x), *windows.in_sizes, x.shape[-1])
        return max_pool_backward(winner, x, in_shape=in_shape, **settings), winner
    # axis by axis, max_pool_backward relies on a winner from a maximum; any may be given here
    return max_unpool(x, winner, output_size=output_size, **settings), winner


def max_unpool_backward(
    winner: jax.Array,
    dy: jax.Array,
    *,
    output_size: Size,
    window: Size,
    strides: Size | None = None,
    padding: Padding = "VALID",
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> jax.Array:
    """The gradient by x: dy at the winner of each window, selected among its taps, or gathered where there are many.

    Args:
        winner: as in `max_unpool`.
        dy: (N, A.., C), the gradient by y.
        output_size: as in `max_unpool`, and so are the other settings.
        window: as in `max_unpool`.
        strides: as in `max_unpool`.
        padding: as in `max_unpool`.
        dilation: as in `max_unpool`.
        ceil_mode: as in `max_unpool`.

    Returns:
        dx of the shape of winner, dtype of dy. The winner has no gradient.

    Raises:
        ValueError: as in `max_unpool`, or winner or dy are not of the shape that output_size and the settings give.
        TypeError: dy is not floating, or winner holds no unsigned integers.

    Example:
        >>> winner, dy = jnp.array([1, 0], jnp.uint8).reshape(1, 2, 1), jnp.array([1.0, 2.0, 4.0]).reshape(1, 3, 1)
        >>> max_unpool_backward(winner, dy, output_size=3, window=2, strides=1).ravel().tolist()
        [2.0, 2.0]
    """
    op = "max_unpool_backward"
    check.floating(op, dy=dy)
    windows = _windows(op, dy, output_size, window, strides, padding, dilation, ceil_mode)
    wanted = (dy.shape[0], *windows.in_sizes, dy.shape[-1])
    if dy.shape != wanted:
        raise ValueError(f"{op}: dy must have shape {wanted} for output_size {output_size}, got {dy.shape}")
    _check_winner(op, winner, (dy.shape[0], *windows.out_sizes, dy.shape[-1]), windows)
    winner, dy = jnp.asarray(winner), jnp.asarray(dy)
    if prod(windows.window) <= MANY_TAPS:
        dx = jnp.zeros(winner.shape, dy.dtype)
        for number, tap in enumerate(taps(dy, windows, 0)):
            dx = jnp.where(winner == winner.dtype.type(number), tap, dx)
        return dx
    places = _in_a_row(_places(winner, windows))
    return jnp.take_along_axis(_in_a_row(dy), places, 1, mode="fill", fill_value=0).reshape(winner.shape)


def _in_a_row(x: jax.Array) -> jax.Array:
    """(N, A, C) from (N, A.., C)."""
    return x.reshape(len(x), prod(x.shape[1:-1]), x.shape[-1])


def _places(winner: jax.Array, windows: Windows) -> jax.Array:
    """The place of each winner, counted row by row over the output; one behind the last where it names none."""
    number, place = winner.astype(jnp.int32), jnp.zeros((1,) * winner.ndim, jnp.int32)
    named = (number >= 0) & (number < prod(windows.window))
    axes = zip(windows.in_sizes, windows.window, windows.strides, windows.dilation, windows.padding, strict=True)
    for axis, (a, k, s, d, (low, _)) in enumerate(axes):
        tap = number // prod(windows.window[axis + 1 :]) % k
        first = jnp.arange(winner.shape[axis + 1], dtype=jnp.int32) * s - low
        along = jnp.expand_dims(first, [other for other in range(winner.ndim) if other != axis + 1]) + tap * d
        named &= (along >= 0) & (along < a)
        place = place * a + along
    return jnp.where(named, place, prod(windows.in_sizes))


def _checked(op, x, winner, output_size, *settings) -> tuple[jax.Array, jax.Array, Windows]:
    check.floating(op, x=x)
    windows = _windows(op, x, output_size, *settings)
    wanted = (x.shape[0], *windows.out_sizes, x.shape[-1])
    if x.shape != wanted:
        raise ValueError(
            f"{op}: x must have shape {wanted} for output_size {output_size}, got {x.shape}; "
            f"pass the sizes and settings that max_pool_forward had"
        )
    _check_winner(op, winner, wanted, windows)
    return jnp.asarray(x), jnp.asarray(winner), windows


def _windows(op: str, x: jax.Array, output_size: Size, *settings) -> Windows:
    if x.ndim not in (3, 4, 5):
        raise ValueError(f"{op}: x must be (N, L, C), (N, H, W, C) or (N, D, H, W, C), got shape {x.shape}")
    sizes = per_axis(op, "output_size", output_size, x.ndim - 2)
    return pool_windows(op, (x.shape[0], *sizes, x.shape[-1]), *settings)


def _check_winner(op: str, winner: jax.Array, wanted: tuple[int, ...], windows: Windows) -> None:
    if winner.shape != wanted:
        raise ValueError(
            f"{op}: winner must have shape {wanted} for output_size {windows.in_sizes}, got {winner.shape}; "
            f'pass what max_pool_forward returned with ties="first"'
        )
    if not jnp.issubdtype(winner.dtype, jnp.unsignedinteger):
        raise TypeError(
            f"{op}: winner must hold unsigned integers, got {winner.dtype}; pass what max_pool_forward returned"
        )

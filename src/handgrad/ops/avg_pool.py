"""Average pooling over windows of k places (h × w in two dimensions), s apart, d between taps, l of padding before.

Forward     y[n, p, c]  = 1/m[p] Σ_{0≤i<k} x[n, ps + id - l, c]
Backward    dx[n, a, c] = Σ_{p, i: ps + id - l = a} dy[n, p, c] / m[p]
Global      y[n, c]     = 1/A Σ_a x[n, a, c],        dx[n, a, c] = dy[n, c] / A

Indices p, i, a run over all spatial axes. The map is linear in x, so backward is its transpose (sum and copy are dual)
and needs shapes only: no residual.
m[p] is a product over the axes. With count_include_pad (the default) it counts the places of the window in the padded
input, ps + id < l + a + h for input size a and padding (l, h); without it those in the input. The overhang of ceil_mode
never counts. The oracle of both is PyTorch, that of dilation ONNX.
No kinks. A NaN in a window makes its mean NaN; the gradient does not see x.
Shapes: x and dx (N, A.., C), y and dy (N, P.., C) for one to three axes A, P as in ops/spatial.py; global y (N, C).
Source: LeCun et al., Proc. IEEE 1998 (subsampling); Lin et al., "Network in network", ICLR 2014 (global).
"""

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


def avg_pool(
    x: jax.Array,
    *,
    window: Size,
    strides: Size | None = None,
    padding: Padding = "VALID",
    dilation: Size = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> jax.Array:
    """The mean of each window, by the plain formula; sums are kept in float32 at least.

    Args:
        x: floating (N, L, C), (N, H, W, C) or (N, D, H, W, C).
        window: places of a window, an int or one an axis.
        strides: steps between windows; None means the window.
        padding: "VALID", "SAME", an int, an int an axis, or (low, high) pairs. Padding is zeros.
        dilation: steps between the taps of a window.
        ceil_mode: keep a last window that hangs over the end, as in PyTorch.
        count_include_pad: divide by the places in the padded input; if False by those in the input.

    Returns:
        y (N, P.., C), dtype of x.

    Raises:
        ValueError: a wrong rank, size or padding, a window that does not fit, or one with no place to count.
        TypeError: x is not floating, or a size is no int.

    Example:
        >>> x = jnp.array([1.0, 2.0, 6.0, 4.0]).reshape(1, 4, 1)
        >>> avg_pool(x, window=3, strides=1).ravel().tolist()
        [3.0, 4.0]
        >>> avg_pool(x, window=3, padding=1, count_include_pad=False).ravel().tolist()
        [1.5, 5.0]
    """
    check.floating("avg_pool", x=x)
    x = jnp.asarray(x)
    windows = pool_windows("avg_pool", x.shape, window, strides, padding, dilation, ceil_mode)
    divisor = _divisor("avg_pool", windows, count_include_pad, wide(x).dtype)
    if all(d == 1 for d in windows.dilation):
        sizes, steps = (1, *windows.window, 1), (1, *windows.strides, 1)
        total = lax.reduce_window(wide(x), 0.0, lax.add, sizes, steps, ((0, 0), *windows.covered, (0, 0)))
    else:
        total = jnp.stack(taps(wide(x), windows, 0)).sum(0)
    return (total / divisor).astype(x.dtype)


def avg_pool_forward(
    x: jax.Array,
    *,
    window: Size,
    strides: Size | None = None,
    padding: Padding = "VALID",
    dilation: Size = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> tuple[jax.Array, None]:
    """The mean of each window; backward needs nothing of it.

    A window's sum is the sum over its rows of the sums over its columns. So the taps, strided slices of x, are added
    along one axis after the other: h + w dense terms instead of hw, where reduce_window walks each window by itself.

    Args:
        x: as in `avg_pool`, and so are the settings.
        window: as in `avg_pool`.
        strides: as in `avg_pool`.
        padding: as in `avg_pool`.
        dilation: as in `avg_pool`.
        ceil_mode: as in `avg_pool`.
        count_include_pad: as in `avg_pool`.

    Returns:
        y (N, P.., C), dtype of x, and None.

    Raises:
        ValueError: as in `avg_pool`.
        TypeError: as in `avg_pool`.

    Example:
        >>> y, nothing = avg_pool_forward(jnp.ones((2, 6, 8, 3)), window=2)
        >>> y.shape, nothing
        ((2, 3, 4, 3), None)
    """
    check.floating("avg_pool_forward", x=x)
    x = jnp.asarray(x)
    windows = pool_windows("avg_pool_forward", x.shape, window, strides, padding, dilation, ceil_mode)
    divisor = _divisor("avg_pool_forward", windows, count_include_pad, wide(x).dtype)
    total = wide(x)
    for axis in reversed(range(x.ndim - 2)):
        first, *others = taps(total, windows.along(axis, total.shape[1:-1]), 0)
        total = sum(others, start=first)
    return (total / divisor).astype(x.dtype), None


def avg_pool_backward(
    dy: jax.Array,
    *,
    in_shape: Sequence[int],
    window: Size,
    strides: Size | None = None,
    padding: Padding = "VALID",
    dilation: Size = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> jax.Array:
    """The gradient by x: dy/m to every place of its window, summed where windows overlap.

    By tiles, where windows lie side by side: every place is in one window, so dx is dy/m copied over its tile.
    By phases, where they overlap: each place sums about h/s · w/s dense shifted terms, where XLA's transpose of
    reduce_window dilates dy with zeros and sums hw of them.
    By axes, where they overlap and are large: phases along one axis after the other, h + w terms instead of hw.

    Args:
        dy: (N, P.., C), the gradient by y.
        in_shape: the shape of x.
        window: as in `avg_pool`, and so are the other settings.
        strides: as in `avg_pool`.
        padding: as in `avg_pool`.
        dilation: as in `avg_pool`.
        ceil_mode: as in `avg_pool`.
        count_include_pad: as in `avg_pool`.

    Returns:
        dx of shape in_shape, dtype of dy; sums are kept in float32 at least.

    Raises:
        ValueError: as in `avg_pool`, or dy is not of the shape that in_shape and the settings give.
        TypeError: dy is not floating.

    Example:
        >>> dy = jnp.array([3.0, 30.0]).reshape(1, 2, 1)
        >>> avg_pool_backward(dy, in_shape=(1, 4, 1), window=3, strides=1).ravel().tolist()
        [1.0, 11.0, 11.0, 10.0]
    """
    op = "avg_pool_backward"
    check.floating(op, dy=dy)
    dy = jnp.asarray(dy)
    windows = pool_windows(op, in_shape, window, strides, padding, dilation, ceil_mode)
    _check_shape(op, dy, (in_shape[0], *windows.out_sizes, in_shape[-1]), in_shape)
    divisor = _divisor(op, windows, count_include_pad, wide(dy).dtype)
    share = wide(dy) / divisor
    if windows.side_by_side:
        tiles = [size for p, k in zip(windows.out_sizes, windows.window, strict=True) for size in (p, k)]
        share = to_tiles(share.astype(dy.dtype))
        return from_tiles(jnp.broadcast_to(share, (len(dy), *tiles, dy.shape[-1])), windows)
    if prod(windows.window) <= MANY_TAPS:
        return sum_by_phases(lambda _, share: share, (share,), windows).astype(dy.dtype)
    for axis in range(dy.ndim - 2):
        along = windows.along(axis, (*windows.in_sizes[: axis + 1], *windows.out_sizes[axis + 1 :]))
        share = sum_by_phases(lambda _, share: share, (share,), along)
    return share.astype(dy.dtype)


def global_avg_pool(x: jax.Array) -> jax.Array:
    """The mean over all spatial axes; sums are kept in float32 at least.

    Args:
        x: floating (N, L, C), (N, H, W, C) or (N, D, H, W, C).

    Returns:
        y (N, C), dtype of x.

    Raises:
        ValueError: a wrong rank, or a spatial axis of size 0.
        TypeError: x is not floating.

    Example:
        >>> global_avg_pool(jnp.array([1.0, 2.0, 6.0]).reshape(1, 3, 1)).tolist()
        [[3.0]]
    """
    check.floating("global_avg_pool", x=x)
    x = jnp.asarray(x)
    places = check.places("global_avg_pool", x.shape)
    total = wide(x).sum(tuple(range(1, x.ndim - 1)))
    return (total / places).astype(x.dtype)


def global_avg_pool_forward(x: jax.Array) -> tuple[jax.Array, None]:
    """The mean over all spatial axes; backward needs nothing of it.

    Args:
        x: as in `global_avg_pool`.

    Returns:
        y (N, C), dtype of x, and None.

    Raises:
        ValueError: as in `global_avg_pool`.
        TypeError: as in `global_avg_pool`.

    Example:
        >>> y, nothing = global_avg_pool_forward(jnp.ones((2, 6, 8, 3)))
        >>> y.shape, nothing
        ((2, 3), None)
    """
    return global_avg_pool(x), None


def global_avg_pool_backward(dy: jax.Array, *, in_shape: Sequence[int]) -> jax.Array:
    """The gradient by x: dy/A copied to all A places, which is also what XLA makes of jax.grad.

    Args:
        dy: (N, C), the gradient by y.
        in_shape: the shape of x.

    Returns:
        dx of shape in_shape, dtype of dy.

    Raises:
        ValueError: a wrong rank or an empty axis in in_shape, or dy is not (N, C).
        TypeError: dy is not floating.

    Example:
        >>> global_avg_pool_backward(jnp.array([[3.0]]), in_shape=(1, 3, 1)).ravel().tolist()
        [1.0, 1.0, 1.0]
    """
    op = "global_avg_pool_backward"
    check.floating(op, dy=dy)
    dy = jnp.asarray(dy)
    places = check.places(op, in_shape)
    _check_shape(op, dy, (in_shape[0], in_shape[-1]), in_shape)
    share = (wide(dy) / places).astype(dy.dtype)
    return jnp.broadcast_to(jnp.expand_dims(share, tuple(range(1, len(in_shape) - 1))), tuple(in_shape))


def _divisor(op: str, windows: Windows, count_include_pad: bool, dtype: np.dtype) -> jax.Array:
    """The number of places m[p] that each window counts, (1, P.., 1)."""
    counts = np.ones(())
    axes = zip(
        *(windows.in_sizes, windows.window, windows.strides, windows.dilation, windows.padding, windows.out_sizes),
        strict=True,
    )
    for a, k, s, d, (low, high), count in axes:
        places = np.arange(count)[:, None] * s + np.arange(k)[None, :] * d
        first, last = (0, low + a + high) if count_include_pad else (low, low + a)
        counts = counts[..., None] * ((places >= first) & (places < last)).sum(1)
        if counts.min(initial=1) < 1:
            raise ValueError(
                f"{op}: a window lies wholly in the padding (input {windows.in_sizes}, padding {windows.padding}, "
                f"window {windows.window}) and has no place to count; use less padding or count_include_pad=True"
            )
    return jnp.asarray(counts[None, ..., None], dtype)


def _check_shape(op: str, dy: jax.Array, wanted: tuple[int, ...], in_shape: Sequence[int]) -> None:
    if dy.shape != wanted:
        raise ValueError(
            f"{op}: dy must have shape {wanted} for in_shape {tuple(in_shape)}, got {dy.shape}; "
            f"pass the settings that forward had"
        )

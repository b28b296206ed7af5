"""The geometry that convolutions and pools share: sizes per axis, padding, and how many windows fit.

A window of k elements with dilation d spans e = (k-1)d + 1 places. On an axis of size a, padded by (l, h) and walked
with stride s, it fits P = (l + a + h - e)//s + 1 times.
"SAME" pads so that P = ceil(a/s); an odd total leaves the extra place at the high end, as in XLA.
ceil_mode, as in PyTorch, rounds up instead, P = ceil((l + a + h - e)/s) + 1: a last window may hang over the end, but
it must start inside the input or the low padding, (P-1)s < l + a.

A pool sees its input as taps: tap i is element i of every window, x_i[p] = x[ps + id - l], a strided slice.
`taps` lists them row by row; `sum_by_phases` is the transpose, which sends a term of each tap back to its places.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import jax
import jax.numpy as jnp
from jax import lax

Sizes = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
MANY_TAPS = 64  # above this a pool goes along one axis after the other, h + w taps instead of hw
Padding = str | int | Sequence[int] | Sequence[tuple[int, int]]


def per_axis(op: str, argument: str, value: int | Sequence[int], ndim: int, least: int = 1) -> Sizes:
    """`value` as one int an axis, none below `least`, or an error that names op and argument."""
    sizes = tuple(value) if isinstance(value, Sequence) else (value,) * ndim
    if any(isinstance(size, bool) or not isinstance(size, int) for size in sizes):
        raise TypeError(f"{op}: {argument} must be an int or a tuple of ints, got {value!r}")
    if len(sizes) != ndim:
        raise ValueError(f"{op}: {argument} {value!r} has {len(sizes)} sizes, the input has {ndim} spatial axes")
    if any(size < least for size in sizes):
        raise ValueError(f"{op}: {argument} must be at least {least}, got {value!r}")
    return sizes


def span(window: Sizes, dilation: Sizes) -> Sizes:
    """The places e = (k-1)d + 1 that a dilated window covers."""
    return tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))


def pad_pairs(
    op: str,
    padding: Padding,
    in_sizes: Sizes,
    window: Sizes,
    strides: Sizes,
    dilation: Sizes,
    ceil_mode: bool = False,
) -> Pairs:
    """`padding` as one (low, high) pair an axis: "SAME", "VALID", an int, an int an axis, or pairs.

    With ceil_mode a window may be larger than its padded input by up to a stride less one place.

    Raises:
        ValueError: an unknown word, a negative pad, a wrong number of axes, or a window larger than its padded input.
        TypeError: anything else in the place of a pad.
    """
    spans = span(window, dilation)
    if isinstance(padding, str):
        pairs = _named(op, padding, in_sizes, spans, strides)
    else:
        pairs = explicit_pairs(op, padding, len(in_sizes))
    for axis, (size, e, s, (low, high)) in enumerate(zip(in_sizes, spans, strides, pairs, strict=True)):
        if ceil_mode and low + size == 0:
            raise ValueError(f"{op}: spatial axis {axis} is empty, so no window can start in it; pad it at the low end")
        if e > low + size + high + (s - 1 if ceil_mode else 0):
            raise ValueError(
                f"{op}: the window spans {e} places on spatial axis {axis}, the padded input has {low + size + high} "
                f"(input {size}, padding {(low, high)}); use a smaller window or more padding"
            )
    return pairs


def _named(op: str, padding: str, in_sizes: Sizes, spans: Sizes, strides: Sizes) -> Pairs:
    if padding == "VALID":
        return ((0, 0),) * len(in_sizes)
    if padding != "SAME":
        raise ValueError(f'{op}: padding must be "SAME", "VALID", an int or (low, high) pairs, got {padding!r}')
    totals = [max((-(-a // s) - 1) * s + e - a, 0) for a, e, s in zip(in_sizes, spans, strides, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def explicit_pairs(op: str, padding: int | Sequence, ndim: int) -> Pairs:
    """`padding` given as numbers, an int, an int an axis, or pairs, as one (low, high) pair an axis."""
    entries = tuple(padding) if isinstance(padding, Sequence) else (padding,) * ndim
    if len(entries) != ndim:
        raise ValueError(f"{op}: padding {padding!r} has {len(entries)} entries, the input has {ndim} spatial axes")
    pairs = tuple(tuple(entry) if isinstance(entry, Sequence) else (entry, entry) for entry in entries)
    if any(len(pair) != 2 or any(isinstance(p, bool) or not isinstance(p, int) for p in pair) for pair in pairs):
        raise TypeError(f"{op}: padding must be ints or (low, high) pairs of ints, got {padding!r}")
    if any(p < 0 for pair in pairs for p in pair):
        raise ValueError(f"{op}: padding must not be negative, got {padding!r}")
    return tuple((low, high) for low, high in pairs)


def out_sizes(
    in_sizes: Sizes, window: Sizes, strides: Sizes, dilation: Sizes, pairs: Pairs, ceil_mode: bool = False
) -> Sizes:
    """How often the window fits on each axis, P = (l + a + h - e)//s + 1, or rounded up with ceil_mode."""
    counts = []
    for a, e, s, (low, high) in zip(in_sizes, span(window, dilation), strides, pairs, strict=True):
        free = low + a + high - e
        counts.append(min(-(-free // s), (low + a - 1) // s) + 1 if ceil_mode else free // s + 1)
    return tuple(counts)


def transposed_windows(
    op: str,
    sizes: Sizes,
    window: Sizes,
    strides: Sizes,
    dilation: Sizes,
    padding: Padding,
    output_padding: int | Sequence[int],
) -> "Windows":
    """The windows of the convolution whose input gradient a transposed convolution is.

    Its output has the `sizes` A that the transposed one's input has, and its input the B = (A-1)s + e - l - h + m
    places that come out, m of them by output_padding. Its high padding is such that A windows fit; it is negative where
    s or more places at the high end are out of reach of all.

    Raises:
        ValueError: as `pad_pairs`, an output_padding that is negative or not below max(s, d), or nothing that comes
            out.
        TypeError: anything else in the place of a pad.
    """
    extra = per_axis(op, "output_padding", output_padding, len(sizes), least=0)
    if any(m >= max(s, d) for m, s, d in zip(extra, strides, dilation, strict=True)):
        raise ValueError(
            f"{op}: output_padding must be below the stride or the dilation of its axis, got {output_padding!r} with "
            f"strides {strides} and dilation {dilation}"
        )
    spans = span(window, dilation)
    if padding == "SAME":
        crops = [max(e - s, 0) for e, s in zip(spans, strides, strict=True)]
        pairs = tuple((crop // 2, crop - crop // 2) for crop in crops)
        extra = tuple(m + max(s - e, 0) for m, e, s in zip(extra, spans, strides, strict=True))
    else:
        pairs = (
            _named(op, padding, sizes, spans, strides)
            if isinstance(padding, str)
            else explicit_pairs(op, padding, len(sizes))
        )
    made, highs = [], []
    for axis, (a, e, s, m, (low, high)) in enumerate(zip(sizes, spans, strides, extra, pairs, strict=True)):
        made.append((a - 1) * s + e - low - high + m)
        highs.append(high - m + min(max(m - high, 0), s - 1))
        if a < 1 or made[-1] < 1:
            raise ValueError(
                f"{op}: nothing is left on spatial axis {axis}, where an input of {a} with stride {s} and a window of "
                f"{e} places is cropped by {(low, high)}; use less padding"
            )
    lows = [low for low, _ in pairs]
    return Windows(tuple(made), window, strides, dilation, tuple(zip(lows, highs, strict=True)), sizes)


@dataclass(frozen=True)
class Windows:
    """Where the windows of a pool lie; every field has one entry a spatial axis.

    Window p takes the places ps + id, 0 ≤ i < k, counted from the start of the padded input.
    """

    in_sizes: Sizes
    window: Sizes
    strides: Sizes
    dilation: Sizes
    padding: Pairs
    out_sizes: Sizes

    def along(self, axis: int, sizes: Sizes) -> "Windows":
        """The same windows along one axis of data of `sizes`; the other axes stay as they are."""

        def only(setting: tuple, others: tuple) -> tuple:
            return (*others[:axis], setting[axis], *others[axis + 1 :])

        ones = (1,) * len(sizes)
        return Windows(
            sizes,
            only(self.window, ones),
            only(self.strides, ones),
            only(self.dilation, ones),
            only(self.padding, ((0, 0),) * len(sizes)),
            only(self.out_sizes, sizes),
        )

    @property
    def offsets(self) -> list[Sizes]:
        """The places id of the taps within their window, row by row."""
        return list(product(*(range(0, k * d, d) for k, d in zip(self.window, self.dilation, strict=True))))

    @property
    def side_by_side(self) -> bool:
        """Whether each window begins where the one before ends."""
        return self.window == self.strides and all(d == 1 for d in self.dilation)

    @property
    def covered(self) -> Pairs:
        """The padding that the windows really cover: leftovers are not in it, the overhang of ceil_mode is."""
        spans = span(self.window, self.dilation)
        sizes = zip(self.in_sizes, self.out_sizes, self.strides, spans, self.padding, strict=True)
        return tuple((low, max((p - 1) * s + e - low - a, 0)) for a, p, s, e, (low, _) in sizes)


def pool_windows(
    op: str,
    in_shape: Sequence[int],
    window: int | Sequence[int],
    strides: int | Sequence[int] | None,
    padding: Padding,
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> Windows:
    """The windows of a pool over data of `in_shape`, or an error that names op and argument."""
    ndim = len(in_shape) - 2
    if ndim not in (1, 2, 3):
        raise ValueError(f"{op}: x must be (N, L, C), (N, H, W, C) or (N, D, H, W, C), got shape {tuple(in_shape)}")
    in_sizes = tuple(in_shape[1:-1])
    k = per_axis(op, "window", window, ndim)
    s = k if strides is None else per_axis(op, "strides", strides, ndim)
    d = per_axis(op, "dilation", dilation, ndim)
    pairs = pad_pairs(op, padding, in_sizes, k, s, d, ceil_mode)
    return Windows(in_sizes, k, s, d, pairs, out_sizes(in_sizes, k, s, d, pairs, ceil_mode))


def taps(x: jax.Array, windows: Windows, fill: float) -> list[jax.Array]:
    """Element i of every window, (N, P.., C) for each offset i row by row; `fill` stands in the padding."""
    x = _pad(x, fill, windows.covered)
    steps = list(zip(windows.out_sizes, windows.strides, strict=True))
    return [_slice(x, offset, [(p - 1) * s + 1 for p, s in steps], windows.strides) for offset in windows.offsets]


def sum_by_phases(
    term: Callable[..., jax.Array],
    arrays: Sequence[jax.Array],
    windows: Windows,
    add: Callable[[jax.Array, jax.Array], jax.Array] = jnp.add,
) -> jax.Array:
    """The sum over all taps i of term(i, *arrays), each at the places of its tap: (N, A.., C) from (N, P.., C).

    Place u = qs + r has phase r = u mod s. Tap i reaches the phase r = id mod s only, from window p = q - id//s, so a
    phase is a sum of about k/s shifted dense arrays, and the phases interleave to the whole. No term is dilated with
    zeros, nothing is scattered. The arrays are padded once, behind a barrier: every shift is then a plain slice of
    memory, where a pad of each term would be evaluated anew, element by element, in each sum.
    The taps come last to first, so that the windows that share a place come first to last, as in XLA's own scatter.
    """
    back = [(e - 1) // s for e, s in zip(span(windows.window, windows.dilation), windows.strides, strict=True)]
    axes = zip(windows.out_sizes, windows.strides, windows.in_sizes, windows.padding, back, strict=True)
    rows = [max(p + m, -(-(low + a) // s)) for p, s, a, (low, _), m in axes]
    around = [(m, q - p) for m, q, p in zip(back, rows, windows.out_sizes, strict=True)]
    arrays = lax.optimization_barrier([_pad(array, 0, around) for array in arrays])
    sums: dict[Sizes, jax.Array] = {}
    for number, offset in reversed(list(enumerate(windows.offsets))):
        phase = tuple(i % s for i, s in zip(offset, windows.strides, strict=True))
        start = [m - i // s for i, s, m in zip(offset, windows.strides, back, strict=True)]
        part = term(number, *(_slice(array, start, rows) for array in arrays))
        sums[phase] = add(sums[phase], part) if phase in sums else part
    nothing = jnp.zeros_like(next(iter(sums.values())))
    phases = [sums.get(phase, nothing) for phase in product(*map(range, windows.strides))]
    return interleaved(phases, windows)


def interleaved(phases: list[jax.Array], windows: Windows) -> jax.Array:
    """(N, A.., C) of the places qs + r - l, from the phases r in order, each (N, Q.., C)."""
    n, *rows, channels = phases[0].shape
    for axis, s in reversed(list(enumerate(windows.strides))):
        phases = [jnp.stack(phases[first : first + s], axis + 2) for first in range(0, len(phases), s)]
    whole = phases[0].reshape(n, *(q * s for q, s in zip(rows, windows.strides, strict=True)), channels)
    return _slice(whole, [low for low, _ in windows.padding], windows.in_sizes)


def to_tiles(x: jax.Array) -> jax.Array:
    """(N, P, 1, Q, 1, C) from (N, P, Q, C): an axis of size 1 for the places within a window after each axis."""
    return jnp.expand_dims(x, tuple(range(2, 2 * x.ndim - 3, 2)))


def from_tiles(tiles: jax.Array, windows: Windows) -> jax.Array:
    """(N, H, W, C) from (N, P, h, Q, w, C), place by place, for windows side by side; leftovers are zeros."""
    sizes = list(zip(windows.in_sizes, windows.out_sizes, windows.window, windows.padding, strict=True))
    whole = tiles.reshape(len(tiles), *(p * k for _, p, k, _ in sizes), tiles.shape[-1])
    return _pad(whole, 0, [(-low, low + a - p * k) for a, p, k, (low, _) in sizes])


def _pad(x: jax.Array, fill: float, pairs: Sequence[tuple[int, int]]) -> jax.Array:
    config = [(0, 0, 0), *((low, high, 0) for low, high in pairs), (0, 0, 0)]
    return lax.pad(x, jnp.asarray(fill, x.dtype), config)


def _slice(x: jax.Array, start: Sequence[int], sizes: Sequence[int], strides: Sequence[int] | None = None) -> jax.Array:
    """`sizes` places from `start` on along the spatial axes, every stride-th of them."""
    stop = [first + size for first, size in zip(start, sizes, strict=True)]
    step = None if strides is None else (1, *strides, 1)
    return lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), step)

"""Upsampling: the spatial axes brought to other sizes, by the nearest place or on straight lines between two.

Written for one axis from A to P places; with several, one axis after the other, for the map is separable.
Forward     y[p]  = Σ_a M[p, a] x[a]
Backward    dx[a] = Σ_p M[p, a] dy[p]                        dx = Mᵀ dy

Place p of y lies at t[p] on the axis of x, with A/P or 1/factor places of x to one of y, written s:
half_pixel           t = (p + 1/2) s - 1/2           places are small squares, and the edges of both images meet
pytorch_half_pixel   the same, but t = 0 at P = 1
align_corners        t = p (A - 1)/(P - 1)           the outermost places meet (t = 0 at P = 1)
asymmetric           t = p s                         the first places meet
nearest  M[p, a] = [a = t[p] rounded]                        linear  M[p, ⌊t⌋] = 1 - w,  M[p, ⌊t⌋ + 1] = w,  w = t - ⌊t⌋
A place outside of 0 ≤ a < A is the outermost one: for nearest the rounded t, for linear t itself is held in that range.

The map is linear and each row of M has one or two entries, so Mᵀ gathers: dx[a] sums the few dy that took from a.
Backward needs no residual but the shape. Nearest by a whole factor copies x over tiles, and dx sums over each tile: to
copy and to sum are dual, so upsampling and pooling are too: dx of this nearest is f times the average pool of dy.
t is a fraction of whole numbers, so floors and ties are exact.
The oracle is torch.nn.functional.interpolate ("nearest" is asymmetric with floor, "nearest-exact" is half_pixel with
round_prefer_ceil), and for the rest ONNX's Resize, whose words these are. PyTorch rounds t of nearest to float32, and
takes a factor for 1 or 2 where P is A or 2A.
NaN: spreads to the places that take from it; also with a weight of 0, as in PyTorch, which lets 0 · NaN be NaN.
Shapes: x and dx (N, A.., C), y and dy (N, P.., C) for one to three axes A. Sums in float32 at least.
Source: Long, Shelhamer and Darrell 2015 (bilinear); Odena, Dumoulin and Olah 2016 (nearest); ONNX operator Resize.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import isfinite
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad.ops import check
from handgrad.ops.precision import wide
from handgrad.ops.spatial import MANY_TAPS, per_axis

Size = int | Sequence[int]
Factor = float | Sequence[float]
Method = Literal["nearest", "linear", "bilinear", "trilinear"]
Coordinates = Literal["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
Rounding = Literal["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
RANKS = {"nearest": (1, 2, 3), "linear": (1, 2, 3), "bilinear": (2,), "trilinear": (3,)}
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


def upsample(
    x: jax.Array,
    *,
    factor: Factor | None = None,
    output_size: Size | None = None,
    method: Method = "nearest",
    align_corners: bool = False,
    coordinates: Coordinates | None = None,
    rounding: Rounding | None = None,
) -> jax.Array:
    """The input at another size, by the plain formula. A factor below 1 makes it smaller, without averaging.

    Args:
        x: floating (N, L, C), (N, H, W, C) or (N, D, H, W, C).
        factor: places of y for one of x, a number or one an axis; P = floor(A factor). Whole factors are quickest.
        output_size: P itself, an int or one an axis. Either this or factor.
        method: "nearest" or "linear"; the latter is also called "bilinear" with two axes and "trilinear" with three.
        align_corners: short for coordinates="align_corners".
        coordinates: "half_pixel", "pytorch_half_pixel", "align_corners" or "asymmetric"; None is PyTorch's choice,
            "asymmetric" for nearest and "half_pixel" for linear.
        rounding: for nearest, "floor", "ceil", "round_prefer_floor" or "round_prefer_ceil" (which differ at halves);
            None is "floor" with asymmetric coordinates and "round_prefer_floor" with the others.

    Returns:
        y (N, P.., C), dtype of x.

    Raises:
        ValueError: a wrong rank, size, factor or word, or both or neither of factor and output_size.
        TypeError: x is not floating, or a size is no int.

    Example:
        >>> x = jnp.array([1.0, 3.0]).reshape(1, 2, 1)
        >>> upsample(x, factor=2).ravel().tolist()
        [1.0, 1.0, 3.0, 3.0]
        >>> upsample(x, factor=2, method="linear").ravel().tolist()
        [1.0, 1.5, 2.5, 3.0]
        >>> upsample(x, output_size=3, method="linear", align_corners=True).ravel().tolist()
        [1.0, 2.0, 3.0]
    """
    check.floating("upsample", x=x)
    x = jnp.asarray(x)
    axes = _axes("upsample", x.shape, factor, output_size, method, align_corners, coordinates, rounding)
    y = x if method == "nearest" else wide(x)
    for number, axis in enumerate(axes, start=1):
        y = _gathered(y, number, axis)
    return y.astype(x.dtype)


def upsample_forward(
    x: jax.Array,
    *,
    factor: Factor | None = None,
    output_size: Size | None = None,
    method: Method = "nearest",
    align_corners: bool = False,
    coordinates: Coordinates | None = None,
    rounding: Rounding | None = None,
) -> tuple[jax.Array, None]:
    """The same, by copies over tiles where each place of x fills one; backward needs nothing of it.

    Args:
        x: as in `upsample`, and so are the settings.
        factor: as in `upsample`.
        output_size: as in `upsample`.
        method: as in `upsample`.
        align_corners: as in `upsample`.
        coordinates: as in `upsample`.
        rounding: as in `upsample`.

    Returns:
        y (N, P.., C), dtype of x, and None.

    Raises:
        ValueError: as in `upsample`.
        TypeError: as in `upsample`.

    Example:
        >>> y, nothing = upsample_forward(jnp.ones((2, 3, 4, 1)), factor=2)
        >>> y.shape, nothing
        ((2, 6, 8, 1), None)
    """
    op = "upsample_forward"
    check.floating(op, x=x)
    x = jnp.asarray(x)
    axes = _axes(op, x.shape, factor, output_size, method, align_corners, coordinates, rounding)
    y = x if method == "nearest" else wide(x)
    for number, axis in enumerate(axes, start=1):
        y = jnp.repeat(y, axis.tile, number) if axis.tile else _gathered(y, number, axis)
    return y.astype(x.dtype), None


def upsample_backward(
    dy: jax.Array,
    *,
    in_shape: Sequence[int],
    factor: Factor | None = None,
    output_size: Size | None = None,
    method: Method = "nearest",
    align_corners: bool = False,
    coordinates: Coordinates | None = None,
    rounding: Rounding | None = None,
) -> jax.Array:
    """The gradient by x, one axis after the other: sums over tiles, or else over the places that took from each.

    Both only read dy, where jax.grad of the formula scatters it, one number at a time.

    Args:
        dy: (N, P.., C), the gradient by y.
        in_shape: the shape of x.
        factor: as in `upsample`, and so are the other settings.
        output_size: as in `upsample`.
        method: as in `upsample`.
        align_corners: as in `upsample`.
        coordinates: as in `upsample`.
        rounding: as in `upsample`.

    Returns:
        dx of shape in_shape, dtype of dy; sums are kept in float32 at least.

    Raises:
        ValueError: as in `upsample`, or dy is not of the shape that in_shape and the settings give.
        TypeError: dy is not floating.

    Example:
        >>> dy = jnp.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1)
        >>> upsample_backward(dy, in_shape=(1, 2, 1), factor=2).ravel().tolist()
        [3.0, 12.0]
        >>> upsample_backward(dy, in_shape=(1, 2, 1), factor=2, method="linear").ravel().tolist()
        [3.5, 11.5]
    """
    op = "upsample_backward"
    check.floating(op, dy=dy)
    axes = _axes(op, in_shape, factor, output_size, method, align_corners, coordinates, rounding)
    wanted = (in_shape[0], *(len(axis.low) for axis in axes), in_shape[-1])
    if dy.shape != wanted:
        raise ValueError(
            f"{op}: dy must have shape {wanted} for in_shape {tuple(in_shape)}, got {dy.shape}; "
            f"pass the settings that forward had"
        )
    dy = jnp.asarray(dy)
    total = wide(dy)
    for number, axis in reversed(list(enumerate(axes, start=1))):
        total = _summed_over_tiles(total, number, axis.tile) if axis.tile else _taken_back(total, number, axis)
    return total.astype(dy.dtype)


@dataclass(frozen=True)
class Axis:
    """M of one axis: place p of y takes 1 - weight of place low and weight of place high of x."""

    size: int
    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray | None
    """None where all of it comes from low."""

    @property
    def tile(self) -> int:
        """The number of places that each place of x fills by itself, side by side; 0 where it is not so."""
        places = np.arange(len(self.low))
        tile = len(places) // self.size
        return tile if self.weight is None and tile and np.array_equal(self.low, places // tile) else 0

    def transposed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each place a of x the places p of y that take from it, with their weights, and which of them are real.

        All are (A, K), where K is the most that take from one place; the rest is filled up.
        """
        p = np.arange(len(self.low))
        if self.weight is None:
            entries = [(self.low, p, np.ones(len(p)))]
        else:
            two = self.high > self.low
            entries = [(self.low, p, 1 - self.weight), (self.high[two], p[two], self.weight[two])]
        a, p, weights = (np.concatenate(parts) for parts in zip(*entries, strict=True))
        order = np.argsort(a, kind="stable")
        counts = np.bincount(a, minlength=self.size)
        real = np.arange(counts.max())[None, :] < counts[:, None]
        places, shares = np.zeros(real.shape, int), np.zeros(real.shape)
        places[real], shares[real] = p[order], weights[order]
        return places, shares, real


def _gathered(x: jax.Array, number: int, axis: Axis) -> jax.Array:
    """(1 - w) x[low] + w x[high] along one axis."""
    low = jnp.take(x, axis.low, number, mode="clip")
    if axis.weight is None:
        return low
    weight = _along(axis.weight, x, number)
    return low * (1 - weight) + jnp.take(x, axis.high, number, mode="clip") * weight


def _taken_back(dy: jax.Array, number: int, axis: Axis) -> jax.Array:
    """Mᵀ dy along one axis: the k-th place that took from each, for all k."""
    places, shares, real = axis.transposed()

    def term(k: int | slice) -> jax.Array:
        taken = jnp.take(dy, places[:, k], number, mode="clip")
        taken = jnp.where(_along(real[:, k], taken, number), taken, 0)  # a weight of 0 would leave a NaN
        return taken if axis.weight is None else taken * _along(shares[:, k], taken, number)

    most = places.shape[1]
    if most > MANY_TAPS:
        return term(slice(None)).sum(number + 1)
    return reduce(jnp.add, map(term, range(most)))


def _summed_over_tiles(dy: jax.Array, number: int, tile: int) -> jax.Array:
    """The sum of each `tile` places side by side along one axis: of strided slices, as in a pool."""
    if tile > MANY_TAPS:
        sizes = dy.shape
        return dy.reshape(*sizes[:number], sizes[number] // tile, tile, *sizes[number + 1 :]).sum(number + 1)
    return reduce(jnp.add, [lax.slice_in_dim(dy, first, None, tile, number) for first in range(tile)])


def _along(table: np.ndarray, x: jax.Array, number: int) -> jax.Array:
    """A table with ones for the axes of x around those it has from axis `number` on; numbers in the dtype of x."""
    dtype = table.dtype if table.dtype == bool else x.dtype
    return jnp.asarray(table.reshape((1,) * number + table.shape + (1,) * (x.ndim - number - table.ndim)), dtype)


def _axes(
    op: str,
    in_shape: Sequence[int],
    factor: Factor | None,
    output_size: Size | None,
    method: Method,
    align_corners: bool,
    coordinates: Coordinates | None,
    rounding: Rounding | None,
) -> list[Axis]:
    """M of each spatial axis, once everything fits."""
    ndim = len(in_shape) - 2
    if ndim not in (1, 2, 3) or 0 in in_shape[1:-1]:
        raise ValueError(
            f"{op}: x must be (N, L, C), (N, H, W, C) or (N, D, H, W, C) with no empty spatial axis, "
            f"got shape {tuple(in_shape)}"
        )
    if method not in RANKS or ndim not in RANKS[method]:
        fitting = " or ".join(repr(word) for word, ranks in RANKS.items() if ndim in ranks)
        raise ValueError(f"{op}: method must be {fitting} for x with {ndim} spatial axes, got {method!r}")
    if align_corners:
        if coordinates not in (None, "align_corners"):
            raise ValueError(f"{op}: align_corners=True contradicts coordinates={coordinates!r}; give one of the two")
        coordinates = "align_corners"
    if coordinates is None:
        coordinates = "asymmetric" if method == "nearest" else "half_pixel"
    if rounding is not None and method != "nearest":
        raise ValueError(f"{op}: rounding is for method='nearest', got {rounding!r} with {method!r}")
    if rounding is None:
        rounding = "floor" if coordinates == "asymmetric" else "round_prefer_floor"
    for argument, word, words in (("coordinates", coordinates, COORDINATES), ("rounding", rounding, ROUNDINGS)):
        if word not in words:
            raise ValueError(f"{op}: {argument} must be one of {', '.join(map(repr, words))}, got {word!r}")
    sizes, steps = _sizes(op, tuple(in_shape[1:-1]), factor, output_size)
    return [
        _axis(*each, None if method != "nearest" else rounding, coordinates)
        for each in zip(in_shape[1:-1], sizes, steps, strict=True)
    ]


def _sizes(
    op: str, in_sizes: tuple[int, ...], factor: Factor | None, output_size: Size | None
) -> tuple[tuple[int, ...], list[Fraction]]:
    """P of each axis, and how many places of x there are to one of y."""
    if output_size is not None and factor is None:
        sizes = per_axis(op, "output_size", output_size, len(in_sizes))
        return sizes, [Fraction(a, p) for a, p in zip(in_sizes, sizes, strict=True)]
    if factor is None or output_size is not None:
        raise ValueError(f"{op}: give either factor or output_size, got {factor!r} and {output_size!r}")
    factors = tuple(factor) if isinstance(factor, Sequence) else (factor,) * len(in_sizes)
    if any(isinstance(f, bool) or not isinstance(f, int | float) for f in factors):
        raise TypeError(f"{op}: factor must be a number or one an axis, got {factor!r}")
    if len(factors) != len(in_sizes):
        raise ValueError(f"{op}: factor {factor!r} has {len(factors)} numbers, x has {len(in_sizes)} spatial axes")
    if any(not isfinite(f) or f <= 0 or int(a * f) < 1 for a, f in zip(in_sizes, factors, strict=True)):
        raise ValueError(f"{op}: factor must leave one place at least of each axis of {in_sizes}, got {factor!r}")
    # the fraction that was meant: 0.6 is 3/5, which in binary it is not quite
    steps = [1 / Fraction(f).limit_denominator(10**9) for f in factors]
    return tuple(int(a * f) for a, f in zip(in_sizes, factors, strict=True)), steps


def _axis(size: int, out: int, step: Fraction, rounding: Rounding | None, coordinates: Coordinates) -> Axis:
    """M of an axis from `size` to `out` places, `step` places of x to one of y; linear where rounding is None."""
    p = np.arange(out)
    t, unit = p * step.numerator, step.denominator  # place p lies at t/unit
    if coordinates == "half_pixel" or (coordinates == "pytorch_half_pixel" and out > 1):
        t, unit = 2 * t + step.numerator - unit, 2 * unit
    elif coordinates == "align_corners":
        t, unit = p * (size - 1), max(out - 1, 1)
    if rounding is None:
        t = np.clip(t, 0, (size - 1) * unit)
        low = t // unit
        return Axis(size, low, np.minimum(low + 1, size - 1), t % unit / unit)
    nearest = {
        "floor": t // unit,
        "ceil": -(-t // unit),
        "round_prefer_floor": -((unit - 2 * t) // (2 * unit)),
        "round_prefer_ceil": (2 * t + unit) // (2 * unit),
    }[rounding]
    nearest = np.clip(nearest, 0, size - 1)
    return Axis(size, nearest, nearest, None)

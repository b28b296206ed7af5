"""Padding: places added around the spatial axes, of one value or of the input's own.

Written for one axis of A places with (l, h) more; with several, one axis after the other. Place p of y, 0 ≤ p < l+A+h:
Forward     y[p] = x[π(p - l)]           π folds a place outside of 0 ≤ a < A back into it:
            constant   no place: y[p] = value
            edge       π(a) = min(max(a, 0), A - 1)
            reflect    π(a) = -a before, 2(A - 1) - a behind: a mirror on the last place, which is not repeated
            wrap       π(a) = a mod A: the axis is a circle
Backward    dx[a] = Σ_{p: π(p - l) = a} dy[p]

Each place of y is a copy of one place of x, and a copy is the dual of a sum: dx is the middle of dy, and each of the
two strips around it folded back onto the places it was copied from: turned round for reflect, summed up for edge,
moved to the other end for wrap, dropped for constant. The map is linear: backward needs no residual but the shape.
The oracle is jnp.pad, and torch.nn.functional.pad, whose "replicate" is edge and whose "circular" is wrap.
NaN: copied with its place; the gradient does not see x.
Shapes: x and dx (N, A.., C), y and dy (N, L + A + H.., C) for one to three axes A. Folded sums in float32 at least.
Source: LeCun et al. 1989 (constant); Ronneberger, Fischer and Brox 2015 (reflect).
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad.ops import check
from handgrad.ops.precision import wide
from handgrad.ops.spatial import Pairs, explicit_pairs

Padding = int | Sequence[int] | Sequence[tuple[int, int]]
Mode = Literal["constant", "edge", "reflect", "wrap"]
MODES = ("constant", "edge", "reflect", "wrap")


def pad(x: jax.Array, *, padding: Padding, mode: Mode = "constant", value: float = 0.0) -> jax.Array:
    """The input with places added around it, by the plain formula.

    Args:
        x: floating (N, L, C), (N, H, W, C) or (N, D, H, W, C).
        padding: places on both sides of each spatial axis, an int, an int an axis, or (low, high) pairs.
        mode: "constant", "edge" (the outermost place again), "reflect" (mirrored on it) or "wrap" (the other end).
        value: what "constant" adds.

    Returns:
        y (N, L + A + H.., C), dtype of x.

    Raises:
        ValueError: a wrong rank, an unknown mode, a negative pad, or one that needs more places than x has: "reflect"
            takes at most A - 1, "wrap" at most A, "edge" any where A is not 0.
        TypeError: x is not floating, or a pad is no int.

    Example:
        >>> x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
        >>> pad(x, padding=((2, 1),), mode="reflect").ravel().tolist()
        [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]
    """
    pairs = _checked("pad", x, x.shape, padding, mode)
    x = jnp.asarray(x)
    for axis, pair in enumerate(pairs, start=1):
        if mode != "constant":
            x = jnp.take(x, np.pad(np.arange(x.shape[axis]), pair, mode), axis, mode="clip")
    return _around(x, pairs, value) if mode == "constant" else x


def pad_forward(
    x: jax.Array, *, padding: Padding, mode: Mode = "constant", value: float = 0.0
) -> tuple[jax.Array, None]:
    """The padded input (N, L + A + H.., C) from slices of memory; backward needs nothing of it.

    Args:
        x: as in `pad`, and so are the settings.
        padding: as in `pad`.
        mode: as in `pad`.
        value: as in `pad`.

    Returns:
        y, dtype of x, and None.

    Raises:
        ValueError: as in `pad`.
        TypeError: as in `pad`.

    Example:
        >>> y, nothing = pad_forward(jnp.ones((2, 6, 8, 3)), padding=(1, 2))
        >>> y.shape, nothing
        ((2, 8, 12, 3), None)
    """
    pairs = _checked("pad_forward", x, x.shape, padding, mode)
    x = jnp.asarray(x)
    if mode == "constant":
        return _around(x, pairs, value), None
    for axis, (low, high) in enumerate(pairs, start=1):
        before, behind = _strips(x, axis, low, high, mode)
        x = jnp.concatenate([before, x, behind], axis) if low or high else x
    return x, None


def pad_backward(
    dy: jax.Array, *, in_shape: Sequence[int], padding: Padding, mode: Mode = "constant", value: float = 0.0
) -> jax.Array:
    """The gradient by x: the middle of dy, with the strips around it folded back, one axis after the other.

    Args:
        dy: the gradient by y.
        in_shape: the shape of x.
        padding: as in `pad`.
        mode: as in `pad`.
        value: as in `pad`; a constant has no part in the gradient.

    Returns:
        dx of shape in_shape, dtype of dy.

    Raises:
        ValueError: as in `pad`, or dy is not of the shape that in_shape and the settings give.
        TypeError: dy is not floating.

    Example:
        >>> dy = jnp.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1)
        >>> pad_backward(dy, in_shape=(1, 2, 1), padding=1, mode="edge").ravel().tolist()
        [3.0, 12.0]
    """
    op = "pad_backward"
    pairs = _checked(op, dy, in_shape, padding, mode)
    sizes = [low + a + high for a, (low, high) in zip(in_shape[1:-1], pairs, strict=True)]
    wanted = (in_shape[0], *sizes, in_shape[-1])
    if dy.shape != wanted:
        raise ValueError(
            f"{op}: dy must have shape {wanted} for in_shape {tuple(in_shape)}, got {dy.shape}; "
            f"pass the settings that forward had"
        )
    dy = jnp.asarray(dy)
    total = wide(dy)
    for axis, (low, high) in enumerate(pairs, start=1):
        size = in_shape[axis]
        before, middle, behind = jnp.split(total, (low, low + size), axis)
        total = middle
        if mode != "constant" and (low or high):
            for strip, start in _folded(before, behind, axis, size, mode):
                total += _placed(strip, axis, start, size)
    return total.astype(dy.dtype)


def _around(x: jax.Array, pairs: Pairs, value: float) -> jax.Array:
    return lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in pairs), (0, 0, 0)])


def _strips(x: jax.Array, axis: int, low: int, high: int, mode: Mode) -> tuple[jax.Array, jax.Array]:
    """What comes before x and behind it along an axis."""
    size = x.shape[axis]

    def places(start: int, stop: int) -> jax.Array:
        return lax.slice_in_dim(x, start, stop, axis=axis)

    if mode == "edge":
        return jnp.repeat(places(0, 1), low, axis), jnp.repeat(places(size - 1, size), high, axis)
    if mode == "wrap":
        return places(size - low, size), places(0, high)
    return jnp.flip(places(1, low + 1), axis), jnp.flip(places(size - 1 - high, size - 1), axis)


def _folded(
    before: jax.Array, behind: jax.Array, axis: int, size: int, mode: Mode
) -> tuple[tuple[jax.Array, int], tuple[jax.Array, int]]:
    """The transpose of `_strips`: what each strip gives back, and the place of x where it begins."""
    low, high = before.shape[axis], behind.shape[axis]
    if mode == "edge":
        return (before.sum(axis, keepdims=True), 0), (behind.sum(axis, keepdims=True), size - 1)
    if mode == "wrap":
        return (before, size - low), (behind, 0)
    return (jnp.flip(before, axis), 1), (jnp.flip(behind, axis), size - 1 - high)


def _placed(strip: jax.Array, axis: int, start: int, size: int) -> jax.Array:
    """A strip among zeros, `size` places along the axis."""
    config = [(0, 0, 0)] * strip.ndim
    config[axis] = (start, size - start - strip.shape[axis], 0)
    return lax.pad(strip, jnp.zeros((), strip.dtype), config)


def _checked(op: str, array: jax.Array, in_shape: Sequence[int], padding: Padding, mode: Mode) -> Pairs:
    check.floating(op, **{"dy" if op == "pad_backward" else "x": array})
    if mode not in MODES:
        raise ValueError(f"{op}: mode must be {', '.join(map(repr, MODES[:-1]))} or {MODES[-1]!r}, got {mode!r}")
    if len(in_shape) not in (3, 4, 5):
        raise ValueError(f"{op}: x must be (N, L, C), (N, H, W, C) or (N, D, H, W, C), got shape {tuple(in_shape)}")
    pairs = explicit_pairs(op, padding, len(in_shape) - 2)
    for axis, (size, pair) in enumerate(zip(in_shape[1:-1], pairs, strict=True)):
        most = max(pair)
        needed = {"constant": 0, "edge": 1, "reflect": most + 1, "wrap": most}[mode] if most else 0
        if size < needed:
            raise ValueError(
                f"{op}: mode {mode!r} with padding {pair} needs {needed} places on spatial axis {axis}, x has {size}; "
                f"pad less"
            )
    return pairs

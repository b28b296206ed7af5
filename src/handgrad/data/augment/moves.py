"""Augmentations that move pixels: flip, crop, shift, rotate, scale."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.data.augment.augmentation import (
    Augmentation,
    check_number,
    check_pair,
    check_range,
    chosen,
    of_images,
    places,
    uniform,
    wide_dtype,
)

Mode = Literal["constant", "reflect", "edge"]
Method = Literal["bilinear", "nearest"]
Pixels = int | tuple[int, int]


def flip(rate: float = 0.5, *, vertical: bool = False) -> Augmentation:
    """Mirror images: left and right change places, or top and bottom.

    Args:
        rate: the probability for each image.
        vertical: whether to mirror top to bottom in place of left to right.

    Returns:
        An augmentation.

    Raises:
        ValueError: a rate outside 0 to 1.
        TypeError: a rate that is no number.

    Example:
        >>> x, _ = flip(rate=1.0)(jax.random.key(0), jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1), None)
        >>> print(x.ravel())
        [3. 2. 1.]
    """
    rate, axis = check_number("flip", "rate", rate, 0, 1), 1 if vertical else 2
    return of_images("flip", lambda key, x: jnp.where(chosen(key, x, rate), jnp.flip(x, axis), x))


def crop(
    padding: Pixels = 4, *, size: Pixels | None = None, mode: Mode = "constant", value: float = 0.0
) -> Augmentation:
    """Pad images, and cut a window out of each; every place where the window fits is as likely as another.

    Args:
        padding: rows above and below, columns left and right: an int or a pair (rows, columns).
        size: of the window, an int or a pair (rows, columns); the image's own if None.
        mode: what the padding holds: "constant" the value, "edge" the nearest pixel, "reflect" the image mirrored at
            its outermost pixels.
        value: of the padding in the mode "constant".

    Returns:
        An augmentation.

    Raises:
        ValueError: a padding below 0, a size below 1 or above the padded image, an unknown mode, a value not finite.
        TypeError: a padding or size that is no int.

    Example:
        >>> x, _ = crop(4)(jax.random.key(0), jnp.ones((2, 28, 28, 1)), None)
        >>> x.shape
        (2, 28, 28, 1)
        >>> crop(0, size=24)(jax.random.key(0), jnp.ones((2, 28, 28, 1)), None)[0].shape
        (2, 24, 24, 1)
    """
    return _windows("crop", "padding", padding, size, mode, value)


def shift(pixels: Pixels = 2, *, mode: Mode = "constant", value: float = 0.0) -> Augmentation:
    """Move images by up to some whole pixels each way: a crop to the image's own size, padded by those pixels.

    Args:
        pixels: the most to move by, up or down and left or right: an int or a pair (rows, columns). Every move from
            -pixels to pixels is as likely as another.
        mode: what comes in from outside, as in `crop`.
        value: what comes in, in the mode "constant".

    Returns:
        An augmentation.

    Raises:
        ValueError: pixels below 0, an unknown mode, a value that is not finite.
        TypeError: pixels that are no int.

    Example:
        >>> x, _ = shift((0, 1), mode="edge")(jax.random.key(1), jnp.arange(4.0).reshape(1, 1, 4, 1), None)
        >>> x.ravel().tolist() in ([0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 3])
        True
    """
    return _windows("shift", "pixels", pixels, None, mode, value)


def rotate(
    degrees: float | tuple[float, float] = 15.0, *, method: Method = "bilinear", value: float = 0.0
) -> Augmentation:
    """Turn images about their centre, counter-clockwise for positive angles.

    Args:
        degrees: angles are drawn uniformly from -degrees to degrees, or from a pair (low, high).
        method: "bilinear" mixes the four pixels around a place by nearness, "nearest" takes the nearest one.
        value: of places outside the image.

    Returns:
        An augmentation.

    Raises:
        ValueError: degrees outside -360 to 360 or below 0 as a number, an unknown method, a value that is not finite.
        TypeError: degrees that are no number or pair.

    Example:
        >>> image = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
        >>> x, _ = rotate((90, 90), method="nearest")(jax.random.key(0), image, None)
        >>> print(x[0, :, :, 0])
        [[2. 4.]
         [1. 3.]]
    """
    if isinstance(degrees, tuple | list):
        low, high = check_range("rotate", "degrees", degrees, -360, 360)
    else:
        high = check_number("rotate", "degrees", degrees, 0, 360)
        low = -high
    value = _check_filling("rotate", "method", method, ("bilinear", "nearest"), value)

    def change(key: jax.Array, x: jax.Array) -> jax.Array:
        angle = uniform(key, x, low, high) * (math.pi / 180)
        return _warp(x, jnp.cos(angle), jnp.sin(angle), method, value)

    return of_images("rotate", change)


def scale(
    factors: tuple[float, float] = (0.8, 1.2), *, method: Method = "bilinear", value: float = 0.0
) -> Augmentation:
    """Zoom images about their centre; their size stays.

    Args:
        factors: (low, high), factors are drawn uniformly between them; above 1 enlarges, below 1 shrinks.
        method: as in `rotate`. Shrinking does not average, so pixels are skipped at factors of a half and below.
        value: of places outside the image.

    Returns:
        An augmentation.

    Raises:
        ValueError: factors outside 0.01 to 100, an unknown method, a value that is not finite.
        TypeError: factors that are no pair of numbers.

    Example:
        >>> x, _ = scale((3, 3), method="nearest")(jax.random.key(0), jnp.arange(3.0).reshape(1, 1, 3, 1), None)
        >>> print(x.ravel())
        [1. 1. 1.]
    """
    low, high = check_range("scale", "factors", factors, 0.01, 100)
    value = _check_filling("scale", "method", method, ("bilinear", "nearest"), value)

    def change(key: jax.Array, x: jax.Array) -> jax.Array:
        inverse = 1 / uniform(key, x, low, high)
        return _warp(x, inverse, jnp.zeros_like(inverse), method, value)

    return of_images("scale", change)


def _windows(name: str, argument: str, padding: Pixels, size: Pixels | None, mode: Mode, value: float) -> Augmentation:
    """The augmentation that pads and cuts out windows at random places."""
    rows, columns = check_pair(name, argument, padding, 0)
    window = None if size is None else check_pair(name, "size", size, 1)
    value = _check_filling(name, "mode", mode, ("constant", "reflect", "edge"), value)
    settings = {"constant_values": value} if mode == "constant" else {}

    def change(key: jax.Array, x: jax.Array) -> jax.Array:
        _, height, width, channels = x.shape
        size = window or (height, width)
        spare = (height + 2 * rows - size[0], width + 2 * columns - size[1])
        if min(spare) < 0:
            raise ValueError(f"{name}: size must fit the padded images, got {size} for images {x.shape} padded by "
                             f"{(rows, columns)}")  # fmt: skip
        padded = jnp.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)), mode, **settings)
        zero = jnp.int32(0)

        def cut(image: jax.Array, at: jax.Array) -> jax.Array:
            return lax.dynamic_slice(image, (at[0], at[1], zero), (*size, channels))

        return jax.vmap(cut)(padded, places(key, x, (spare[0] + 1, spare[1] + 1)))

    return of_images(name, change)


def _warp(x: jax.Array, a: jax.Array, b: jax.Array, method: Method, value: float) -> jax.Array:
    """The images whose pixel (i, j) is the one of x at (a i + b j, -b i + a j), counted from the centre; a, b (N,)."""
    centre = [(length - 1) / 2 for length in x.shape[1:3]]
    i, j = (jnp.arange(length, dtype=a.dtype) - middle for length, middle in zip(x.shape[1:3], centre, strict=True))
    a, b, i, j = a[:, None, None], b[:, None, None], i[None, :, None], j[None, None, :]
    row, column = a * i + b * j + centre[0], a * j - b * i + centre[1]
    if method == "nearest":
        return _pixels(x, jnp.floor(row + 0.5), jnp.floor(column + 0.5), value)
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = (row - top)[..., None], (column - left)[..., None]
    corner = [[_pixels(x, top + k, left + m, value).astype(wide_dtype(x)) for m in (0, 1)] for k in (0, 1)]
    upper, lower = (one * (1 - right) + other * right for one, other in corner)
    return (upper * (1 - down) + lower * down).astype(x.dtype)


def _pixels(x: jax.Array, row: jax.Array, column: jax.Array, value: float) -> jax.Array:
    """The pixels (N, H, W, C) of x at whole places (N, H, W), and the value outside."""
    _, height, width, _ = x.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    row = jnp.clip(row, 0, height - 1).astype(jnp.int32)
    column = jnp.clip(column, 0, width - 1).astype(jnp.int32)
    pixels = jax.vmap(lambda image, r, c: image.at[r, c].get(mode="promise_in_bounds"))(x, row, column)
    return jnp.where(inside[..., None], pixels, jnp.asarray(value, x.dtype))


def _check_filling(name: str, argument: str, choice: str, choices: tuple[str, ...], value: float) -> float:
    """The value as a float, if it and the choice of a mode or method are good."""
    if choice not in choices:
        raise ValueError(f"{name}: {argument} must be one of {', '.join(choices)}, got {choice!r}")
    return check_number(name, "value", value, -math.inf, math.inf)

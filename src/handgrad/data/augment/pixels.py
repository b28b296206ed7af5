"""Augmentations that change pixels where they are: brightness, contrast, cutout, erase."""

import math

import jax
import jax.numpy as jnp

from handgrad.data.augment.augmentation import (
    Augmentation,
    check_int,
    check_number,
    check_range,
    chosen,
    of_images,
    per_image,
    places,
    uniform,
    wide_dtype,
)


def brightness(delta: float = 0.2, *, clip: tuple[float, float] | None = None) -> Augmentation:
    """Add a number to each image, the same to all its pixels.

    Args:
        delta: the number is drawn uniformly from -delta to delta, in units of the image.
        clip: (low, high), which the result is held within; None for standardised images, which have no limits.

    Returns:
        An augmentation.

    Raises:
        ValueError: a delta below 0 or not finite, a clip that is not in order.
        TypeError: a delta that is no number, a clip that is no pair.

    Example:
        >>> x, _ = brightness(0.2)(jax.random.key(0), jnp.full((1, 1, 2, 1), 0.5), None)
        >>> bool(x[0, 0, 0, 0] == x[0, 0, 1, 0]), bool(abs(x - 0.5).max() <= 0.2)
        (True, True)
    """
    delta, clip = check_number("brightness", "delta", delta, 0, math.inf), _check_clip("brightness", clip)

    def change(key: jax.Array, x: jax.Array) -> jax.Array:
        return _clipped(x.astype(wide_dtype(x)) + per_image(uniform(key, x, -delta, delta)), clip).astype(x.dtype)

    return of_images("brightness", change)


def contrast(factors: tuple[float, float] = (0.8, 1.2), *, clip: tuple[float, float] | None = None) -> Augmentation:
    """Stretch the differences of each image's pixels from their mean: mean + factor (x - mean).

    Args:
        factors: (low, high), factors are drawn uniformly between them, one an image; 0 leaves the mean alone.
        clip: (low, high), which the result is held within, or None.

    Returns:
        An augmentation. The mean of each channel of an image stays, if nothing is clipped.

    Raises:
        ValueError: factors below 0, not finite or not in order, a clip that is not in order.
        TypeError: factors or a clip that are no pair of numbers.

    Example:
        >>> x, _ = contrast((2, 2))(jax.random.key(0), jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1), None)
        >>> print(x.ravel())
        [0. 2. 4.]
    """
    low, high = check_range("contrast", "factors", factors, 0, math.inf)
    clip = _check_clip("contrast", clip)

    def change(key: jax.Array, x: jax.Array) -> jax.Array:
        values = x.astype(wide_dtype(x))
        mean = values.mean((1, 2), keepdims=True)
        return _clipped(mean + per_image(uniform(key, x, low, high)) * (values - mean), clip).astype(x.dtype)

    return of_images("contrast", change)


def cutout(size: int = 8, *, rate: float = 1.0, value: float = 0.0) -> Augmentation:
    """Cover a square of each image, all its channels.

    The centre is any pixel, all alike, so that near the border a part of the square falls outside: the net sees some
    images nearly whole.

    Args:
        size: the square's side; an even one reaches one pixel further up and left of the centre than down and right.
        rate: the probability for each image.
        value: what the square holds; 0 is the mean of standardised images.

    Returns:
        An augmentation.

    Raises:
        ValueError: a size below 1, a rate outside 0 to 1, a value that is not finite.
        TypeError: a size that is no int.

    Source: DeVries and Taylor, Improved regularization of convolutional neural networks with cutout, 2017.

    Example:
        >>> x, _ = cutout(3)(jax.random.key(0), jnp.ones((1, 28, 28, 1)), None)
        >>> 4 <= int((x == 0).sum()) <= 9
        True
    """
    size, rate = check_int("cutout", "size", size, 1), check_number("cutout", "rate", rate, 0, 1)
    value = check_number("cutout", "value", value, -math.inf, math.inf)

    def change(key: jax.Array, x: jax.Array) -> jax.Array:
        place, whether = jax.random.split(key)
        first = places(place, x, x.shape[1:3]) - size // 2
        hole = _rectangle(x, first, jnp.full_like(first, size))
        return jnp.where(hole & chosen(whether, x, rate), jnp.asarray(value, x.dtype), x)

    return of_images("cutout", change)


def erase(
    rate: float = 0.5,
    *,
    area: tuple[float, float] = (0.02, 0.33),
    aspect: tuple[float, float] = (0.3, 3.3),
    value: float = 0.0,
) -> Augmentation:
    """Cover a rectangle of some images, of random size and shape and wholly inside.

    Args:
        rate: the probability for each image.
        area: (low, high), the share of the image, drawn uniformly.
        aspect: (low, high), height over width, drawn uniformly in its logarithm. A side that comes out longer than the
            image is cut to it.
        value: what the rectangle holds.

    Returns:
        An augmentation.

    Raises:
        ValueError: a rate or area outside 0 to 1, an aspect outside 0.01 to 100, a value that is not finite.
        TypeError: settings that are no numbers or pairs.

    Source: Zhong et al., Random erasing data augmentation, 2017, which draws again where a side is too long.

    Example:
        >>> x, _ = erase(1.0, area=(0.25, 0.25), aspect=(1, 1))(jax.random.key(0), jnp.ones((1, 8, 8, 1)), None)
        >>> int((x == 0).sum())
        16
    """
    rate = check_number("erase", "rate", rate, 0, 1)
    area, aspect = check_range("erase", "area", area, 0, 1), check_range("erase", "aspect", aspect, 0.01, 100)
    value = check_number("erase", "value", value, -math.inf, math.inf)

    def change(key: jax.Array, x: jax.Array) -> jax.Array:
        whether, share, shape, place = jax.random.split(key, 4)
        _, height, width, _ = x.shape
        pixels = uniform(share, x, *area) * (height * width)
        ratio = jnp.exp(uniform(shape, x, math.log(aspect[0]), math.log(aspect[1])))
        sides = jnp.round(jnp.sqrt(jnp.stack([pixels * ratio, pixels / ratio], 1))).astype(jnp.int32)
        limits = jnp.array([[height, width]], jnp.int32)
        sides = jnp.minimum(sides, limits)
        first = places(place, x, limits - sides + 1)
        return jnp.where(_rectangle(x, first, sides) & chosen(whether, x, rate), jnp.asarray(value, x.dtype), x)

    return of_images("erase", change)


def _rectangle(x: jax.Array, first: jax.Array, sides: jax.Array) -> jax.Array:
    """True inside a rectangle of each image, (N, H, W, 1), from its first (row, column) and its sides, both (N, 2)."""
    row, column = (
        (at >= first[:, axis, None]) & (at < (first + sides)[:, axis, None])
        for axis, at in enumerate(jnp.arange(length, dtype=jnp.int32)[None] for length in x.shape[1:3])
    )
    return row[:, :, None, None] & column[:, None, :, None]


def _check_clip(name: str, clip: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if clip is None else check_range(name, "clip", clip, -math.inf, math.inf)


def _clipped(x: jax.Array, clip: tuple[float, float] | None) -> jax.Array:
    return x if clip is None else jnp.clip(x, *clip)

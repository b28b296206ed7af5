"""From a data set to batches: scaled, split, shuffled. NumPy arrays in and out, each a pure function of its arguments.

Order: the permutation of n items is the stable argsort of n random 64-bit words of Philox, a counter-based generator
keyed by (seed, stream). NumPy guarantees the words of its bit generators for all versions and machines (NEP 19), though
not its own `permutation`, so the order depends on (seed, stream, n) alone. Stream e is epoch e; `split` has its own.
Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011 (Philox).
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

SPLIT_STREAM = 2**64 - 1  # no epoch's: those end below it


def normalise(images: ArrayLike, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0) -> np.ndarray:
    """Bytes to standardised float32: (x / 255 - mean) / std.

    Args:
        images: uint8 images (..., C), values 0 to 255.
        mean: what to subtract, a number or one for each channel (C,), in units of x / 255.
        std: what to divide by, a number or one for each channel (C,), above 0.

    Returns:
        The images (..., C) in float32; in [0, 1] with the default mean and std.

    Raises:
        TypeError: images that are not uint8; floats would be divided by 255 for a second time.
        ValueError: a mean or std of another length than C or not finite, or a std that is not above 0.

    Example:
        >>> normalise(np.array([[0, 51, 255]], np.uint8), mean=0.5, std=0.5)
        array([[-1. , -0.6,  1. ]], dtype=float32)
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise TypeError(
            f"normalise: images must be uint8, got {images.dtype}; floats are taken to be normalised already"
        )
    shift, scale = _per_channel("mean", mean, images), _per_channel("std", std, images)
    if scale.min() <= 0:
        raise ValueError(f"normalise: std must be above 0, got {std}; a channel without variation has no scale, take 1")
    x = images.astype(np.float32)
    x /= np.float32(255)
    x -= shift
    x /= scale
    return x


def split(
    x: ArrayLike, y: ArrayLike, fraction: float, seed: int = 0
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Two parts of the data, drawn at random: the first of round(fraction · N) items, the second of the others.

    Args:
        x: the data (N, ...).
        y: the labels (N, ...).
        fraction: the first part's share, between 0 and 1; both parts must come out non-empty.
        seed: an int of 0 or more; the same seed gives the same parts.

    Returns:
        (x1, y1), (x2, y2), in shuffled order.

    Raises:
        ValueError: different numbers of items, no items, a fraction that leaves a part empty, or a seed out of range.
        TypeError: a seed that is no int.

    Example:
        >>> (x1, y1), (x2, y2) = split(np.arange(10), np.arange(10) % 2, 0.8, seed=0)
        >>> len(x1), len(x2), sorted([*x1.tolist(), *x2.tolist()])
        (8, 2, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    x, y = _pair("split", x, y)
    first = round(fraction * len(x)) if 0 < fraction < 1 else 0
    if not 0 < first < len(x):
        raise ValueError(
            f"split: fraction must lie between 0 and 1 and leave no part empty, got {fraction!r} of {len(x)} items"
        )
    order = _permutation("split", len(x), seed, SPLIT_STREAM)
    one, other = order[:first], order[first:]
    return (x[one], y[one]), (x[other], y[other])


def batches(
    x: ArrayLike, y: ArrayLike, batch_size: int, *, seed: int, epoch: int, drop_last: bool = True
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One epoch of shuffled batches. The order depends on (seed, epoch, N) alone, on every machine.

    Args:
        x: the data (N, ...).
        y: the labels (N, ...).
        batch_size: items in a batch, at least 1.
        seed: an int of 0 or more.
        epoch: an int of 0 or more; each epoch has its own order.
        drop_last: leave out the last batch if it is smaller than the others, so that a jitted step compiles once.

    Returns:
        An iterator of (x, y) of batch_size items each; without drop_last the last one may have fewer.

    Raises:
        ValueError: at the call, before the first batch: different numbers of items, no items, a batch_size below 1, or
            above N with drop_last (there would be no batch at all), a seed or an epoch out of range.
        TypeError: a batch_size, seed or epoch that is no int.

    Example:
        >>> x = np.arange(5)
        >>> [len(labels) for _, labels in batches(x, x, 2, seed=0, epoch=0, drop_last=False)]
        [2, 2, 1]
        >>> next(batches(x, x, 5, seed=0, epoch=0))[0], next(batches(x, x, 5, seed=0, epoch=1))[0]
        (array([0, 2, 1, 4, 3]), array([3, 2, 4, 1, 0]))
    """
    x, y = _pair("batches", x, y)
    _check_int("batches", "batch_size", batch_size, 1)
    _check_int("batches", "epoch", epoch, 0, SPLIT_STREAM)
    if drop_last and batch_size > len(x):
        raise ValueError(
            f"batches: batch_size must be at most the number of items with drop_last, got {batch_size} for {len(x)} "
            f"items, which makes no batch; take a smaller one or drop_last=False"
        )
    order = _permutation("batches", len(x), seed, epoch)
    end = len(x) - len(x) % batch_size if drop_last else len(x)
    parts = (order[start : start + batch_size] for start in range(0, end, batch_size))
    return ((x[part], y[part]) for part in parts)


def _permutation(name: str, n: int, seed: int, stream: int) -> np.ndarray:
    """The order of n items in one stream of a seed."""
    _check_int(name, "seed", seed, 0, 2**64)
    words = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(n)
    return np.argsort(words, kind="stable")


def _pair(name: str, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise ValueError(f"{name}: x and y must have as many items as each other, got shapes {x.shape} and {y.shape}")
    if len(x) == 0:
        raise ValueError(f"{name}: there must be at least one item, got x {x.shape}")
    return x, y


def _per_channel(argument: str, value: float | Sequence[float], images: np.ndarray) -> np.ndarray:
    """A number () or one for each channel (C,), in float32."""
    numbers = np.asarray(value, np.float32)
    if numbers.shape not in ((), images.shape[-1:]):
        raise ValueError(
            f"normalise: {argument} must be a number or one for each channel, shape {images.shape[-1:]}, got shape "
            f"{numbers.shape} for images {images.shape}"
        )
    if not np.isfinite(numbers).all():
        raise ValueError(f"normalise: {argument} must be finite, got {value}")
    return numbers


def _check_int(name: str, argument: str, value: int, least: int, end: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: {argument} must be an int, got {type(value).__name__} {value!r}")
    if value < least or (end is not None and value >= end):
        limits = f"at least {least}" if end is None else f"at least {least} and below {end}"
        raise ValueError(f"{name}: {argument} must be {limits}, got {value}")

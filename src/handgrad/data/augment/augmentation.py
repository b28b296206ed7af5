"""What augmentations share: their form, how they are joined, and the checks of settings and batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Augmentation = Callable[[jax.Array, Any, Any], tuple[Any, Any]]


def compose(*augmentations: Augmentation) -> Augmentation:
    """Several augmentations, one after another, as one jitted function.

    Each has a key of its own, split from the key given, so that two of a kind draw apart from each other.

    Args:
        augmentations: functions (key, x, y) -> (x, y) written in JAX, the first to be applied first.

    Returns:
        An augmentation.

    Raises:
        TypeError: something that cannot be called.

    Example:
        >>> from handgrad.data import augment
        >>> change = augment.compose(augment.flip(), augment.crop(4), augment.cutout(8))
        >>> x, y = change(jax.random.key(0), np.ones((2, 28, 28, 1), "float32"), np.array([3, 7]))
        >>> x.shape, y.tolist()
        ((2, 28, 28, 1), [3, 7])
    """
    for one in augmentations:
        if not callable(one):
            raise TypeError(f"compose: wants functions (key, x, y) -> (x, y), got {one!r}")

    @jax.jit
    def composed(key: jax.Array, x: Any, y: Any) -> tuple[Any, Any]:
        check_batch("compose", key, x)
        for one, own in zip(augmentations, jax.random.split(key, len(augmentations)), strict=True):
            x, y = one(own, x, y)
        return x, y

    return composed


def of_images(name: str, change: Callable[[jax.Array, jax.Array], jax.Array]) -> Augmentation:
    """The augmentation that changes images by (key, x) -> x, and leaves labels alone."""

    def augment(key: jax.Array, x: jax.Array, y: Any) -> tuple[jax.Array, Any]:
        check_batch(name, key, x)
        return change(key, x), y

    augment.__name__ = name
    return jax.jit(augment)


def per_image(numbers: jax.Array) -> jax.Array:
    """One number an image, (N,), as (N, 1, 1, 1) beside images."""
    return numbers[:, None, None, None]


def wide_dtype(x: jax.Array) -> Any:
    """The dtype to draw and compute in: float32 at least."""
    return x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.float32


def uniform(key: jax.Array, x: jax.Array, low: float, high: float) -> jax.Array:
    """A number for each image, (N,), between low and high."""
    return jax.random.uniform(key, x.shape[:1], wide_dtype(x), low, high)


def chosen(key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    """Whether each image is changed, (N, 1, 1, 1): drawn with probability rate."""
    return per_image(uniform(key, x, 0.0, 1.0) < rate)  # a draw is below 1, so a rate of 1 is all of them


def places(key: jax.Array, x: jax.Array, ends: Any) -> jax.Array:
    """A place (row, column) for each image, (N, 2) int32: from 0 to before the ends, (2,) or (N, 2), all alike."""
    ends = jnp.broadcast_to(jnp.asarray(ends, jnp.int32), (len(x), 2))
    return jax.random.randint(key, ends.shape, 0, ends, jnp.int32)


def check_batch(name: str, key: Any, x: Any) -> None:
    """Raise unless key is one key of jax.random, and x a batch of floating images."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and dtype != jnp.uint32:
        raise TypeError(f"{name}: key must be a key of jax.random, got {dtype or type(key).__name__}; make one with "
                        f"jax.random.key(0)")  # fmt: skip
    if key.ndim != (0 if typed else 1):
        raise ValueError(f"{name}: key must be one key, got shape {key.shape}; use vmap for several")
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        raise TypeError(f"{name}: x must be an array, got {type(x).__name__}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}: x must be floating point, got {x.dtype}; turn images into floats by normalise(x)")
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ValueError(f"{name}: x must be images (N, H, W, C), got shape {x.shape}")


def check_number(name: str, argument: str, value: Any, least: float, most: float) -> float:
    """The value as a float, or an error unless it is a number within its limits and finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: {argument} must be a number, got {value!r}")
    if not (least <= value <= most and np.isfinite(value)):
        raise ValueError(f"{name}: {argument} must be finite and from {least:g} to {most:g}, got {value}")
    return float(value)


def check_range(name: str, argument: str, value: Any, least: float, most: float) -> tuple[float, float]:
    """The pair (low, high) as floats, or an error unless it is one, in order and within its limits."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name}: {argument} must be a pair (low, high), got {value!r}")
    low, high = (check_number(name, argument, end, least, most) for end in value)
    if low > high:
        raise ValueError(f"{name}: {argument} must be (low, high), the lower first, got {value}")
    return low, high


def check_int(name: str, argument: str, value: Any, least: int) -> int:
    """The value as an int, or an error unless it is one and not below the least."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: {argument} must be an int, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: {argument} must be at least {least}, got {value}")
    return int(value)


def check_pair(name: str, argument: str, value: Any, least: int) -> tuple[int, int]:
    """One int for rows and columns, or a pair of them, as a pair."""
    if not isinstance(value, tuple | list):
        value = (value, value)
    if len(value) != 2:
        raise ValueError(f"{name}: {argument} must be an int or a pair (rows, columns), got {value}")
    return check_int(name, argument, value[0], least), check_int(name, argument, value[1], least)

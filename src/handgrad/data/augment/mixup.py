"""The augmentation that mixes images and their labels alike."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.data.augment.augmentation import (
    Augmentation,
    check_batch,
    check_int,
    check_number,
    per_image,
    uniform,
    wide_dtype,
)


def mixup(classes: int, *, alpha: float = 0.2) -> Augmentation:
    """Mix each image with another of the batch, and their labels by the same share: λ (x, y) + (1 - λ) (x', y').

    λ ~ Beta(α, α), one an image, and x' from a random order of the batch, in which an image may meet itself.

    Args:
        classes: how many there are, K.
        alpha: α, above 0: small ones leave most images nearly as they are, 1 draws λ uniformly.

    Returns:
        An augmentation. It takes int labels (N,), or soft labels (N, K), and gives soft labels (N, K) that sum to one:
        float32, or of the dtype of the soft labels. Such go into `SoftmaxCrossEntropy`, and accuracy takes the larger
        share. An int label outside 0 to K - 1 makes its rows NaN.

    Raises:
        ValueError: classes below 1, an alpha that is not above 0 or not finite, labels of another shape.
        TypeError: classes that are no int, labels that are neither ints (N,) nor floats (N, K).

    Source: Zhang et al., mixup: beyond empirical risk minimization, 2018, with one λ a batch.

    Example:
        >>> x, y = mixup(3)(jax.random.key(0), jnp.ones((2, 4, 4, 1)), jnp.array([0, 2]))
        >>> y.shape, [round(total, 6) for total in y.sum(1).tolist()]
        ((2, 3), [1.0, 1.0])
    """
    classes = check_int("mixup", "classes", classes, 1)
    if check_number("mixup", "alpha", alpha, 0, math.inf) == 0:
        raise ValueError("mixup: alpha must be above 0, got 0; leave mixup out to mix nothing")

    @jax.jit
    def augment(key: jax.Array, x: jax.Array, y: Any) -> tuple[jax.Array, jax.Array]:
        check_batch("mixup", key, x)
        labels = _soft(x, y, classes)
        share, order = jax.random.split(key)
        ours = _symmetric_beta(share, x, alpha)
        other = jax.random.permutation(order, len(x))
        return _mixed(x, x[other], per_image(ours)), _mixed(labels, labels[other], ours[:, None])

    return augment


def _symmetric_beta(key: jax.Array, x: jax.Array, alpha: float) -> jax.Array:
    """Draws of Beta(α, α), one an image, (N,): (1 + s/√(1 + s²))/2 for s = √(U^(-1/α) - 1) cos 2πV, U and V uniform.

    s √(2α) has Student's distribution of 2α degrees of freedom. With p = U^(1/α) no power overflows. Compiles in a
    fraction of the time of jax.random.beta, which draws gammas by rejection.
    Source: Bailey, Polar generation of random variates with the t-distribution, 1994; Devroye, Random variate
    generation in one line of code, 1996.
    """
    one, two = jax.random.split(key)
    p = uniform(one, x, 0.0, 1.0) ** (1 / alpha)
    cosine = jnp.cos(2 * math.pi * uniform(two, x, 0.0, 1.0))
    t = cosine * jnp.sqrt((1 - p) / (p + (1 - p) * cosine**2))
    return (1 + jnp.clip(t, -1, 1)) / 2  # rounding may lead past 1, and no label may be negative


def _mixed(one: jax.Array, other: jax.Array, share: jax.Array) -> jax.Array:
    """The sum share · one + (1 - share) · other, in the dtype of one."""
    wide = wide_dtype(one)
    share = share.astype(wide)
    return (share * one.astype(wide) + (1 - share) * other.astype(wide)).astype(one.dtype)


def _soft(x: jax.Array, y: Any, classes: int) -> jax.Array:
    """Labels as soft ones (N, K)."""
    if not hasattr(y, "dtype") or not hasattr(y, "shape"):
        raise TypeError(f"mixup: y must be an array, got {type(y).__name__}")
    ints = y.ndim == 1
    if not jnp.issubdtype(y.dtype, jnp.integer if ints else jnp.floating):
        raise TypeError(f"mixup: y must be ints (N,) or floats (N, K), got {y.dtype} of shape {y.shape}")
    if y.shape != ((len(x),) if ints else (len(x), classes)):
        raise ValueError(f"mixup: y must be ({len(x)},) or ({len(x)}, {classes}) for images {x.shape}, got {y.shape}")
    if not ints:
        return y
    one_hot = y.astype(jnp.int32)[:, None] == jnp.arange(classes, dtype=jnp.int32)[None]
    return jnp.where(one_hot.any(1, keepdims=True), one_hot.astype(jnp.float32), jnp.nan)

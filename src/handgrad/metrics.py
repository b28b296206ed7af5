"""Metrics: how many of the predictions are right. Steps, not slopes: their gradient is 0 almost everywhere.

The prediction is the class of the largest logit; the first maximum wins a tie, as in jnp.argmax. If there is one column
of logits alone, as for a yes or no, the prediction is yes where the logit is above 0, and the label where it is above
one half.
Labels: int classes (n,), or one-hot or soft labels (n, K), of which the largest entry counts. A label that is no class
is never right.
NaN: jnp.argmax takes a NaN for the largest. A row of NaN predicts class 0.
Shapes: logits (n, K), labels (n,) or (n, K); results are float32 scalars.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

__all__ = ["accuracy", "confusion_matrix", "top_k_accuracy", "zero_one_loss"]


def accuracy(logits: ArrayLike, y: Any) -> jax.Array:
    """The share of examples whose largest logit is at the label.

    Args:
        logits: (n, K).
        y: int labels (n,), or one-hot or soft labels (n, K).

    Returns:
        A float32 scalar from 0 to 1.

    Raises:
        ValueError: shapes that do not fit, or an empty batch.
        TypeError: labels of shape (n,) that are not ints.

    Example:
        >>> print(accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1])))
        0.5
    """
    return (_predictions("accuracy", logits) == _classes("accuracy", logits, y)).mean(dtype=jnp.float32)


def zero_one_loss(logits: ArrayLike, y: Any) -> jax.Array:
    """The share of examples whose largest logit is elsewhere than at the label: 1 - accuracy.

    Args:
        logits: (n, K).
        y: int labels (n,), or one-hot or soft labels (n, K).

    Returns:
        A float32 scalar from 0 to 1.

    Raises:
        ValueError: shapes that do not fit, or an empty batch.
        TypeError: labels of shape (n,) that are not ints.

    Example:
        >>> print(zero_one_loss(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 0])))
        0.0
    """
    return (_predictions("zero_one_loss", logits) != _classes("zero_one_loss", logits, y)).mean(dtype=jnp.float32)


def top_k_accuracy(logits: ArrayLike, y: Any, k: int = 5) -> jax.Array:
    """The share of examples whose label is among the k largest logits; of equal logits the first are taken.

    Args:
        logits: (n, K).
        y: int labels (n,), or one-hot or soft labels (n, K).
        k: how many classes may be guessed, from 1 to K.

    Returns:
        A float32 scalar from 0 to 1.

    Raises:
        ValueError: shapes that do not fit, an empty batch, or k outside 1 to K.
        TypeError: labels of shape (n,) that are not ints.

    Example:
        >>> print(top_k_accuracy(jnp.array([[0.1, 0.7, 0.2], [0.8, 0.1, 0.1]]), jnp.array([2, 2]), k=2))
        0.5
    """
    logits = _logits("top_k_accuracy", logits)
    classes = _classes("top_k_accuracy", logits, y)
    if not 1 <= k <= logits.shape[1]:
        raise ValueError(f"top_k_accuracy: k must be from 1 to the {logits.shape[1]} classes, got {k}")
    best = jax.lax.top_k(logits, k)[1].astype(classes.dtype)
    return (best == classes[:, None]).any(1).mean(dtype=jnp.float32)


def confusion_matrix(logits_or_predictions: ArrayLike, y: Any, classes: int) -> jax.Array:
    """How often each class was taken for each other.

    Args:
        logits_or_predictions: logits (n, K), or int predictions (n,).
        y: int labels (n,), or one-hot or soft labels (n, K).
        classes: K.

    Returns:
        Counts (K, K), int32: rows are the true classes, columns the predicted ones. Examples whose label or prediction
        is outside 0 to K - 1 are not counted, so the sum tells of them.

    Raises:
        ValueError: shapes that do not fit, or an empty batch.
        TypeError: predictions or labels of shape (n,) that are not ints.

    Example:
        >>> print(confusion_matrix(jnp.array([0, 1, 1, 1]), jnp.array([0, 0, 1, 1]), 2))
        [[1 1]
         [0 2]]
    """
    given = _array(logits_or_predictions)
    if given.ndim == 2 and given.shape[1] not in (1, classes):
        raise ValueError(f"confusion_matrix: logits must be (n, {classes}) for {classes} classes, got {given.shape}")
    if given.ndim == 2:
        predicted = _predictions("confusion_matrix", given)
    else:
        predicted = _int_classes("confusion_matrix", "predictions", given, given.shape)
    true = _classes("confusion_matrix", given, y)
    inside = (true >= 0) & (true < classes) & (predicted >= 0) & (predicted < classes)
    cell = jnp.where(inside, true * classes + predicted, classes * classes)
    counts = jnp.zeros(classes * classes + 1, jnp.int32).at[cell].add(1)
    return counts[:-1].reshape(classes, classes)


def _array(values: Any) -> Any:
    return values if isinstance(values, jax.Array) else np.asarray(values)


def _logits(metric: str, logits: Any) -> jax.Array:
    logits = jnp.asarray(logits)
    if logits.ndim != 2 or logits.size == 0:
        raise ValueError(f"{metric}: logits must be (n, classes) and not empty, got shape {logits.shape}")
    return logits


def _predictions(metric: str, logits: Any) -> jax.Array:
    """The predicted class of each row of logits (n, K), int32 (n,)."""
    logits = _logits(metric, logits)
    return (logits[:, 0] > 0).astype(jnp.int32) if logits.shape[1] == 1 else logits.argmax(1).astype(jnp.int32)


def _classes(metric: str, logits: Any, y: Any) -> jax.Array:
    """The true class of each example, int32 (n,), from labels (n,) or of the logits' shape (n, K)."""
    logits, y = _array(logits), _array(y)
    if y.ndim == 2:
        if y.shape[0] != logits.shape[0] or logits.ndim == 2 and y.shape != logits.shape:
            raise ValueError(f"{metric}: labels must be (n,) or (n, K) for logits {logits.shape}, got {y.shape}")
        y = jnp.asarray(y)
        return (2 * y[:, 0] > 1).astype(jnp.int32) if y.shape[1] == 1 else y.argmax(1).astype(jnp.int32)
    return _int_classes(metric, "labels", y, logits.shape[:1])


def _int_classes(metric: str, argument: str, y: Any, shape: tuple[int, ...]) -> jax.Array:
    if y.shape != shape or len(shape) != 1 or y.size == 0:
        raise ValueError(f"{metric}: {argument} must be (n,) with n at least 1, here {shape}, got shape {y.shape}")
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"{metric}: {argument} of shape (n,) must be int classes, got {y.dtype}; use astype(int)")
    return jnp.asarray(y).astype(jnp.int32)

"""Losses of numbers: squared error and Huber."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.losses.loss import Loss, read_labels, read_numbers, rest_mean, rest_mean_backward
from handgrad.ops.precision import wide


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """(o - y)², with d/do = 2 (o - y), for each number. An example's loss is the mean over its numbers.

    Labels: of the logits' shape (n, ...).

    Example:
        >>> loss, dlogits = MeanSquaredError().value_and_grad(jnp.array([[3.0, 1.0]]), jnp.array([[1.0, 1.0]]))
        >>> print(loss, dlogits)
        2.0 [[2. 0.]]
    """

    def per_example(self, logits: jax.Array, y: Any) -> jax.Array:
        """The losses ℓ (n,) of logits and labels (n, ...)."""
        return rest_mean(jnp.square(_error(type(self).__name__, logits, y)))

    def backward(self, logits: jax.Array, y: Any, dlosses: jax.Array) -> jax.Array:
        """The gradient of the logits (n, ...), 2 (o - y)/k for an example of k numbers."""
        slopes = 2 * _error(type(self).__name__, logits, y)
        return rest_mean_backward(slopes, dlosses).astype(logits.dtype)


@dataclass(frozen=True)
class Huber(Loss):
    """½e² near zero and a straight line of slope δ beyond, for each error e = o - y: far outliers pull no harder.

    With c = min(|e|, δ) it is ½c² + δ(|e| - c): ½e² up to δ, δ(|e| - ½δ) beyond, and

        d/do = e where |e| <= δ, δ sign(e) elsewhere: e clipped to [-δ, δ]

    The two pieces meet with one slope, so there is no kink. An example's loss is the mean over its numbers.

    Labels: of the logits' shape (n, ...).

    Source: Huber 1964.

    Args:
        delta: δ > 0, where the line begins.

    Raises:
        ValueError: delta is not above 0.

    Example:
        >>> loss, dlogits = Huber().value_and_grad(jnp.array([[4.0, 0.5]]), jnp.array([[0.0, 0.0]]))
        >>> print(loss, dlogits)
        1.8125 [[0.5  0.25]]
    """

    delta: float = 1.0

    def __post_init__(self):
        """Check the settings."""
        if not self.delta > 0:
            raise ValueError(f"Huber: delta must be above 0, got {self.delta}")

    def per_example(self, logits: jax.Array, y: Any) -> jax.Array:
        """The losses ℓ (n,) of logits and labels (n, ...)."""
        size = jnp.abs(_error(type(self).__name__, logits, y))
        near = jnp.minimum(size, self.delta)
        return rest_mean(0.5 * jnp.square(near) + self.delta * (size - near))

    def backward(self, logits: jax.Array, y: Any, dlosses: jax.Array) -> jax.Array:
        """The gradient of the logits (n, ...), the clipped error /k for an example of k numbers."""
        slopes = jnp.clip(_error(type(self).__name__, logits, y), -self.delta, self.delta)
        return rest_mean_backward(slopes, dlosses).astype(logits.dtype)


def _error(name: str, logits: jax.Array, y: Any) -> jax.Array:
    """The error o - y, wide, of the logits' shape (n, ...)."""
    return wide(logits) - jnp.asarray(read_numbers(name, logits, read_labels(y)))

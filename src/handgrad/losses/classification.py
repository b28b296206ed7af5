"""Losses of classes by other means than softmax: binary cross-entropy and hinge."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.losses.loss import Loss, poison_of, read_classes, read_labels, read_numbers, rest_mean, rest_mean_backward
from handgrad.ops.activations import relu
from handgrad.ops.precision import wide
from handgrad.ops.smooth_activations import sigmoid


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """-log of the probability that a sigmoid gives to a yes or no: -y log a - (1 - y) log(1 - a), a = σ(o).

    -log σ(o) = log(1 + e⁻ᵒ) = softplus(-o) and -log(1 - σ(o)) = softplus(o), and softplus' = σ, so

        d/do = -y σ(-o) + (1 - y) σ(o) = σ(o) - y

    for each number, since σ(-o) = 1 - σ(o). Computed from o, not from a, no logarithm sees a 0. The middle form of the
    gradient is the one computed: it keeps the digits that σ(o) - 1 would lose.

    An example's loss is the mean over its numbers.

    Labels: in [0, 1], of the logits' shape (n, ...); ints, bools or floats.

    Example:
        >>> loss, dlogits = BinaryCrossEntropy().value_and_grad(jnp.array([[0.0, 0.0]]), jnp.array([[1, 0]]))
        >>> print(round(float(loss), 4), dlogits)
        0.6931 [[-0.25  0.25]]
    """

    def per_example(self, logits: jax.Array, y: Any) -> jax.Array:
        """The losses ℓ (n,) of logits and labels (n, ...)."""
        o, labels, poison = self._read(logits, y)
        return rest_mean(labels * jax.nn.softplus(-o) + (1 - labels) * jax.nn.softplus(o)) * poison

    def backward(self, logits: jax.Array, y: Any, dlosses: jax.Array) -> jax.Array:
        """The gradient of the logits (n, ...), (σ(o) - y)/k for an example of k numbers."""
        o, labels, poison = self._read(logits, y)
        slopes = (1 - labels) * sigmoid(o) - labels * sigmoid(-o)
        return rest_mean_backward(slopes, dlosses * poison).astype(logits.dtype)

    def _read(self, logits: jax.Array, y: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        name = type(self).__name__
        y = read_numbers(name, logits, read_labels(y))
        return wide(logits), jnp.asarray(y), poison_of(name, logits, y, (y >= 0) & (y <= 1), "in [0, 1]")


@dataclass(frozen=True)
class Hinge(Loss):
    """How far each wrong class comes within a margin of the right one: ℓ = 1/K Σ_{j≠y} max(0, m - o_y + o_j).

    Each wrong class inside the margin pushes its own logit down and the right one up, with slope 1/K:

        dℓ/do_j = 1/K [m - o_y + o_j > 0] for j ≠ y,      dℓ/do_y = -Σ_{j≠y} dℓ/do_j

    Kink: a class exactly at the margin has slope 0, as ops.relu at 0 and PyTorch's multi_margin_loss.

    Labels: int classes (n,).

    Source: Weston and Watkins 1999, averaged over the classes as in PyTorch.

    Args:
        margin: m, the distance wanted.

    Example:
        >>> loss, dlogits = Hinge().value_and_grad(jnp.array([[2.0, 1.5, 0.0, 0.0]]), jnp.array([0]))
        >>> print(loss, dlogits)
        0.125 [[-0.25  0.25  0.    0.  ]]
    """

    margin: float = 1.0

    def per_example(self, logits: jax.Array, y: Any) -> jax.Array:
        """The losses ℓ (n,) of logits (n, K) and int labels (n,)."""
        return relu(self._read(logits, y)[0]).mean(1)

    def backward(self, logits: jax.Array, y: Any, dlosses: jax.Array) -> jax.Array:
        """The gradient of the logits (n, K)."""
        slack, one_hot, poison = self._read(logits, y)
        inside = (~(slack <= 0)).astype(slack.dtype)
        rows = (inside - one_hot * inside.sum(1, keepdims=True)) / slack.shape[1]
        return (rows * (dlosses * poison)[:, None]).astype(logits.dtype)

    def _read(self, logits: jax.Array, y: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The slack m - o_y + o_j, 0 at the right class, and the labels, both (n, K); the poison (n,).

        A bad label makes its row of slack NaN, where relu has slope 1: past a slope of 0 no poison would come back.
        """
        _, one_hot, poison = read_classes(type(self).__name__, logits, read_labels(y), None)
        o = wide(logits)
        right = jnp.where(one_hot == 1, o, 0).sum(1, keepdims=True)
        return jnp.where(one_hot == 1, 0, self.margin - right + o) * poison[:, None], one_hot, poison

"""Losses of classes: softmax cross-entropy, binary cross-entropy, hinge."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.losses.loss import Loss, poison_of, read_classes, read_labels, read_numbers, rest_mean, rest_mean_backward
from handgrad.ops.activations import relu
from handgrad.ops.precision import wide
from handgrad.ops.smooth_activations import sigmoid
from handgrad.ops.softmax import log_softmax


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """-log of the probability that softmax gives to the right class: ℓ = -Σ_k t_k log p_k, p = softmax(o).

    With log p_k = o_k - log Σ_j e^o_j, ∂log p_k/∂o_j = [j = k] - p_j, so

        dℓ/do_j = -Σ_k t_k ([j = k] - p_j) = p_j Σ_k t_k - t_j,     and for a label y that sums to one   dL/do = p - y

    t_k = c_k ((1 - s) y_k + s/K) with label smoothing s and class weights c. As in PyTorch, the mean is divided by the
    sum of the labels' weights, d = Σ_k c_k y_k: c at the label. (PyTorch divides soft labels by n instead.)

    Labels: int classes (n,), or one-hot or soft labels (n, K), entries in [0, 1] and rows that sum to one. (A row of
    zeros is what jax.nn.one_hot makes of a bad label.)
    At -inf: a masked class costs nothing where t_k is 0, and has gradient 0; where t_k > 0 the loss is inf.
    Source: Goodfellow, Bengio and Courville 2016, 6.2.2; Szegedy et al. 2016 (label smoothing).

    Args:
        label_smoothing: the share s of each label that is spread evenly over all classes, from 0 to 1.
        ignore_index: int labels of this value have loss 0 and gradient 0, whatever their logits, and do not count in
            the mean; if all are ignored, the loss is 0.
        class_weights: a tuple with one number >= 0 for each class.

    Raises:
        TypeError: class_weights is no tuple, or ignore_index no int.
        ValueError: label_smoothing outside [0, 1], or class weights that are negative, infinite or NaN.

    Example:
        >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
        >>> loss, dlogits = SoftmaxCrossEntropy().value_and_grad(logits, jnp.array([1]))
        >>> print(round(float(loss), 4), dlogits.round(4))
        1.3863 [[ 0.5  -0.75  0.25]]
    """

    label_smoothing: float = 0.0
    ignore_index: int | None = None
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self):
        """Check the settings."""
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(f"SoftmaxCrossEntropy: label_smoothing must be from 0 to 1, got {self.label_smoothing}")
        if not isinstance(self.ignore_index, int | None) or isinstance(self.ignore_index, bool):
            raise TypeError(f"SoftmaxCrossEntropy: ignore_index must be an int or None, got {self.ignore_index!r}")
        if not isinstance(self.class_weights, tuple | None):
            got = type(self.class_weights).__name__
            raise TypeError(f"SoftmaxCrossEntropy: class_weights must be a tuple of floats, got {got}; use tuple(...)")
        if not all(math.isfinite(c) and c >= 0 for c in self.class_weights or ()):
            raise ValueError(f"SoftmaxCrossEntropy: class_weights must be finite and >= 0, got {self.class_weights}")

    def per_example(self, logits: jax.Array, y: Any) -> jax.Array:
        """The losses ℓ (n,) of logits (n, K) and labels (n,) or (n, K)."""
        logits, labels, poison = self._read(logits, y)
        targets, log_p = self._targets(labels), log_softmax(logits)
        masked = (targets == 0) & (log_p == -jnp.inf)
        return -(targets * jnp.where(masked, 0, log_p)).sum(1) * poison

    def divisor(self, logits: jax.Array, y: Any) -> jax.Array:
        """The weight of each label, (n,): 1, or that of its class; 0 if it is ignored."""
        logits, labels, _ = self._read(logits, y)
        if self.class_weights is None:
            return labels.any(1).astype(logits.dtype)
        return (labels * self._class_weights(labels)).sum(1)

    def backward(self, logits: jax.Array, y: Any, dlosses: jax.Array) -> jax.Array:
        """The gradient of the logits (n, K), p Σt - t in each row."""
        dtype = logits.dtype
        logits, labels, poison = self._read(logits, y)
        targets, p = self._targets(labels), jnp.exp(log_softmax(logits))
        return ((p * targets.sum(1, keepdims=True) - targets) * (dlosses * poison)[:, None]).astype(dtype)

    def _read(self, logits: jax.Array, y: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Wide logits and labels, both (n, K), and the poison (n,). Ignored rows are 0 in both."""
        name, y = type(self).__name__, read_labels(y)
        if y.ndim != 2:
            ignored, one_hot, poison = read_classes(name, logits, y, self.ignore_index)
            return jnp.where(ignored[:, None], 0, wide(logits)), one_hot, poison
        if self.ignore_index is not None:
            raise ValueError(f"{name}: ignore_index needs int labels of shape (n,), got labels of shape {y.shape}")
        y = read_numbers(name, logits, y, hint="int classes have shape (n,)")
        poison = poison_of(name, logits, y, (y >= 0) & (y <= 1), "in [0, 1]")
        sums = y.sum(1)  # near enough to 1 for labels that were bfloat16
        poison *= poison_of(name, logits, sums, abs(sums - 1) < 0.01, "rows with sum 1")
        return wide(logits), jnp.asarray(y), poison

    def _targets(self, labels: jax.Array) -> jax.Array:
        """The targets t (n, K) of labels (n, K); a row of zeros, an ignored or a bad label, stays one."""
        spread = self.label_smoothing / labels.shape[1]
        smooth = jnp.where(labels.any(1, keepdims=True), (1 - self.label_smoothing) * labels + spread, 0)
        return smooth if self.class_weights is None else smooth * self._class_weights(labels)

    def _class_weights(self, labels: jax.Array) -> jax.Array:
        if self.class_weights is None or len(self.class_weights) != labels.shape[1]:
            raise ValueError(
                f"SoftmaxCrossEntropy: class_weights must have one number for each of {labels.shape[1]} classes, "
                f"got {self.class_weights}"
            )
        return jnp.asarray(self.class_weights, labels.dtype)[None, :]


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

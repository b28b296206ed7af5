"""Losses of the probabilities p = softmax(o): cross-entropy, focal loss, likelihood, Kullback-Leibler divergence.

With log p_k = o_k - log Σ_j e^o_j, ∂log p_k/∂o_j = [j = k] - p_j. So where s_k is how hard a loss pulls log p_k up,

    dℓ/do_j = -Σ_k s_k ([j = k] - p_j) = p_j Σ_k s_k - s_j

and the losses of o differ in s alone: the target t for cross-entropy, t h(p) for the focal loss, y for the divergence.
NegativeLogLikelihood is given log p in the place of o, by a net that ends in a LogSoftmax layer.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.losses.loss import Loss, poison_of, read_classes, read_labels, read_numbers
from handgrad.ops.precision import wide
from handgrad.ops.softmax import log_softmax


class ClassLoss(Loss):
    """What losses of int, one-hot or soft labels share: how they are read, what each counts for, class weights.

    No dataclass itself, so that a loss lists its settings in its own order.
    """

    ignore_index: int | None
    class_weights: tuple[float, ...] | None

    def __post_init__(self):
        """Check the settings that all have."""
        name = type(self).__name__
        if not isinstance(self.ignore_index, int | None) or isinstance(self.ignore_index, bool):
            raise TypeError(f"{name}: ignore_index must be an int or None, got {self.ignore_index!r}")
        if not isinstance(self.class_weights, tuple | None):
            got = type(self.class_weights).__name__
            raise TypeError(f"{name}: class_weights must be a tuple of floats, got {got}; use tuple(...)")
        if not all(math.isfinite(c) and c >= 0 for c in self.class_weights or ()):
            raise ValueError(f"{name}: class_weights must be finite and >= 0, got {self.class_weights}")

    def divisor(self, logits: jax.Array, y: Any) -> jax.Array:
        """The weight of each label, (n,): 1, or that of its class; 0 if it is ignored."""
        logits, labels, _ = self._read(logits, y)
        if self.class_weights is None:
            return labels.any(1).astype(logits.dtype)
        return (labels * self._class_weights(labels)).sum(1)

    def _read(self, logits: jax.Array, y: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Wide logits and labels, both (n, K), and the poison (n,). Ignored rows are 0 in both."""
        name, y = type(self).__name__, read_labels(y)
        if y.ndim != 2:
            ignored, one_hot, poison = read_classes(name, logits, y, self.ignore_index)
            return jnp.where(ignored[:, None], 0, wide(logits)), one_hot, poison
        if self.ignore_index is not None:
            raise ValueError(f"{name}: ignore_index needs int labels of shape (n,), got labels of shape {y.shape}")
        labels, poison = read_distributions(name, logits, y, hint="int classes have shape (n,)")
        return wide(logits), labels, poison

    def _weighted(self, targets: jax.Array) -> jax.Array:
        """The targets (n, K), each times the weight of its class."""
        return targets if self.class_weights is None else targets * self._class_weights(targets)

    def _class_weights(self, labels: jax.Array) -> jax.Array:
        if self.class_weights is None or len(self.class_weights) != labels.shape[1]:
            raise ValueError(
                f"{type(self).__name__}: class_weights must have one number for each of {labels.shape[1]} classes, "
                f"got {self.class_weights}"
            )
        return jnp.asarray(self.class_weights, labels.dtype)[None, :]


@dataclass(frozen=True)
class SoftmaxCrossEntropy(ClassLoss):
    """-log of the probability that softmax gives to the right class: ℓ = -Σ_k t_k log p_k, p = softmax(o).

        dℓ/do_j = p_j Σ_k t_k - t_j,     and for a label y that sums to one   dL/do = p - y

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
        super().__post_init__()

    def per_example(self, logits: jax.Array, y: Any) -> jax.Array:
        """The losses ℓ (n,) of logits (n, K) and labels (n,) or (n, K)."""
        logits, labels, poison = self._read(logits, y)
        targets, log_p = self._targets(labels), log_softmax(logits)
        masked = (targets == 0) & (log_p == -jnp.inf)
        return -(targets * jnp.where(masked, 0, log_p)).sum(1) * poison

    def backward(self, logits: jax.Array, y: Any, dlosses: jax.Array) -> jax.Array:
        """The gradient of the logits (n, K), p Σt - t in each row."""
        wide_logits, labels, poison = self._read(logits, y)
        pulls = self._targets(labels)
        return pulled_back(jnp.exp(log_softmax(wide_logits)), pulls, dlosses * poison).astype(logits.dtype)

    def _targets(self, labels: jax.Array) -> jax.Array:
        """The targets t (n, K) of labels (n, K); a row of zeros, an ignored or a bad label, stays one."""
        spread = self.label_smoothing / labels.shape[1]
        smooth = jnp.where(labels.any(1, keepdims=True), (1 - self.label_smoothing) * labels + spread, 0)
        return self._weighted(smooth)


@dataclass(frozen=True)
class Focal(ClassLoss):
    """Cross-entropy that looks away from what is already right: ℓ = -Σ_k t_k (1 - p_k)^γ log p_k, p = softmax(o).

    With q = 1 - p and dq_k/do_j = -p_k ([j = k] - p_j), the factor q^γ adds its own share to the pull on o:

        dℓ/do_j = p_j Σ_k t_k h_k - t_j h_j,      h = q^γ - γ p q^(γ-1) log p = q^γ (1 + γ p r),   r = -log p / (1 - p)

    r is finite at both ends of p: 1 where p = 1, and p r = 0 where p = 0. With γ = 0 h is 1, and all is cross-entropy.
    t = c y with class weights c (the paper's α_t); the mean is divided by the labels' weights, as in
    `SoftmaxCrossEntropy`. The paper has a sigmoid for each class; this is its form for classes that exclude each other.

    Labels: as `SoftmaxCrossEntropy` reads them.

    At -inf: a masked class costs nothing where t_k is 0, and has gradient 0; where t_k > 0 the loss is inf.

    At p = 1, rounded: the loss and its gradient are 0 for any γ > 0, where q^(γ-1) would be inf for γ < 1.

    Source: Lin, Goyal, Girshick, He and Dollár 2017.

    Args:
        gamma: γ >= 0, how fast the loss of an example fades as its p grows; 2 in the paper.
        ignore_index: int labels of this value have loss 0 and gradient 0, and do not count in the mean.
        class_weights: a tuple with one number >= 0 for each class.

    Raises:
        TypeError: class_weights is no tuple, or ignore_index no int.
        ValueError: gamma that is negative, infinite or NaN, or such class weights.

    Example:
        >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
        >>> loss, dlogits = Focal().value_and_grad(logits, jnp.array([0]))
        >>> round(float(loss), 4), [round(d, 4) for d in dlogits[0].tolist()]
        (0.1733, [-0.2983, 0.1491, 0.1491])
    """

    gamma: float = 2.0
    ignore_index: int | None = None
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self):
        """Check the settings."""
        if not (math.isfinite(self.gamma) and self.gamma >= 0):
            raise ValueError(f"Focal: gamma must be finite and >= 0, got {self.gamma}")
        super().__post_init__()

    def per_example(self, logits: jax.Array, y: Any) -> jax.Array:
        """The losses ℓ (n,) of logits (n, K) and labels (n,) or (n, K)."""
        logits, labels, poison = self._read(logits, y)
        targets, log_p = self._weighted(labels), log_softmax(logits)
        masked = (targets == 0) & (log_p == -jnp.inf)
        fading = self._power(_rest(log_p))
        return -(targets * fading * jnp.where(masked, 0, log_p)).sum(1) * poison

    def backward(self, logits: jax.Array, y: Any, dlosses: jax.Array) -> jax.Array:
        """The gradient of the logits (n, K), p Σ t h - t h in each row."""
        wide_logits, labels, poison = self._read(logits, y)
        log_p = log_softmax(wide_logits)
        p, q = jnp.exp(log_p), _rest(log_p)
        ratio = jnp.where(q == 0, 1, -_finite(log_p) / jnp.where(q == 0, 1, q))
        pulls = self._weighted(labels) * self._power(q) * (1 + self.gamma * p * ratio)
        return pulled_back(p, pulls, dlosses * poison).astype(logits.dtype)

    def _power(self, q: jax.Array) -> jax.Array:
        """q^γ, with a derivative of 0 at q = 0, where that of the power may be infinite."""
        if self.gamma == 0:
            return jnp.ones_like(q)
        return jnp.where(q == 0, 0, jnp.where(q == 0, 1, q) ** self.gamma)


@dataclass(frozen=True)
class NegativeLogLikelihood(ClassLoss):
    """-log p of the right class for a net that ends in log p itself, a `LogSoftmax` layer: ℓ = -Σ_k t_k o_k.

    It is linear in o, so dℓ/do_j = -t_j: behind LogSoftmax's own backward that is `SoftmaxCrossEntropy`'s p Σt - t, in
    two steps. t = c y with class weights c; the mean is divided by the labels' weights, as there.

    Labels: as `SoftmaxCrossEntropy` reads them.

    At -inf: a class with log p = -inf costs nothing where t_k is 0.

    Args:
        ignore_index: int labels of this value have loss 0 and gradient 0, and do not count in the mean.
        class_weights: a tuple with one number >= 0 for each class.

    Raises:
        TypeError: class_weights is no tuple, or ignore_index no int.
        ValueError: class weights that are negative, infinite or NaN.

    Example:
        >>> loss, dlogits = NegativeLogLikelihood().value_and_grad(jnp.array([[-0.5, -2.0]]), jnp.array([1]))
        >>> print(loss, dlogits)
        2.0 [[-0. -1.]]
    """

    ignore_index: int | None = None
    class_weights: tuple[float, ...] | None = None

    def per_example(self, logits: jax.Array, y: Any) -> jax.Array:
        """The losses ℓ (n,) of log-probabilities (n, K) and labels (n,) or (n, K)."""
        log_p, labels, poison = self._read(logits, y)
        targets = self._weighted(labels)
        masked = (targets == 0) & (log_p == -jnp.inf)
        return -(targets * jnp.where(masked, 0, log_p)).sum(1) * poison

    def backward(self, logits: jax.Array, y: Any, dlosses: jax.Array) -> jax.Array:
        """The gradient of the log-probabilities (n, K), -t in each row."""
        _, labels, poison = self._read(logits, y)
        return (-self._weighted(labels) * (dlosses * poison)[:, None]).astype(logits.dtype)


@dataclass(frozen=True)
class KLDivergence(Loss):
    """How far the probabilities p = softmax(o) are from those wanted: ℓ = Σ_k y_k (log y_k - log p_k), 0 log 0 = 0.

    It is the cross-entropy of y and p less the entropy of y, which no logit moves: one gradient, and a loss that is 0
    where p = y.

        dℓ/do_j = p_j Σ_k y_k - y_j

    The mean over the examples is PyTorch's "batchmean".

    Labels: probabilities (n, K), entries in [0, 1] and rows that sum to one, such as another net's softmax.

    At -inf: a class with p_k = 0 costs nothing where y_k is 0, and has gradient 0; where y_k > 0 the loss is inf.

    Source: Kullback and Leibler 1951.

    Example:
        >>> loss, dlogits = KLDivergence().value_and_grad(jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]]))
        >>> print(round(float(loss), 4), dlogits)
        0.6931 [[-0.5  0.5]]
    """

    def per_example(self, logits: jax.Array, y: Any) -> jax.Array:
        """The losses ℓ (n,) of logits and probabilities (n, K)."""
        logits, labels, poison = self._read(logits, y)
        log_p, log_y = log_softmax(logits), jnp.log(jnp.where(labels == 0, 1, labels))
        masked = (labels == 0) & (log_p == -jnp.inf)
        return (labels * (log_y - jnp.where(masked, 0, log_p))).sum(1) * poison

    def backward(self, logits: jax.Array, y: Any, dlosses: jax.Array) -> jax.Array:
        """The gradient of the logits (n, K), p Σy - y in each row."""
        wide_logits, labels, poison = self._read(logits, y)
        return pulled_back(jnp.exp(log_softmax(wide_logits)), labels, dlosses * poison).astype(logits.dtype)

    def _read(self, logits: jax.Array, y: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Wide logits and labels, both (n, K), and the poison (n,)."""
        name = type(self).__name__
        labels, poison = read_distributions(name, logits, read_labels(y), hint="a row of probabilities an example")
        return wide(logits), labels, poison


def read_distributions(name: str, logits: jax.Array, y: Any, hint: str) -> tuple[jax.Array, jax.Array]:
    """Labels (n, K) that are probabilities, in the logits' wide dtype, and the poison (n,)."""
    y = read_numbers(name, logits, y, hint)
    if y.ndim != 2:
        raise ValueError(f"{name}: logits must be (n, classes), got shape {logits.shape}")
    poison = poison_of(name, logits, y, (y >= 0) & (y <= 1), "in [0, 1]")
    sums = y.sum(1)  # near enough to 1 for labels that were bfloat16
    poison *= poison_of(name, logits, sums, abs(sums - 1) < 0.01, "rows with sum 1")
    return jnp.asarray(y), poison


def pulled_back(p: jax.Array, pulls: jax.Array, dlosses: jax.Array) -> jax.Array:
    """(p Σs - s) dℓ in each row, for probabilities p and pulls s (n, K) and dℓ (n,)."""
    return (p * pulls.sum(1, keepdims=True) - pulls) * dlosses[:, None]


def _finite(log_p: jax.Array) -> jax.Array:
    """Log p, but 0 for a class masked out: there p log p is 0, and no derivative comes back."""
    return jnp.where(log_p == -jnp.inf, 0, log_p)


def _rest(log_p: jax.Array) -> jax.Array:
    """Q = 1 - p, of log p; 1 for a class masked out."""
    return jnp.where(log_p == -jnp.inf, 1, -jnp.expm1(_finite(log_p)))

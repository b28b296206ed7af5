"""Losses: one number that says how wrong the logits are, with its hand-derived gradient.

A loss gives every example i of a batch a number ℓ_i. Their mean, with weights w and the divisor d that each counts for
(1 unless a class says otherwise), is

    L = Σ_i w_i ℓ_i / Σ_i w_i d_i,      dL/do_i = w_i / (Σ_j w_j d_j) dℓ_i/do_i

so `per_example` gives ℓ and `backward` carries dL/dℓ on to the logits o. If the divisor is 0, because nothing counts,
L and its gradient are 0, not NaN. A weight of 0 takes an example's finite loss out of the mean; an infinite or NaN loss
stays visible, for 0 · NaN = NaN: broken numbers come from the net, not from the example. (`ignore_index` hides all.)

The mean is one of three reductions, `reduction="mean"`, and the one that `Objective` takes; "sum" gives Σ_i w_i ℓ_i and
"none" the w_i ℓ_i themselves, both with dL_i/do_i = w_i dℓ_i/do_i. All three reduce over examples: where ℓ_i is a mean
over the example's k numbers (MeanSquaredError, say), PyTorch's "sum" over all numbers is k times the sum here.

Bad labels: those in NumPy arrays, lists or numbers are read at once, and the first bad one is named in a ValueError.
Those in jax.Arrays are never read. A bad one multiplies its example's loss by NaN, inside jit as well, so that the loss
and the whole row of its gradient are NaN, by hand and under jax.grad.
Shapes: logits (n, k), or (n, ...) where a loss says so; ℓ, w, d (n,). Computed in float32 at least; the gradient has
the dtype of the logits.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from handgrad.ops import check
from handgrad.ops.precision import wide

Reduction = Literal["mean", "sum", "none"]


@dataclass(frozen=True)
class Loss:
    """The contract of a loss, and the parts that follow from it. A loss of your own needs `per_example` alone.

    Example:
        >>> class Absolute(Loss):
        ...     def per_example(self, logits, y):
        ...         return jnp.abs(logits - y).mean(1)
        >>> loss, dlogits = Absolute().value_and_grad(jnp.array([[3.0, -1.0]]), jnp.array([[1.0, 1.0]]))
        >>> print(loss, dlogits)
        2.0 [[ 0.5 -0.5]]
        >>> print(Absolute()(jnp.array([[3.0], [0.0]]), jnp.array([[1.0], [1.0]]), reduction="none"))
        [2. 1.]
    """

    def per_example(self, logits: jax.Array, y: Any) -> jax.Array:
        """The losses ℓ (n,), in plain JAX: what jax.grad differentiates.

        Args:
            logits: the net's output, (n, ...).
            y: the labels of the n examples.

        Returns:
            One loss for each example, (n,).
        """
        raise NotImplementedError(f"{type(self).__name__}: write per_example(logits, y), which gives a loss of (n,)")

    def divisor(self, logits: jax.Array, y: Any) -> jax.Array:
        """What each example counts for in the divisor of the mean, (n,): 1, unless the loss overrides this."""
        return jnp.ones(logits.shape[0], wide(logits).dtype)

    def backward(self, logits: jax.Array, y: Any, dlosses: jax.Array) -> jax.Array:
        """The gradient of the logits, given that of `per_example`; found by jax.vjp unless the loss overrides this.

        Args:
            logits: the net's output, (n, ...).
            y: the labels of the n examples.
            dlosses: the gradient of the losses, (n,).

        Returns:
            dlogits, of the shape and dtype of the logits.
        """
        losses, vjp = jax.vjp(lambda logits: self.per_example(logits, y), logits)
        return vjp(dlosses.astype(losses.dtype))[0]

    def __call__(
        self, logits: ArrayLike, y: Any, weights: ArrayLike | None = None, *, reduction: Reduction = "mean"
    ) -> jax.Array:
        """The loss over the batch.

        Args:
            logits: the net's output, (n, ...), floating point.
            y: the labels of the n examples.
            weights: how much each example counts, (n,); all the same if None.
            reduction: "mean" over the examples, by weight; "sum" of their weighted losses; or "none", one for each.

        Returns:
            A scalar, or with "none" the weighted losses (n,); float32 at least.

        Raises:
            ValueError: shapes that do not fit, an empty batch, a bad label that can be read, another reduction.
            TypeError: logits that are not floating point, labels of the wrong type.
        """
        return self._reduced(jnp.asarray(logits), y, weights, reduction)[0]

    def value_and_grad(
        self, logits: ArrayLike, y: Any, weights: ArrayLike | None = None, *, reduction: Reduction = "mean"
    ) -> tuple[jax.Array, jax.Array]:
        """What calling the loss gives, and its gradient dlogits in the logits' shape and dtype.

        With "none" row i of dlogits is the gradient of the weighted loss i, which no other row moves.
        """
        logits = jnp.asarray(logits)
        value, shares = self._reduced(logits, y, weights, reduction)
        return value, self.backward(logits, y, shares)

    def _reduced(
        self, logits: jax.Array, y: Any, weights: ArrayLike | None, reduction: Reduction
    ) -> tuple[jax.Array, jax.Array]:
        """The reduced loss, and the share of each example in it: w_i, over Σ_j w_j d_j in the mean."""
        name = type(self).__name__
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f'{name}: reduction must be "mean", "sum" or "none", got {reduction!r}')
        check.floating(name, logits=logits)
        if logits.ndim == 0 or logits.size == 0:
            raise ValueError(f"{name}: logits must be (n, ...) and not empty, got shape {logits.shape}")
        n = logits.shape[0]
        losses = wide(self.per_example(logits, y))
        if losses.shape != (n,):
            raise ValueError(f"{name}: per_example must give one loss for each of {n} examples, got {losses.shape}")
        weights = jnp.ones(n, losses.dtype) if weights is None else jnp.asarray(weights)
        if weights.shape != (n,):
            raise ValueError(f"{name}: weights must be one number an example, shape {(n,)}, got {weights.shape}")
        weights = weights.astype(losses.dtype)
        weighted = weights * losses
        if reduction == "none":
            return weighted, weights
        if reduction == "sum":
            return weighted.sum(), weights
        total = (weights * self.divisor(logits, y).astype(losses.dtype)).sum()
        total = jnp.where(total == 0, 1, total)
        return weighted.sum() / total, weights / total


def read_labels(y: Any) -> Any:
    """Leave a jax.Array, traced or not, alone; make all else a NumPy array, whose values may be read."""
    return y if isinstance(y, jax.Array) else np.asarray(y)


def read_numbers(name: str, logits: jax.Array, y: Any, hint: str = "reshape one") -> Any:
    """Labels (n, ...) of the logits' shape as numbers of their wide dtype; NumPy stays NumPy."""
    check.floating(name, logits=logits)
    if y.shape != logits.shape:
        raise ValueError(f"{name}: labels must have the logits' shape {logits.shape}, got {y.shape}; {hint}")
    if not any(jnp.issubdtype(y.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise TypeError(f"{name}: labels must be real numbers, got {y.dtype}")
    return y.astype(wide(logits).dtype)


def read_classes(
    name: str, logits: jax.Array, y: Any, ignore_index: int | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of int labels (n,): the ignored (n,); one-hot rows (n, K), of zeros if ignored or bad; the poison (n,)."""
    check.floating(name, logits=logits)
    check_rows(name, logits)
    n, classes = logits.shape
    if y.shape != (n,):
        raise ValueError(f"{name}: int labels must have shape {(n,)} for logits {logits.shape}, got {y.shape}")
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"{name}: labels of shape (n,) must be int class numbers, got {y.dtype}; use astype(int)")
    y = y.astype(np.int64 if y.dtype.itemsize == 8 else np.int32)
    ignored = np.zeros(n, bool) if ignore_index is None else y == ignore_index
    ok = (y >= 0) & (y < classes) | ignored
    one_hot = (y[:, None] == np.arange(classes, dtype=y.dtype)[None, :]) & ~ignored[:, None]
    poison = poison_of(name, logits, y, ok, f"from 0 to {classes - 1}")
    return jnp.asarray(ignored), jnp.asarray(one_hot, poison.dtype), poison


def check_rows(name: str, logits: jax.Array) -> None:
    """Raise a ValueError unless the logits are a row an example."""
    if logits.ndim != 2:
        hint = "; Flatten() makes an image one row" if logits.ndim > 2 else ""
        raise ValueError(f"{name}: logits must be (n, classes), got shape {logits.shape}{hint}")


def poison_of(name: str, logits: jax.Array, y: Any, ok: Any, wanted: str) -> jax.Array:
    """1 for an example whose labels are all ok, NaN for another, (n,); an error where the bad label can be read."""
    if isinstance(ok, np.ndarray) and not ok.all():
        index = tuple(np.argwhere(~ok)[0].tolist())
        place = index[0] if y.ndim == 1 else index
        raise ValueError(f"{name}: labels must be {wanted}, got {y[index]} at index {place}")
    good = jnp.asarray(ok).reshape(ok.shape[0], -1).all(1)
    return jnp.where(good, 1, jnp.nan).astype(wide(logits).dtype)


def rest_mean(numbers: jax.Array) -> jax.Array:
    """The mean over all axes but the first: (n, ...) to (n,)."""
    return numbers.reshape(numbers.shape[0], -1).mean(1)


def rest_mean_backward(slopes: jax.Array, dlosses: jax.Array) -> jax.Array:
    """Back through `_rest_mean` and an elementwise map of the given slopes (n, ...): slope · dℓ/k."""
    share = dlosses / math.prod(slopes.shape[1:])
    return slopes * share.reshape((-1,) + (1,) * (slopes.ndim - 1))

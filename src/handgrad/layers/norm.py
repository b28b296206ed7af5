"""Normalisation. Its mathematics stands in ops/batch_norm.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State, parameter
from handgrad.ops.batch_norm import (
    batch_norm,
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    batch_norm_inference_backward,
    batch_norm_inference_forward,
)
from handgrad.ops.precision import wide


@dataclass(frozen=True, repr=False)
class BatchNorm(Layer):
    """Brings each channel to mean 0 and variance 1 over the batch, then scales and shifts it. See `ops.batch_norm`.

    Parameters: scale (C,), bias (C,). State: the running mean (C,) and var (C,) that inference uses, moved in each
    training step as running = momentum · running + (1 - momentum) · batch. The variance is the biased one, in the
    running statistics too. They are float32 at least.

    Args:
        momentum: the share of the old running statistics that a step keeps, 0 to 1.
        eps: added to the variance.

    Raises:
        ValueError: a momentum out of range, or no state given.

    Source: Ioffe and Szegedy, Batch normalization, 2015.

    Example:
        >>> import jax
        >>> params, state = BatchNorm().init(jax.random.key(0), (4, 4, 3))
        >>> jax.tree.map(jnp.shape, (params, state))
        ({'bias': (3,), 'scale': (3,)}, {'mean': (3,), 'var': (3,)})
    """

    kind: ClassVar[str] = "batchnorm"
    momentum: float = 0.9
    eps: float = 1e-5

    def __post_init__(self) -> None:
        """Check the momentum."""
        if isinstance(self.momentum, int | float) and not 0 <= self.momentum <= 1:
            raise ValueError(f"BatchNorm: momentum must be between 0 and 1, got {self.momentum}")

    def init(self, key: Array, in_shape: Shape, dtype: Any = jnp.float32) -> tuple[dict[str, Any], dict[str, Any]]:
        """Scale 1 and bias 0; running mean 0 and variance 1."""
        if not in_shape:
            raise ValueError("BatchNorm: in_shape must have a channel axis, got ()")
        channels, at_least_float32 = in_shape[-1], dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32
        params = {"scale": jnp.ones(channels, dtype), "bias": jnp.zeros(channels, dtype)}
        return params, {"mean": jnp.zeros(channels, at_least_float32), "var": jnp.ones(channels, at_least_float32)}

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """X normalised by the running statistics."""
        scale, bias = self._scale_and_bias(params)
        return batch_norm_inference(x, scale, bias, *self._statistics(state), eps=self.eps)

    def apply_train(self, params: Params, x: Array, state: State = (), key: Array | None = None) -> tuple[Array, State]:
        """X normalised by the statistics of this batch, which the new state takes in."""
        running, rows = self._statistics(state), tuple(range(x.ndim - 1))
        y = batch_norm(x, *self._scale_and_bias(params), eps=self.eps)
        return y, self._moved(running, (wide(x).mean(rows), wide(x).var(rows)))

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The same, keeping x, mean and variance."""
        running = self._statistics(state)
        y, (x, mean, var) = batch_norm_forward(x, *self._scale_and_bias(params), eps=self.eps)
        return y, self._moved(running, (mean, var)), {"x": x, "mean": mean, "var": var}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """dx, which reaches x through the statistics too, dscale and dbias."""
        kept = (residuals["x"], residuals["mean"], residuals["var"])
        dx, dscale, dbias = batch_norm_backward(kept, parameter(self, params, "scale"), dy, eps=self.eps)
        return dx, {"scale": dscale, "bias": dbias}

    def inference(self) -> Layer:
        """Batch norm whose statistics stay as they are."""
        return FrozenBatchNorm(self.momentum, self.eps, name=self.name)

    def _scale_and_bias(self, params: Params) -> tuple[Array, Array]:
        return parameter(self, params, "scale"), parameter(self, params, "bias")

    def _statistics(self, state: State) -> tuple[Array, Array]:
        if not isinstance(state, Mapping) or not {"mean", "var"} <= set(state):
            raise ValueError(f"BatchNorm: needs its state with mean and var, got {state!r}; pass the state from init")
        return state["mean"], state["var"]

    def _moved(self, running: tuple[Array, Array], batch: tuple[Array, Array]) -> dict[str, Array]:
        """The running statistics moved towards those of the batch."""
        keep = jnp.asarray(self.momentum, running[0].dtype)
        mean, var = (keep * old + (1 - keep) * new.astype(old.dtype) for old, new in zip(running, batch, strict=True))
        return {"mean": mean, "var": var}


@dataclass(frozen=True, repr=False)
class FrozenBatchNorm(BatchNorm):
    """Batch norm by its running statistics in training too: an affine map of each channel. See `hg.inference`.

    Example:
        >>> import jax
        >>> params, state = FrozenBatchNorm(eps=0.0).init(jax.random.key(0), (1,))
        >>> FrozenBatchNorm(eps=0.0).forward(params, jnp.full((2, 1), 3.0, "float32"), state)[0].tolist()
        [[3.0], [3.0]]
    """

    def apply_train(self, params: Params, x: Array, state: State = (), key: Array | None = None) -> tuple[Array, State]:
        """The same as apply; the state stays."""
        return self.apply(params, x, state), state

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The same as apply, keeping what the two gradients of scale and bias need."""
        scale, bias = self._scale_and_bias(params)
        y, kept = batch_norm_inference_forward(x, scale, bias, *self._statistics(state), eps=self.eps)
        return y, state, kept

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """dx, dscale and dbias with the statistics held constant."""
        scale = parameter(self, params, "scale")
        dx, dscale, dbias = batch_norm_inference_backward(residuals, scale, dy, eps=self.eps)
        return dx, {"scale": dscale, "bias": dbias}

    def inference(self) -> Layer:
        """Itself."""
        return self

"""Normalisation. Its mathematics stands in ops/batch_norm.py, layer_norm.py, group_norm.py, local_response_norm.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State, parameter
from handgrad.layers.op_layer import OpLayer
from handgrad.ops.batch_norm import (
    batch_norm,
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    batch_norm_inference_backward,
    batch_norm_inference_forward,
)
from handgrad.ops.group_norm import check_groups
from handgrad.ops.precision import wide
from handgrad.ops.rules import RULES


@dataclass(frozen=True, repr=False)
class ScaleAndBias(Layer):
    """What the norms share: a scale and a bias for each channel."""

    def init(self, key: Array, in_shape: Shape, dtype: Any = jnp.float32) -> tuple[dict[str, Any], dict[str, Any]]:
        """Scale 1 and bias 0."""
        if not in_shape:
            raise ValueError(f"{type(self).__name__}: in_shape must have a channel axis, got ()")
        return {"scale": jnp.ones(in_shape[-1], dtype), "bias": jnp.zeros(in_shape[-1], dtype)}, {}

    def scale_and_bias(self, params: Params) -> tuple[Array, Array]:
        """Both parameters, or an error that names the missing one."""
        return parameter(self, params, "scale"), parameter(self, params, "bias")


@dataclass(frozen=True, repr=False)
class OpNorm(ScaleAndBias, OpLayer):
    """A norm without state: one op of x, scale and bias, whose settings are the layer's fields."""

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """The op by its plain formula."""
        return RULES[self.op].op(x, *self.scale_and_bias(params), **self.settings())

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The op, with what its backward keeps."""
        y, residuals = RULES[self.op].forward(x, *self.scale_and_bias(params), **self.settings())
        return y, state, residuals

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """dx, which reaches x through the statistics too, dscale and dbias."""
        dx, dscale, dbias = RULES[self.op].backward(residuals, dy, **self.settings())
        return dx, {"scale": dscale, "bias": dbias}


@dataclass(frozen=True, repr=False)
class LayerNorm(OpNorm):
    """Brings the channels of each place to mean 0 and variance 1, then scales and shifts them. See `ops.layer_norm`.

    Parameters: scale (C,), bias (C,). Training and inference are alike.

    Args:
        eps: added to the variance.

    Source: Ba, Kiros and Hinton, Layer normalization, 2016.

    Example:
        >>> import jax
        >>> params, state = LayerNorm(eps=0.0).init(jax.random.key(0), (2,))
        >>> LayerNorm(eps=0.0).apply(params, jnp.array([[1.0, 3.0]], "float32")).tolist()
        [[-1.0, 1.0]]
    """

    kind: ClassVar[str] = "layernorm"
    op: ClassVar[str] = "layer_norm"
    eps: float = 1e-5


@dataclass(frozen=True, repr=False)
class GroupNorm(OpNorm):
    """Brings each group of channels of each example to mean 0 and variance 1, then scales and shifts each channel.

    Parameters: scale (C,), bias (C,). Training and inference are alike, and the size of the batch is of no account.
    See `ops.group_norm`.

    Args:
        num_groups: into how many groups of neighbours the channels fall; 1 takes all of an example.
        eps: added to the variance.

    Raises:
        ValueError: groups that do not divide the channels.

    Source: Wu and He, Group normalization, 2018.

    Example:
        >>> import jax
        >>> params, state = GroupNorm(4).init(jax.random.key(0), (6, 6, 8))
        >>> jax.tree.map(jnp.shape, params)
        {'bias': (8,), 'scale': (8,)}
    """

    kind: ClassVar[str] = "groupnorm"
    op: ClassVar[str] = "group_norm"
    num_groups: int
    eps: float = 1e-5

    def init(self, key: Array, in_shape: Shape, dtype: Any = jnp.float32) -> tuple[dict[str, Any], dict[str, Any]]:
        """Scale 1 and bias 0, for channels that the groups divide."""
        params, state = super().init(key, in_shape, dtype)
        check_groups("GroupNorm", in_shape[-1], self.num_groups)
        return params, state


@dataclass(frozen=True, repr=False)
class InstanceNorm(OpNorm):
    """Brings each channel of each example to mean 0 and variance 1 over its places, then scales and shifts it.

    Parameters: scale (C,), bias (C,). It keeps no running statistics: training and inference are alike. See
    `ops.instance_norm`.

    Args:
        eps: added to the variance.

    Raises:
        ValueError: an x with fewer than two places.

    Source: Ulyanov, Vedaldi and Lempitsky, Instance normalization, 2016.

    Example:
        >>> import jax
        >>> params, state = InstanceNorm(eps=0.0).init(jax.random.key(0), (2, 1))
        >>> InstanceNorm(eps=0.0).apply(params, jnp.array([[[1.0], [3.0]]], "float32")).tolist()
        [[[-1.0], [1.0]]]
    """

    kind: ClassVar[str] = "instancenorm"
    op: ClassVar[str] = "instance_norm"
    eps: float = 1e-5


@dataclass(frozen=True, repr=False)
class LocalResponseNorm(OpLayer):
    """Divides each number by (k + alpha/size · Σ squares of size neighbouring channels)^beta. No parameters.

    See `ops.local_response_norm`. The paper's alpha is not divided by size: its net has alpha=5e-4, k=2 here.

    Args:
        size: how many channels a window takes, size//2 of them below.
        alpha: the weight of the mean of squares.
        beta: the power.
        k: what is there without neighbours.

    Source: Krizhevsky, Sutskever and Hinton, ImageNet classification, 2012, section 3.3.

    Example:
        >>> LocalResponseNorm(size=1, alpha=1.0, beta=0.5, k=0.0).apply({}, jnp.array([-3.0, 5.0])).tolist()
        [-1.0, 1.0]
    """

    kind: ClassVar[str] = "localresponsenorm"
    op: ClassVar[str] = "local_response_norm"
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True, repr=False)
class BatchNorm(ScaleAndBias):
    """Brings each channel to mean 0 and variance 1 over the batch, then scales and shifts it. See `ops.batch_norm`.

    Parameters: scale (C,), bias (C,). State: the running mean (C,) and var (C,) that inference uses, moved in each
    training step as running = momentum · running + (1 - momentum) · batch. The variance is the biased one, in the
    running statistics too (PyTorch's are of the unbiased one, m/(m - 1) times as large). They are float32 at least.

    Where some examples are only padding, say so in the state of that step: a `mask` beside mean and var, (N,) or
    (N, P..), that is 0 for what does not count. Training then takes its statistics from the rest, and hands the mask
    back in the new state, which so keeps its form in a scan. Give such examples no weight in the loss either.

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
        >>> norm = BatchNorm(momentum=0.0)
        >>> params, state = norm.init(jax.random.key(0), (1,))
        >>> padded, mask = jnp.array([[1.0], [3.0], [0.0]], "float32"), jnp.array([True, True, False])
        >>> y, new_state, _ = norm.forward(params, padded, {**state, "mask": mask})
        >>> new_state["mean"].tolist(), new_state["var"].tolist()
        ([2.0], [1.0])
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
        params, _ = super().init(key, in_shape, dtype)
        channels, at_least_float32 = in_shape[-1], dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32
        return params, {"mean": jnp.zeros(channels, at_least_float32), "var": jnp.ones(channels, at_least_float32)}

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """X normalised by the running statistics."""
        scale, bias = self.scale_and_bias(params)
        return batch_norm_inference(x, scale, bias, *self._statistics(state), eps=self.eps)

    def apply_train(self, params: Params, x: Array, state: State = (), key: Array | None = None) -> tuple[Array, State]:
        """X normalised by the statistics of this batch, which the new state takes in."""
        mask, rows = self._mask(state), tuple(range(x.ndim - 1))
        y = batch_norm(x, *self.scale_and_bias(params), mask, eps=self.eps)
        where = None if mask is None else mask.astype(bool).reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
        return y, self._moved(state, (wide(x).mean(rows, where=where), wide(x).var(rows, where=where)))

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The same, keeping x, mean and variance, and the mask where there is one."""
        mask = self._mask(state)
        y, (x, mean, var) = batch_norm_forward(x, *self.scale_and_bias(params), mask, eps=self.eps)
        kept = {"x": x, "mean": mean, "var": var}
        return y, self._moved(state, (mean, var)), kept if mask is None else kept | {"mask": mask}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """dx, which reaches x through the statistics too, dscale and dbias."""
        kept, mask = (residuals["x"], residuals["mean"], residuals["var"]), residuals.get("mask")
        dx, dscale, dbias = batch_norm_backward(kept, parameter(self, params, "scale"), dy, mask, eps=self.eps)
        return dx, {"scale": dscale, "bias": dbias}

    def inference(self) -> Layer:
        """Batch norm whose statistics stay as they are."""
        return FrozenBatchNorm(self.momentum, self.eps, name=self.name)

    def _statistics(self, state: State) -> tuple[Array, Array]:
        if not isinstance(state, Mapping) or not {"mean", "var"} <= set(state):
            raise ValueError(f"BatchNorm: needs its state with mean and var, got {state!r}; pass the state from init")
        return state["mean"], state["var"]

    def _mask(self, state: State) -> Array | None:
        self._statistics(state)
        return state.get("mask")

    def _moved(self, state: State, batch: tuple[Array, Array]) -> dict[str, Array]:
        """The state with its running statistics moved towards those of the batch."""
        old = self._statistics(state)
        keep = jnp.asarray(self.momentum, old[0].dtype)
        mean, var = (keep * o + (1 - keep) * new.astype(o.dtype) for o, new in zip(old, batch, strict=True))
        return {**state, "mean": mean, "var": var}


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
        scale, bias = self.scale_and_bias(params)
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

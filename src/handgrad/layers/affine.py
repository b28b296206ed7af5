"""Layers with a kernel and a bias: Dense, Conv and ConvTranspose. Their mathematics stands in ops/."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from handgrad import initializers
from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State, parameter
from handgrad.ops.conv import conv, conv_backward, conv_forward
from handgrad.ops.conv_transpose import conv_transpose, conv_transpose_backward, conv_transpose_forward
from handgrad.ops.dense import dense, dense_backward, dense_forward
from handgrad.ops.spatial import Padding, per_axis

Ints = int | Sequence[int]
Initializer = Callable[..., Array]


@dataclass(frozen=True, repr=False)
class Affine(Layer):
    """What Dense and Conv share: features, an optional bias, and how both are drawn."""

    features: int

    def __post_init__(self) -> None:
        """Check the number of features."""
        if isinstance(self.features, bool) or not isinstance(self.features, int):
            raise TypeError(f"{type(self).__name__}: features must be an int, got {self.features!r}")
        if self.features < 1:
            raise ValueError(f"{type(self).__name__}: features must be at least 1, got {self.features}")

    def draw(
        self, key: Array, kernel_shape: Shape, dtype: Any, kernel_init: Initializer, bias_init: Initializer | None
    ) -> dict[str, Any]:
        """Fresh kernel and, where it has an initializer, bias."""
        kernel_key, bias_key = jax.random.split(key)
        params = {"kernel": kernel_init(kernel_key, kernel_shape, dtype)}
        return params if bias_init is None else params | {"bias": bias_init(bias_key, (self.features,), dtype)}

    def weights(self, params: Params, use_bias: bool) -> tuple[Array, Array | None]:
        """Kernel and bias, the latter None where the layer has none."""
        return parameter(self, params, "kernel"), parameter(self, params, "bias") if use_bias else None


@dataclass(frozen=True, repr=False)
class Dense(Affine):
    """A fully connected layer, y = x W + b on the last axis. Parameters: kernel (I, O), bias (O,). See `ops.dense`.

    Args:
        features: O, the outputs.
        use_bias: whether there is a b.
        kernel_init: how W is drawn, (key, shape, dtype) -> array.
        bias_init: how b is drawn.

    Raises:
        ValueError: features below 1, or an x whose last axis is not I.

    Example:
        >>> params, state = Dense(3).init(jax.random.key(0), (5,))
        >>> jax.tree.map(jnp.shape, params)
        {'bias': (3,), 'kernel': (5, 3)}
    """

    kind: ClassVar[str] = "dense"
    use_bias: bool = True
    kernel_init: Initializer = initializers.he_normal
    bias_init: Initializer = initializers.zeros

    def init(self, key: Array, in_shape: Shape, dtype: Any = jnp.float32) -> tuple[dict[str, Any], dict[str, Any]]:
        """Kernel and bias for inputs whose last axis is in_shape[-1]."""
        if not in_shape:
            raise ValueError("Dense: in_shape must have a last axis, got ()")
        bias_init = self.bias_init if self.use_bias else None
        return self.draw(key, (in_shape[-1], self.features), dtype, self.kernel_init, bias_init), {}

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """X W + b."""
        return dense(x, *self.weights(params, self.use_bias))

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """X W + b, keeping x."""
        y, x = dense_forward(x, *self.weights(params, self.use_bias))
        return y, state, {"x": x}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """Dx = dy Wᵀ, dW = xᵀ dy, db = Σ dy."""
        dx, dkernel, dbias = dense_backward(residuals["x"], parameter(self, params, "kernel"), dy)
        return dx, {"kernel": dkernel, "bias": dbias} if self.use_bias else {"kernel": dkernel}


@dataclass(frozen=True, repr=False)
class Conv(Affine):
    """A convolution over one to three spatial axes. Parameters: kernel (*K, C/groups, O), bias (O,). See `ops.conv`.

    Args:
        features: O, the output channels.
        kernel_size: places the kernel spans, an int or one an axis.
        strides: places from one window to the next.
        padding: "SAME" (ceil(A/strides) outputs), "VALID" (none), an int, or (low, high) pairs; of zeros.
        dilation: places from one kernel element to the next.
        groups: how many groups the channels and features fall into.
        use_bias: whether there is a b.
        kernel_init: how the kernel is drawn, (key, shape, dtype) -> array.
        bias_init: how the bias is drawn.

    Raises:
        ValueError: settings out of range, or an x that does not fit.

    Example:
        >>> params, state = Conv(8, 3).init(jax.random.key(0), (28, 28, 1))
        >>> jax.tree.map(jnp.shape, params)
        {'bias': (8,), 'kernel': (3, 3, 1, 8)}
    """

    kind: ClassVar[str] = "conv"
    kernel_size: Ints
    strides: Ints = 1
    padding: Padding = "SAME"
    dilation: Ints = 1
    groups: int = 1
    use_bias: bool = True
    kernel_init: Initializer = initializers.he_normal
    bias_init: Initializer = initializers.zeros

    def settings(self) -> dict[str, Any]:
        """The keyword settings of the op."""
        return {"strides": self.strides, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def init(self, key: Array, in_shape: Shape, dtype: Any = jnp.float32) -> tuple[dict[str, Any], dict[str, Any]]:
        """Kernel and bias for inputs of in_shape (*A, C)."""
        bias_init = self.bias_init if self.use_bias else None
        return self.draw(key, _grouped_kernel_shape(self, in_shape), dtype, self.kernel_init, bias_init), {}

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """The convolution by its plain formula."""
        return conv(x, *self.weights(params, self.use_bias), **self.settings())

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The convolution, keeping x."""
        y, x = conv_forward(x, *self.weights(params, self.use_bias), **self.settings())
        return y, state, {"x": x}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """Two convolutions, for dx and for the kernel, and a sum for the bias."""
        kernel = parameter(self, params, "kernel")
        dx, dkernel, dbias = conv_backward(residuals["x"], kernel, dy, **self.settings())
        return dx, {"kernel": dkernel, "bias": dbias} if self.use_bias else {"kernel": dkernel}


@dataclass(frozen=True, repr=False)
class ConvTranspose(Affine):
    """A transposed convolution, which spreads each place over a window: Conv's adjoint. See `ops.conv_transpose`.

    Parameters: kernel (*K, C, O/groups), bias (O,). The kernel is drawn as Conv's is, by the C/groups channels that a
    group sums.

    Args:
        features: O, the output channels.
        kernel_size: places the kernel spans, an int or one an axis.
        strides: places of the output from one place of the input to the next.
        padding: what is cropped: "SAME" (A*strides outputs), "VALID" (nothing), an int, or (low, high) pairs.
        output_padding: places added at the high end; below strides or dilation.
        dilation: places from one kernel element to the next.
        groups: how many groups the channels and features fall into.
        use_bias: whether there is a b.
        kernel_init: how the kernel is drawn, (key, shape, dtype) -> array; it is asked for (*K, C/groups, O).
        bias_init: how the bias is drawn.

    Raises:
        ValueError: settings out of range, or an x that does not fit.

    Example:
        >>> layer = ConvTranspose(8, 4, strides=2)
        >>> params, state = layer.init(jax.random.key(0), (14, 14, 16))
        >>> jax.tree.map(jnp.shape, params), layer.apply(params, jnp.ones((1, 14, 14, 16), "float32")).shape
        ({'bias': (8,), 'kernel': (4, 4, 16, 8)}, (1, 28, 28, 8))
    """

    kind: ClassVar[str] = "convtranspose"
    kernel_size: Ints
    strides: Ints = 1
    padding: Padding = "SAME"
    output_padding: Ints = 0
    dilation: Ints = 1
    groups: int = 1
    use_bias: bool = True
    kernel_init: Initializer = initializers.he_normal
    bias_init: Initializer = initializers.zeros

    def settings(self) -> dict[str, Any]:
        """The keyword settings of the op."""
        names = ("strides", "padding", "output_padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    def init(self, key: Array, in_shape: Shape, dtype: Any = jnp.float32) -> tuple[dict[str, Any], dict[str, Any]]:
        """Kernel and bias for inputs of in_shape (*A, C)."""
        bias_init = self.bias_init if self.use_bias else None
        params = self.draw(key, _grouped_kernel_shape(self, in_shape), dtype, self.kernel_init, bias_init)
        groups = jnp.split(params["kernel"], self.groups, -1)
        return params | {"kernel": jnp.concatenate(groups, -2)}, {}

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """The transposed convolution by its plain formula."""
        return conv_transpose(x, *self.weights(params, self.use_bias), **self.settings())

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The transposed convolution, keeping x."""
        y, x = conv_transpose_forward(x, *self.weights(params, self.use_bias), **self.settings())
        return y, state, {"x": x}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """A convolution for dx, another for the kernel, and a sum for the bias."""
        kernel = parameter(self, params, "kernel")
        dx, dkernel, dbias = conv_transpose_backward(residuals["x"], kernel, dy, **self.settings())
        return dx, {"kernel": dkernel, "bias": dbias} if self.use_bias else {"kernel": dkernel}


def _grouped_kernel_shape(layer: Conv | ConvTranspose, in_shape: Shape) -> Shape:
    """(*K, C/groups, O) for inputs of in_shape (*A, C), or an error that names the layer."""
    name = type(layer).__name__
    if not 2 <= len(in_shape) <= 4:
        raise ValueError(f"{name}: in_shape must be (L, C), (H, W, C) or (D, H, W, C), got {tuple(in_shape)}")
    sizes, channels = per_axis(name, "kernel_size", layer.kernel_size, len(in_shape) - 1), in_shape[-1]
    groups = layer.groups
    if not isinstance(groups, int) or groups < 1 or channels % groups or layer.features % groups:
        raise ValueError(
            f"{name}: groups must divide the {channels} input channels and {layer.features} features, got {groups!r}"
        )
    return (*sizes, channels // groups, layer.features)

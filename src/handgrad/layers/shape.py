"""Layers that only move numbers to other places, and a layer of any function."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from handgrad.layers.layer import Array, Layer, Params, Residuals, State, Static
from handgrad.layers.op_layer import OpLayer
from handgrad.ops.pad import Mode, Padding
from handgrad.ops.upsample import Coordinates, Factor, Method, Rounding, Size


@dataclass(frozen=True, repr=False)
class Flatten(Layer):
    """All axes but the batch in one, row by row: (N, H, W, C) to (N, H·W·C). No parameters.

    A rearrangement is its own transpose read backwards: dx is dy in x's shape.

    Example:
        >>> import jax.numpy as jnp
        >>> Flatten().apply({}, jnp.zeros((2, 3, 4))).shape
        (2, 12)
    """

    kind: ClassVar[str] = "flatten"

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """X as (N, everything else)."""
        if x.ndim < 1:
            raise ValueError("Flatten: x must have a batch axis, got a scalar")
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The same, keeping x's shape."""
        return self.apply(params, x), state, {"in_shape": Static(x.shape)}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """Dy in x's shape."""
        return dy.reshape(residuals["in_shape"].value), {}


@dataclass(frozen=True, repr=False)
class Reshape(Layer):
    """Each example's numbers, row by row, in another shape: (N, ...) to (N, *shape). No parameters.

    A rearrangement is its own transpose read backwards: dx is dy in x's shape.

    Args:
        shape: the new shape without the batch axis, a tuple of ints; one may be -1 for what is left.

    Raises:
        TypeError: sizes that are no ints.
        ValueError: a size below 1 other than one -1, or numbers that do not fill the shape.

    Example:
        >>> import jax.numpy as jnp
        >>> Reshape((2, 2, -1)).apply({}, jnp.zeros((3, 20))).shape
        (3, 2, 2, 5)
    """

    kind: ClassVar[str] = "reshape"
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the sizes."""
        if not isinstance(self.shape, tuple) or any(isinstance(s, bool) or not isinstance(s, int) for s in self.shape):
            raise TypeError(f"Reshape: shape must be a tuple of ints without the batch axis, got {self.shape!r}")
        if any(size < 1 and size != -1 for size in self.shape) or self.shape.count(-1) > 1:
            raise ValueError(f"Reshape: sizes must be at least 1, or -1 for one of them, got {self.shape}")

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """X as (N, *shape)."""
        if x.ndim < 1:
            raise ValueError("Reshape: x must have a batch axis, got a scalar")
        numbers, known = math.prod(x.shape[1:]), math.prod(size for size in self.shape if size != -1)
        if numbers % known or (numbers != known and -1 not in self.shape):
            raise ValueError(f"Reshape: {self.shape} must hold the {numbers} numbers of an example of x {x.shape}")
        return x.reshape(x.shape[0], *(numbers // known if size == -1 else size for size in self.shape))

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The same, keeping x's shape."""
        return self.apply(params, x), state, {"in_shape": Static(x.shape)}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """Dy in x's shape."""
        return dy.reshape(residuals["in_shape"].value), {}


@dataclass(frozen=True, repr=False)
class Identity(Layer):
    """X itself: the branch of a `Parallel` that passes its input on. No parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> Identity().apply({}, jnp.ones(2)).tolist()
        [1.0, 1.0]
    """

    kind: ClassVar[str] = "identity"

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """X."""
        return x

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """X; nothing is kept."""
        return x, state, {}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """Dy."""
        return dy, {}


@dataclass(frozen=True, repr=False)
class Upsample(OpLayer):
    """The spatial axes at another size, by the nearest place or on straight lines. No parameters. See `ops.upsample`.

    The backward sums what each place was copied or spread to; it needs nothing of x but its shape.

    Args:
        factor: places of y for one of x, a number or one an axis.
        output_size: the new sizes, an int or one an axis, in the place of a factor.
        method: "nearest", or "linear" ("bilinear" with two axes, "trilinear" with three).
        align_corners: short for coordinates="align_corners".
        coordinates: where places lie, "half_pixel", "pytorch_half_pixel", "align_corners" or "asymmetric"; PyTorch's
            choice unless given.
        rounding: for nearest, "floor", "ceil", "round_prefer_floor" or "round_prefer_ceil"; PyTorch's choice unless
            given.

    Source: Long, Shelhamer and Darrell, Fully convolutional networks for semantic segmentation, 2015, section 3.3.

    Example:
        >>> import jax.numpy as jnp
        >>> Upsample(2).apply({}, jnp.array([1.0, 3.0]).reshape(1, 2, 1)).ravel().tolist()
        [1.0, 1.0, 3.0, 3.0]
        >>> Upsample(2, method="linear").apply({}, jnp.array([1.0, 3.0]).reshape(1, 2, 1)).ravel().tolist()
        [1.0, 1.5, 2.5, 3.0]
    """

    kind: ClassVar[str] = "upsample"
    op: ClassVar[str] = "upsample"
    factor: Factor | None = None
    output_size: Size | None = None
    method: Method = "nearest"
    align_corners: bool = False
    coordinates: Coordinates | None = None
    rounding: Rounding | None = None


@dataclass(frozen=True, repr=False)
class Pad(OpLayer):
    """Places added around the spatial axes, of one value or of the input's own. No parameters. See `ops.pad`.

    Args:
        padding: places on both sides, an int, an int an axis, or (low, high) pairs.
        mode: "constant", "edge" (PyTorch's replicate), "reflect" or "wrap" (circular).
        value: what "constant" adds.

    Example:
        >>> import jax.numpy as jnp
        >>> Pad(2, mode="reflect").apply({}, jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)).ravel().tolist()
        [3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0]
    """

    kind: ClassVar[str] = "pad"
    op: ClassVar[str] = "pad"
    padding: Padding
    mode: Mode = "constant"
    value: float = 0.0


@dataclass(frozen=True, repr=False)
class Lambda(Layer):
    """A layer of any function of x, without parameters; its backward is the function's `jax.vjp`.

    Two are equal when their functions are the same object, so define the function once and outside of loops.

    Args:
        function: y = function(x).

    Raises:
        TypeError: something that cannot be called.

    Example:
        >>> import jax.numpy as jnp
        >>> square = Lambda(jnp.square)
        >>> y, _, residuals = square.forward({}, jnp.array([3.0]))
        >>> square.backward({}, residuals, jnp.ones(1))[0].tolist()
        [6.0]
    """

    kind: ClassVar[str] = "lambda"
    function: Callable[[Array], Array]

    def __post_init__(self) -> None:
        """Check that there is something to call."""
        if not callable(self.function):
            raise TypeError(f"Lambda: wants a function, got {self.function!r}")

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """function(x)."""
        return self.function(x)

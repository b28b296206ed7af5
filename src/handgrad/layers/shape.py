"""Layers that only rearrange, and a layer of any function."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from handgrad.layers.layer import Array, Layer, Params, Residuals, State, Static


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

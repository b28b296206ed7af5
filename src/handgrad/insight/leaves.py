"""The leaf layers of a net by their path, and the net with each of them wrapped: how the tools look inside."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.layers.container import Container, map_layers
from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State


@dataclass(frozen=True, repr=False)
class Wrapped(Layer):
    """A layer in another's place, which does all that the other does; subclasses look on in forward and backward."""

    layer: Layer
    path: str

    def init(self, key: Array, in_shape: Shape, dtype: Any = jnp.float32) -> tuple[dict[str, Any], dict[str, Any]]:
        """The params and state of the wrapped layer."""
        return self.layer.init(key, in_shape, dtype)

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """The output of the wrapped layer."""
        return self.layer.apply(params, x, state)

    def apply_train(self, params: Params, x: Array, state: State = (), key: Array | None = None) -> tuple[Array, State]:
        """The training output and state of the wrapped layer."""
        return self.layer.apply_train(params, x, state, key)

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The forward pass of the wrapped layer."""
        return self.layer.forward(params, x, state, key)

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """The backward pass of the wrapped layer."""
        return self.layer.backward(params, residuals, dy)


def leaf_layers(net: Layer) -> list[tuple[str, Layer]]:
    """(path, layer) of each layer that is no container, in order; a path is names with slashes, `residual1/body`."""
    return _below(net, "") if isinstance(net, Container) else [(net.name or net.kind, net)]


def wrap_leaves(wrap: Callable[[Layer, str], Layer], net: Layer) -> Layer:
    """The net with wrap(layer, path) in the place of each leaf layer, under the old names."""
    paths = iter([path for path, _ in leaf_layers(net)])
    return map_layers(lambda layer: wrap(layer, next(paths)), net)


def path_text(path: tuple) -> str:
    """A pytree path as names with slashes: `conv1/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _below(net: Layer, path: str) -> list[tuple[str, Layer]]:
    if not isinstance(net, Container):
        return [(path, net)]
    return [leaf for name, layer in net.items() for leaf in _below(layer, f"{path}/{name}" if path else name)]

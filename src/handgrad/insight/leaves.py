"""The leaf layers of a net by their path, and the net with each of them wrapped: how the tools look inside."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp

from handgrad.layers.container import Container, entry
from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State


@dataclass(frozen=True, repr=False)
class Around(Layer):
    """A layer in another's place, under its name, which does all that the other does; subclasses change one thing."""

    layer: Layer

    @property
    def kind(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]  # the wrapped layer's, per instance
        """The kind of the wrapped layer, so that its name in a container stays."""
        return self.layer.kind

    def class_name(self) -> str:
        """The class of the wrapped layer."""
        return self.layer.class_name()

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


@dataclass(frozen=True, repr=False)
class Wrapped(Around):
    """A layer around another that knows where in the net it is; subclasses look on in forward and backward."""

    path: str


def is_open(layer: Layer) -> bool:
    """Whether a layer is a container that hands dy down to its children itself.

    A container without a backward of its own is differentiated whole, by jax.vjp, and is looked at as one layer.
    """
    return isinstance(layer, Container) and type(layer).backward is not Layer.backward


def backward_of(layer: Layer) -> str:
    """Whose backward a leaf has, for tables.

    "by hand" is its own, "jax.vjp" the one that `Layer` derives where it has none. "swapped" is another rule in their
    place, as of `hg.rules`, over one by hand, and "swapped, jax.vjp" over none: whether it asks for that is its affair.
    """
    swapped = False
    while isinstance(layer, Around):
        swapped |= not isinstance(layer, Wrapped) and type(layer).backward is not Around.backward
        layer = layer.layer
    own = "jax.vjp" if type(layer).backward is Layer.backward else "by hand"
    return own if not swapped else "swapped" if own == "by hand" else f"swapped, {own}"


def innermost(layer: Layer) -> Layer:
    """The layer within those that wrap it to swap a rule or to look on."""
    while isinstance(layer, Around):
        layer = layer.layer
    return layer


def leaf_layers(net: Layer) -> list[tuple[str, Layer]]:
    """(path, layer) of each leaf layer, in order; a path is names with slashes, `residual1/body/conv1`.

    Raises:
        ValueError: two leaves of one path, as names with slashes of their own can make them.
    """
    return list(by_path(net, net, lambda tree, name: dict(tree.items())[name]).items())


def by_path(net: Layer, tree: Any, child: Callable[[Any, str], Any] = entry) -> dict[str, Any]:
    """What a tree by layer name, such as params, has for each leaf layer, by the leaf's path and in order.

    Args:
        net: whose leaves.
        tree: nested as the net's containers are.
        child: (tree, name) -> the part of it that belongs to a child; () where a dict has none.
    """
    if not is_open(net):
        return {net.name or net.kind: tree}
    found: dict[str, Any] = {}
    for path, value in _below(net, tree, child, ""):
        if path in found:
            raise ValueError(f"{type(net).__name__}: two layers have the path {path!r}; name one of them otherwise")
        found[path] = value
    return found


def with_leaves(net: Layer, tree: Any, values: dict[str, Any], path: str = "") -> Any:
    """The other way: a tree built as `tree`, with values[path] in the place of each leaf layer's part."""
    if not is_open(net):
        return values[path or net.name or net.kind]
    if not isinstance(tree, Mapping):
        return tree
    layers = dict(cast(Container, net).items())
    return {n: with_leaves(layers[n], tree[n], values, f"{path}/{n}" if path else n) for n in tree}


def _below(net: Layer, tree: Any, child: Callable[[Any, str], Any], path: str) -> Iterator[tuple[str, Any]]:
    if not is_open(net):
        yield path, tree
        return
    for name, layer in cast(Container, net).items():
        yield from _below(layer, child(tree, name), child, f"{path}/{name}" if path else name)


def wrap_leaves(wrap: Callable[[Layer, str], Layer], net: Layer) -> Layer:
    """The net with wrap(layer, path) in the place of each leaf layer, under the old names."""
    paths = iter([path for path, _ in leaf_layers(net)])

    def wrapped(layer: Layer) -> Layer:
        if isinstance(layer, Container) and is_open(layer):
            return layer.with_layers([wrapped(child) for _, child in layer.items()])
        return wrap(layer, next(paths))

    return wrapped(net)


def path_text(path: tuple) -> str:
    """A pytree path as names with slashes: `conv1/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")

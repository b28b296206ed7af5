"""Layers made of layers, one after the other. The chain rule lives here: `Chain.backward`.

A child's name is the key of its params, state and residuals, in traces and in checkpoints.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State, check_is_layer, renamed

Walk = Iterator[tuple[str, Layer, Any, Any, Array | None]]


@contextmanager
def naming(name: str, layer: Layer) -> Iterator[None]:
    """Add the layer's kind and name to any error raised inside."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in {layer.class_name()} {name!r}")
        raise


@dataclass(frozen=True, repr=False)
class Container(Layer):
    """A layer of layers: subclasses give `items`, `with_layers` and how the children's outputs combine.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.Conv(8, 3))
        >>> isinstance(net, Container), [name for name, _ in net.items()]
        (True, ['conv1', 'relu1', 'conv2'])
        >>> net.with_layers([hg.Conv(4, 3), hg.Tanh(), hg.Conv(8, 3)]).items()[1]  # another layer, the same name
        ('relu1', Tanh(name='relu1'))
    """

    def items(self) -> tuple[tuple[str, Layer], ...]:
        """The (name, layer) of each child, in order. Order comes from here, never from a dict: jit sorts dicts."""
        raise NotImplementedError(f"{type(self).__name__}: a container must define items()")

    def with_layers(self, layers: Sequence[Layer]) -> "Container":
        """This container with other layers under the same names."""
        raise NotImplementedError(f"{type(self).__name__}: a container must define with_layers(layers)")

    def walk(self, params: Params = (), state: State = (), key: Array | None = None) -> Walk:
        """(name, layer, params, state, key) of each child, in order; child i gets the key fold_in(key, i)."""
        items = self.items()
        for argument, tree in (("params", params), ("state", state)):
            self._check_names(argument, tree, [name for name, _ in items])
        for i, (name, layer) in enumerate(items):
            child_key = None if key is None else jax.random.fold_in(key, i)
            yield name, layer, entry(params, name), entry(state, name), child_key

    def _check_names(self, argument: str, tree: Any, names: list[str]) -> None:
        if not isinstance(tree, Mapping):
            if tree != ():
                raise TypeError(f"{type(self).__name__}: {argument} must be a dict by layer name, got {type(tree)}")
            return
        unknown = sorted(set(tree) - set(names))
        if unknown:
            raise ValueError(f"{type(self).__name__}: {argument} name {unknown}, which are no layers here: {names}")

    def init_child(
        self, index: int, name: str, layer: Layer, key: Array, in_shape: Shape, dtype: Any
    ) -> tuple[Any, Any, Shape]:
        """A child's params, state and output shape, the latter by abstract evaluation of its apply."""
        with naming(name, layer):
            params, state = layer.init(jax.random.fold_in(key, index), in_shape, dtype)
            y = jax.eval_shape(layer.apply, params, jax.ShapeDtypeStruct((1, *in_shape), dtype), state)
        return params, state, y.shape[1:]


@dataclass(frozen=True, init=False, repr=False)
class Chain(Container):
    """Layers one after the other: y = f_n(… f_2(f_1(x))).

    Backward is the chain rule itself, dx = J_1ᵀ(J_2ᵀ(… J_nᵀ dy)), evaluated from the output down, each Jᵀ by its
    layer's own `backward`.

    Children are named by kind and count of that kind (`conv1`, `relu1`, `conv2`) or by their own `name`.
    Layers without parameters have no entry in params. The same layer twice is two sets of parameters.

    Args:
        *layers: the layers, first to last.
        name: the chain's own name in a container.

    Raises:
        TypeError: something that is no usable layer, such as a class in place of an instance.
        ValueError: two children of one name.

    Example:
        >>> import jax, handgrad as hg
        >>> net = hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.Flatten(), hg.Dense(2))
        >>> params, state = net.init(jax.random.key(0), (5, 5, 1))
        >>> jax.tree.map(jax.numpy.shape, params)
        {'conv1': {'bias': (4,), 'kernel': (3, 3, 1, 4)}, 'dense1': {'bias': (2,), 'kernel': (100, 2)}}
    """

    kind: ClassVar[str] = "chain"
    layers: tuple[Layer, ...]

    def __init__(self, *layers: Layer, name: str | None = None) -> None:
        check_children(self, layers)
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "name", name)

    def __repr__(self) -> str:
        """The call that makes this chain."""
        return call_text(self, self.layers)

    def items(self) -> tuple[tuple[str, Layer], ...]:
        """The (name, layer) of each layer, first to last."""
        return tuple(zip(child_names(self.layers), self.layers, strict=True))

    def with_layers(self, layers: Sequence[Layer]) -> "Chain":
        """A chain of other layers under the same names; a layer is renamed only where its name would differ."""
        return type(self)(*keep_names(child_names(self.layers), layers), name=self.name)

    def init(self, key: Array, in_shape: Shape, dtype: Any = jnp.float32) -> tuple[dict[str, Any], dict[str, Any]]:
        """Params and state by layer name; layer i gets fold_in(key, i) and the output shape of the layer before."""
        params, state, shape = {}, {}, checked_shape(self, in_shape)
        for i, (name, layer) in enumerate(self.items()):
            p, s, shape = self.init_child(i, name, layer, key, shape, dtype)
            params |= filled(name, p)
            state |= filled(name, s)
        return params, state

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """Each layer's apply in turn."""
        x = jnp.asarray(x)
        for name, layer, p, s, _ in self.walk(params, state):
            with naming(name, layer):
                x = layer.apply(p, x, s)
        return x

    def apply_train(self, params: Params, x: Array, state: State = (), key: Array | None = None) -> tuple[Array, State]:
        """Each layer's apply_train in turn."""
        x, new_state = jnp.asarray(x), {}
        for name, layer, p, s, k in self.walk(params, state, key):
            with naming(name, layer):
                x, s = layer.apply_train(p, x, s, k)
            new_state |= filled(name, s)
        return x, new_state or state

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """Each layer's forward in turn, residuals kept by name."""
        x, new_state, residuals = jnp.asarray(x), {}, {}
        for name, layer, p, s, k in self.walk(params, state, key):
            with naming(name, layer):
                x, s, residuals[name] = layer.forward(p, x, s, k)
            new_state |= filled(name, s)
        return x, new_state or state, residuals

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """The chain rule, from the last layer to the first."""
        dparams = {}
        for name, layer, p, _, _ in reversed(list(self.walk(params))):
            with naming(name, layer):
                dy, dparams[name] = layer.backward(p, residuals[name], dy)
        return dy, as_params(params, dparams)


def map_layers(fn: Callable[[Layer], Layer], net: Layer) -> Layer:
    """The net with every leaf layer replaced by fn(layer), under the old names.

    This is how a backward rule is swapped, and how tools look inside a net.

    Args:
        fn: gets each leaf (a layer that is no container) and returns a layer.
        net: any layer; containers are rebuilt around the new leaves.

    Returns:
        The new net, which takes the same params and state as long as the new leaves do.

    Raises:
        TypeError: `fn` returned something that is no usable layer.

    Example:
        >>> import handgrad as hg
        >>> class GuidedRelu(hg.Relu):
        ...     def backward(self, params, residuals, dy):
        ...         dx, dparams = super().backward(params, residuals, dy)
        ...         return jnp.where(dx > 0, dx, 0), dparams
        >>> net = hg.Chain(hg.Dense(4), hg.Relu(), hg.Dense(2))
        >>> hg.map_layers(lambda layer: GuidedRelu() if isinstance(layer, hg.Relu) else layer, net)
        Chain(Dense(4), GuidedRelu(), Dense(2))
    """
    if isinstance(net, Container):
        return net.with_layers([map_layers(fn, layer) for _, layer in net.items()])
    layer = fn(net)
    check_is_layer(layer, f"map_layers, in the place of {net!r}")
    return layer


def inference(net: Layer) -> Layer:
    """The same net and names, whose `forward` and `apply_train` equal `apply`: no dropout, fixed batch statistics.

    For input gradients, frozen batch norm and per-example gradients.

    Args:
        net: any layer.

    Returns:
        The net, of the same params and state.

    Example:
        >>> import jax, handgrad as hg
        >>> net = hg.inference(hg.Chain(hg.Dense(2), hg.Dropout(0.5)))
        >>> params, state = net.init(jax.random.key(0), (3,))
        >>> x = jnp.ones((1, 3), "float32")
        >>> bool((net.forward(params, x, state)[0] == net.apply(params, x, state)).all())  # wants no key
        True
    """
    return map_layers(lambda layer: layer.inference(), net)


def child_names(layers: Sequence[Layer]) -> list[str]:
    """The names of children: their own, or their kind and how many of that kind came so far."""
    count: Counter[str] = Counter()
    names = []
    for layer in layers:
        count[layer.kind] += 1
        names.append(layer.name or f"{layer.kind}{count[layer.kind]}")
    return names


def keep_names(names: Sequence[str], layers: Sequence[Layer]) -> list[Layer]:
    """The layers, each renamed where its name among them would not be the wanted one."""
    return [
        layer if given == name else renamed(layer, name)
        for name, given, layer in zip(names, child_names(layers), layers, strict=True)
    ]


def check_children(container: Layer, layers: Sequence[Layer]) -> None:
    """Raise a TypeError for a child that is no usable layer, a ValueError for two of one name."""
    for place, layer in enumerate(layers, start=1):
        check_is_layer(layer, f"{type(container).__name__}, layer {place}")
    twice = [name for name, count in Counter(child_names(layers)).items() if count > 1]
    if twice:
        raise ValueError(f"{type(container).__name__}: two layers are named {twice[0]!r}; names must be unique")


def checked_shape(container: Layer, in_shape: Shape) -> Shape:
    """in_shape as a tuple of positive ints, or an error."""
    shape = tuple(in_shape)
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(
            f"{type(container).__name__}: in_shape must be positive ints without the batch axis, got {in_shape!r}"
        )
    return shape


def call_text(container: Layer, layers: Sequence[Layer], **settings: Any) -> str:
    """The call that makes a container of these layers."""
    if container.name is not None:
        settings["name"] = container.name
    arguments = [repr(layer) for layer in layers] + [f"{name}={value!r}" for name, value in settings.items()]
    return f"{type(container).__name__}({', '.join(arguments)})"


def entry(tree: Any, name: str) -> Any:
    """A child's part of a tree by name, or () where it has none."""
    return tree.get(name, ()) if isinstance(tree, Mapping) else ()


def filled(name: str, tree: Any) -> dict[str, Any]:
    """{name: tree}, or nothing where the tree has no arrays: layers without parameters have no entry."""
    return {name: tree} if jax.tree.leaves(tree) else {}


def as_params(params: Any, dparams: dict[str, Any]) -> Any:
    """The gradients of exactly the entries that params have, so that both are trees of one structure."""
    return {name: dparams[name] for name in params} if isinstance(params, Mapping) else params

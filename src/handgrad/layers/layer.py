"""What every layer is: a frozen dataclass of static settings with pure methods over params and state.

A layer's fields are all that it is, so it is hashable, equal to its twin, printable, and safe as a static argument of
`jax.jit`. To change one rule, subclass it and override that one method; the subclass is unequal to its parent.
"""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

from handgrad.ops.static import Static as Static

Array = jax.Array
Params = Any  # nested dicts of arrays, by name; () where there are none
State = Any  # likewise
Residuals = Any
Shape = tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Layer:
    """The contract of a layer: five pure methods over `params` and `state`, which it never holds.

    A layer of your own needs `init` (if it has parameters) and `apply`. The rest is derived:

    - `apply_train` from `apply`; write it where training differs from inference.
    - `forward` and `backward` from `apply_train` by `jax.vjp`; write both to give the layer a backward by hand, which
      `hg.check_layer` then checks.

    `kind` names the layer inside a container (`relu1`, `relu2`); subclasses of a layer inherit it, so that a layer with
    a swapped rule keeps its name. `name`, keyword-only, replaces it.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Scale(Layer):
        ...     factor: float = 2.0
        ...     def apply(self, params, x, state=()):
        ...         return x * self.factor
        >>> y, state, residuals = Scale(3.0).forward({}, jnp.ones(2))
        >>> dx, dparams = Scale(3.0).backward({}, residuals, jnp.ones(2))
        >>> dx.tolist(), dparams
        ([3.0, 3.0], {})
    """

    kind: ClassVar[str] = "layer"
    name: str | None = field(default=None, kw_only=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give a class that derives from Layer itself the kind of its own name; its subclasses inherit that."""
        super().__init_subclass__(**kwargs)
        if Layer in cls.__bases__ and "kind" not in cls.__dict__:
            cls.kind = cls.__name__.lower()

    def init(self, key: Array, in_shape: Shape, dtype: Any = jnp.float32) -> tuple[dict[str, Any], dict[str, Any]]:
        """Fresh `params` and `state` for inputs of `in_shape`, which has no batch axis."""
        return {}, {}

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """The output y of inference: dropout is off, batch norm uses its running statistics. Never wants a key."""
        raise NotImplementedError(f"{type(self).__name__}: a layer must define apply(params, x, state=())")

    def apply_train(self, params: Params, x: Array, state: State = (), key: Array | None = None) -> tuple[Array, State]:
        """The output y of training and the new state, by the formula in plain JAX: what `jax.grad` differentiates."""
        return self.apply(params, x, state), state

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The values of `apply_train` by the fastest algorithm, and the residuals that `backward` needs."""
        y, new_state = self.apply_train(params, x, state, key)
        return y, new_state, {"x": x, "state": state, "key": key}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """The vector-Jacobian product: dx and dparams for the cotangent dy of y."""

        def output(params, x):
            return self.apply_train(params, x, residuals["state"], residuals["key"])[0]

        dparams, dx = jax.vjp(output, params, residuals["x"])[1](dy)
        return dx, dparams

    def inference(self) -> "Layer":
        """A layer of the same kind and name whose `forward` and `apply_train` equal `apply`."""
        return self if type(self).apply_train is Layer.apply_train else Inference(self, name=self.name)

    def class_name(self) -> str:
        """What tables and errors call it: its class, or that of the layer it wraps."""
        return type(self).__name__

    def __repr__(self) -> str:
        """The call that makes this layer, with the settings that differ from their defaults."""
        return f"{type(self).__name__}({', '.join(_settings(self))})"


@dataclass(frozen=True, repr=False)
class Inference(Layer):
    """Wraps a layer so that training does what inference does; backward is the `jax.vjp` of its `apply`."""

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
        """The output of the wrapped layer's `apply`."""
        return self.layer.apply(params, x, state)


def check_is_layer(layer: Any, where: str) -> None:
    """Raise a TypeError unless `layer` is a usable layer: an instance, hashable, told apart from its twins.

    A subclass with fields or an `__init__` of its own that is no dataclass would equal, and hit the jit cache of,
    every other instance with the same parent's fields.
    """
    if isinstance(layer, type):
        raise TypeError(f"{where}: wants a layer, got the class {layer.__name__}; write {layer.__name__}(...)")
    if not isinstance(layer, Layer):
        raise TypeError(f"{where}: wants a layer, got {type(layer).__name__}; wrap a function as hg.Lambda(function)")
    for cls in type(layer).__mro__:
        own = vars(cls)
        if cls is Layer:
            break
        fields = [n for n, t in own.get("__annotations__", {}).items() if "ClassVar" not in str(t)]
        if "__dataclass_params__" not in own and (fields or "__init__" in own):
            raise TypeError(
                f"{where}: {cls.__name__} has settings of its own; decorate it with @dataclass(frozen=True)"
            )
    if _has_traced(layer):
        return  # a setting under vmap or grad: usable within that transformation, which needs no hash
    try:
        hash(layer)
    except TypeError as error:
        raise TypeError(f"{where}: {layer!r} is not hashable ({error}); give tuples, not lists or arrays") from None


def _has_traced(value: Any) -> bool:
    """Whether a setting of the layer, or of a layer within it, is traced."""
    inside = vars(value).values() if isinstance(value, Layer) else value if isinstance(value, tuple) else ()
    return isinstance(value, Tracer) or any(map(_has_traced, inside))


def parameter(layer: Layer, params: Params, name: str) -> Array:
    """params[name], or a ValueError that says what the layer was given instead."""
    if not isinstance(params, Mapping) or name not in params:
        given = sorted(params) if isinstance(params, Mapping) else params
        raise ValueError(f"{type(layer).__name__}: params have no {name!r}, got {given!r}; make them with init")
    return params[name]


def renamed(layer: Layer, name: str | None) -> Layer:
    """The layer under another name."""
    if layer.name == name:
        return layer
    twin = copy.copy(layer)
    object.__setattr__(twin, "name", name)
    return twin


def _settings(layer: Layer) -> list[str]:
    """Each setting that differs from its default, as `name=value`; those without a default come first, bare."""
    bare, named = [], []
    for f in dataclasses.fields(layer):
        value = getattr(layer, f.name)
        text = getattr(value, "__name__", None) or repr(value)
        if f.default is dataclasses.MISSING and not f.kw_only:
            bare.append(text)
        elif value != f.default:
            named.append(f"{f.name}={text}")
    return bare + named

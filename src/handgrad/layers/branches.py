"""Layers side by side over one input: `Residual` adds two paths, `Parallel` joins any number.

x is copied to every branch, so its gradient is the sum of the branches': the dual of a copy is a sum. How the branches'
outputs join again, and how dy parts, stands in ops/join.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from handgrad.layers.container import (
    Container,
    as_params,
    call_text,
    check_children,
    checked_shape,
    child_names,
    filled,
    keep_names,
    naming,
)
from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State, check_is_layer
from handgrad.ops.rules import RULES, Rule

Join = Literal["concatenate", "add", "multiply"]


@dataclass(frozen=True, repr=False)
class Branching(Container):
    """Children that all get x; a subclass says by which op of ops/join.py their outputs join."""

    def rule(self) -> Rule:
        """The op that joins."""
        raise NotImplementedError(f"{type(self).__name__}: must define rule")

    def join_outputs(self, join: Callable, outputs: list[Array], x: Array) -> Any:
        """What `join`, the op or its forward, makes of the branches' outputs (and of x, where it is passed on)."""
        raise NotImplementedError(f"{type(self).__name__}: must define join_outputs")

    def init(self, key: Array, in_shape: Shape, dtype: Any = jnp.float32) -> tuple[dict[str, Any], dict[str, Any]]:
        """Params and state by branch; branch i gets fold_in(key, i)."""
        params, state, in_shape = {}, {}, checked_shape(self, in_shape)
        for i, (name, layer) in enumerate(self.items()):
            p, s, _ = self.init_child(i, name, layer, key, in_shape, dtype)
            params |= filled(name, p)
            state |= filled(name, s)
        jax.eval_shape(self.apply, params, jax.ShapeDtypeStruct((1, *in_shape), dtype), state)  # do the outputs join?
        return params, state

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """Each branch's apply on x, joined."""
        outputs = []
        for name, layer, p, s, _ in self.walk(params, state):
            with naming(name, layer):
                outputs.append(layer.apply(p, x, s))
        return self.join_outputs(self.rule().op, outputs, x)

    def apply_train(self, params: Params, x: Array, state: State = (), key: Array | None = None) -> tuple[Array, State]:
        """Each branch's apply_train on x, joined."""
        outputs, new_state = [], {}
        for name, layer, p, s, k in self.walk(params, state, key):
            with naming(name, layer):
                y, s = layer.apply_train(p, x, s, k)
            outputs.append(y)
            new_state |= filled(name, s)
        return self.join_outputs(self.rule().op, outputs, x), new_state or state

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """Each branch's forward on x, joined; residuals by branch, and under "join" what the join keeps."""
        outputs, new_state, residuals = [], {}, {}
        for name, layer, p, s, k in self.walk(params, state, key):
            with naming(name, layer):
                y, s, residuals[name] = layer.forward(p, x, s, k)
            outputs.append(y)
            new_state |= filled(name, s)
        y, kept = self.join_outputs(self.rule().forward, outputs, x)
        return y, new_state or state, {"branches": residuals, "join": kept}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """Each branch's backward on its part of dy; dx is their sum."""
        cotangents, dparams = list(self.rule().backward(residuals["join"], dy)), {}
        for i, (name, layer, p, _, _) in enumerate(self.walk(params)):
            with naming(name, layer):
                cotangents[i], dparams[name] = layer.backward(p, residuals["branches"][name], cotangents[i])
        return reduce(jnp.add, cotangents), as_params(params, dparams)


@dataclass(frozen=True, repr=False)
class Residual(Branching):
    """A sum of two paths: y = body(x) + shortcut(x), where the shortcut is the identity unless given.

    x is used twice, so dx = body.backward(dy) + shortcut.backward(dy), the latter dy itself for the identity.
    There is no ReLU after the sum; put one behind if you want it. Children are `body` and `shortcut`.

    Args:
        body: the layer whose output is added.
        shortcut: the layer on the other path, or None for the identity.
        name: its own name in a container.

    Raises:
        ValueError: the two paths differ in shape.

    Source: He, Zhang, Ren and Sun, Deep residual learning for image recognition, 2015, section 3.2.

    Example:
        >>> import jax, handgrad as hg
        >>> block = hg.Residual(hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.Conv(4, 3)))
        >>> params, state = block.init(jax.random.key(0), (5, 5, 4))
        >>> list(params), list(params["body"])
        (['body'], ['conv1', 'conv2'])
    """

    kind: ClassVar[str] = "residual"
    body: Layer
    shortcut: Layer | None = None

    def __post_init__(self) -> None:
        """Check that the children are layers."""
        for name, layer in self.items():
            check_is_layer(layer, f"Residual, {name}")

    def items(self) -> tuple[tuple[str, Layer], ...]:
        """`body` and, where there is one, `shortcut`."""
        body = ("body", self.body)
        return (body,) if self.shortcut is None else (body, ("shortcut", self.shortcut))

    def with_layers(self, layers: Sequence[Layer]) -> "Residual":
        """The sum of other paths."""
        return type(self)(*layers, name=self.name)

    def rule(self) -> Rule:
        """A sum."""
        return RULES["add"]

    def join_outputs(self, join: Callable, outputs: list[Array], x: Array) -> Any:
        """body(x) + shortcut(x)."""
        body, shortcut = [*outputs, x][:2]
        if body.shape != shortcut.shape:
            what = "x, which the identity passes on," if self.shortcut is None else "shortcut"
            raise ValueError(
                f"Residual: body gives shape {body.shape}, {what} has {shortcut.shape}; give a shortcut that fits"
            )
        return join(body, shortcut)


@dataclass(frozen=True, init=False, repr=False)
class Parallel(Branching):
    """Branches over one input, joined: along the channels, by sum, or by product.

    concatenate  y = [b_1(x), …, b_m(x)]   dy is cut into the branches' channels
    add          y = Σ_i b_i(x)            dy goes to every branch
    multiply     y = Π_i b_i(x)            branch i gets dy Π_{j≠i} b_j(x), so the outputs are kept

    In all three dx is the sum over the branches. Children are named as in `Chain`.

    Args:
        *branches: the layers, all given the same x.
        join: "concatenate" (last axis), "add" or "multiply"; the latter two want shapes equal or 1 on an axis, along
            which that output is then copied.
        name: its own name in a container.

    Raises:
        TypeError: a branch that is no usable layer.
        ValueError: no branch, two of one name, an unknown join, or outputs whose shapes do not join.

    Example:
        >>> import jax, handgrad as hg
        >>> net = hg.Parallel(hg.Conv(2, 1), hg.Conv(3, 3))
        >>> params, state = net.init(jax.random.key(0), (5, 5, 1))
        >>> net.apply(params, jax.numpy.ones((1, 5, 5, 1), "float32")).shape
        (1, 5, 5, 5)
    """

    kind: ClassVar[str] = "parallel"
    branches: tuple[Layer, ...]
    join: Join

    def __init__(self, *branches: Layer, join: Join = "concatenate", name: str | None = None) -> None:
        if join not in ("concatenate", "add", "multiply"):
            raise ValueError(f'Parallel: join must be "concatenate", "add" or "multiply", got {join!r}')
        if not branches:
            raise ValueError("Parallel: wants at least one branch, got none")
        check_children(self, branches)
        object.__setattr__(self, "branches", branches)
        object.__setattr__(self, "join", join)
        object.__setattr__(self, "name", name)

    def __repr__(self) -> str:
        """The call that makes these branches."""
        return call_text(self, self.branches, join=self.join)

    def items(self) -> tuple[tuple[str, Layer], ...]:
        """The (name, layer) of each branch."""
        return tuple(zip(child_names(self.branches), self.branches, strict=True))

    def with_layers(self, layers: Sequence[Layer]) -> "Parallel":
        """Other branches under the same names, joined in the same way."""
        return type(self)(*keep_names(child_names(self.branches), layers), join=self.join, name=self.name)

    def rule(self) -> Rule:
        """The op of that name."""
        return RULES[self.join]

    def join_outputs(self, join: Callable, outputs: list[Array], x: Array) -> Any:
        """The joined outputs, or an error that names the branches."""
        try:
            return join(*outputs)
        except ValueError as error:
            what = "in all but the last axis" if self.join == "concatenate" else "in shape, or 1 on an axis"
            named = ", ".join(f"{name} {y.shape}" for (name, _), y in zip(self.items(), outputs, strict=True))
            raise ValueError(f"Parallel: join={self.join!r} wants outputs equal {what}, got {named}") from error

"""What each layer keeps for its backward pass, in bytes: by the rule written by hand, and under `jax.grad`.

A layer's backward needs something of its forward: dW = xᵀ dy wants x, a ReLU where x > 0, a max pool where in each
window the largest was. The rule by hand keeps that and no more: for the pool one byte a window. `jax.grad` keeps what
the derivatives of the plain formula's steps happen to name: for the pool all of x.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Var

from handgrad.compile import jit, temporary_bytes
from handgrad.insight.flow import Case, Mark, bytes_of, case_of, dependents, graph_of, marks, variables
from handgrad.insight.leaves import Wrapped, backward_of, leaf_layers, wrap_leaves
from handgrad.insight.report import table
from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State

SIDES = "<<<>><"  # where each column's text is set


class LedgerRow(NamedTuple):
    """A leaf layer, in bytes for the whole batch. An array that it keeps twice counts once.

    Attributes:
        name: where it lies in the net, `residual1/body/conv1`.
        kind: its class.
        backward: "by hand", "jax.vjp" where the layer has no backward of its own, or "swapped" where `hg.rules` put
            another rule in its place.
        hand: what its forward keeps for its backward.
        automatic: what `jax.vjp` of its apply_train keeps.
        constants: what `jax.vjp` holds besides and depends on no input, such as the zeros beside a mask: compiled, they
            are made anew; run op by op, they are held.
        twice: the part of `hand` that a layer before it keeps too.
        twice_automatic: likewise of `automatic`.

    Example:
        >>> import handgrad as hg
        >>> row = ledger(hg.Chain(hg.MaxPool(2)), (8, 8, 4), temporary=False).rows[0]
        >>> row.name, row.hand, row.automatic, row.saved  # a byte for each of 4·4·4 windows; x in float32
        ('maxpool1', 64, 1024, 960)
    """

    name: str
    kind: str
    backward: str
    hand: int
    automatic: int
    constants: int
    twice: int
    twice_automatic: int

    @property
    def saved(self) -> int:
        """What the rule by hand does not keep; below 0 where it keeps more."""
        return self.automatic - self.hand


@dataclass(frozen=True)
class Ledger:
    """The rows by layer, and the totals of the net, in bytes; as a string a table.

    Attributes:
        rows: one for each leaf layer, in order; then `(containers)` for what they keep beside their layers, and
            `(cut off)`, below 0, for what jax.grad keeps of layers alone and not in the net, as before a sign, whose
            gradient is known to be 0.
        batch: for how many examples.
        temporary: the memory beside arguments and results that the compiled gradient takes at its peak, as XLA plans
            it: (by hand, by jax.grad); None where it was left out.

    Example:
        >>> import handgrad as hg
        >>> found = ledger(hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.MaxPool(2)), (8, 8, 1), batch=10, temporary=False)
        >>> found.hand, found.automatic, found.saved
        (5760, 15360, 9600)
        >>> max(found.rows, key=lambda row: row.saved).name
        'maxpool1'
    """

    rows: tuple[LedgerRow, ...]
    batch: int
    temporary: tuple[int, int] | None = None

    @property
    def hand(self) -> int:
        """What the net keeps from forward to backward by hand; an array that several layers keep counts once."""
        return sum(row.hand - row.twice for row in self.rows)

    @property
    def automatic(self) -> int:
        """Likewise under jax.grad."""
        return sum(row.automatic - row.twice_automatic for row in self.rows)

    @property
    def constants(self) -> int:
        """What jax.vjp of the net holds of constants."""
        return sum(row.constants for row in self.rows)

    @property
    def saved(self) -> int:
        """What the net does not keep by hand."""
        return self.automatic - self.hand

    def __str__(self) -> str:
        """The table: by layer, then the net with each array once, then what XLA plans."""
        lines = [self._head(), *table(self._cells(), SIDES)]
        if self.constants:
            lines.append(f"jax.vjp holds {self.constants:,} more of constants, which XLA makes anew")
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """What the table says, as JSON holds it: the `head`, the `cells`, and their `sides`."""
        return {"head": self._head(), "cells": [list(row) for row in self._cells()], "sides": SIDES}

    def _head(self) -> str:
        return f"bytes kept for backward, batch of {self.batch}"

    def _cells(self) -> list[tuple[str, ...]]:
        """The table's texts, a header first."""
        header = ("layer", "kind", "backward", "by hand", "jax.grad", "")
        body = [
            (r.name, r.kind, r.backward, *_texts(r.hand, r.automatic), _verdict(r.hand, r.automatic)) for r in self.rows
        ]
        twice = sum(row.twice for row in self.rows), sum(row.twice_automatic for row in self.rows)
        if any(twice):
            body.append(("(kept twice)", "", "", *_texts(-twice[0], -twice[1]), ""))
        totals = [("net", (self.hand, self.automatic)), ("XLA's peak", self.temporary)]
        return [
            header,
            *body,
            *((n, "", "", *_texts(*pair), _verdict(*pair)) for n, pair in totals if pair is not None),
        ]


def ledger(net: Layer, in_shape: Shape, batch: int = 1, dtype: Any = jnp.float32, *, temporary: bool = True) -> Ledger:
    """Set the bytes that each layer keeps for backward beside those that `jax.grad` of the same layer keeps.

    By hand they are the residuals of the layer's `forward`. Automatic are the arrays that jax.vjp of its `apply_train`,
    in params and x, holds until dy comes. Left out on both sides is what is there anyway: parameters, state and key.
    The net's input counts. One array may be kept by two layers, as a tanh's output that is also the input of the next
    dense layer: each has it in its row, and in the net it counts once. Which arrays are one is read off the function as
    JAX traces it. XLA may do better still, by fusing or computing again, so the last line has the memory that it plans
    for the compiled gradient in the parameters (in x, where there are none).

    Args:
        net: any layer; one without a backward of its own keeps x, and its row says "jax.vjp".
        in_shape: the shape of an input, without the batch axis.
        batch: how many examples.
        dtype: of parameters and inputs.
        temporary: whether to compile both gradients for XLA's figure: seconds, for a large net minutes. Nothing is
            computed or allocated either way.

    Returns:
        A Ledger: `.rows`, `.hand`, `.automatic`, `.saved`, `.temporary`, and as a string a table.

    Raises:
        TypeError: something that is no layer, or a dtype that is not floating.
        ValueError: a batch below 1, or an in_shape that does not fit the net.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.MaxPool(2), hg.Flatten(), hg.Dense(10))
        >>> print(ledger(net, (8, 8, 1), batch=100, temporary=False))
        bytes kept for backward, batch of 100
        layer     kind     backward  by hand  jax.grad
        conv1     Conv     by hand    25,600    25,600
        relu1     Relu     by hand    25,600    25,600
        maxpool1  MaxPool  by hand     6,400   102,400  saves 94 %
        flatten1  Flatten  by hand         -         -
        dense1    Dense    by hand    25,600    25,600
        net                           83,200   179,200  saves 54 %
        jax.vjp holds 102,400 more of constants, which XLA makes anew
    """
    case = case_of("ledger", net, in_shape, batch, dtype)
    hand, automatic = _kept(ByHand, net, case), _kept(Automatic, net, case)
    rows: list[LedgerRow] = []
    before: set[Var] = set()
    before_automatic: set[Var] = set()
    for path, layer in leaf_layers(net):
        own, other, constants = hand.layers[path], automatic.layers[path], automatic.constants[path]
        sizes = (own, other, constants, own & before, other & before_automatic)
        rows.append(LedgerRow(path, layer.class_name(), backward_of(layer), *map(bytes_of, sizes)))
        before, before_automatic = before | own, before_automatic | other
    whole, constants = _kept_by_vjp(net, case)
    beside, more = bytes_of(hand.others - before), whole - bytes_of(before_automatic)
    constants -= sum(row.constants for row in rows)
    if any((beside, max(more, 0), constants)):
        rows.append(LedgerRow("(containers)", "", "", beside, max(more, 0), constants, 0, 0))
    if more < 0:
        rows.append(LedgerRow("(cut off)", "", "", 0, more, 0, 0, 0))
    return Ledger(tuple(rows), batch, _temporary(net, case) if temporary else None)


@dataclass(frozen=True, repr=False)
class ByHand(Wrapped):
    """A layer that marks its residuals."""

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The layer's forward."""
        y, new_state, residuals = self.layer.forward(params, x, state, key)
        return y, new_state, Mark(residuals, self.path)


@dataclass(frozen=True, repr=False)
class Automatic(Wrapped):
    """A layer whose residuals are those of jax.vjp: the function that it returns is a pytree of them."""

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The layer's apply_train under jax.vjp."""
        y, back, new_state = _vjp(self.layer, params, x, state, key)
        return y, new_state, Mark(back, self.path)


def _vjp(layer: Layer, params: Params, x: Array, state: State, key: Array | None) -> tuple[Array, Callable, State]:
    return jax.vjp(lambda params, x: layer.apply_train(params, x, state, key), params, x, has_aux=True)


class _Kept(NamedTuple):
    """The arrays that leaves keep, and the constants, by path; and what is kept outside of leaves."""

    layers: dict[str, set[Var]]
    constants: dict[str, set[Var]]
    others: set[Var]


def _kept(wrap: Callable[[Layer, str], Layer], net: Layer, case: Case) -> _Kept:
    wrapped = wrap_leaves(wrap, net)
    graph = graph_of(lambda *args: wrapped.forward(*args)[2], *case)
    given, varying = _given(graph.inputs), dependents(graph.jaxpr, variables(graph.inputs))
    found, others = marks(graph.outputs)
    layers: dict[str, set[Var]] = {path: set() for path, _ in leaf_layers(net)}
    for mark in found:
        layers[mark.path] |= variables(mark.arrays) - given
    constants = {path: arrays - varying for path, arrays in layers.items()}
    varied = {path: arrays & varying for path, arrays in layers.items()}
    return _Kept(varied, constants, (variables(others) - given) & varying)


def _kept_by_vjp(net: Layer, case: Case) -> tuple[int, int]:
    """The bytes that jax.vjp of the whole net keeps, each array once; and of constants."""
    graph = graph_of(lambda *args: _vjp(net, *args)[1], *case)
    varying = dependents(graph.jaxpr, variables(graph.inputs))
    arrays = variables(graph.outputs) - _given(graph.inputs)
    return bytes_of(arrays & varying), bytes_of(arrays - varying)


def _given(inputs: Any) -> set[Var]:
    """What is there anyway: all arguments but x."""
    params, _, state, key = inputs
    return variables((params, state, key))


def _temporary(net: Layer, case: Case) -> tuple[int, int]:
    """The temporary bytes of both gradients, compiled alike, for a cotangent dy that is given."""

    def by_hand(params: Params, x: Array, state: State, key: Array, dy: Array) -> Any:
        y, new_state, residuals = net.forward(params, x, state, key)
        dx, dparams = net.backward(params, residuals, dy)
        return y, new_state, dparams if jax.tree.leaves(dparams) else dx

    def automatic(params: Params, x: Array, state: State, key: Array, dy: Array) -> Any:
        y, back, new_state = _vjp(net, params, x, state, key)
        dparams, dx = back(dy)
        return y, new_state, dparams if jax.tree.leaves(dparams) else dx

    dy, _ = jax.eval_shape(net.apply_train, *case)
    sizes = [temporary_bytes(jit(f).lower(*case, dy).compile()) for f in (by_hand, automatic)]
    return sizes[0], sizes[1]


def _texts(*counts: int) -> tuple[str, ...]:
    return tuple(f"{count:,}" if count else "-" for count in counts)


def _verdict(hand: int, automatic: int) -> str:
    """How much of jax.grad's the rule by hand saves."""
    if hand < automatic:
        return f"saves {100 * (1 - hand / automatic):.0f} %"
    return f"{hand - automatic:,} more" if hand > automatic else ""

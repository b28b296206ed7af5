"""A net at a glance: name, kind, output shape, parameters, multiply-adds and bytes kept for backward, layer by layer.

Nothing is computed or allocated: `jax.eval_shape` runs init and forward on shapes alone.
"""

import math
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.insight.leaves import Wrapped, innermost, wrap_leaves
from handgrad.insight.report import table
from handgrad.layers.affine import Conv, ConvTranspose, Dense
from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State, check_is_layer

SIDES = "<<<>>>"  # where each column's text is set


class SummaryRow(NamedTuple):
    """A leaf layer: counts are for the whole batch.

    Attributes:
        name: where it lies in the net, `residual1/body/conv1`.
        kind: its class.
        out_shape: the shape of its output, without the batch axis.
        parameters: how many numbers it learns.
        multiply_adds: of its forward pass, for Conv, ConvTranspose and Dense; 0 for others.
        bytes: of what its forward keeps for backward.

    Example:
        >>> import handgrad as hg
        >>> row = summary(hg.Chain(hg.Conv(4, 3), hg.Relu()), (8, 8, 1)).rows[0]
        >>> row.name, row.out_shape, row.parameters, row.multiply_adds  # 3·3·4 + 4, and 8·8·4 outputs of 3·3 products
        ('conv1', (8, 8, 4), 40, 2304)
    """

    name: str
    kind: str
    out_shape: Shape
    parameters: int
    multiply_adds: int
    bytes: int


@dataclass(frozen=True)
class Summary:
    """The rows by layer and their totals; as a string a table.

    Attributes:
        rows: one for each leaf layer, in order; a last one, `(containers)`, for what containers themselves keep.
        batch: for how many examples.

    Example:
        >>> import handgrad as hg
        >>> found = summary(hg.Chain(hg.Dense(16), hg.Dense(10)), (64,))
        >>> found.parameters, found.multiply_adds, max(found.rows, key=lambda row: row.parameters).name
        (1210, 1184, 'dense1')
    """

    rows: tuple[SummaryRow, ...]
    batch: int

    @property
    def parameters(self) -> int:
        """All numbers learnt."""
        return sum(row.parameters for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        """Of one forward pass of the batch."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def bytes(self) -> int:
        """Kept between the forward and the backward pass of the batch."""
        return sum(row.bytes for row in self.rows)

    def __str__(self) -> str:
        """The table, with the totals in its last line."""
        return "\n".join(table(self._cells(), SIDES))

    def record(self) -> dict[str, Any]:
        """What the table says, as JSON holds it: the `cells`, and their `sides`."""
        return {"cells": [list(row) for row in self._cells()], "sides": SIDES}

    def _cells(self) -> list[tuple[str, ...]]:
        """The table's texts, a header first, the totals last."""
        header = ("layer", "kind", "output", "parameters", "multiply-adds", "kept bytes")
        body = [(row.name, row.kind, "x".join(map(str, row.out_shape)), *_counts(row[3:])) for row in self.rows]
        total = ("total", "", f"batch of {self.batch}", *_counts((self.parameters, self.multiply_adds, self.bytes)))
        return [header, *body, total]


def summary(net: Layer, in_shape: Shape, batch: int = 1) -> Summary:
    """Count what each layer of a net learns, computes and keeps.

    A convolution makes each of its outputs from kernel_size · channels / groups products, a dense layer from its
    inputs; a transposed convolution makes kernel_size · features / groups products of each input; a layer of your own
    counts 0. Kept bytes are those of the residuals of `forward` in float32: an array that two layers keep (a ReLU its
    output, the next convolution its input) counts once for each of them, though XLA may hold it once. Running
    statistics and the like are state, and are not counted.

    Args:
        net: any layer.
        in_shape: the shape of an input, without the batch axis.
        batch: how many examples the multiply-adds and bytes are for.

    Returns:
        A Summary: `.rows`, `.parameters`, `.multiply_adds`, `.bytes`, and as a string a table.

    Raises:
        TypeError: something that is no layer.
        ValueError: a batch below 1, or an in_shape that does not fit the net.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.Flatten(), hg.Dense(10))
        >>> print(summary(net, (8, 8, 1)))
        layer     kind     output      parameters  multiply-adds  kept bytes
        conv1     Conv     8x8x4               40          2,304         256
        relu1     Relu     8x8x4                -              -         256
        flatten1  Flatten  256                  -              -           -
        dense1    Dense    10               2,570          2,560       1,024
        total              batch of 1       2,610          4,864       1,536
    """
    check_is_layer(net, "summary")
    if not isinstance(batch, Integral) or batch < 1:
        raise ValueError(f"summary: batch must be at least 1, got {batch!r}")
    rows: list[SummaryRow] = []
    metered = wrap_leaves(lambda layer, path: Meter(layer, path, rows), net)

    def forward(key: Array, x: Array) -> Residuals:
        params, state = metered.init(key, tuple(in_shape), jnp.float32)
        return metered.forward(params, x, state, key)[2]

    x = jax.ShapeDtypeStruct((batch, *in_shape), jnp.float32)
    kept = _bytes(jax.eval_shape(forward, jax.random.key(0), x)) - sum(row.bytes for row in rows)
    if kept:
        rows.append(SummaryRow("(containers)", "", (), 0, 0, kept))
    return Summary(tuple(rows), batch)


@dataclass(frozen=True, repr=False)
class Meter(Wrapped):
    """Adds a row for its layer while forward is traced."""

    rows: list[SummaryRow] = field(compare=False)

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The layer's forward, counted."""
        y, new_state, residuals = self.layer.forward(params, x, state, key)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        counts = parameters, multiply_adds(innermost(self), params, x, y), _bytes(residuals)
        self.rows.append(SummaryRow(self.path, self.class_name(), y.shape[1:], *counts))
        return y, new_state, residuals


def multiply_adds(layer: Layer, params: Any, x: Array, y: Array) -> int:
    """Of a layer's forward: outputs times the products in each, for kernels are (..., inputs of one output, features).

    A transposed convolution is counted from its input: each number goes to kernel_size places of features / groups.
    """
    if isinstance(layer, ConvTranspose):
        *sizes, _, features = params["kernel"].shape
        return x.size * math.prod(sizes) * features
    return y.size * math.prod(params["kernel"].shape[:-1]) if isinstance(layer, Conv | Dense) else 0


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _counts(counts: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{count:,}" if count else "-" for count in counts)

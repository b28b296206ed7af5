"""What each layer's forward and backward cost: counted, and measured on this machine.

A convolution or a dense layer of M multiply-adds takes M for its output, M for dx and M for dW, so backward is twice
forward; but the net's first layer needs no dx. Each layer is timed alone, on the input and the gradient that it meets
in the net; compiled as one, the net's layers share passes over memory, so that the parts do not add up to the whole.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.compile import jit
from handgrad.insight.leaves import innermost, is_by_hand, leaf_layers
from handgrad.insight.report import table
from handgrad.insight.summary import summary
from handgrad.insight.tap import Seen, open_passes
from handgrad.layers.layer import Array, Layer, Shape, check_is_layer
from handgrad.timing import interleaved


class CostRow(NamedTuple):
    """One leaf layer, for the whole batch.

    Attributes:
        name: where it lies, `residual1/body/conv1`.
        kind: its class.
        backward_by: "by hand", or "jax.vjp" where the layer has no backward of its own.
        multiply_adds: of its forward pass; backward's are `backward_multiply_adds`.
        backward_multiply_adds: twice as many, or as many where no dx is needed.
        forward: the median time in milliseconds.
        backward: likewise.
    """

    name: str
    kind: str
    backward_by: str
    multiply_adds: int
    backward_multiply_adds: int
    forward: float
    backward: float

    @property
    def ratio(self) -> float:
        """Backward's time over forward's."""
        return self.backward / self.forward


@dataclass(frozen=True)
class Cost:
    """The rows and the whole net; as a string a table.

    Attributes:
        rows: one for each leaf layer, in order.
        forward: of the whole net compiled as one, the median time in milliseconds.
        backward: what the whole gradient takes beyond that.
        batch: for how many examples.
    """

    rows: tuple[CostRow, ...]
    forward: float
    backward: float
    batch: int

    @property
    def ratio(self) -> float:
        """Backward over forward, of the whole net."""
        return self.backward / self.forward

    @property
    def counted_ratio(self) -> float:
        """Multiply-adds backward over forward; NaN where there are none."""
        forward = sum(row.multiply_adds for row in self.rows)
        return sum(row.backward_multiply_adds for row in self.rows) / forward if forward else float("nan")

    def __str__(self) -> str:
        """The table, with the net's own line below its layers'."""
        header = ("layer", "kind", "backward", "multiply-adds", "forward", "backward", "ratio")
        body = [
            (row.name, row.kind, row.backward_by, _count(row.multiply_adds), *_times(row.forward, row.backward))
            for row in self.rows
        ]
        total = sum(row.multiply_adds for row in self.rows)
        net = ("net as one", "", "", _count(total), *_times(self.forward, self.backward))
        lines = table([header, *body, net], "<<<>>>>")
        counted = f"counted in multiply-adds, backward is {self.counted_ratio:.2f} times forward"
        return "\n".join([f"milliseconds, batch of {self.batch}", *lines, counted])


def cost(net: Layer, in_shape: Shape, batch: int = 32, *, seconds: float = 5.0, seed: int = 0) -> Cost:
    """Measure each layer's forward and backward pass, and the net's: "backward costs about twice forward".

    Args:
        net: any layer, in training.
        in_shape: the shape of an input, without the batch axis.
        batch: how many examples.
        seconds: about how long to measure, once all is compiled; five rounds at least.
        seed: of parameters, input and masks, drawn at random.

    Returns:
        A Cost: `.rows`, `.forward`, `.backward`, `.ratio`, `.counted_ratio`, and as a string a table.

    Raises:
        TypeError: something that is no layer.
        ValueError: a batch below 1, or an in_shape that does not fit the net.

    Example:
        >>> import handgrad as hg
        >>> found = cost(hg.Chain(hg.Dense(8), hg.Dense(8), hg.Dense(8)), (8,), batch=2, seconds=0)
        >>> [row.name for row in found.rows], round(found.counted_ratio, 3), found.ratio > 0
        (['dense1', 'dense2', 'dense3'], 1.667, True)
    """
    check_is_layer(net, "cost")
    if batch < 1:
        raise ValueError(f"cost: batch must be at least 1, got {batch}")
    counts = {row.name: row.multiply_adds for row in summary(net, in_shape, batch).rows}
    key = jax.random.key(seed)
    params, state = net.init(key, tuple(in_shape), jnp.float32)
    x = jax.random.normal(jax.random.fold_in(key, 1), (batch, *in_shape), jnp.float32)

    @jit
    def look(params: Any, x: Array, state: Any, key: Array) -> dict[str, Seen]:
        return open_passes(net, params, x, state, key, lambda y: (jnp.zeros(()), y)).layers

    seen, layers = look(params, x, state, key), leaf_layers(net)
    calls: dict[str, Callable[[], Any]] = {}
    for place, (name, layer) in enumerate(layers):
        calls |= _calls(name, layer, seen[name], needs_dx=place > 0)

    @jit
    def forward(params: Any, x: Array, state: Any, key: Array) -> Any:
        return net.forward(params, x, state, key)[:2]

    @jit
    def gradient(params: Any, x: Array, state: Any, key: Array) -> Any:
        y, new_state, residuals = net.forward(params, x, state, key)
        return y, new_state, net.backward(params, residuals, y)[1]

    for name, whole in (("forward", forward), ("gradient", gradient)):
        calls[name] = lambda whole=whole: jax.block_until_ready(whole(params, x, state, key))
    times = {name: timing.median for name, timing in interleaved(calls, seconds=seconds).items()}
    rows = [_row(name, layer, counts[name], times, first=i == 0) for i, (name, layer) in enumerate(layers)]
    beyond = max(times["gradient"] - times["forward"], 0.0)
    return Cost(tuple(rows), times["forward"], beyond, batch)


def _calls(name: str, layer: Layer, seen: Seen, *, needs_dx: bool) -> dict[str, Callable[[], Any]]:
    """The two passes of one layer, compiled, to be timed."""

    @jit
    def forward(params: Any, x: Array, state: Any, key: Array | None) -> Any:
        return layer.forward(params, x, state, key)

    @jit
    def backward(params: Any, residuals: Any, dy: Array) -> Any:
        dx, dparams = layer.backward(params, residuals, dy)
        return (dx, dparams) if needs_dx or not jax.tree.leaves(dparams) else dparams

    return {
        f"{name} forward": lambda: jax.block_until_ready(forward(seen.params, seen.x, seen.state, seen.key)),
        f"{name} backward": lambda: jax.block_until_ready(backward(seen.params, seen.residuals, seen.dy)),
    }


def _row(name: str, layer: Layer, count: int, times: Mapping[str, float], *, first: bool) -> CostRow:
    by, kind = "by hand" if is_by_hand(layer) else "jax.vjp", type(innermost(layer)).__name__
    passes = (1 if first else 2) * count
    return CostRow(name, kind, by, count, passes, times[f"{name} forward"], times[f"{name} backward"])


def _times(forward: float, backward: float) -> tuple[str, str, str]:
    return f"{forward:.3f}", f"{backward:.3f}", f"{backward / forward:.1f}"


def _count(count: int) -> str:
    return f"{count:,}" if count else "-"

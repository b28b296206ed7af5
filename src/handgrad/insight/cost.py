"""What each layer's forward and backward cost: multiply-adds counted, and milliseconds measured.

A dense layer y = x W has two products in backward where forward has one, dW = xᵀ dy and dx = dy Wᵀ, each of as many
multiply-adds; so has a convolution. Hence "backward takes about twice as long as forward": a little less, since the
first layer's dx is wanted by none.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from handgrad import compile
from handgrad.insight.flow import Case, case_of, dependents, graph_of, variables
from handgrad.insight.leaves import Wrapped, innermost, is_by_hand, leaf_layers, wrap_leaves
from handgrad.insight.report import table
from handgrad.insight.summary import multiply_adds
from handgrad.insight.tap import Seen, open_passes
from handgrad.layers.layer import Layer, Params, Residuals, Shape, State
from handgrad.timing import interleaved

TURN = 1e-3  # seconds: a shorter call is repeated until a turn takes about this long
MOST = 100  # times

Run = Callable[[], Any]


class CostRow(NamedTuple):
    """A leaf layer, for the whole batch.

    Attributes:
        name: where it lies in the net, `residual1/body/conv1`.
        kind: its class.
        backward: "by hand", or "jax.vjp" where the layer has no backward of its own.
        forward_multiply_adds: counted for Conv, ConvTranspose and Dense; 0 for others.
        backward_multiply_adds: as many again for the kernel's gradient, and for dx where a layer before wants it.
        forward_ms: a call of its forward, compiled alone; the median.
        backward_ms: likewise of its backward; 0 where nothing wants it, as for a layer before the first parameters.
    """

    name: str
    kind: str
    backward: str
    forward_multiply_adds: int
    backward_multiply_adds: int
    forward_ms: float
    backward_ms: float

    @property
    def counted(self) -> float:
        """Backward over forward by multiply-adds; NaN where none are counted."""
        return _ratio(self.backward_multiply_adds, self.forward_multiply_adds)

    @property
    def measured(self) -> float:
        """Backward over forward by time."""
        return _ratio(self.backward_ms, self.forward_ms)


@dataclass(frozen=True)
class Cost:
    """The rows by layer, and the net as a whole; as a string a table.

    Attributes:
        rows: one for each leaf layer, in order.
        batch: of how many examples.
        forward_ms: a call of the whole net's forward, compiled as one.
        backward_ms: likewise of its backward.
        gradient_ms: forward and backward compiled as one.
        call_ms: a call of a compiled function that does nothing: so much of each time above is the call itself.
    """

    rows: tuple[CostRow, ...]
    batch: int
    forward_ms: float
    backward_ms: float
    gradient_ms: float
    call_ms: float

    @property
    def forward_multiply_adds(self) -> int:
        """Of one forward pass of the batch."""
        return sum(row.forward_multiply_adds for row in self.rows)

    @property
    def backward_multiply_adds(self) -> int:
        """Of one backward pass of the batch."""
        return sum(row.backward_multiply_adds for row in self.rows)

    @property
    def counted(self) -> float:
        """Backward over forward by multiply-adds; NaN where none are counted."""
        return _ratio(self.backward_multiply_adds, self.forward_multiply_adds)

    @property
    def measured(self) -> float:
        """Backward over forward by time, of the whole net."""
        return _ratio(self.backward_ms, self.forward_ms)

    def __str__(self) -> str:
        """The table: by layer, their sum, and the net as one."""
        header = ("layer", "kind", "multiply-adds", "backward", "ratio", "forward ms", "backward ms", "ratio")
        layers = [
            (r.name, r.kind, *_counts(r), _text(r.forward_ms), _text(r.backward_ms), _text(r.measured, 1))
            for r in self.rows
        ]
        forward, backward = (sum(times) for times in zip(*(row[-2:] for row in self.rows), strict=True))
        sums = ("sum of the layers", "", *_counts(self), _text(forward), _text(backward))
        net = ("net as one", f"batch of {self.batch}", "", "", "", _text(self.forward_ms), _text(self.backward_ms))
        lines = table(
            [header, *layers, (*sums, _text(_ratio(backward, forward), 1)), (*net, _text(self.measured, 1))], "<<>>>>>>"
        )
        return "\n".join(
            [
                *lines,
                f"forward and backward in one program {self.gradient_ms:.3f} ms; "
                f"a call that does nothing {self.call_ms:.3f} ms, which is in every time here",
            ]
        )


def cost(net: Layer, in_shape: Shape, batch: int = 32, dtype: Any = jnp.float32, *, seconds: float = 10.0) -> Cost:
    """Measure forward and backward of each layer of a net, and count their multiply-adds.

    The net runs once over a random batch, so each layer gets the input, the residuals and the cotangent dy that it has
    within the net. Then each layer's `forward` and `backward` is compiled alone and called in turns with all others;
    the figure is the median. As in training, dx is computed only where a layer before has parameters that want it.

    The parts do not add up to the whole: each is a program of its own, which reads its arrays from memory and writes
    them there, while the net compiled as one fuses layers, and its backward may run while forward still does. So the
    whole net's forward, its backward, and the two in one program are measured too.

    Args:
        net: any layer; one without a backward of its own is measured by jax.vjp, which runs its forward again.
        in_shape: the shape of an input, without the batch axis.
        batch: how many examples.
        dtype: of parameters and inputs.
        seconds: no new round of turns begins after so many; there are at least 5 rounds. Compiling comes on top.

    Returns:
        A Cost: `.rows`, `.counted`, `.measured`, times and counts of the net, and as a string a table.

    Raises:
        TypeError: something that is no layer, or a dtype that is not floating.
        ValueError: a batch below 1, an in_shape that does not fit the net, or seconds below 0.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(8), hg.Relu(), hg.Dense(8), hg.Relu(), hg.Dense(8))
        >>> found = cost(net, (8,), batch=4, seconds=0)
        >>> [(row.name, row.forward_multiply_adds, row.backward_multiply_adds) for row in found.rows if row.counted > 0]
        [('dense1', 256, 256), ('dense2', 256, 512), ('dense3', 256, 512)]
        >>> round(found.counted, 3), found.measured > 0
        (1.667, True)
    """
    if not seconds >= 0:
        raise ValueError(f"cost: seconds must be at least 0, got {seconds}")
    case = case_of("cost", net, in_shape, batch, dtype)
    params, x, state, key, dy = _drawn(net, case)
    passes = compile.jit(lambda *args: open_passes(net, *args, lambda _: ((), dy)))(params, x, state, key)
    wanted = wants_dx(net, case)
    runs: dict[tuple[str, str], Run] = {}
    for path, layer in leaf_layers(net):
        seen = passes.layers[path]
        args = (seen.params, seen.x, seen.state, seen.key)
        runs[path, "forward"] = _run(layer.forward, *args)
        if wanted[path] or jax.tree.leaves(seen.params):
            runs[path, "backward"] = _run(_backward(layer, wanted[path]), seen.params, seen.residuals, seen.dy)
    runs |= {("", name): run for name, run in _whole(net, params, x, state, key, dy).items()}
    times = _milliseconds(runs, seconds)
    rows = tuple(_row(path, layer, passes.layers[path], wanted[path], times) for path, layer in leaf_layers(net))
    return Cost(rows, batch, *(times["", name] for name in ("forward", "backward", "gradient", "nothing")))


def wants_dx(net: Layer, case: Case) -> dict[str, bool]:
    """Whether a layer's dx is wanted, by path: whether its input depends on parameters."""
    marked = wrap_leaves(Inputs, net)
    graph = graph_of(lambda *args: marked.forward(*args)[2], *case)
    varying = dependents(graph.jaxpr, variables(graph.inputs[0]))
    marks = jax.tree.leaves(graph.outputs, is_leaf=lambda node: isinstance(node, Input))
    return {mark.path: not varying.isdisjoint(variables(mark.x)) for mark in marks if isinstance(mark, Input)}

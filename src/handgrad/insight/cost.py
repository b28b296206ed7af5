"""What each layer's forward and backward cost: multiply-adds counted, and milliseconds measured.

A dense layer y = x W has two products in backward where forward has one, dW = xᵀ dy and dx = dy Wᵀ, each of as many
multiply-adds; so has a convolution. Hence "backward takes about twice as long as forward": by the count a little less,
since nobody wants the dx of the first layer.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.compile import jit
from handgrad.insight.flow import Case, Mark, case_of, dependents, graph_of, marks, variables
from handgrad.insight.leaves import Wrapped, backward_of, innermost, leaf_layers, wrap_leaves
from handgrad.insight.report import table
from handgrad.insight.summary import multiply_adds
from handgrad.insight.tap import Seen, open_passes
from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State
from handgrad.timing import interleaved

TURN, MOST = 1e-3, 100  # a call is repeated until a turn takes so many seconds, at most so many times
FORWARD, BACKWARD, GRADIENT, NOTHING = "forward", "backward", "gradient", "nothing"
NET = ""  # the path of the net itself

Runs = dict[tuple[str, str], Callable[[], Any]]  # by path and pass


class CostRow(NamedTuple):
    """A leaf layer, for the whole batch.

    Attributes:
        name: where it lies in the net, `residual1/body/conv1`.
        kind: its class.
        backward_by: "by hand", "jax.vjp" where the layer has no backward of its own, or "swapped".
        multiply_adds: of forward, counted for Conv, ConvTranspose and Dense; 0 for others.
        backward_multiply_adds: as many for the kernel's gradient, and as many again for dx where it is wanted.
        forward: a call of its forward, compiled alone, in milliseconds; the median.
        backward: likewise of its backward; 0 where nobody wants it, as of a layer before the first parameters.

    Example:
        >>> import handgrad as hg
        >>> first, second = cost(hg.Chain(hg.Dense(8), hg.Dense(8)), (8,), batch=4, seconds=0).rows
        >>> first.name, first.multiply_adds, first.counted_ratio, second.counted_ratio  # nobody wants dx of the first
        ('dense1', 256, 1.0, 2.0)
    """

    name: str
    kind: str
    backward_by: str
    multiply_adds: int
    backward_multiply_adds: int
    forward: float
    backward: float

    @property
    def counted_ratio(self) -> float:
        """Backward over forward in multiply-adds; NaN where there are none."""
        return _ratio(self.backward_multiply_adds, self.multiply_adds)

    @property
    def ratio(self) -> float:
        """Backward over forward in time."""
        return _ratio(self.backward, self.forward)


@dataclass(frozen=True)
class Cost:
    """The rows by layer, and the net as a whole; as a string a table.

    Attributes:
        rows: one for each leaf layer, in order.
        batch: for how many examples.
        forward: a call of the net's forward, compiled as one, in milliseconds; the median.
        backward: likewise of its backward.
        gradient: forward and backward compiled as one.
        call: a call of a compiled function that does nothing: so much of each time is the call itself.

    Example:
        >>> import handgrad as hg
        >>> found = cost(hg.Chain(hg.Dense(8), hg.Relu(), hg.Dense(8)), (8,), batch=4, seconds=0)
        >>> found.multiply_adds, found.backward_multiply_adds, found.counted_ratio
        (512, 768, 1.5)
    """

    rows: tuple[CostRow, ...]
    batch: int
    forward: float
    backward: float
    gradient: float
    call: float

    @property
    def multiply_adds(self) -> int:
        """Of one forward pass of the batch."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def backward_multiply_adds(self) -> int:
        """Of one backward pass of the batch."""
        return sum(row.backward_multiply_adds for row in self.rows)

    @property
    def counted_ratio(self) -> float:
        """Backward over forward in multiply-adds; NaN where there are none."""
        return _ratio(self.backward_multiply_adds, self.multiply_adds)

    @property
    def ratio(self) -> float:
        """Backward over forward in time, each compiled as one."""
        return _ratio(self.backward, self.forward)

    def __str__(self) -> str:
        """The table: by layer, their sum, and the net as one."""
        counts, times = ("multiply-adds", "in backward", "ratio"), ("forward ms", "backward ms", "ratio")
        header = ("layer", "kind", "rule", *counts, *times)
        layers = [(r.name, r.kind, r.backward_by, *_counts(r), *_times(r.forward, r.backward)) for r in self.rows]
        forward, backward = (sum(times) for times in zip(*(row[-2:] for row in self.rows), strict=True))
        sums = ("sum of layers", "", "", *_counts(self), *_times(forward, backward))
        net = ("net as one", "", "", *_counts(self), *_times(self.forward, self.backward))
        lines = [f"batch of {self.batch}", *table([header, *layers, sums, net], "<<<>>>>>>")]
        lines.append(
            f"forward and backward in one program {self.gradient:.3f} ms, in two {self.forward + self.backward:.3f} ms"
        )
        return "\n".join([*lines, f"a call that does nothing takes {self.call:.3f} ms; every time here has one in it"])


def cost(
    net: Layer, in_shape: Shape, batch: int = 32, dtype: Any = jnp.float32, *, seconds: float = 5.0, seed: int = 0
) -> Cost:
    """Measure forward and backward of each layer of a net, and count their multiply-adds.

    The net runs once over a random batch, so that each layer gets the input, the residuals and the cotangent dy that it
    has within the net. Then each layer's `forward` and `backward` is compiled alone, and all are called in turns; the
    figure is the median. As in training, dx is computed only where parameters before the layer want it.

    The parts do not add up to the whole. Each is a program of its own that reads its arrays from memory and writes them
    there, and each call costs something in itself; the net compiled as one fuses neighbours. So the net's forward, its
    backward, and the two in one program are measured too.

    Args:
        net: any layer; the backward of one that has none of its own is jax.vjp's, which runs its forward again.
        in_shape: the shape of an input, without the batch axis.
        batch: how many examples.
        dtype: of parameters and inputs.
        seconds: no new round of turns begins after so many; there are at least five. Compiling comes on top.
        seed: of all that is random.

    Returns:
        A Cost: `.rows`, `.forward`, `.backward`, `.gradient`, `.ratio`, `.counted_ratio`, and as a string a table.

    Raises:
        TypeError: something that is no layer, or a dtype that is not floating.
        ValueError: a batch below 1, an in_shape that does not fit the net, or seconds below 0.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(8), hg.Dense(8), hg.Dense(8))
        >>> found = cost(net, (8,), batch=4, seconds=0)
        >>> [(row.name, row.multiply_adds, row.backward_multiply_adds) for row in found.rows]
        [('dense1', 256, 256), ('dense2', 256, 512), ('dense3', 256, 512)]
        >>> round(found.counted_ratio, 3), found.ratio > 0
        (1.667, True)
    """
    if not seconds >= 0:
        raise ValueError(f"cost: seconds must be at least 0, got {seconds}")
    case = case_of("cost", net, in_shape, batch, dtype)
    wanted = wants_dx(net, case)
    params, x, state, key, dy = _drawn(net, case, seed)

    @jit
    def opened(params: Params, x: Array, state: State, key: Array, dy: Array) -> dict[str, Seen]:
        return open_passes(net, params, x, state, key, lambda y: ((), dy)).layers

    layers = opened(params, x, state, key, dy)
    runs = _net_runs(net, params, x, state, key, dy)
    for path, layer in leaf_layers(net):
        runs |= _layer_runs(path, layer, layers[path], wanted[path])
    times = _milliseconds(runs, seconds)
    rows = tuple(_row(path, layer, layers[path], wanted[path], times) for path, layer in leaf_layers(net))
    return Cost(rows, batch, *(times[NET, name] for name in (FORWARD, BACKWARD, GRADIENT, NOTHING)))


@dataclass(frozen=True, repr=False)
class Inputs(Wrapped):
    """A layer that keeps its input alone."""

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The layer's apply_train."""
        y, new_state = self.layer.apply_train(params, x, state, key)
        return y, new_state, Mark(x, self.path)


def wants_dx(net: Layer, case: Case) -> dict[str, bool]:
    """Whether anyone wants a layer's dx, by path: whether its input depends on parameters (on x, where are none)."""
    marked = wrap_leaves(Inputs, net)
    graph = graph_of(lambda *args: marked.forward(*args)[2], *case)
    learned = dependents(graph.jaxpr, variables(graph.inputs[0]) or variables(graph.inputs[1]))
    return {mark.path: not learned.isdisjoint(variables(mark.arrays)) for mark in marks(graph.outputs)[0]}


def _drawn(net: Layer, case: Case, seed: int) -> tuple[Any, Array, Any, Array, Array]:
    """Parameters, an input, state, a key and a cotangent, all of the case's shapes."""
    key, x_key, y_key, init_key = jax.random.split(jax.random.key(seed), 4)
    params, state = jit(lambda key: net.init(key, case.x.shape[1:], case.x.dtype))(init_key)
    dy, _ = jax.eval_shape(net.apply_train, *case)
    x, dy = (jax.random.normal(k, like.shape, like.dtype) for k, like in ((x_key, case.x), (y_key, dy)))
    return params, x, state, key, dy


def _layer_runs(path: str, layer: Layer, seen: Seen, wants_dx: bool) -> Runs:
    """A layer's passes, each a program of its own; no backward where nobody wants it."""

    def backward(params: Params, residuals: Residuals, dy: Array) -> Any:
        dx, dparams = layer.backward(params, residuals, dy)
        return (dx, dparams) if wants_dx else dparams

    runs: Runs = {(path, FORWARD): _run(layer.forward, seen.params, seen.x, seen.state, seen.key)}
    if wants_dx or jax.tree.leaves(seen.params):
        runs[path, BACKWARD] = _run(backward, seen.params, seen.residuals, seen.dy)
    return runs


def _net_runs(net: Layer, params: Params, x: Array, state: State, key: Array, dy: Array) -> Runs:
    """The net's forward, its backward, both in one program, and nothing at all."""

    def backward(params: Params, residuals: Residuals, dy: Array) -> Any:
        dx, dparams = net.backward(params, residuals, dy)
        return dparams if jax.tree.leaves(dparams) else dx

    def gradient(params: Params, x: Array, state: State, key: Array, dy: Array) -> Any:
        y, new_state, residuals = net.forward(params, x, state, key)
        return y, new_state, backward(params, residuals, dy)

    _, _, residuals = jit(net.forward)(params, x, state, key)
    return {
        (NET, FORWARD): _run(net.forward, params, x, state, key),
        (NET, BACKWARD): _run(backward, params, residuals, dy),
        (NET, GRADIENT): _run(gradient, params, x, state, key, dy),
        (NET, NOTHING): _run(jnp.negative, jnp.zeros((), x.dtype)),
    }


def _run(f: Callable, *args: Any) -> Callable[[], Any]:
    compiled = jit(f)
    return lambda: jax.block_until_ready(compiled(*args))


def _milliseconds(runs: Runs, seconds: float) -> dict[tuple[str, str], float]:
    """The median time of a call of each, all measured in turns; a short call is repeated within its turn."""
    counts = {place: _repeats(run) for place, run in runs.items()}
    turns = {" ".join(place): _repeated(run, counts[place]) for place, run in runs.items()}
    timings = interleaved(turns, seconds=seconds)
    return {place: timings[" ".join(place)].median / count for place, count in counts.items()}


def _repeats(run: Callable[[], Any]) -> int:
    """How many calls make a turn."""
    run()
    start = time.perf_counter()
    run()
    return min(MOST, max(1, math.ceil(TURN / (time.perf_counter() - start))))


def _repeated(run: Callable[[], Any], count: int) -> Callable[[], None]:
    def turn() -> None:
        for _ in range(count):
            run()

    return turn


def _row(path: str, layer: Layer, seen: Seen, wants_dx: bool, times: Mapping[tuple[str, str], float]) -> CostRow:
    count = multiply_adds(innermost(layer), seen.params, seen.x, seen.y)
    names, counts = (layer.class_name(), backward_of(layer)), (count, (2 if wants_dx else 1) * count)
    return CostRow(path, *names, *counts, times[path, FORWARD], times.get((path, BACKWARD), 0.0))


def _ratio(backward: float, forward: float) -> float:
    return backward / forward if forward else math.nan


def _counts(of: CostRow | Cost) -> tuple[str, str, str]:
    if not of.multiply_adds:
        return "-", "-", "-"
    return f"{of.multiply_adds:,}", f"{of.backward_multiply_adds:,}", f"{of.counted_ratio:.2f}"


def _times(forward: float, backward: float) -> tuple[str, str, str]:
    if not backward:
        return f"{forward:.3f}", "-", "-"
    return f"{forward:.3f}", f"{backward:.3f}", f"{_ratio(backward, forward):.1f}"

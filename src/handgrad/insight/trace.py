"""Each step of the chain rule in numbers: how large what flows forward and backward is, layer by layer.

    h_l = f_l(h_{l-1}; W_l)          δ_{l-1} = J_lᵀ δ_l          dL/dW_l = (∂f_l/∂W_l)ᵀ δ_l

In a net that learns |h|, |δ| and |dW|/|W| are of about one size in all layers. |·| is the root mean square, so that
layers of different sizes compare. Gains of the gradient compare lengths, the roots of sums of squares: a pool that
spreads δ over four places neither adds to it nor takes from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad import mesh
from handgrad.gradient import Objective
from handgrad.insight.leaves import backward_of, innermost, leaf_layers, path_text
from handgrad.insight.report import shortened, table
from handgrad.insight.tap import Opened, Seen, opened
from handgrad.insight.trace_findings import Finding, NonFinite, TraceRow, findings_of
from handgrad.layers.activation import Relu, Relu6
from handgrad.layers.layer import Array, Layer, Params, State

NONE = -1  # the index where nothing is wrong
MEASURED = ("h", "delta", "dw", "w", "dead", "zero", "forward_gain", "backward_gain", "arrived")

Facts = tuple[str, str, str, tuple[int, ...]]  # name, kind, backward, shape of a row; known before any compute
Site = tuple[str, str, str, tuple[int, ...]]  # layer, direction, array and its shape: where numbers may be not finite


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Trace:
    """What `trace` gives: arrays by layer, so that it comes out of jit; `rows`, `findings` and `str` read them.

    Attributes:
        loss: of the objective.
        numbers: the measured columns of the rows by name, each (layers,).
        bad: for each site the flat index of its first number that is not finite, or -1; ints (sites,).
        facts: of each layer, in order; static.
        sites: the arrays that were looked through, in the order of the computation; static.
        batch: how many examples; static.

    Example:
        >>> import handgrad as hg
        >>> look = jax.jit(trace(hg.Objective(hg.Chain(hg.Dense(2), hg.Relu()), hg.MeanSquaredError())))
        >>> params = {"dense1": {"kernel": jnp.ones((1, 2)), "bias": jnp.array([0.0, -9.0])}}
        >>> found = look(params, jnp.array([[3.0]]), jnp.zeros((1, 2)))
        >>> [(row.name, row.dead) for row in found.rows[1:]], str(found.findings[0]), found.first_nonfinite
        ([('relu1', 0.5)], 'relu1 dies: 50 % of its units are dead', None)
    """

    loss: Array
    numbers: dict[str, Array]
    bad: Array
    facts: tuple[Facts, ...] = field(metadata={"static": True})
    sites: tuple[Site, ...] = field(metadata={"static": True})
    batch: int = field(metadata={"static": True})

    @property
    def rows(self) -> tuple[TraceRow, ...]:
        """A row for each leaf layer, in order."""
        self._check_is_one()
        numbers = {name: np.asarray(values, np.float64) for name, values in self.numbers.items()}
        with np.errstate(divide="ignore", invalid="ignore"):
            numbers["ratio"] = numbers["dw"] / numbers["w"]
        return tuple(
            TraceRow(*facts, **{name: float(values[i]) for name, values in numbers.items()})
            for i, facts in enumerate(self.facts)
        )

    @property
    def first_nonfinite(self) -> NonFinite | None:
        """Where the first NaN or infinity came up, or None."""
        self._check_is_one()
        found = np.flatnonzero(np.asarray(self.bad) != NONE)
        if len(found) == 0:
            return None
        layer, direction, array, shape = self.sites[found[0]]
        place = np.unravel_index(int(self.bad[found[0]]), shape)
        return NonFinite(layer, direction, array, tuple(int(i) for i in place))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong, the gravest first; empty where all is well."""
        return findings_of(self.rows, self.first_nonfinite)

    def record(self) -> dict[str, Any]:
        """The rows by column, and what was found, as JSON can hold them; a number that is not finite is None."""
        rows, first = self.rows, self.first_nonfinite
        columns = {name: [_in_json(getattr(row, name)) for row in rows] for name in TraceRow._fields}
        return {
            "loss": _in_json(float(self.loss)),
            "batch": self.batch,
            "first_nonfinite": None if first is None else [*first[:3], list(first.place)],
            "findings": [list(finding) for finding in self.findings],
        } | columns

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Trace":
        """The trace that gave a record, such as one of `history["trace"]` or of a metrics file, in NumPy.

        Args:
            record: from `record`, or its copy in JSON.

        Raises:
            ValueError: something else.
        """
        wanted = ("loss", "batch", "first_nonfinite", *TraceRow._fields)
        if not isinstance(record, Mapping) or not all(name in record for name in wanted):
            raise ValueError(f"Trace.from_record: wants a record with {', '.join(wanted)}, got {record!r:.80}")
        numbers = {name: np.array(record[name], np.float64) for name in MEASURED}
        shapes = [tuple(shape) for shape in record["shape"]]
        facts = tuple(zip(record["name"], record["kind"], record["backward"], shapes, strict=True))
        first, sites, bad = record["first_nonfinite"], (), np.zeros(0, int)
        if first is not None:  # of an array that is just large enough to have the index
            *where, index = first
            shape = tuple(i + 1 for i in index)
            sites, bad = ((*where, shape),), np.array([np.ravel_multi_index(index, shape) if index else 0])
        loss: Any = np.array(record["loss"], np.float64)
        return cls(loss, numbers, bad, facts, sites, record["batch"])  # pyright: ignore[reportArgumentType]

    def __str__(self) -> str:
        """The table, and below it what is wrong."""
        header = ("layer", "kind", "backward", "output", "|h|", "|delta|", "|W|", "|dW|", "|dW|/|W|", "dead", "zero δ")
        body = [
            (
                *(shortened(row.name), row.kind, row.backward, "x".join(map(str, row.shape))),
                *map(_size, (row.h, row.delta, row.w, row.dw, row.ratio)),
                *map(_percent, (row.dead, row.zero)),
            )
            for row in self.rows
        ]
        lines = [f"loss {float(self.loss):.6g} on a batch of {self.batch}", *table([header, *body], "<<<<>>>>>>>")]
        return "\n".join([*lines, *map(str, self.findings or ["nothing breaks, dies, explodes or vanishes"])])

    def _check_is_one(self) -> None:
        if np.ndim(self.loss):
            raise ValueError(
                "Trace: these are several, as vmap gives them; take one by jax.tree.map(lambda a: a[0], traces)"
            )


def trace(objective: Objective) -> Callable[..., Trace]:
    """Look at every step of the chain rule on one batch.

    The passes are those of `hg.value_and_grad`; nothing is computed twice. What is found:

    - breaks: the first NaN or infinity, in the order of the computation: of each layer input, parameters and output,
      the loss, then from the loss down of each layer δ, the gradient in its input and those in its parameters.
    - dies: of a ReLU or ReLU6 (or a subclass) half of the units or more are 0 for all examples. A unit is one number of
      an example's output, a place and a channel. No gradient passes it, so it can't come back by itself.
    - explodes, vanishes: a layer alone makes what passes through it 30 times larger or smaller: |h| forward, the length
      of the gradient backward. Layers before and after it, that only pass it on, are not named. Where none does, but
      all together make it 1000 times larger or smaller, the one that does most is.

    Args:
        objective: what is trained.

    Returns:
        A function of (params, x, y, state=(), key=None) that gives a `Trace`; it may be jitted and vmapped. |dW| is
        without the objective's penalty.

    Raises:
        TypeError: something that is no Objective.
        ValueError: an empty batch.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(4), hg.Relu(), hg.Dense(3))
        >>> params, state = net.init(jax.random.key(0), (5,), jnp.float32)
        >>> x, y = jax.random.normal(jax.random.key(1), (6, 5), jnp.float32), jnp.array([0, 1, 2, 0, 1, 2])
        >>> params["dense1"]["bias"] -= 1e3  # far below 0, whatever x
        >>> look = jax.jit(trace(hg.Objective(net, hg.SoftmaxCrossEntropy())))
        >>> print(look(params, x, y, state).findings[0])
        relu1 dies: 100 % of its units are dead
    """
    if not isinstance(objective, Objective):
        raise TypeError(f"trace: wants an hg.Objective, got {objective!r}; write hg.Objective(net, loss)")
    layers = leaf_layers(objective.net)

    def traced(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> Trace:
        return _trace_of(layers, opened(objective)(params, x, y, state, key))

    def anywhere(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> Trace:
        x, explicit = jnp.asarray(x), mesh.explicit_mesh((params, x, y, state, key))
        if x.ndim == 0 or x.shape[0] == 0:
            raise ValueError(f"trace: x must hold at least one example, (N, ...), got shape {x.shape}")
        if explicit is None:
            return traced(params, x, y, state, key)
        return mesh.on_mesh(traced, explicit, mesh.replicated(explicit))(params, x, y, state, key)

    return anywhere


def _trace_of(layers: list[tuple[str, Layer]], found: Opened) -> Trace:
    seen = {name: found.layers[name] for name, _ in layers}
    dlogits = _length(found.dlogits)
    measured = [_measured(layer, seen[name], dlogits) for name, layer in layers]
    facts = tuple((name, layer.class_name(), backward_of(layer), seen[name].y.shape[1:]) for name, layer in layers)
    arrays = _in_order(found, seen)
    sites = tuple((*where, array.shape) for where, array in arrays.items())
    bad = jnp.stack([_first_bad(array) for array in arrays.values()])
    numbers = {name: jnp.stack([row[name] for row in measured]) for name in MEASURED}
    return Trace(found.loss, numbers, bad, facts, sites, found.layers[layers[0][0]].x.shape[0])


def _measured(layer: Layer, seen: Seen, dlogits: Array) -> dict[str, Array]:
    """The numbers of one layer; `dlogits` is the length of the loss's gradient in the net's output."""
    h, dy, nan = _rms(seen.y), _length(seen.dy), jnp.full((), jnp.nan)
    is_relu = isinstance(innermost(layer), Relu | Relu6)
    numbers = {
        "h": h,
        "delta": _rms(seen.dy),
        "dw": _rms(seen.dparams),
        "w": _rms(seen.params),
        "dead": jnp.mean(jnp.all(seen.y == 0, axis=0)) if is_relu else nan,
        "zero": jnp.mean(seen.dy == 0),
        "forward_gain": h / _rms(seen.x),
        "backward_gain": _length(seen.dx) / dy,
        "arrived": dy / dlogits,
    }
    return {name: number.astype(jnp.result_type(float)) for name, number in numbers.items()}


def _in_order(found: Opened, layers: Mapping[str, Seen]) -> dict[tuple[str, str, str], Array]:
    """All arrays of both passes by (layer, direction, name), in the order in which they are computed."""
    arrays: dict[tuple[str, str, str], Any] = {}
    for layer, seen in layers.items():
        arrays |= {(layer, "forward", name): leaf for name, leaf in _named(x=seen.x, params=seen.params, y=seen.y)}
    arrays |= {("loss", "forward", "value"): found.loss, ("loss", "backward", "dlogits"): found.dlogits}
    for layer, seen in reversed(list(layers.items())):
        leaves = _named(dy=seen.dy, dx=seen.dx, dparams=seen.dparams)
        arrays |= {(layer, "backward", name): leaf for name, leaf in leaves}
    return arrays


def _named(**trees: Any) -> list[tuple[str, Array]]:
    """The floating point arrays of some trees, `y`, `params/kernel`."""
    leaves = [(name, path, leaf) for name, tree in trees.items() for path, leaf in jax.tree.leaves_with_path(tree)]
    return [(f"{n}/{path_text(path)}" if path else n, leaf) for n, path, leaf in leaves if _is_float(leaf)]


def _rms(tree: Any) -> Array:
    """The root mean square over all numbers of a tree, in the default float; NaN where there are none."""
    return _length(tree) / np.sqrt(max(sum(leaf.size for leaf in jax.tree.leaves(tree) if _is_float(leaf)), 1))


def _length(tree: Any) -> Array:
    """The root of the sum of squares; squares of numbers scaled to 1, so that none over- or underflows."""
    leaves = [leaf.astype(jnp.result_type(float)) for leaf in jax.tree.leaves(tree) if _is_float(leaf)]
    if not leaves:
        return jnp.full((), jnp.nan)
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf), initial=0) for leaf in leaves]))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return scale * jnp.sqrt(jnp.sum(jnp.stack([jnp.sum(jnp.square(leaf / scale)) for leaf in leaves])))


def _first_bad(array: Array) -> Array:
    """The flat index of the first NaN or infinity, or -1."""
    bad = ~jnp.isfinite(array).ravel()
    return jnp.where(bad.any(), jnp.argmax(bad).astype(jnp.int32), NONE)


def _is_float(leaf: Any) -> bool:
    return leaf.size > 0 and jnp.issubdtype(leaf.dtype, jnp.floating)


def _in_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _size(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1e}"


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.0f} %"

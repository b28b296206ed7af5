"""Each step of the chain rule in numbers: how large what flows forward and backward is, layer by layer.

    h_l = f_l(h_{l-1}; W_l)          δ_{l-1} = J_lᵀ δ_l          dL/dW_l = (∂f_l/∂W_l)ᵀ δ_l

A net that learns has |h|, |δ| and |dW|/|W| of about one size in all layers. |·| is the root mean square, so that layers
of different sizes compare.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad import mesh
from handgrad.gradient import Objective
from handgrad.insight.leaves import innermost, is_by_hand, leaf_layers
from handgrad.insight.report import table
from handgrad.insight.tap import Seen, opened
from handgrad.layers.activation import Relu, Relu6
from handgrad.layers.layer import Array, Layer, Params, State

GAIN = 30.0  # a layer that makes what passes through it so many times larger or smaller is named
DEAD = 0.5  # so is one of whose units this share is dead
NONE = -1  # the index where nothing is wrong


class TraceRow(NamedTuple):
    """One leaf layer. Sizes are root mean squares over batch and units; NaN where there is nothing to measure.

    Attributes:
        name: where it lies, `residual1/body/conv1`.
        kind: its class.
        backward: "by hand", or "jax.vjp" where the layer has no backward of its own.
        shape: of its output, without the batch axis.
        h: of its output.
        delta: of the loss's gradient in its output.
        dw: of the loss's gradient in its parameters, all of them together.
        w: of its parameters.
        ratio: dw / w; a step of learning rate r moves the weights by about r times that.
        dead: for ReLU and ReLU6 the share of units that are 0 for every example of the batch.
        zero: the share of delta's numbers that are exactly 0.
        forward_gain: of its output over its input.
        backward_gain: of the gradient it hands on over the one it got.
    """

    name: str
    kind: str
    backward: str
    shape: tuple[int, ...]
    h: float
    delta: float
    dw: float
    w: float
    ratio: float
    dead: float
    zero: float
    forward_gain: float
    backward_gain: float


class NonFinite(NamedTuple):
    """Where a NaN or an infinity came first, in the order of the computation: forward, loss, then backward.

    Attributes:
        layer: its path, or "loss".
        direction: "forward", "backward", or "dparams" for the gradient in the layer's parameters.
        place: the index in the layer's output, or in the gradient in its input; () for the loss and for parameters.
    """

    layer: str
    direction: str
    place: tuple[int, ...]


class Facts(NamedTuple):
    """What is known of a layer before anything is computed; shapes with the batch axis."""

    name: str
    kind: str
    backward: str
    shape: tuple[int, ...]
    in_shape: tuple[int, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trace:
    """What `trace` gives: arrays by layer, so that it comes out of jit; `rows`, `findings` and `str` read them.

    Attributes:
        loss: of the objective.
        numbers: by column (layers,).
        places: by direction (layers,), the flat index of the first number that is not finite, or -1.
        facts: of each layer, in order; static.
    """

    loss: Array
    numbers: dict[str, Array]
    places: dict[str, Array]
    facts: tuple[Facts, ...] = field(metadata={"static": True})

    @property
    def rows(self) -> tuple[TraceRow, ...]:
        """A row for each leaf layer, in order."""
        numbers = {name: np.asarray(values, np.float64) for name, values in self.numbers.items()}
        with np.errstate(divide="ignore", invalid="ignore"):
            numbers["ratio"] = numbers["dw"] / numbers["w"]
        columns = TraceRow._fields[4:]
        return tuple(
            TraceRow(about.name, about.kind, about.backward, about.shape[1:], *(float(numbers[c][i]) for c in columns))
            for i, about in enumerate(self.facts)
        )

    @property
    def first_nonfinite(self) -> NonFinite | None:
        """Where the first NaN or infinity came up, or None."""
        places = {name: np.asarray(values) for name, values in self.places.items()}
        for i, about in enumerate(self.facts):
            if places["forward"][i] != NONE:
                return NonFinite(about.name, "forward", _index(places["forward"][i], about.shape))
        if not np.isfinite(self.loss) or places["loss"][0] != NONE:
            return NonFinite("loss", "forward" if not np.isfinite(self.loss) else "backward", ())
        for i, about in reversed(list(enumerate(self.facts))):
            if places["backward"][i] != NONE:
                return NonFinite(about.name, "backward", _index(places["backward"][i], about.in_shape))
            if places["dparams"][i] != NONE:
                return NonFinite(about.name, "dparams", ())
        return None

    @property
    def findings(self) -> tuple[str, ...]:
        """What is wrong, in words, the gravest first; empty where all is well."""
        first = self.first_nonfinite
        found = [] if first is None else [_nonfinite_text(first)]
        dead = sorted((row for row in self.rows if row.dead >= DEAD), key=lambda row: -row.dead)
        found += [f"{row.name}: {100 * row.dead:.0f} % of its units are dead" for row in dead]
        for row in self.rows:
            for what, gain in (("output", row.forward_gain), ("gradient", row.backward_gain)):
                if gain >= GAIN and math.isfinite(gain):
                    found.append(f"{row.name} makes the {what} explode, {gain:.3g} times")
                elif gain <= 1 / GAIN:
                    found.append(f"{row.name} makes the {what} vanish, to {gain:.3g} of it")
        return tuple(found)

    def record(self) -> dict[str, Any]:
        """The rows and findings as JSON can hold them; what is not finite is None."""
        columns = {name: [_in_json(getattr(row, name)) for row in self.rows] for name in TraceRow._fields}
        return {"loss": _in_json(float(self.loss)), "findings": list(self.findings)} | columns

    def __str__(self) -> str:
        """The table, and below it what is wrong."""
        header = ("layer", "kind", "backward", "output", "|h|", "|delta|", "|dW|", "|dW|/|W|", "dead", "zero delta")
        body = [
            (
                *(row.name, row.kind, row.backward, "x".join(map(str, row.shape))),
                *map(_size, (row.h, row.delta, row.dw, row.ratio)),
                *map(_percent, (row.dead, row.zero)),
            )
            for row in self.rows
        ]
        return "\n".join([f"loss {float(self.loss):.6g}", *table([header, *body], "<<<<>>>>>>"), *self.findings])


def trace(objective: Objective) -> Callable[..., Trace]:
    """Look at every step of the chain rule on one batch.

    The passes are those of `hg.value_and_grad`; nothing is computed twice. A layer is named in the findings if it makes
    what passes through it 30 times larger or smaller, forward or backward, or if half of its units are dead: 0 for all
    examples, so that no gradient passes and they cannot come back by themselves. The exploding or vanishing layer is
    the one whose gain is out of range, not those before and after it that only pass it on.

    Args:
        objective: what is trained.

    Returns:
        A function of (params, x, y, state=(), key=None) that gives a `Trace`; it may be jitted. |dW| is without the
        objective's penalty.

    Raises:
        TypeError: something that is no Objective.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(4), hg.Relu(), hg.Dense(3))
        >>> params, state = net.init(jax.random.key(0), (5,), jnp.float64)
        >>> x, y = jax.random.normal(jax.random.key(1), (6, 5), jnp.float64), jnp.array([0, 1, 2, 0, 1, 2])
        >>> params["dense1"]["bias"] -= 1e3  # far below 0, whatever x
        >>> trace(hg.Objective(net, hg.SoftmaxCrossEntropy()))(params, x, y, state).findings[0]
        'relu1: 100 % of its units are dead'
    """
    if not isinstance(objective, Objective):
        raise TypeError(f"trace: wants an hg.Objective, got {objective!r}; write hg.Objective(net, loss)")
    layers = dict(leaf_layers(objective.net))

    def traced(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> Trace:
        found = opened(objective)(params, jnp.asarray(x), y, state, key)
        seen = [(layer, found.layers[name]) for name, layer in layers.items()]
        facts = tuple(
            Facts(
                name,
                type(innermost(layer)).__name__,
                "by hand" if is_by_hand(layer) else "jax.vjp",
                s.y.shape,
                s.x.shape,
            )
            for name, (layer, s) in zip(layers, seen, strict=True)
        )
        numbers, places = zip(*(_measured(layer, s) for layer, s in seen), strict=True)
        columns = {name: jnp.stack([row[name] for row in numbers]) for name in numbers[0]}
        where = {name: jnp.stack([row[name] for row in places]) for name in places[0]}
        where["loss"] = _first_bad(seen[-1][1].dy)[None]
        return Trace(found.loss, columns, where, facts)

    def anywhere(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> Trace:
        explicit = mesh.explicit_mesh((params, x, y, state, key))
        if explicit is None:
            return traced(params, x, y, state, key)
        return mesh.on_mesh(traced, explicit, mesh.replicated(explicit))(params, x, y, state, key)

    return anywhere


def _measured(layer: Layer, seen: Seen) -> tuple[dict[str, Array], dict[str, Array]]:
    """The numbers and the places of one layer."""
    h, delta, nan = _rms(seen.y), _rms(seen.dy), jnp.full((), jnp.nan)
    is_relu = isinstance(innermost(layer), Relu | Relu6)
    numbers = {
        "h": h,
        "delta": delta,
        "dw": _rms(seen.dparams),
        "w": _rms(seen.params),
        "dead": jnp.mean(jnp.all(seen.y == 0, axis=0)) if is_relu else nan,
        "zero": jnp.mean(seen.dy == 0),
        "forward_gain": h / _rms(seen.x),
        "backward_gain": _rms(seen.dx) / delta,
    }
    bad = {"forward": seen.y, "backward": seen.dx, "dparams": seen.dparams}
    as_numbers = {name: number.astype(jnp.result_type(float)) for name, number in numbers.items()}
    return as_numbers, {name: _first_bad(tree) for name, tree in bad.items()}


def _rms(tree: Any) -> Array:
    """The root mean square over all numbers of a tree, in float32 at least; NaN where there are none."""
    leaves = _floats(tree)
    count = sum(leaf.size for leaf in leaves)
    if count == 0:
        return jnp.full((), jnp.nan)
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.result_type(float)))) for leaf in leaves) / count)


def _first_bad(tree: Any) -> Array:
    """The flat index of the first NaN or infinity among the numbers of a tree, or -1."""
    leaves = _floats(tree)
    if not leaves:
        return jnp.full((), NONE)
    bad = jnp.concatenate([~jnp.isfinite(leaf).ravel() for leaf in leaves])
    return jnp.where(bad.any(), jnp.argmax(bad), NONE)


def _floats(tree: Any) -> list[Array]:
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def _index(flat: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(flat), shape))


def _nonfinite_text(first: NonFinite) -> str:
    if first.layer == "loss":
        return (
            "the loss is the first that is not finite"
            if first.direction == "forward"
            else ("the loss's gradient is the first that is not finite")
        )
    what = {"forward": "output", "backward": "gradient in its input", "dparams": "gradient in its parameters"}
    place = f" at {first.place}" if first.place else ""
    return f"{first.layer} is the first that is not finite: its {what[first.direction]}{place}"


def _in_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _size(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2e}"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f} %"

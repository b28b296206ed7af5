"""What the numbers of a trace say: which layer breaks, dies, explodes or vanishes."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

ALONE = 30.0  # a layer that makes what passes through it so many times larger or smaller is named
TOGETHER = 1000.0  # and where all together do so, the one that does most
DEAD = 0.5  # so is one of whose units this share is dead


class TraceRow(NamedTuple):
    """One leaf layer. Sizes are root mean squares over batch and units; NaN where there is nothing to measure.

    Attributes:
        name: where it lies, `residual1/body/conv1`.
        kind: its class.
        backward: "by hand", "jax.vjp" where the layer has no backward of its own, or "swapped", see `docs/trace.md`.
        shape: of its output, without the batch axis.
        h: of its output.
        delta: of the loss's gradient in its output.
        dw: of the loss's gradient in its parameters, all of them together.
        w: of its parameters.
        ratio: dw / w; a step of learning rate r moves the weights by about r times that.
        dead: for ReLU and ReLU6 the share of units that are 0 for every example of the batch.
        zero: the share of delta's numbers that are exactly 0.
        forward_gain: size of its output over that of its input.
        backward_gain: length of the gradient that it hands on over that of the one it got.
        arrived: length of delta over that of the loss's gradient in the net's output.

    Example:
        >>> import jax, jax.numpy as jnp, handgrad as hg
        >>> net = hg.Chain(hg.Dense(1, use_bias=False), hg.Relu())
        >>> look = jax.jit(hg.trace(hg.Objective(net, hg.MeanSquaredError())))
        >>> row = look({"dense1": {"kernel": jnp.array([[2.0]])}}, jnp.array([[3.0]]), jnp.array([[5.0]])).rows[0]
        >>> row.name, row.h, row.delta, row.dw, row.ratio  # 2·3, 2 (6 - 5), 2·3, and 6 / 2
        ('dense1', 6.0, 2.0, 6.0, 3.0)
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
    arrived: float


class NonFinite(NamedTuple):
    """Where a NaN or an infinity came first, in the order of the computation: forward, loss, then backward.

    Attributes:
        layer: its path, or "loss".
        direction: "forward" or "backward".
        array: "x", "params/kernel" or "y", "dy", "dx" or "dparams/kernel"; of the loss "value" or "dlogits".
        place: the index in that array.

    Example:
        >>> import jax, jax.numpy as jnp, handgrad as hg
        >>> net = hg.Chain(hg.Dense(2, use_bias=False))
        >>> look = jax.jit(hg.trace(hg.Objective(net, hg.SoftmaxCrossEntropy())))
        >>> params = {"dense1": {"kernel": jnp.array([[1.0, jnp.nan]])}}
        >>> look(params, jnp.ones((1, 1)), jnp.array([0])).first_nonfinite
        NonFinite(layer='dense1', direction='forward', array='params/kernel', place=(0, 1))
    """

    layer: str
    direction: str
    array: str
    place: tuple[int, ...]


class Finding(NamedTuple):
    """Something that is wrong with a layer.

    Attributes:
        layer: its path, or "loss".
        event: "breaks", "dies", "explodes" or "vanishes".
        detail: how much, in words.

    Example:
        >>> finding = Finding("relu1", "dies", "100 % of its units are dead")
        >>> print(finding)
        relu1 dies: 100 % of its units are dead
    """

    layer: str
    event: str
    detail: str

    def __str__(self) -> str:
        """One line, that begins with the layer."""
        return f"{self.layer} {self.event}: {self.detail}"


def findings_of(rows: Sequence[TraceRow], first: NonFinite | None) -> tuple[Finding, ...]:
    """What is wrong, the gravest first: what is not finite, dead units, then gains."""
    found = []
    if first is not None:
        place = f" at {first.place}" if first.place else ""
        found.append(Finding(first.layer, "breaks", f"{first.array} is not finite{place} going {first.direction}"))
    dead = sorted((row for row in rows if row.dead >= DEAD), key=lambda row: -row.dead)
    found += [Finding(row.name, "dies", f"{100 * row.dead:.0f} % of its units are dead") for row in dead]
    net_input = rows[0].h / rows[0].forward_gain if rows[0].forward_gain else math.nan
    outputs = [(row, row.forward_gain, row.h / net_input if net_input else math.nan) for row in rows]
    gradients = [(row, row.backward_gain, row.arrived) for row in reversed(rows)]
    found += _by_gain(outputs, "output {:.3g} times its input", "output of {} {:.3g} times the net's input")
    found += _by_gain(gradients, "gradient {:.3g} times as long below it", "gradient at {} {:.3g} times the loss's")
    return tuple(found)


def _by_gain(passed: Iterable[tuple[TraceRow, float, float]], alone: str, together: str) -> list[Finding]:
    """Layers whose own gain is out of range, the farthest first, else the largest gain where the total is."""
    living = [(row, gain, total) for row, gain, total in passed if math.isfinite(gain) and not row.dead >= DEAD]
    far = [(row, gain) for row, gain, _ in living if _distance(gain) >= math.log(ALONE)]
    if far or not living:
        far.sort(key=lambda pair: -_distance(pair[1]))
        return [Finding(row.name, _event(gain), alone.format(gain)) for row, gain in far]
    totals = [(row, total) for row, _, total in living if math.isfinite(total)]
    row, total = max(totals, key=lambda pair: _distance(pair[1]), default=(living[0][0], 1.0))
    if _distance(total) < math.log(TOGETHER):
        return []
    pick = max if total > 1 else min
    most, gain, _ = pick(living, key=lambda entry: entry[1])
    return [Finding(most.name, _event(total), f"{together.format(row.name, total)}, by this layer {gain:.3g} times")]


def _distance(gain: float) -> float:
    """How far from 1, in either direction."""
    return abs(math.log(gain)) if gain > 0 else math.inf


def _event(gain: float) -> str:
    return "explodes" if gain > 1 else "vanishes"

"""The trace of a run: each layer's size at each step, as a heat map."""

import math
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from handgrad.insight import Finding, Trace
from handgrad.insight.report import shortened
from handgrad.training import read_history
from handgrad.viz.canvas import INK, ORANGE, canvas, described, matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {
    "h": "size of the output, |h|",
    "delta": "size of the gradient in the output, |δ|",
    "arrived": "length of δ over that at the loss",
    "w": "size of the weights, |W|",
    "dw": "size of the gradient in the weights, |dW|",
    "ratio": "relative gradient, |dW| / |W|",
    "dead": "share of dead units (%)",
    "zero": "share of zeros in δ (%)",
}
SHARES = ("dead", "zero")
TALLEST = 10.0  # inches
LABEL = 0.18  # inches that a layer's name wants


def trace(traces: Any, value: str = "delta", ax: "Axes | None" = None) -> "Axes":
    """Draw one number of every layer at every step that was traced: layers from input to output downwards.

    Sizes have a logarithmic scale, where 0 is left blank, shares one from 0 to 100 %. A cross marks what is not finite.

    Args:
        traces: the history of `fit(..., trace_every=N)`, the path of its metrics.jsonl or run_dir, a `Trace`, or a
            sequence of these, counted as steps 1, 2, ...
        value: "h", "delta", "arrived", "w", "dw", "ratio", "dead" or "zero", see `hg.insight.TraceRow`. Layers
            that have no such number, as "dead" where there is no ReLU, are left out.
        ax: where to draw; None makes a Figure.

    Returns:
        The Axes. Its title is the gravest finding of the last steps, with the step at which it came up first; over
        shares it is about dead units and broken numbers alone.

    Raises:
        ImportError: without matplotlib.
        OSError: no such file.
        TypeError: something else than traces.
        ValueError: an unknown value, one that no layer has, no trace, or traces of different nets.

    Example:
        >>> row = {"name": ["dense1", "relu1"], "delta": [0.1, 0.2], "findings": []}
        >>> trace({"trace_step": [1, 11], "trace": [row, row]}).get_title()
        'no layer breaks, dies, explodes or vanishes in 11 steps'
    """
    if value not in NAMES:
        raise ValueError(f"trace: value must be one of {', '.join(NAMES)}, got {value!r}")
    steps, records = _read(traces)
    names = records[0]["name"]
    if any(record["name"] != names for record in records):
        raise ValueError("trace: all traces must be of one net, got several sets of layers")
    numbers = np.array([record[value] for record in records], float).T  # None is NaN
    known = [i for i, row in enumerate(numbers) if np.isfinite(row).any()]
    if not known:
        why = ", only ReLU and ReLU6 have" if value == "dead" else ""
        raise ValueError(f"trace: no layer here has a {value!r}{why}")
    names, numbers = [shortened(names[i], 28) for i in known], numbers[known]
    height = min(max(0.27 * len(names) + 1.3, 2.7), TALLEST)
    ax = canvas(ax, 6.4, height)
    colours, image = matplotlib("colors"), 100 * numbers if value in SHARES else np.where(numbers > 0, numbers, np.nan)
    norm = colours.Normalize(0, 100) if value in SHARES else colours.LogNorm(*_range(image))
    drawn = ax.imshow(image, aspect="auto", cmap="viridis", norm=norm, interpolation="nearest")
    for layer, column in zip(*np.nonzero(~np.isfinite(numbers)), strict=True):
        ax.text(column, layer, "×", ha="center", va="center", color=ORANGE, fontsize=9)
    every = math.ceil(len(names) * LABEL / (height - 1))
    ax.set_yticks(range(0, len(names), every), names[::every])
    places = sorted({round(place) for place in np.linspace(0, len(steps) - 1, min(6, len(steps)))})
    ax.set_xticks(places, [str(steps[place]) for place in places])
    events = ("breaks", "dies") if value in SHARES else ("breaks", "dies", "explodes", "vanishes")
    ax.set(xlabel="step", title=textwrap.fill(_title(steps, records, events), 64))
    bar = ax.figure.colorbar(drawn, ax=ax, pad=0.02)
    bar.ax.tick_params(which="both", colors=ax.title.get_color(), labelsize=8)
    bar.set_label(NAMES[value], color=ax.title.get_color(), fontsize=9)
    bar.outline.set(color=INK, linewidth=0.5)
    return described(ax, f"Heat map of {len(names)} layers over {len(steps)} traced steps: {NAMES[value]}")


def _read(traces: Any) -> tuple[list[int], list[Any]]:
    """The steps that were traced, and the record of each."""
    if isinstance(traces, str | os.PathLike):
        traces = read_history(traces)
    if isinstance(traces, Trace):
        traces = [traces]
    if isinstance(traces, Mapping):
        steps, records = list(traces.get("trace_step", ())), list(traces.get("trace", ()))
    elif isinstance(traces, Sequence) and all(isinstance(entry, Trace | Mapping) for entry in traces):
        records = [entry.record() if isinstance(entry, Trace) else entry for entry in traces]
        steps = list(range(1, len(records) + 1))
    else:
        raise TypeError(f"trace: wants a history, a metrics file or a list of traces, got {type(traces).__name__}")
    if not records:
        raise ValueError("trace: nothing was traced; train with fit(..., trace_every=100)")
    return [int(step) for step in steps], records


def _range(image: np.ndarray) -> tuple[float, float]:
    """The ends of the colour scale; of one number alone half and twice it."""
    shown = image[np.isfinite(image)]
    low, high = (shown.min(), shown.max()) if len(shown) else (1.0, 1.0)
    return (low, high) if high > low else (low / 2, 2 * high)


def _title(steps: Sequence[int], records: Sequence[Mapping[str, Any]], events: Iterable[str]) -> str:
    """The latest step's gravest finding of these events, and when that came up, else that all is well."""
    found = [[Finding(*entry) for entry in record["findings"] if entry[1] in events] for record in records]
    latest = next((place for place in reversed(range(len(found))) if found[place]), None)
    if latest is None:
        *but_last, last = events
        return f"no layer {', '.join(but_last)} or {last} in {steps[-1]} steps"
    layer, event, detail = found[latest][0]
    first = next(i for i, some in enumerate(found) if any(entry[:2] == (layer, event) for entry in some))
    now = "" if latest == first else f" at step {steps[latest]}"
    return f"{shortened(layer)} {event} at step {steps[first]}: {detail}{now}"

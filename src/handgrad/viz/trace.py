"""The trace of a run: each layer's size at each step, as a heat map."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handgrad.viz.canvas import INK, canvas, described, matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {
    "h": "size of the output, |h|",
    "delta": "size of the gradient in the output, |δ|",
    "dw": "size of the gradient in the weights, |dW|",
    "ratio": "relative gradient, |dW| / |W|",
    "dead": "share of dead units (%)",
    "zero": "share of zeros in δ (%)",
}


def trace(traces: Any, value: str = "delta", ax: "Axes | None" = None) -> "Axes":
    """Draw one number of every layer at every step that was traced: layers from input to output downwards.

    Sizes have a logarithmic scale, shares one from 0 to 100 %. A cross marks what is not finite.

    Args:
        traces: the history of `fit(..., trace_every=N)`, the path of its metrics.jsonl, or a sequence of `Trace`.
        value: "h", "delta", "dw", "ratio", "dead" or "zero".
        ax: where to draw; None makes a Figure.

    Returns:
        The Axes; its title is the gravest finding, with the step at which it came up first.

    Raises:
        ImportError: without matplotlib.
        ValueError: an unknown value, no trace, or traces of different nets.

    Example:
        >>> row = {"name": ["dense1", "relu1"], "delta": [0.1, 0.2], "findings": []}
        >>> trace({"trace_step": [1, 11], "trace": [row, row]}).get_title()
        'no layer explodes, vanishes or dies in 11 steps'
    """
    if value not in NAMES:
        raise ValueError(f"trace: value must be one of {', '.join(NAMES)}, got {value!r}")
    steps, records = read_traces(traces)
    names = records[0]["name"]
    if any(record["name"] != names for record in records):
        raise ValueError("trace: all traces must be of one net, got several sets of layers")
    numbers = np.array([[np.nan if v is None else v for v in record[value]] for record in records], float).T
    known = [i for i, row in enumerate(numbers) if np.isfinite(row).any()]
    if not known:
        raise ValueError(f"trace: no layer here has a {value!r}")
    names, numbers = [names[i] for i in known], numbers[known]
    ax = canvas(ax, 6.4, max(0.27 * len(names) + 1.3, 2.7))
    share = value in ("dead", "zero")
    colours, image = matplotlib("colors"), 100 * numbers if share else np.where(numbers > 0, numbers, np.nan)
    norm = colours.Normalize(0, 100) if share else _log_scale(colours, image)
    drawn = ax.imshow(image, aspect="auto", cmap="viridis", norm=norm, interpolation="nearest")
    for layer, column in zip(*np.nonzero(~np.isfinite(numbers)), strict=True):
        ax.text(column, layer, "×", ha="center", va="center", color="#d9722e", fontsize=9)
    ax.set_yticks(range(len(names)), names)
    places = sorted({round(place) for place in np.linspace(0, len(steps) - 1, min(6, len(steps)))})
    ax.set_xticks(places, [str(steps[place]) for place in places])
    ax.set(xlabel="step", title=_finding(steps, records))
    bar = ax.figure.colorbar(drawn, ax=ax, pad=0.02)
    bar.ax.tick_params(which="both", colors=ax.title.get_color(), labelsize=8)
    bar.set_label(NAMES[value], color=ax.title.get_color(), fontsize=9)
    bar.outline.set(color=INK, linewidth=0.5)
    return described(ax, f"Heat map of {len(names)} layers over {len(steps)} traced steps: {NAMES[value]}")


def read_traces(traces: Any) -> tuple[list[int], list[dict[str, Any]]]:
    """The steps that were traced, and the record of each."""
    if isinstance(traces, str | os.PathLike):
        lines = [_parsed(text) for text in Path(traces).read_text(encoding="utf-8").splitlines()]
        found = [line for line in lines if "trace" in line]
        traces = {"trace_step": [line["trace_step"] for line in found], "trace": [line["trace"] for line in found]}
    if isinstance(traces, Mapping):
        steps, records = list(traces.get("trace_step", ())), list(traces.get("trace", ()))
    elif isinstance(traces, Sequence):
        steps, records = list(range(1, len(traces) + 1)), [trace.record() for trace in traces]
    else:
        raise ValueError(f"trace: wants a history, a metrics file or a list of traces, got {type(traces).__name__}")
    if not records:
        raise ValueError("trace: nothing was traced; train with fit(..., trace_every=100)")
    return [int(step) for step in steps], records


def _parsed(text: str) -> dict[str, Any]:
    """A line of the metrics file; the last one may be cut off."""
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _log_scale(colours: Any, image: np.ndarray) -> Any:
    low, high = np.nanmin(image), np.nanmax(image)
    return colours.LogNorm(low, high) if high > low else colours.LogNorm(low / 2, 2 * high)


def _finding(steps: Sequence[int], records: Sequence[Mapping[str, Any]]) -> str:
    """The last step's gravest finding and when it came up, else an earlier one, else that all is well."""
    texts = [record["findings"] for record in records]
    last = next((found[0] for found in reversed(texts) if found), None)
    if last is None:
        return f"no layer explodes, vanishes or dies in {steps[-1]} steps"
    layer = last.split(" ")[0]
    first = next(step for step, found in zip(steps, texts, strict=True) if any(t.split(" ")[0] == layer for t in found))
    return f"{last}; first seen at step {first}"

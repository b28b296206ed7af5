"""Charts of the tables, as SVG: bars of each contender's figure over ours, and lines for growth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handgrad import viz
from handgrad.benchmark.table import Line, Table
from handgrad.viz.canvas import BLUE, INK, ORANGE, canvas, matplotlib

BARS = ("steps", "memory", "pools", "ensembles")


def draw(tables: Sequence[Table], folder: Path) -> list[Path]:
    """A chart for each table that has one.

    Args:
        tables: any.
        folder: where benchmarks_NAME.svg is written.

    Returns:
        The files.
    """
    drawn = []
    with matplotlib("pyplot").rc_context({"svg.fonttype": "none", "svg.hashsalt": "handgrad"}):
        for table in tables:
            growing = table.name.startswith("growth")
            if growing or table.name in BARS:
                axes = curves(table) if growing else bars(table)
                drawn.append(viz.save(axes, folder / f"benchmarks_{table.name.replace(' ', '_')}.svg"))
    return drawn


def bars(table: Table) -> Any:
    """For each case, a bar for each contender: its figure as a multiple of ours, on a logarithmic axis."""
    cases = list(dict.fromkeys(line.case for line in table.lines))
    rows: list[tuple[str, Line | None]] = []
    for case in cases:
        rows += [(case, None), *((line.contender, line) for line in table.lines if line.case == case and line.ratio)]
    axes = canvas(None, 7.5, 0.6 + 0.19 * len(rows))
    for place, (_, line) in enumerate(rows):
        if line is not None and line.ratio:
            multiple = 1 / line.ratio
            axes.barh(place, multiple - 1, left=1, color=BLUE if multiple >= 1 else ORANGE, height=0.75)
            axes.annotate(
                *(f"{multiple:.2f}", (multiple, place)),
                xytext=(3 if multiple >= 1 else -3, 0),
                textcoords="offset points",
                ha="left" if multiple >= 1 else "right",
                va="center",
                fontsize=7,
                color=INK,
            )
    axes.set_xscale("log")
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    for label, (_, line) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if line is None else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set(title=table.title, xlabel="theirs over ours; right of 1 ours needs less")
    return axes


def curves(table: Table) -> Any:
    """Time by rung of the ladder, a line for each contender."""
    axes = canvas(None, 5.0, 3.0)
    contenders = list(dict.fromkeys(line.contender for line in table.lines))
    for contender, colour in zip(contenders, (BLUE, ORANGE), strict=False):
        lines = [line for line in table.lines if line.contender == contender]
        axes.plot([line.case for line in lines], [line.value for line in lines], "o-", color=colour, label=contender)
    axes.set_yscale("log")
    axes.set(title=table.title, ylabel=table.unit)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return axes

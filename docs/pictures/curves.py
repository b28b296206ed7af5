"""What pictures of curves and bars share: a column of small Axes in middle tones, and curves that break at a kink."""

from typing import Any

import numpy as np
from docs.pictures.cells import BLUE, INK, ORANGE, number

from handgrad.viz import canvas


def small_axes(rows: int, columns: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """A transparent figure of that size in inches, and its Axes, row by row."""
    figure: Any = canvas.canvas(None, width, height).figure
    figure.clear()
    axes = []
    for i in range(rows * columns):
        ax = figure.add_subplot(rows, columns, i + 1, facecolor="none")
        ax.tick_params(colors=INK, labelsize=9)
        ax.spines[:].set_color(INK)
        ax.spines[["top", "right"]].set_visible(False)
        axes.append(ax)
    return figure, axes


def title(ax: Any, text: str) -> None:
    """A title in the grey of all text."""
    ax.set_title(text, color=INK, fontsize=10)


def labelled(ax: Any, x: str, y: str = "") -> None:
    """The names of the two axes."""
    ax.set_xlabel(x, color=INK, fontsize=10)
    ax.set_ylabel(y, color=INK, fontsize=10)


def legend(where: Any, **how: Any) -> None:
    """A legend without a frame, in grey."""
    where.legend(frameon=False, labelcolor=INK, fontsize=9, **how)


def value_and_slope(ax: Any, x: np.ndarray, y: np.ndarray, slope: np.ndarray, kinks: tuple[float, ...] = ()) -> None:
    """Two curves: y in blue, its slope in orange, which breaks at each kink; a dot is the slope right there."""
    ax.axhline(0, color=INK, linewidth=0.6, alpha=0.6)
    ax.plot(x, y, color=BLUE, linewidth=2, label="y")
    edges = [0, *(int(np.searchsorted(x, kink)) for kink in kinks), len(x)]
    for i, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
        part = slice(low + (i > 0), high)  # without the kink itself, which is a dot
        ax.plot(
            x[part], slope[part], color=ORANGE, linewidth=1.6, ls=(0, (4, 1.5)), label="dx for dy = 1" if not i else ""
        )
    at = [i for kink in kinks for i in np.flatnonzero(np.isclose(x, kink))]
    ax.plot(x[at], slope[at], "o", color=ORANGE, markersize=5)


def bars(ax: Any, values: np.ndarray, colour: str, labels: list[str], digits: int = 3) -> None:
    """Bars with their numbers on top, and a name below each."""
    ax.bar(range(len(values)), values, color=colour, alpha=0.75, width=0.6)
    ax.axhline(0, color=INK, linewidth=0.8)
    for i, value in enumerate(values):
        up = value >= 0
        spot = {"ha": "center", "va": "bottom" if up else "top", "color": INK, "fontsize": 10}
        ax.annotate(number(value, digits), (i, value), (0, 2 if up else -2), textcoords="offset points", **spot)
    ax.set_xticks(range(len(values)), labels)
    ax.margins(y=0.25)

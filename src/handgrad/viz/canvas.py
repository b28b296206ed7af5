"""What all figures share: the import of matplotlib, a new Axes in middle tones, and the way to a file."""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#777777"  # 4.5 : 1 against white, 4.2 : 1 against a dark page
BLUE, ORANGE = "#3b82c4", "#d9722e"


def matplotlib(module: str) -> Any:
    """A module of matplotlib, or an ImportError that names the extra.

    Args:
        module: its name inside matplotlib, such as `figure`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        raise ImportError("viz: figures need matplotlib; install it with pip install 'handgrad[plots]'") from error


def canvas(ax: "Axes | None", width: float, height: float) -> "Axes":
    """The Axes given, as it is, or those of a new transparent Figure of that size in inches."""
    return _new_axes(width, height) if ax is None else ax


def panels(rows: int, columns: int, width: float, height: float, **subplots: Any) -> "np.ndarray":
    """Axes side by side in one new transparent Figure, for pictures that compare.

    Args:
        rows: how many, from top to bottom.
        columns: how many, from left to right.
        width: of the whole figure in inches.
        height: likewise.
        subplots: further arguments of matplotlib's `Figure.subplots`, such as `sharex` or `width_ratios`.

    Returns:
        An array (rows, columns) of Axes in the manner of all figures here.

    Raises:
        ImportError: without matplotlib.

    Example:
        >>> left, right = panels(1, 2, 7.0, 3.0, sharey=True)[0]
        >>> left.figure is right.figure
        True
    """
    axes = _new_figure(width, height).subplots(rows, columns, squeeze=False, **subplots)
    for ax in axes.flat:
        _in_middle_tones(ax)
    return axes


def _new_axes(width: float, height: float) -> "Axes":
    return _in_middle_tones(_new_figure(width, height).add_subplot())


def _new_figure(width: float, height: float) -> "Figure":
    return matplotlib("figure").Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="none")


def _in_middle_tones(ax: "Axes") -> "Axes":
    """The Axes, with text and lines that can be read on white and on black."""
    ax.set_facecolor("none")
    ax.tick_params(which="both", colors=INK, labelsize=9)  # minor ticks have labels on a short logarithmic axis
    ax.title.set(color=INK, fontsize=11)
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set(color=INK, fontsize=10)
    ax.spines[:].set_color(INK)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def without_axis(ax: "Axes") -> None:
    """Take away ticks and frame, for pictures."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def described(ax: "Axes", text: str) -> "Axes":
    """The Axes, with what is drawn on them in words, for those who cannot see it; `alt_text` adds the finding."""
    ax.set_label(text)
    return ax


def alt_text(ax: "Axes") -> str:
    """What a figure shows, in words: what is drawn, and its title, the finding. For the alt attribute of its picture.

    Args:
        ax: what a function of `handgrad.viz` gave.

    Example:
        >>> from handgrad import viz
        >>> viz.alt_text(viz.confusion([[3, 0], [1, 2]], ["cat", "dog"]))
        'Confusion matrix of 2 classes. 5 of 6 right; most often dog is taken for cat (1)'
    """
    return ". ".join(filter(None, (str(ax.get_label()), ax.get_title())))


def save(figure_or_axes: "Figure | Axes", path: str | os.PathLike[str]) -> Path:
    """Write a figure to a file; PNG and SVG files carry its description too, that of the Axes where Axes are given.

    Args:
        figure_or_axes: a Figure, or any Axes of it.
        path: the file; its ending (.png, .svg, .pdf) is the format. Its folder is made if need be.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> from handgrad import viz
        >>> viz.save(viz.confusion([[3, 0], [1, 2]], "ab"), Path(tempfile.mkdtemp()) / "confusion.svg").name
        'confusion.svg'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure: Any = figure_or_axes.figure  # that of Axes may be a part of one, whose figure is the whole
    words = {} if not hasattr(figure_or_axes, "get_title") else {"Description": alt_text(cast("Axes", figure_or_axes))}
    metadata = words if path.suffix in (".png", ".svg") else {}
    figure.figure.savefig(path, bbox_inches="tight", metadata=metadata)
    return path

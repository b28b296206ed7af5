"""Which class is taken for which: as a picture and as text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from handgrad.insight.report import table
from handgrad.viz.canvas import canvas, described

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE, CELL, READABLE = 10.8, 0.42, 0.3  # inches: all cells at most, one where there are few, one that has its number
MOST_NAMES = 50
RIGHT, WRONG = ((0.62, 0.76, 0.88), (0.16, 0.42, 0.66)), ((0.93, 0.71, 0.56), (0.70, 0.26, 0.06))  # few, many


def confusion(matrix: Any, classes: Sequence[str], ax: "Axes | None" = None) -> "Axes":
    """Draw a confusion matrix: right answers blue, mistakes orange, the darker the larger their share of the row.

    Of many classes the cells are smaller, above 36 without their numbers, and above 50 not every class is named.

    Args:
        matrix: counts (K, K), rows true and columns predicted, as `hg.confusion_matrix` gives them.
        classes: the K names.
        ax: where to draw; None makes a Figure.

    Returns:
        The Axes.

    Raises:
        ImportError: without matplotlib.
        ValueError: a matrix that is not (K, K).

    Example:
        >>> confusion([[3, 0], [1, 2]], ["cat", "dog"]).get_title()
        '5 of 6 right; most often dog is taken for cat (1)'
    """
    counts = _checked(matrix, classes)
    k = len(classes)
    cell, every = min(CELL, SIDE / k), -(-k // MOST_NAMES)
    ax = canvas(ax, cell * k + 1.6, cell * k + 1.3)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(_colours(share), interpolation="nearest")
    for true, predicted in zip(*np.nonzero(counts if cell >= READABLE else np.zeros_like(counts)), strict=True):
        colour = "white" if share[true, predicted] > (0.5 if true == predicted else 0.07) else "#1c1c1c"
        ax.text(
            predicted,
            true,
            str(counts[true, predicted]),
            ha="center",
            va="center",
            color=colour,
            fontsize=8 * cell / CELL,
        )
    long = max(map(len, classes)) > 3
    ax.set_xticks(range(0, k, every), classes[::every], rotation=45 if long else 0, ha="right" if long else "center")
    ax.set_yticks(range(0, k, every), classes[::every])
    if cell < CELL:
        ax.tick_params(labelsize=max(9 * min(every * cell / CELL, 1), 5))
    ax.set(xlabel="predicted class", ylabel="true class", title=_finding(counts, classes))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    ax.grid(which="minor", color=ax.xaxis.label.get_color(), linewidth=0.4 * cell / CELL, alpha=0.5)
    ax.tick_params(which="minor", length=0)
    return described(ax, f"Confusion matrix of {k} classes")


def confusion_text(matrix: Any, classes: Sequence[str]) -> str:
    r"""A confusion matrix as a table for the terminal, a dot for 0; needs no matplotlib.

    Args:
        matrix: counts (K, K), rows true and columns predicted.
        classes: the K names.

    Returns:
        The table, rows true, columns predicted; its last column is the share of the row that is right.

    Raises:
        ValueError: a matrix that is not (K, K).

    Example:
        >>> print(confusion_text([[30, 0], [10, 20]], ["cat", "dog"]))
        true \ predicted  cat  dog    right
        cat                30    ·  100.0 %
        dog                10   20   66.7 %
    """
    counts = _checked(matrix, classes)
    header = ["true \\ predicted", *(name[:6] for name in classes), "right"]
    body = [
        [name, *(str(count) if count else "·" for count in row), _percent(row[i], row.sum())]
        for i, (name, row) in enumerate(zip(classes, counts, strict=True))
    ]
    return "\n".join(table([header, *body], "<" + ">" * (len(classes) + 1)))


def _checked(matrix: Any, classes: Sequence[str]) -> np.ndarray:
    counts = np.asarray(matrix)
    if counts.shape != (len(classes), len(classes)) or not len(classes):
        raise ValueError(
            f"confusion: the matrix must be {(len(classes),) * 2} for its classes, got shape {counts.shape}"
        )
    return counts


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _colours(share: np.ndarray) -> np.ndarray:
    """RGBA (K, K, 4), transparent where nothing is. Mistakes are few, so their colours are full at a tenth of a row."""
    picture = np.zeros((*share.shape, 4))
    for mask, strength, (few, many) in (
        (np.eye(len(share), dtype=bool), share, RIGHT),
        (~np.eye(len(share), dtype=bool), np.minimum(10 * share, 1), WRONG),
    ):
        blend = np.asarray(few) + strength[..., None] * (np.asarray(many) - np.asarray(few))
        picture[..., :3] = np.where(mask[..., None], blend, picture[..., :3])
    picture[..., 3] = share > 0
    return picture


def _finding(counts: np.ndarray, classes: Sequence[str]) -> str:
    """How many are right, and the commonest mistake."""
    right = f"{np.trace(counts)} of {counts.sum()} right"
    mistakes = counts * ~np.eye(len(counts), dtype=bool)
    if not mistakes.any():
        return right
    true, predicted = divmod(int(mistakes.argmax()), len(classes))
    return f"{right}; most often {classes[true]} is taken for {classes[predicted]} ({mistakes.max()})"

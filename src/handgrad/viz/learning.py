"""The learning curve: loss and accuracy by epoch."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from handgrad.training import read_history
from handgrad.viz.canvas import BLUE, ORANGE, canvas, described, matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Mapping[str, Sequence[float]]


def learning_curve(
    history_or_metrics_path: History | str | os.PathLike[str], ax: "Axes | None" = None, *, title: str | None = None
) -> "Axes":
    """Draw a run's loss, on the left axis, and its accuracy, on the right one, by epoch.

    The loss has a pale line through all steps and a full one through the epochs' means. It is that of the objective,
    so with l2 and dropout where the run has them; so is the training accuracy.

    Args:
        history_or_metrics_path: the history that `fit` returns, or the path of its metrics.jsonl or run_dir.
        ax: where to draw; None makes a Figure.
        title: None says what the last epoch's accuracy is.

    Returns:
        The Axes of the loss; its figure's other Axes has the accuracy.

    Raises:
        ImportError: without matplotlib.
        ValueError: no whole epoch, or a file that holds no metrics.

    Example:
        >>> history = {"train_loss": [1.0, 0.5], "train_accuracy": [0.7, 0.9], "validation_accuracy": [0.8, 0.95]}
        >>> learning_curve(history).get_title()
        'validation accuracy 95.0 % after 2 epochs'
    """
    history = history_or_metrics_path
    if not isinstance(history, Mapping):
        history = read_history(history)
    epochs = np.arange(1, len(history.get("train_loss", ())) + 1)
    if len(epochs) == 0:
        raise ValueError("learning_curve: there must be at least one whole epoch, got none; train longer")
    ax, ticker = canvas(ax, 6.0, 3.6), matplotlib("ticker")
    if "loss" in history:
        steps = np.arange(1, len(history["loss"]) + 1) * len(epochs) / len(history["loss"])
        ax.plot(steps, history["loss"], color=BLUE, alpha=0.35, linewidth=0.8)
    ax.plot(epochs, history["train_loss"], color=BLUE, marker="o", markersize=3, label="training loss")
    if min(history["train_loss"]) > 0:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda loss, _: f"{loss:g}"))
        ax.yaxis.set_minor_formatter(ticker.NullFormatter())
    ax.set(xlabel="epoch", title=_finding(history, len(epochs)) if title is None else title)
    ax.set_ylabel("training loss (nats per image)", color=BLUE)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    _colour(ax, "left", BLUE)
    if "train_accuracy" in history:
        _accuracy(ax, epochs, history)
    first, last = history["train_loss"][0], history["train_loss"][-1]
    return described(ax, f"Learning curve, training loss {first:.3g} after the first epoch and {last:.3g} in the end")


def _accuracy(ax: "Axes", epochs: np.ndarray, history: History) -> None:
    """Accuracies by epoch on an axis of their own, at the right."""
    right = ax.twinx()
    for name, style in (("train_accuracy", ":"), ("validation_accuracy", "-")):
        if name in history:
            percents = 100 * np.asarray(history[name], float)
            right.plot(epochs, percents, style, color=ORANGE, marker="o", markersize=3, label=name.split("_")[0])
    _colour(right, "right", ORANGE)
    right.set_ylabel("accuracy (%)", color=ORANGE, fontsize=ax.yaxis.label.get_fontsize())
    right.legend(loc="center right", frameon=False, labelcolor=ORANGE, fontsize=9)


def _finding(history: History, epochs: int) -> str:
    """How accurate the net is in the end, on what is not trained on if there is such."""
    name = next((n for n in ("validation_accuracy", "train_accuracy") if n in history), None)
    after = f"after {epochs} epoch{'s' if epochs > 1 else ''}"
    if name is None or math.isnan(history[name][-1]):
        return f"loss {history['train_loss'][-1]:.3g} {after}"
    return f"{name.replace('train_', 'training_').replace('_', ' ')} {100 * history[name][-1]:.1f} % {after}"


def _colour(ax: "Axes", side: str, colour: str) -> None:
    """One axis in the colour of its lines, and no other spines of a twin."""
    ax.tick_params(axis="y", which="both", colors=colour, labelsize=9)
    ax.spines[side].set(color=colour, visible=True)
    if side == "right":
        ax.spines[["left", "top", "bottom"]].set_visible(False)

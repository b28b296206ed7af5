"""Curvature while a net learns, and the losses of several optimizers side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from handgrad.viz.canvas import canvas, described
from handgrad.viz.descent import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def sharpness(runs: Mapping[float, tuple[Sequence[int], Any]], ax: "Axes | None" = None) -> "Axes":
    """Draw the largest eigenvalue of the Hessian by step, and dotted the 2/rate that gradient descent bears.

    Args:
        runs: for each learning rate the steps that were looked at, and the eigenvalues.
        ax: where to draw; None makes a Figure.

    Returns:
        The Axes; its title says how near to 2/rate the last quarter of each run is.

    Raises:
        ImportError: without matplotlib.
        ValueError: no run, a rate that is not above 0, or steps and eigenvalues that are not as many.

    Source: Cohen et al., Gradient descent on neural networks typically occurs at the edge of stability, 2021.

    Example:
        >>> sharpness({0.5: ([0, 10, 20, 30], [1.0, 3.0, 4.2, 4.1])}).get_title()
        'the sharpness ends at 1.02 times 2/rate'
    """
    if not runs:
        raise ValueError("sharpness: wants at least one run, got none")
    ax, ends = canvas(ax, 6.0, 3.4), []
    for (rate, (steps, values)), colour in zip(runs.items(), COLOURS * len(runs), strict=False):
        values = _checked("sharpness", f"rate {rate}", steps, values)
        if not rate > 0:
            raise ValueError(f"sharpness: a rate must be above 0, got {rate}")
        ax.plot(steps, values, color=colour, label=f"rate {rate:g}")
        ax.axhline(2 / rate, color=colour, linestyle=":", label=f"2/{rate:g} = {2 / rate:g}")
        ends.append(f"{values[-max(len(values) // 4, 1) :].mean() * rate / 2:.2f}")
    ax.set(xlabel="step", ylabel="largest eigenvalue of the Hessian")
    ax.set_title(f"the sharpness ends at {' and '.join(ends)} times 2/rate")
    ax.legend(frameon=False, fontsize=8, labelcolor=ax.title.get_color(), loc="lower right")
    rates = ", ".join(f"{rate:g}" for rate in runs)
    return described(ax, f"Curves of the largest eigenvalue of the Hessian by step, and lines at 2/rate, for {rates}")


def compare_losses(
    runs: Mapping[str, Any], ax: "Axes | None" = None, *, times: Mapping[str, Any] | None = None, unit: str = "ms"
) -> "Axes":
    """Draw the losses of several runs by step, or by time.

    Args:
        runs: the loss of each step, by the run's name.
        ax: where to draw; None makes a Figure.
        times: when each step was done, by name; None draws by step.
        unit: of the times.

    Returns:
        The Axes. The lowest loss that all runs reach is dotted; the legend says when each of them first comes down to
        it, the title which does so first and which last.

    Raises:
        ImportError: without matplotlib.
        ValueError: no run, one without a finite loss, or times that are not as many as the losses.

    Example:
        >>> compare_losses({"K-FAC": [2.0, 0.4, 0.1], "momentum": [2.0, 1.2, 0.4]}).get_title()
        'K-FAC reaches loss 0.4 after 2 steps, momentum after 3'
    """
    if not runs:
        raise ValueError("compare_losses: wants at least one run, got none")
    counted = {name: range(1, len(values) + 1) for name, values in runs.items()} if times is None else times
    values = {name: _checked("compare_losses", name, counted[name], run) for name, run in runs.items()}
    for name, run in values.items():
        if not np.isfinite(run).any():
            raise ValueError(f"compare_losses: {name} must have a finite loss, got none")
    level = max(np.nanmin(run) for run in values.values())
    ax, what = canvas(ax, 6.0, 3.4), "steps" if times is None else unit
    reached = {name: float(counted[name][int(np.argmax(run <= level))]) for name, run in values.items()}
    for (name, run), colour in zip(values.items(), COLOURS * len(values), strict=False):
        ax.plot(counted[name], run, color=colour, label=f"{name}: {reached[name]:.0f} {what}", linewidth=1.2)
    if min(np.nanmin(run) for run in values.values()) > 0:
        ax.set_yscale("log")
    ax.axhline(level, color=ax.xaxis.label.get_color(), linestyle=":", linewidth=0.8)
    ax.set(xlabel="step" if times is None else f"time ({unit})", ylabel="training loss (nats per example)")
    first, last = (pick(reached, key=lambda name: reached[name]) for pick in (min, max))
    title = f"{first} reaches loss {level:.2g} after {reached[first]:.0f} {what}"
    ax.set_title(title if reached[first] == reached[last] else f"{title}, {last} after {reached[last]:.0f}")
    ax.legend(frameon=False, fontsize=9, labelcolor=ax.title.get_color())
    return described(ax, f"Curves of the training loss by {'step' if times is None else 'time'} of {', '.join(runs)}")


def _checked(who: str, name: str, at: Any, values: Any) -> np.ndarray:
    """The values as numbers, as many as there are places."""
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) != len(at) or not len(values):
        raise ValueError(f"{who}: {name} must have a number for each of its steps, got {values.shape} for {len(at)}")
    return values

"""What a sweep found: the final loss or accuracy by one setting, a line for each combination of the others."""

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from handgrad.training import Sweep
from handgrad.training.swept import Group, in_words
from handgrad.viz.canvas import BLUE, INK, ORANGE, canvas, described, matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS, MARKERS = (BLUE, ORANGE, INK), "os^"
MOST = 6  # lines; colours and dashes tell no more apart
ROW = 0.1  # the height of a row of crosses, in that of the points


def sweep(found: Sweep, ax: "Axes | None" = None, *, over: str | None = None, metric: str | None = None) -> "Axes":
    """Draw a metric after the last epoch by one setting, with a line for each combination of the others.

    Points are means over the seeds, bars reach from the lowest seed to the highest. Where runs diverged there is a
    cross above, and how many; the others still count in the point.

    Args:
        found: what `hg.sweep` gives.
        ax: where to draw; None makes a Figure.
        over: the setting on the horizontal axis; None takes the one with most values. Positive numbers that span more
            than a factor of ten are on a scale of logarithms; what are no numbers stand side by side.
        metric: such as "validation_accuracy"; None takes the validation loss, or the training loss without validation.

    Returns:
        The Axes; its title says which setting was best, by the sweep's own measure.

    Raises:
        ImportError: without matplotlib.
        ValueError: no setting but the seed, an unknown setting or metric, or more than 6 combinations of the others.

    Example:
        >>> from handgrad.training.swept import Run
        >>> runs = [Run({"learning_rate": r}, {"train_loss": [r]}, None, None) for r in (0.1, 0.2)]
        >>> sweep(Sweep(tuple(runs))).get_title()
        'best: learning_rate 0.1, training loss 0.1'
    """
    over, metric = _chosen(found, over, metric)
    lines: dict[str, list[Group]] = {}
    for group in found.groups:
        others = {name: value for name, value in group.setting.items() if name != over}
        lines.setdefault(in_words(others), []).append(group)
    if len(lines) > MOST:
        raise ValueError(f"sweep: the other settings make {len(lines)} lines, at most {MOST} can be told apart")
    ax = canvas(ax, 6.0, 3.6)
    places = _places(ax, list(dict.fromkeys(group.setting[over] for group in found.groups)))
    colours = {label: COLOURS[number % len(COLOURS)] for number, label in enumerate(lines)}
    for number, (label, groups) in enumerate(lines.items()):
        style = MARKERS[number % len(COLOURS)] + ("-" if number < len(COLOURS) else "--")
        _line(
            ax, [places[g.setting[over]] for g in groups], groups, metric, label=label, color=colours[label], fmt=style
        )
    if metric.endswith("loss") and all(value > 0 for group in found.groups for value in group.finals(metric)):
        _log_losses(ax)
    lost = {label: groups for label, groups in lines.items() if any(group.diverged for group in groups)}
    _make_room(ax, len(lost))
    for row, (label, groups) in enumerate(lost.items()):
        height = 1 - ROW * (row + 0.5) / (1 + ROW * len(lost))
        _crosses(ax, [places[g.setting[over]] for g in groups], groups, color=colours[label], height=height)
    unit = "%" if metric.endswith("accuracy") else "nats per example"
    ax.set(xlabel=over.replace("_", " "), ylabel=f"{_named(metric)} ({unit})", title=_finding(found))
    if len(lines) > 1:
        ax.legend(frameon=False, fontsize=9, labelcolor=ax.title.get_color())
    diverged = sum(group.diverged for group in found.groups)
    words = f", {diverged} of which diverged" if diverged else ""
    return described(ax, f"{_named(metric).capitalize()} by {over.replace('_', ' ')} of {len(found.runs)} runs{words}")


def _chosen(found: Sweep, over: str | None, metric: str | None) -> tuple[str, str]:
    """The setting along the axis and the metric, checked."""
    settings = [group.setting for group in found.groups]
    count = {name: len({str(setting[name]) for setting in settings}) for name in settings[0]}
    metric = found.judge if metric is None else metric
    if not count:
        raise ValueError("sweep: there must be a setting beside the seed, got none")
    if over is not None and over not in count:
        raise ValueError(f"sweep: over must be one of {', '.join(count)}, got {over!r}")
    if metric not in found.runs[0].history:
        raise ValueError(f"sweep: metric must be one of {', '.join(found.runs[0].history)}, got {metric!r}")
    return max(count, key=lambda name: count[name]) if over is None else over, metric


def _places(ax: "Axes", values: list) -> dict[Any, float]:
    """Where each value stands along the axis."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        ax.set_xticks(range(len(values)), [str(getattr(value, "__name__", value)) for value in values])
        ax.set_xlim(-0.5, len(values) - 0.5)
        return {value: place for place, value in enumerate(values)}
    if min(values) > 0 and max(values) > 10 * min(values):
        ticker = matplotlib("ticker")
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(ticker.NullLocator())
    return {value: value for value in values}


def _line(ax: "Axes", places: list[float], groups: list[Group], metric: str, **style: Any) -> None:
    """Means, with bars from the lowest seed to the highest."""
    scale, order = 100 if metric.endswith("accuracy") else 1, np.argsort(places)
    groups = [groups[i] for i in order]
    means = scale * np.array([group.mean(metric) for group in groups])
    ends = np.array([(min(f), max(f)) if (f := group.finals(metric)) else (math.nan,) * 2 for group in groups])
    reach = np.abs(scale * ends.T - means)
    ax.errorbar(np.asarray(places, float)[order], means, yerr=reach, markersize=4, capsize=3, linewidth=1.2, **style)


def _log_losses(ax: "Axes") -> None:
    """A scale of logarithms, with plain numbers on it."""
    ticker = matplotlib("ticker")
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda loss, _: f"{loss:g}"))
    ax.yaxis.set_minor_locator(ticker.NullLocator())


def _make_room(ax: "Axes", rows: int) -> None:
    """Space above all points for rows of crosses."""
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log":
        ax.set_ylim(low, high * (high / low) ** (ROW * rows))
    else:
        ax.set_ylim(low, high + ROW * rows * (high - low))


def _crosses(ax: "Axes", places: list[float], groups: list[Group], color: str, height: float) -> None:
    """A cross where runs diverged, and of how many."""
    across = ax.get_xaxis_transform()
    for place, group in zip(places, groups, strict=True):
        if group.diverged:
            ax.plot(place, height, "X", color=color, markersize=7, transform=across)
            style = {"textcoords": "offset points", "color": color, "fontsize": 7, "va": "center", "ha": "right"}
            ax.annotate(f"{group.diverged} of {len(group.runs)} lost", (place, height), (-6, 0), across, **style)


def _named(metric: str) -> str:
    return metric.replace("train_", "training_").replace("_", " ")


def _finding(found: Sweep) -> str:
    group = found.best_group
    if group is None:
        return "no setting got through without a run that diverged"
    return textwrap.fill(f"best: {in_words(group.setting)}, {_named(found.judge)} {group.mean(found.judge):.3g}", 66)

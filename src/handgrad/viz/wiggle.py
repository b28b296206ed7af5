"""What wiggling costs beside backprop, and how many of its signs are right."""

from typing import TYPE_CHECKING

import numpy as np

from handgrad.insight.wiggle_study import BACKPROP_PASSES, WiggleCost, WiggleSigns
from handgrad.viz.canvas import BLUE, INK, ORANGE, canvas, described, matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def wiggle_cost(cost: WiggleCost, ax: "Axes | None" = None) -> "Axes":
    """Draw the time of a sweep of wiggling and of one gradient by backprop against the number of weights.

    Args:
        cost: what `hg.wiggle_cost` gave.
        ax: where to draw; None makes a Figure.

    Returns:
        The Axes, both scales logarithmic.

    Raises:
        ImportError: without matplotlib.

    Example:
        >>> from handgrad.insight.wiggle_study import CostRow
        >>> wiggle_cost(WiggleCost((CostRow(85, 86, 0.4, 0.2), CostRow(2410, 2411, 20.0, 0.25)), 64)).get_title()
        'with 2,410 weights wiggling takes 80 times as long as backprop'
    """
    ax, ticker = canvas(ax, 5.6, 3.6), matplotlib("ticker")
    parameters = np.array([row.parameters for row in cost.rows])
    last = cost.rows[-1]
    for label, times, colour, marker in (
        ("wiggle: N + 1 losses", [row.wiggle_ms for row in cost.rows], ORANGE, "o"),
        (f"backprop: about {BACKPROP_PASSES} losses", [row.backprop_ms for row in cost.rows], BLUE, "s"),
    ):
        ax.plot(parameters, times, color=colour, marker=marker, markersize=4, label=label)
    ax.set(xscale="log", yscale="log", xlabel="weights N", ylabel=f"time of a gradient, batch of {cost.batch} (ms)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(ticker.NullFormatter())
    ax.grid(color=INK, alpha=0.2, linewidth=0.6)
    ax.legend(frameon=False, labelcolor="linecolor", fontsize=9)
    ax.set_title(f"with {last.parameters:,} weights wiggling takes {last.ratio:,.0f} times as long as backprop")
    return described(ax, f"Two lines over the number of weights, wiggling up to {last.wiggle_ms:.3g} ms a sweep, "
                         f"backprop {last.backprop_ms:.2g} ms")  # fmt: skip


def wiggle_signs(signs: WiggleSigns, ax: "Axes | None" = None) -> "Axes":
    """Draw for each eps the share of weights whose sign wiggling gets right, gets wrong, and does not see.

    Args:
        signs: what `hg.wiggle_signs(objective)` gave.
        ax: where to draw; None makes a Figure.

    Returns:
        The Axes, with a stacked bar for each eps.

    Raises:
        ImportError: without matplotlib.

    Example:
        >>> from handgrad.insight.wiggle_study import SignRow
        >>> rows = SignRow(1e-6, 10, 3, 87), SignRow(1e-3, 95, 1, 4)
        >>> wiggle_signs(WiggleSigns(rows, "float32", 0)).get_title()
        'float32: eps 1e-03 gets 95.0 % of the signs right, 1e-06 10.0 %'
    """
    ax = canvas(ax, 6.0, 3.4)
    places = np.arange(len(signs.rows))
    right, wrong, unchanged = 100 * np.array([row.shares for row in signs.rows]).T
    for label, shares, below, colour, strength in (
        ("right", right, 0 * right, BLUE, 1.0),
        ("wrong", wrong, right, ORANGE, 1.0),
        ("no change", unchanged, right + wrong, INK, 0.3),
    ):
        ax.bar(places, shares, 0.72, bottom=below, color=colour, alpha=strength, label=label)
    for place, share in zip(places, right, strict=True):
        if share > 8:
            ax.text(float(place), share / 2, f"{share:.0f}", ha="center", va="center", color="white", fontsize=8)
    ax.set_xticks(places, [f"{row.eps:.0e}" for row in signs.rows])
    ax.set(xlabel="eps, the change of one weight", ylabel="signs against the gradient's (%)", ylim=(0, 100))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, labelcolor=ax.xaxis.label.get_color(), fontsize=9)
    ax.set_title(_sign_finding(signs))
    return described(ax, f"Stacked bars of right, wrong and unseen signs for {len(places)} sizes of the change")


def _sign_finding(signs: WiggleSigns) -> str:
    """The best eps and the worst."""
    best, worst = (choose(signs.rows, key=lambda row: row.shares[0]) for choose in (max, min))
    finding = f"{signs.dtype}: eps {best.eps:.0e} gets {100 * best.shares[0]:.1f} % of the signs right"
    return finding if best is worst else f"{finding}, {worst.eps:.0e} {100 * worst.shares[0]:.1f} %"

"""Descent on a surface over a plane, and what wiggling costs beside backprop."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.insight.descent import SURFACES, Path, Surface
from handgrad.insight.wiggle import WiggleCost
from handgrad.viz.canvas import BLUE, INK, ORANGE, canvas, described

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (BLUE, ORANGE, "#2a9d6f", "#b8527f", "#8a7a2f")  # told apart by the colour-blind too
MARKS = "os^Dv"


def descend_2d(
    paths: Mapping[str, Path], surface: Surface | str, ax: "Axes | None" = None, *, title: str | None = None
) -> "Axes":
    """Draw paths down a surface, on its contour lines: a mark for each step, a ring at the end.

    Args:
        paths: what `hg.descend_2d` gives, by name.
        surface: that they go down.
        ax: where to draw; None makes a Figure.
        title: what there is to see; None says which path ends lowest.

    Returns:
        The Axes. A path is drawn up to where it leaves the picture.

    Raises:
        ImportError: without matplotlib.
        ValueError: no path, or an unknown surface.

    Example:
        >>> import handgrad as hg
        >>> path = hg.descend_2d("bowl", hg.sgd(0.5), (1.0, -2.0), steps=9)
        >>> descend_2d({"sgd 0.5": path}, "bowl").get_title()
        'bowl: after 9 steps sgd 0.5 is lowest, at 9.54e-06'
    """
    if not paths:
        raise ValueError("descend_2d: wants at least one path, got none")
    if isinstance(surface, str):
        if surface not in SURFACES:
            raise ValueError(f"descend_2d: surface must be one of {', '.join(SURFACES)}, got {surface!r}")
        surface = SURFACES[surface]
    ax = canvas(ax, 5.4, 4.2)
    us, vs = (np.linspace(low, high, 121) for low, high in zip(surface.low, surface.high, strict=True))
    grid = jnp.asarray(np.stack(np.meshgrid(us, vs), -1))
    heights = np.asarray(jax.vmap(jax.vmap(surface.value))(grid))
    known = np.where(np.isfinite(heights), heights, np.nan)
    if not np.isnan(known).all():
        levels = np.nanquantile(known, np.linspace(0.01, 0.97, 14))
        ax.contour(us, vs, np.ma.masked_invalid(known), levels=np.unique(levels), colors=INK, linewidths=0.5, alpha=0.6)
    ends = {}
    for (name, path), colour, mark in zip(paths.items(), COLOURS * len(paths), MARKS * len(paths), strict=False):
        points, values = np.asarray(path.points, float), np.asarray(path.values, float)
        inside = np.all((points >= np.array(surface.low)) & (points <= np.array(surface.high)), 1)
        until = len(points) if inside.all() else int(np.argmin(inside))
        shown = points[: max(until, 1)]
        ax.plot(*shown.T, color=colour, marker=mark, markersize=3, linewidth=1.2, label=name)
        ax.plot(*shown[-1], color=colour, marker="o", markersize=9, fillstyle="none")
        ends[name] = values[-1]
    ax.set(xlim=(surface.low[0], surface.high[0]), ylim=(surface.low[1], surface.high[1]), xlabel="u", ylabel="v")
    lowest = min(ends, key=lambda name: ends[name] if np.isfinite(ends[name]) else np.inf)
    steps = len(next(iter(paths.values())).points) - 1
    finding = f"{lowest} is lowest, at {ends[lowest]:.3g}" if np.isfinite(ends[lowest]) else "no path is finite"
    finding = f"after {steps} steps {finding}"
    ax.set_title(f"{surface.name}: {finding}" if title is None else title)
    ax.legend(frameon=False, fontsize=8, labelcolor=ax.title.get_color(), loc="upper right")
    return described(ax, f"Paths of {', '.join(paths)} on the contour lines of the surface {surface.name}")


def wiggle_cost(rows: Sequence[WiggleCost], ax: "Axes | None" = None) -> "Axes":
    """Draw what all slopes of a net cost, by wiggles and by backprop, against its parameters; both axes logarithmic.

    Args:
        rows: what `hg.wiggle_cost` gives.
        ax: where to draw; None makes a Figure.

    Returns:
        The Axes; its title says how many times as long the wiggles of the largest net take.

    Raises:
        ImportError: without matplotlib.
        ValueError: no rows.

    Example:
        >>> wiggle_cost([WiggleCost(100, 2.0, 0.5), WiggleCost(400, 16.0, 1.0)]).get_title()
        'wiggling 400 weights takes 16 times as long as backprop'
    """
    if not rows:
        raise ValueError("wiggle_cost: wants at least one row, got none")
    ax = canvas(ax, 5.8, 3.4)
    counts = [row.parameters for row in rows]
    ax.loglog(counts, [row.wiggle for row in rows], "o-", color=ORANGE, markersize=4, label="a wiggle of each weight")
    ax.loglog(counts, [row.backprop for row in rows], "o-", color=BLUE, markersize=4, label="backprop")
    last = rows[-1]
    times = last.wiggle / last.backprop
    ax.set(xlabel="weights", ylabel="time for all slopes (ms)")
    ax.set_title(f"wiggling {last.parameters:,} weights takes {times:.3g} times as long as backprop")
    ax.legend(frameon=False, fontsize=9, labelcolor=ax.title.get_color())
    return described(ax, "Time for all slopes against the number of weights, by wiggling and by backprop")


def wiggle_signs(shares: Mapping[str, tuple[float, float, float]], ax: "Axes | None" = None) -> "Axes":
    """Draw how often a wiggle tells the slope's sign: stacked bars of right, wrong and no change.

    Args:
        shares: by name, such as the size of the wiggle, the shares (right, wrong, no change), which add up to 1.
        ax: where to draw; None makes a Figure.

    Returns:
        The Axes.

    Raises:
        ImportError: without matplotlib.
        ValueError: no shares.

    Example:
        >>> wiggle_signs({"1e-6": (0.05, 0.08, 0.87), "1e-3": (0.95, 0.03, 0.02)}).get_title()
        'a wiggle of 1e-3 tells 95 % of the signs, one of 1e-6 5 %'
    """
    if not shares:
        raise ValueError("wiggle_signs: wants at least one bar, got none")
    ax = canvas(ax, 5.2, 3.2)
    base: Any = np.zeros(len(shares))
    for i, (label, colour) in enumerate((("right", BLUE), ("wrong", ORANGE), ("no change", INK))):
        heights = 100 * np.array([share[i] for share in shares.values()])
        ax.bar(range(len(shares)), heights, 0.6, bottom=base, color=colour, label=label)
        base = base + heights
    ax.set_xticks(range(len(shares)), list(shares))
    ax.set(xlabel="size of the wiggle", ylabel="share of the weights (%)", ylim=(0, 118))
    by_right = sorted(shares, key=lambda name: shares[name][0])
    best, worst = by_right[-1], by_right[0]
    text = f"a wiggle of {best} tells {100 * shares[best][0]:.0f} % of the signs"
    ax.set_title(text if best == worst else f"{text}, one of {worst} {100 * shares[worst][0]:.0f} %")
    ax.legend(frameon=False, fontsize=8, labelcolor=ax.title.get_color(), ncols=3, loc="upper center")
    return described(ax, "Stacked bars: how often a wiggle tells the sign of the slope, by its size")

"""Paths of optimizers down a surface, over its contours."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.insight.descent import Path
from handgrad.insight.surface import Surface
from handgrad.viz.canvas import BLUE, INK, ORANGE, canvas, described

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = ((ORANGE, "o"), (BLUE, "s"), ("#2f9e77", "^"), ("#a866b8", "D"), ("#b08c1e", "v"), ("#c8577a", "P"))
CONTOURS, GRID = 16, 160


def descend_2d(paths: Mapping[str, Path], surface: Surface, ax: "Axes | None" = None) -> "Axes":
    """Draw where descents went, over the surface's contours.

    A ring is the start, a large mark an end, a cross a minimum. Contours lie denser where the surface is low. What
    leaves the surface's box, or is no number any more, is not drawn.

    Args:
        paths: what `hg.descend_2d` gave, by the name in the legend.
        surface: the one they went down.
        ax: where to draw; None makes a Figure.

    Returns:
        The Axes.

    Raises:
        ImportError: without matplotlib.
        ValueError: no path, or one with points of another shape than (steps + 1, 2).

    Example:
        >>> import handgrad as hg
        >>> bowl = hg.surfaces["bowl"]
        >>> rates = {"lr 0.5": 0.5, "lr 2.5": 2.5}
        >>> paths = {name: hg.descend_2d(bowl, hg.sgd(lr), (1.0, 0.5), 20) for name, lr in rates.items()}
        >>> descend_2d(paths, bowl).get_title()
        'bowl: lr 0.5 ends at f = 5.7e-13; lr 2.5 climbs'
    """
    if not paths:
        raise ValueError("descend_2d: paths must hold at least one path by name, got none")
    for name, path in paths.items():
        if path.points.ndim != 2 or path.points.shape[1] != 2:
            raise ValueError(f"descend_2d: {name} must have points (steps + 1, 2), got {path.points.shape}; draw one")
    ax = canvas(ax, 6.4, 4.0)
    _contours(ax, surface)
    for (name, path), (colour, mark) in zip(paths.items(), _styles(len(paths)), strict=True):
        points = np.asarray(path.points, float)[: _finite(path)]
        seen = np.where(_inside(points, surface)[:, None], points, np.nan)
        label = f"{name}, f = {float(path.values[-1]):.2g} after {len(path.values) - 1} steps"
        ax.plot(*points.T, color=colour, linewidth=1.2, alpha=0.85)
        ax.plot(*seen.T, color=colour, linestyle="none", marker=mark, markersize=2.5, label=label)
        ax.plot(*points[-1:].T, color=colour, marker=mark, markersize=8, markeredgecolor="white", markeredgewidth=0.8)
        ax.plot(*points[:1].T, color=INK, marker="o", markersize=9, markerfacecolor="none", markeredgewidth=1.4)
    (left, right), (low, high) = surface.box
    ax.set(xlim=(left, right), ylim=(low, high), xlabel="x", ylabel="y", title=_finding(paths, surface))
    ax.legend(
        loc="upper left", bbox_to_anchor=(1, 1), frameon=False, labelcolor=ax.xaxis.label.get_color(),
        fontsize=9, markerscale=2.4, handlelength=1.2,
    )  # fmt: skip
    return described(ax, f"Paths of {', '.join(paths)} over the contours of the {surface.name}")


def _contours(ax: "Axes", surface: Surface) -> None:
    """Lines of equal f, and a cross at each minimum."""
    x, y = (np.linspace(*limits, GRID) for limits in surface.box)
    grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    heights = np.asarray(jax.vmap(surface.value)(jnp.asarray(grid))).reshape(GRID, GRID)
    span = np.linspace(0, 1, CONTOURS + 2)[1:-1] ** 2.5
    ax.contour(x, y, heights, levels=heights.min() + np.ptp(heights) * span, colors=INK, alpha=0.45, linewidths=0.6)
    for x_min, y_min in surface.minima:
        ax.plot([x_min], [y_min], color=INK, marker="x", markersize=7, markeredgewidth=1.6, linestyle="none")


def _styles(count: int) -> list[tuple[str, str]]:
    """A colour and a mark for each path."""
    return [STYLES[i % len(STYLES)] for i in range(count)]


def _finite(path: Path) -> int:
    """How many points come before the first that is no number."""
    good = np.isfinite(np.asarray(path.points)).all(1) & np.isfinite(np.asarray(path.values))
    return len(good) if good.all() else max(int(good.argmin()), 1)


def _inside(points: np.ndarray, surface: Surface) -> np.ndarray:
    low, high = np.array(surface.box).T
    return ((points >= low) & (points <= high)).all(1)


def _finding(paths: Mapping[str, Path], surface: Surface) -> str:
    """Who ends lowest, who hardly moves, and who ends higher than the start or nowhere."""
    ends = {name: float(path.values[-1]) for name, path in paths.items()}
    starts = {name: float(path.values[0]) for name, path in paths.items()}
    climbing = [name for name in paths if not ends[name] <= starts[name]]  # NaN climbs too
    standing = [name for name in paths if 0 <= starts[name] - ends[name] < 1e-2 * abs(starts[name])]
    falling = {name: end for name, end in ends.items() if name not in climbing + standing}
    parts = []
    if falling:
        lowest = min(falling, key=lambda name: falling[name])
        parts.append(f"{lowest} ends {'lowest, ' if len(falling) > 1 else ''}at f = {falling[lowest]:.2g}")
    if climbing:
        parts.append(f"{', '.join(climbing)} climb{'s' if len(climbing) == 1 else ''}")
    if standing:
        parts.append(f"{', '.join(standing) if falling or climbing else 'the descent'} stands still")
    return f"{surface.name}: {'; '.join(parts)}"

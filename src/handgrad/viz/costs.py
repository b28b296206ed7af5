"""What a net costs, layer by layer: memory kept for backward, and time."""

from typing import TYPE_CHECKING

import numpy as np

from handgrad.insight.cost import Cost
from handgrad.insight.ledger import Ledger
from handgrad.viz.canvas import BLUE, ORANGE, canvas, described

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def ledger(kept: Ledger, ax: "Axes | None" = None) -> "Axes":
    """Draw what each layer keeps for backward, by hand and automatically.

    Args:
        kept: what `hg.ledger` gives.
        ax: where to draw; None makes a Figure.

    Returns:
        The Axes; its title says how much of jax.grad's the net keeps by hand.

    Raises:
        ImportError: without matplotlib.

    Example:
        >>> import handgrad as hg
        >>> ledger(hg.ledger(hg.Chain(hg.Relu()), (64,), temporary=False)).get_title()
        'by hand the net keeps 20 % of what jax.grad keeps'
    """
    rows = [row for row in kept.rows if row.hand or row.automatic]
    scale, unit = _unit(max([row.hand for row in rows] + [row.automatic for row in rows], default=1))
    pairs = {"by hand": [row.hand / scale for row in rows], "jax.grad": [row.automatic / scale for row in rows]}
    ax = _bars(ax, [row.name for row in rows], pairs)
    share = f"{100 * kept.hand / kept.automatic:.0f} %" if kept.automatic else "nothing"
    ax.set(xlabel=f"kept for backward ({unit}), batch of {kept.batch}")
    ax.set_title(f"by hand the net keeps {share} of what jax.grad keeps")
    return described(ax, f"Bars of the memory that {len(rows)} layers keep")


def cost(measured: Cost, ax: "Axes | None" = None) -> "Axes":
    """Draw each layer's forward and backward time.

    Args:
        measured: what `hg.cost` gives.
        ax: where to draw; None makes a Figure.

    Returns:
        The Axes; its title says how backward compares with forward.

    Raises:
        ImportError: without matplotlib.

    Example:
        >>> import handgrad as hg
        >>> ax = cost(hg.cost(hg.Chain(hg.Dense(4), hg.Relu()), (3,), batch=2, seconds=0))
        >>> ax.get_title().startswith("backward takes")
        True
    """
    rows = measured.rows
    pairs = {"forward": [row.forward for row in rows], "backward": [row.backward for row in rows]}
    ax = _bars(ax, [row.name for row in rows], pairs)
    counted = measured.counted_ratio
    count = "" if np.isnan(counted) else f" ({counted:.2f} counted)"
    ax.set(xlabel=f"time (ms), each layer alone, batch of {measured.batch}")
    ax.set_title(f"backward takes {measured.ratio:.1f} times forward{count}")
    return described(ax, f"Bars of the time that {len(rows)} layers take forward and backward")


def _bars(ax: "Axes | None", names: list[str], pairs: dict[str, list[float]]) -> "Axes":
    """Two bars for each name, the first name on top."""
    ax = canvas(ax, 6.0, max(0.34 * len(names) + 1.2, 2.2))
    places = np.arange(len(names))
    for shift, colour, (label, values) in zip((-0.2, 0.2), (BLUE, ORANGE), pairs.items(), strict=True):
        ax.barh(places + shift, values, 0.38, color=colour, label=label)
    ax.set_yticks(places, names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.legend(frameon=False, fontsize=9, labelcolor=ax.title.get_color())
    return ax


def _unit(most: float) -> tuple[float, str]:
    return next(((size, unit) for size, unit in ((1e6, "MB"), (1e3, "kB")) if most >= size), (1.0, "bytes"))

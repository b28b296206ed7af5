"""What a net costs, layer by layer: memory kept for backward, and time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from handgrad.insight.cost import Cost
from handgrad.insight.ledger import Ledger
from handgrad.viz.canvas import BLUE, ORANGE, canvas, described

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def ledger(kept: Ledger, ax: "Axes | None" = None, most: int = 30) -> "Axes":
    """Draw what each layer keeps for backward, by hand and under jax.grad.

    Args:
        kept: what `hg.ledger` gives.
        ax: where to draw; None makes a Figure.
        most: how many layers at most; where there are more, those that keep most under jax.grad.

    Returns:
        The Axes; its title says how much of jax.grad's the net keeps by hand, and which layer saves most.

    Raises:
        ImportError: without matplotlib.
        ValueError: most below 1.

    Example:
        >>> import handgrad as hg
        >>> ledger(hg.ledger(hg.Chain(hg.MaxPool(2)), (8, 8, 1), temporary=False)).get_title()
        'by hand 6 % of what jax.grad keeps; maxpool1 saves most'
    """
    rows = [row for row in kept.rows if max(row.hand, row.automatic) > 0]
    shown = _largest("ledger", [max(row.hand, row.automatic) for row in rows], most)
    scale, unit = _unit(max([row.hand for row in rows] + [row.automatic for row in rows], default=1))
    pairs = {
        "by hand": [rows[i].hand / scale for i in shown],
        "jax.grad": [rows[i].automatic / scale for i in shown],
    }
    ax = _bars(ax, [rows[i].name for i in shown], pairs)
    ax.set(xlabel=f"kept for backward ({unit}), batch of {kept.batch}", title=_saving(kept))
    return described(ax, f"Bars of the memory that {_how_many(shown, rows)} keep, two a layer: by hand and jax.grad")


def _saving(kept: Ledger) -> str:
    if not kept.automatic:
        return f"by hand {kept.hand:,} bytes, under jax.grad none" if kept.hand else "nothing is kept"
    saves = max(kept.rows, key=lambda row: row.saved)
    which = f"; {saves.name} saves most" if saves.saved > 0 else ""
    return f"by hand {100 * kept.hand / kept.automatic:.0f} % of what jax.grad keeps{which}"


def cost(measured: Cost, ax: "Axes | None" = None, most: int = 30) -> "Axes":
    """Draw each layer's forward and backward time.

    Args:
        measured: what `hg.cost` gives.
        ax: where to draw; None makes a Figure.
        most: how many layers at most; where there are more, those that take longest.

    Returns:
        The Axes; its title says how backward compares with forward, measured of the whole net, and counted.

    Raises:
        ImportError: without matplotlib.
        ValueError: most below 1.

    Example:
        >>> import handgrad as hg
        >>> ax = cost(hg.cost(hg.Chain(hg.Dense(4), hg.Relu()), (3,), batch=2, seconds=0))
        >>> ax.get_title().startswith("backward takes")
        True
    """
    rows = measured.rows
    shown = _largest("cost", [row.forward + row.backward for row in rows], most)
    pairs = {"forward": [rows[i].forward for i in shown], "backward": [rows[i].backward for i in shown]}
    ax = _bars(ax, [rows[i].name for i in shown], pairs)
    counted = "" if np.isnan(measured.counted_ratio) else f" ({measured.counted_ratio:.2f} by multiply-adds)"
    ax.set(xlabel=f"time (ms), each layer alone, batch of {measured.batch}")
    ax.set_title(f"backward takes {measured.ratio:.1f} times forward{counted}")
    return described(ax, f"Bars of the time that {_how_many(shown, rows)} take, two a layer: forward and backward")


def _largest(who: str, sizes: list[float], most: int) -> list[int]:
    """The places of the largest, in their own order."""
    if most < 1:
        raise ValueError(f"{who}: most must be at least 1, got {most}")
    return sorted(sorted(range(len(sizes)), key=lambda i: -sizes[i])[:most])


def _how_many(shown: Sequence, of: Sequence) -> str:
    return f"{len(shown)} layers" if len(shown) == len(of) else f"the largest {len(shown)} of {len(of)} layers"


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

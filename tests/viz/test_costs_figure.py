"""Bars of memory and time: each layer's two bars in its place, and the finding."""

import pytest

import handgrad as hg
from handgrad import viz
from handgrad.insight.cost import Cost, CostRow
from handgrad.insight.ledger import Ledger, LedgerRow

MEGABYTE = 1_000_000
KEPT = Ledger(
    (
        LedgerRow("conv1", "Conv", "by hand", 2 * MEGABYTE, 2 * MEGABYTE, 0, 0, 0),
        LedgerRow("flatten1", "Flatten", "by hand", 0, 0, 0, 0, 0),
        LedgerRow("maxpool1", "MaxPool", "by hand", MEGABYTE // 2, 8 * MEGABYTE, 0, 0, 0),
    ),
    64,
)
SPENT = Cost(
    (
        CostRow("conv1", "Conv", "by hand", 100, 100, 4.0, 5.0),
        CostRow("relu1", "Relu", "by hand", 0, 0, 0.5, 0.25),
        CostRow("dense1", "Dense", "by hand", 50, 100, 1.0, 2.0),
    ),
    batch=32, forward=5.0, backward=8.0, gradient=12.0, call=0.01,
)  # fmt: skip


def bars(ax):
    """The lengths of the bars, by label, from top to bottom."""
    return {bar.get_label(): [round(patch.get_width(), 9) for patch in bar] for bar in ax.containers}


def layers(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_ledger_has_two_bars_for_each_layer_that_keeps_something():
    ax = viz.ledger(KEPT)
    assert layers(ax) == ["conv1", "maxpool1"]
    assert bars(ax) == {"by hand": [2.0, 0.5], "jax.grad": [2.0, 8.0]}
    assert ax.get_title() == "by hand 25 % of what jax.grad keeps; maxpool1 saves most"
    assert ax.get_xlabel() == "kept for backward (MB), batch of 64" and ax.get_ylim()[0] > ax.get_ylim()[1]
    assert viz.alt_text(ax).startswith("Bars of the memory that 2 layers keep, two a layer: by hand and jax.grad. ")


def test_ledger_of_little_and_of_nothing():
    assert viz.ledger(hg.ledger(hg.Flatten(), (3,), temporary=False)).get_title() == "nothing is kept"
    ax = viz.ledger(hg.ledger(hg.Tanh(), (300,), temporary=False))
    assert ax.get_xlabel() == "kept for backward (kB), batch of 1"
    own = viz.ledger(hg.ledger(hg.Lambda(lambda x: 2 * x), (3,), temporary=False))
    assert own.get_title() == "by hand 12 bytes, under jax.grad none"


def test_cost_has_two_bars_for_each_layer():
    ax = viz.cost(SPENT)
    assert layers(ax) == ["conv1", "relu1", "dense1"]
    assert bars(ax) == {"forward": [4.0, 0.5, 1.0], "backward": [5.0, 0.25, 2.0]}
    assert ax.get_title() == "backward takes 1.6 times forward (1.33 by multiply-adds)"
    assert ax.get_xlabel() == "time (ms), each layer alone, batch of 32"


def test_the_largest_of_many_keep_their_order():
    ax = viz.cost(SPENT, most=2)
    assert layers(ax) == ["conv1", "dense1"] and "the largest 2 of 3 layers" in viz.alt_text(ax)
    assert layers(viz.ledger(KEPT, most=1)) == ["maxpool1"]
    with pytest.raises(ValueError, match="cost: most must be at least 1, got 0"):
        viz.cost(SPENT, most=0)
    with pytest.raises(ValueError, match="ledger: most must be at least 1, got 0"):
        viz.ledger(KEPT, most=0)

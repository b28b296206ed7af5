"""viz/sweep.py: points, bars, crosses, scales and words."""

import math
from typing import Any

import numpy as np
import pytest

from handgrad import viz
from handgrad.training import Sweep
from handgrad.training.swept import Run


def run(loss, diverged=None, accuracy=0.5, **setting):
    history = {"train_loss": [9.0, 1.0], "train_accuracy": [0.1, 0.2]}
    history |= {"validation_loss": [9.0, loss], "validation_accuracy": [0.1, accuracy]}
    return Run(setting, history, diverged, None)


RATES = [run(loss, rate=rate, beta=beta, seed=seed)
         for rate, beta, losses in ((0.01, 0.0, (2.0, 2.5, 4.5)), (0.01, 0.9, (1.0, 1.0)), (1.0, 0.0, (0.5, 0.5)))
         for seed, loss in enumerate(losses)]  # fmt: skip
LOST = [run(3.0, rate=1.0, beta=0.9, seed=0), run(math.nan, diverged=5, rate=1.0, beta=0.9, seed=1)]
FOUND = Sweep((*RATES, *LOST))


def data(ax):
    """Label -> points of each line with its errorbar."""
    return {c.get_label(): np.asarray(c.lines[0].get_xydata()).tolist() for c in ax.containers}


def test_points_are_means_and_bars_reach_from_lowest_to_highest():
    ax: Any = viz.sweep(FOUND)
    assert data(ax) == {"beta 0": [[0.01, 3.0], [1.0, 0.5]], "beta 0.9": [[0.01, 1.0], [1.0, 3.0]]}
    bar = ax.containers[0].lines[2][0].get_segments()[0]
    assert bar[:, 1].tolist() == [2.0, 4.5]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("rate", "validation loss (nats per example)")
    assert ax.get_title() == "best: rate 1, beta 0, validation loss 0.5"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["beta 0", "beta 0.9"]


def test_a_cross_for_what_diverged_stands_above_all_points():
    ax: Any = viz.sweep(FOUND)
    crosses = [line for line in ax.lines if line.get_marker() == "X"]
    assert [cross.get_xdata()[0] for cross in crosses] == [1.0]
    assert [text.get_text() for text in ax.texts] == ["1 of 2 lost"]
    ax.figure.draw_without_rendering()
    height = ax.transAxes.inverted().transform(crosses[0].get_transform().transform((1.0, crosses[0].get_ydata()[0])))
    highest = ax.transAxes.inverted().transform(ax.transData.transform((0.01, 4.5)))
    assert highest[1] < height[1] < 1
    assert viz.alt_text(ax).startswith("Validation loss by rate of 9 runs, 1 of which diverged. best")


def test_accuracy_is_in_percent_on_a_plain_scale():
    found = Sweep((run(1.0, accuracy=0.25, rate=1.0), run(2.0, accuracy=0.5, rate=2.0)))
    ax: Any = viz.sweep(found, metric="validation_accuracy")
    assert list(data(ax).values()) == [[[1.0, 25.0], [2.0, 50.0]]]
    assert ax.get_ylabel() == "validation accuracy (%)" and ax.get_xscale() == ax.get_yscale() == "linear"
    assert ax.get_legend() is None


def test_words_stand_side_by_side_and_order_is_that_of_numbers():
    ax: Any = viz.sweep(Sweep((run(1.0, act="relu"), run(2.0, act="tanh"))))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["relu", "tanh"]
    ax = viz.sweep(Sweep((run(1.0, width=8), run(2.0, width=4))))
    assert list(data(ax).values()) == [[[4.0, 2.0], [8.0, 1.0]]]


def test_all_lost():
    ax: Any = viz.sweep(Sweep((run(math.nan, diverged=1, rate=0.1), run(math.nan, diverged=2, rate=10.0))))
    assert ax.get_title() == "no setting got through without a run that diverged" and len(ax.texts) == 2
    ax.figure.draw_without_rendering()


def test_six_lines_are_told_apart_and_seven_refused():
    runs = tuple(run(1.0 + line, rate=rate, line=line) for line in range(7) for rate in range(8))
    ax: Any = viz.sweep(Sweep(runs[:48]))
    styles = {(c.lines[0].get_color(), c.lines[0].get_linestyle()) for c in ax.containers}
    assert len(styles) == 6
    with pytest.raises(ValueError, match="sweep: the other settings make 7 lines, at most 6"):
        viz.sweep(Sweep(runs), over="rate")


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="sweep: over must be one of rate, beta, got 'lr'"):
        viz.sweep(FOUND, over="lr")
    with pytest.raises(ValueError, match="sweep: metric must be one of train_loss, .*, got 'loss'"):
        viz.sweep(FOUND, metric="loss")
    with pytest.raises(ValueError, match="sweep: there must be a setting beside the seed, got none"):
        viz.sweep(Sweep((run(1.0, seed=0),)))

"""Numbers, findings and errors of the figures of curvature and of losses; what all figures keep is in FIGURES."""

import numpy as np
import pytest

from handgrad import viz


def curves(ax):
    return {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in ax.lines}


def test_sharpness_beside_its_limit():
    ax = viz.sharpness({0.5: (range(0, 8, 2), [1.0, 3.0, 4.5, 4.2]), 2.0: ([0, 1], np.array([0.5, 1.0]))})
    assert ax.get_title() == "the sharpness ends at 1.05 and 1.00 times 2/rate"
    found = curves(ax)
    assert found["rate 0.5"] == [[0, 1], [2, 3], [4, 4.5], [6, 4.2]] and found["rate 2"] == [[0, 0.5], [1, 1]]
    assert {y for _, y in found["2/0.5 = 4"]} == {4} and {y for _, y in found["2/2 = 1"]} == {1}
    assert "by step" in viz.alt_text(ax) and "0.5, 2" in viz.alt_text(ax)


def test_sharpness_errors():
    with pytest.raises(ValueError, match="wants at least one run, got none"):
        viz.sharpness({})
    with pytest.raises(ValueError, match="a rate must be above 0, got -1"):
        viz.sharpness({-1.0: ([0], [1.0])})
    with pytest.raises(ValueError, match=r"rate 0.1 must have a number for each of its steps, got \(1,\) for 2"):
        viz.sharpness({0.1: ([0, 1], [1.0])})


def test_losses_by_step_and_by_time():
    runs = {"a": [4.0, 2.0, 1.0, 0.5], "b": [4.0, 3.0, 2.5]}
    ax = viz.compare_losses(runs)
    assert ax.get_title() == "a reaches loss 2.5 after 2 steps, b after 3" and ax.get_yscale() == "log"
    assert curves(ax)["a: 2 steps"] == [[1, 4], [2, 2], [3, 1], [4, 0.5]]
    assert curves(ax)["b: 3 steps"] == [[1, 4], [2, 3], [3, 2.5]] and ax.get_legend() is not None
    ax = viz.compare_losses(runs, times={"a": [100, 200, 300, 400], "b": [1, 2, 3]}, unit="s")
    assert ax.get_title() == "b reaches loss 2.5 after 3 s, a after 200" and ax.get_xlabel() == "time (s)"
    alike = viz.compare_losses({"a": [1.0, -1.0, np.nan], "b": [0.0, -1.0]})  # the one comes to grief later
    assert alike.get_yscale() == "linear" and alike.get_title() == "a reaches loss -1 after 2 steps"


def test_losses_errors():
    with pytest.raises(ValueError, match="wants at least one run, got none"):
        viz.compare_losses({})
    with pytest.raises(ValueError, match="a must have a finite loss, got none"):
        viz.compare_losses({"a": [np.nan, np.inf]})
    with pytest.raises(ValueError, match=r"a must have a number for each of its steps, got \(0,\) for 0"):
        viz.compare_losses({"a": []})
    with pytest.raises(ValueError, match=r"a must have a number for each of its steps, got \(2,\) for 1"):
        viz.compare_losses({"a": [2.0, 1.0]}, times={"a": [1.0]})

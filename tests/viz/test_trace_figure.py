"""The heat map has each number in its place, and says what is wrong."""

import numpy as np
import pytest

from handgrad import viz

RECORD = {"name": ["dense1", "relu1"], "delta": [1.0, 0.1], "dead": [None, 0.25], "ratio": [0.5, None], "findings": []}


def pixels(ax):
    return np.ma.filled(ax.images[0].get_array().astype(float), np.nan)


def test_layers_are_rows_and_steps_are_columns():
    other = RECORD | {"delta": [2.0, None], "findings": ["relu1: 75 % of its units are dead"]}
    ax = viz.trace({"trace_step": [1, 101], "trace": [RECORD, other]})
    np.testing.assert_array_equal(pixels(ax), [[1.0, 2.0], [0.1, np.nan]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dense1", "relu1"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "101"]
    assert ax.get_title() == "relu1: 75 % of its units are dead; first seen at step 101"
    assert [(text.get_text(), text.get_position()) for text in ax.texts] == [("×", (1, 1))]


def test_shares_are_percents_and_layers_without_a_number_are_left_out():
    ax = viz.trace({"trace_step": [1], "trace": [RECORD]}, "dead")
    assert pixels(ax).tolist() == [[25.0]] and [t.get_text() for t in ax.get_yticklabels()] == ["relu1"]
    assert (ax.images[0].norm.vmin, ax.images[0].norm.vmax) == (0, 100)


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="value must be one of h, delta, dw, ratio, dead, zero, got 'loss'"):
        viz.trace({"trace": [RECORD]}, "loss")
    with pytest.raises(ValueError, match=r"nothing was traced; train with fit\(..., trace_every=100\)"):
        viz.trace({"loss": [1.0]})
    with pytest.raises(ValueError, match="all traces must be of one net"):
        viz.trace({"trace_step": [1, 2], "trace": [RECORD, RECORD | {"name": ["a", "b"]}]})
    with pytest.raises(ValueError, match="no layer here has a 'ratio'"):
        viz.trace({"trace_step": [1], "trace": [RECORD | {"ratio": [None, None]}]}, "ratio")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"tra')
    with pytest.raises(ValueError, match="nothing was traced"):
        viz.trace(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match="wants a history, a metrics file or a list of traces, got int"):
        viz.trace(3)

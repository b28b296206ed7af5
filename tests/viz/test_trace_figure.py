"""The heat map has each number in its place, and says what is wrong."""

import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import viz

RECORD = {
    "name": ["dense1", "relu1"],
    "delta": [1.0, 0.1],
    "dead": [None, 0.25],
    "ratio": [0.5, None],
    "findings": [],
}
DEAD = ["relu1", "dies", "75 % of its units are dead"]
EXPLODED = ["dense1", "explodes", "output 153 times its input"]


def run(*changes):
    """A run traced at steps 1, 101, 201, ..."""
    return {
        "trace_step": [100 * i + 1 for i in range(len(changes))],
        "trace": [RECORD | change for change in changes],
        "loss": [2.0],
    }


def pixels(ax):
    return np.ma.filled(ax.images[0].get_array().astype(float), np.nan)


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_layers_are_rows_and_steps_are_columns():
    ax = viz.trace(run({}, {"delta": [2.0, None]}))
    np.testing.assert_array_equal(pixels(ax), [[1.0, 2.0], [0.1, np.nan]])
    assert labels(ax.yaxis) == ["dense1", "relu1"] and labels(ax.xaxis) == ["1", "101"]
    assert (ax.images[0].norm.vmin, ax.images[0].norm.vmax) == (0.1, 2.0)
    assert [(text.get_text(), text.get_position()) for text in ax.texts] == [("×", (1, 1))]
    assert ax.get_xlabel() == "step" and "|δ|" in viz.alt_text(ax)


def test_zero_is_blank_on_a_logarithmic_scale_and_not_crossed():
    ax = viz.trace(run({"delta": [1.0, 0.0]}))
    np.testing.assert_array_equal(pixels(ax), [[1.0], [np.nan]])
    assert not ax.texts and (ax.images[0].norm.vmin, ax.images[0].norm.vmax) == (0.5, 2.0)
    assert np.isnan(pixels(viz.trace(run({"delta": [0.0, 0.0]})))).all()


def test_shares_are_percents_and_layers_without_a_number_are_left_out():
    ax = viz.trace(run({}), "dead")
    assert pixels(ax).tolist() == [[25.0]] and labels(ax.yaxis) == ["relu1"]
    assert (ax.images[0].norm.vmin, ax.images[0].norm.vmax) == (0, 100)


@pytest.mark.parametrize(
    ("findings", "value", "title"),
    [
        ([[], []], "delta", "no layer breaks, dies, explodes or vanishes in 101 steps"),
        ([[], [DEAD, EXPLODED]], "delta", "relu1 dies at step 101: 75 % of its units are dead"),
        ([[DEAD], [EXPLODED, DEAD]], "delta", "dense1 explodes at step 101: output 153 times its input"),
        ([[DEAD], [EXPLODED, DEAD]], "dead", "relu1 dies at step 1: 75 % of its units are dead at step 101"),
        ([[EXPLODED], []], "delta", "dense1 explodes at step 1: output 153 times its input"),
        ([[EXPLODED], []], "dead", "no layer breaks or dies in 101 steps"),
    ],
)
def test_the_title_is_the_gravest_finding_and_when_it_came_up(findings, value, title):
    ax = viz.trace(run(*({"findings": found} for found in findings)), value)
    assert ax.get_title().replace("\n", " ") == title


def test_many_layers_get_as_many_names_as_fit():
    names = [f"stage1/residual{i}/body/a_very_long_name/conv1" for i in range(150)]
    ax = viz.trace(run({"name": names, "delta": list(np.linspace(1, 2, 150))}))
    assert ax.figure.bbox.height == pytest.approx(10 * ax.figure.dpi) and len(labels(ax.yaxis)) == 50
    assert all(len(label) <= 28 and label.endswith("conv1") for label in labels(ax.yaxis))


def test_traces_themselves():
    net = hg.Chain(hg.Relu())
    look = hg.trace(hg.Objective(net, hg.MeanSquaredError()))
    found = look((), jnp.array([[3.0, -4.0]]), jnp.zeros((1, 2)))
    assert pixels(viz.trace(found, "h")).tolist() == [[pytest.approx(np.sqrt(4.5))]]
    assert labels(viz.trace([found, found], "dead").xaxis) == ["1", "2"]
    title = viz.trace([found, found.record()], "dead").get_title()
    assert title == "relu1 dies at step 1: 50 % of its units are dead at step 2"


def test_errors(tmp_path):
    with pytest.raises(
        ValueError, match="value must be one of h, delta, arrived, w, dw, ratio, dead, zero, got 'loss'"
    ):
        viz.trace({"trace": [RECORD]}, "loss")
    for nothing in ({"loss": [1.0]}, []):
        with pytest.raises(ValueError, match=r"nothing was traced; train with fit\(..., trace_every=100\)"):
            viz.trace(nothing)
    with pytest.raises(ValueError, match="all traces must be of one net"):
        viz.trace(run({}, {"name": ["a", "b"]}))
    with pytest.raises(ValueError, match="no layer here has a 'dead', only ReLU and ReLU6 have"):
        viz.trace(run({"dead": [None, None]}), "dead")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"tra')
    for path in (tmp_path, tmp_path / "metrics.jsonl"):
        with pytest.raises(ValueError, match="nothing was traced"):
            viz.trace(path)
    for wrong in (3, [3], b"ab"):
        with pytest.raises(TypeError, match="wants a history, a metrics file or a list of traces, got"):
            viz.trace(wrong)

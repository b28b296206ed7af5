"""training/sweep.py: every run is the run of its own, none is lost, and the table says which is best."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer

import handgrad as hg
from handgrad.training import Sweep
from handgrad.training.sweep import diverged_at, expanded, traced_names
from handgrad.training.swept import Run

SHAPE = (3, 2, 1)
NET = hg.Chain(hg.Flatten(), hg.Dense(4), hg.BatchNorm(), hg.Relu(), hg.Dropout(0.3), hg.Dense(3))
LOSS = hg.SoftmaxCrossEntropy()
X = np.asarray(jax.random.normal(jax.random.key(1), (8, *SHAPE)))
Y = np.arange(8) % 3
SETTINGS: dict[str, Any] = {"batch_size": 3, "epochs": 2, "progress": False}


def setup(learning_rate, momentum, l2):
    return hg.Objective(NET, LOSS, l2=l2), hg.momentum(learning_rate, momentum)


def unkeyed(train_state):
    return train_state._replace(key=jax.random.key_data(train_state.key))


def alone(learning_rate, momentum, l2, seed):
    """The same by init_train_state, make_train_step and fit."""
    objective, optimizer = setup(learning_rate, momentum, l2)
    start = hg.init_train_state(NET, optimizer, jax.random.key(seed), SHAPE, jnp.float64)
    step = hg.make_train_step(objective, optimizer)
    return hg.fit(start, step, X, Y, seed=5, validation=(X, Y), prefetch=0, **SETTINGS)


GRID = {"learning_rate": [0.01, 0.3], "momentum": [0, 0.9], "l2": [0.02], "seed": [4, 7]}
CHOSEN = [1, 6]  # runs compared with one of their own


@pytest.fixture(scope="module")
def singles():
    settings = expanded(GRID)
    return {i: alone(**settings[i]) for i in CHOSEN}


@pytest.mark.parametrize("at_once", [None, 4])
def test_each_run_is_that_of_the_single_step(singles, at_once):
    """Under momentum, l2, batch norm and dropout, one after the other, or four side by side and then the others."""
    found = hg.sweep(GRID, setup, X, Y, validation=(X, Y), seed=5, at_once=at_once, **SETTINGS)
    assert [run.setting for run in found.runs] == expanded(GRID) and len(found.runs) == 8
    for i, (state, history) in singles.items():
        mine = unkeyed(found.runs[i].train_state)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), mine, unkeyed(state))
        for name, values in found.runs[i].history.items():
            np.testing.assert_allclose(values, history[name], rtol=1e-12 if name.endswith("loss") else 1e-6)
        assert set(found.runs[i].history) == {
            "train_loss", "train_accuracy", "validation_loss", "validation_accuracy",
        }  # fmt: skip


def test_a_program_is_compiled_once_for_all_numbers():
    traced = []

    def counted(learning_rate, width):
        if isinstance(learning_rate, Tracer):
            traced.append(width)
        net = hg.Chain(hg.Flatten(), hg.Dense(width), hg.Relu(), hg.Dense(3))
        return hg.Objective(net, LOSS), hg.sgd(learning_rate)

    grid = {"width": [2, 4], "learning_rate": np.array([0.1, 0.2, 0.3]), "seed": range(2)}
    found = hg.sweep(grid, counted, X, Y, **SETTINGS)
    assert traced == [2, 4] and len(found.runs) == 12
    widths = [run.train_state.params["dense1"]["bias"].shape[0] for run in found.runs]
    assert widths == [2] * 6 + [4] * 6
    assert len({float(run.train_state.params["dense2"]["kernel"].std()) for run in found.runs}) == 12


def linear(learning_rate):
    return hg.Objective(hg.Chain(hg.Flatten(), hg.Dense(1)), hg.MeanSquaredError()), hg.sgd(learning_rate)


def test_runs_that_diverge_are_kept_and_shown():
    y = np.linspace(-1.0, 1.0, 8)[:, None]
    settings = [{"learning_rate": rate} for rate in (0.1, 3.0, 1e200)]
    found = hg.sweep(settings, linear, X, y, validation=(X, y), **{**SETTINGS, "epochs": 6})
    steps = [run.diverged for run in found.runs]
    assert steps[0] is None and steps[1] is not None and steps[2] == 2
    assert math.isnan(found.runs[1].final("validation_loss")) and found.best == {"learning_rate": 0.1}
    rows = str(found).splitlines()
    assert len(rows) == 5 and rows[2].endswith(f"diverged at step {steps[1]}") and rows[3].split()[2:5] == ["-"] * 3
    assert rows[-1].startswith("best: learning_rate 0.1: validation loss")


def test_when_a_run_is_lost():
    fine = np.array([True] * 4)
    assert diverged_at(np.array([2.0, 1.0, 0.5, 0.4]), fine, 0.4) is None
    assert diverged_at(np.array([2.0, 50.0, 1.0, 0.4]), fine, 0.7) is None  # it came back
    assert diverged_at(np.array([2.0, 19.0, 21.0, 30.0]), fine, 25.5) == 3
    assert diverged_at(np.array([2.0, 1.0, 0.5, 0.4]), np.array([True, False, True, True]), 0.4) == 2
    assert diverged_at(np.array([0.0, 1.0, 1.0, 1.0]), fine, 1.0) is None  # nothing to compare with


def run(loss, diverged=None, **setting):
    return Run(setting, {"train_loss": [9.0, loss], "train_accuracy": [0.1, 0.5]}, diverged, None)


def test_the_table():
    found = Sweep(
        (
            run(1.0, rate=0.1, act="relu", seed=0),
            run(2.0, rate=0.1, act="relu", seed=1),
            run(0.5, rate=10.0, act="relu", seed=0),
            run(math.nan, diverged=7, rate=10.0, act="relu", seed=1),
        )
    )
    assert str(found) == (
        "rate  act   runs  train loss  train accuracy\n"
        "0.1   relu  2     1.5 ± 0.71  50.0 ± 0.0 %\n"
        "10    relu  2     0.5         50.0 %          1 of 2 diverged, the first at step 7\n"
        "best: rate 0.1, act relu: train loss 1.5 (mean of 2 runs)"
    )
    assert found.groups[1].finals("train_loss") == [0.5] and found.groups[1].diverged == 1


def test_a_table_without_a_best():
    lost = Sweep((run(math.nan, diverged=1, rate=1.0),))
    assert lost.best is None and str(lost).endswith("no setting got through without a run that diverged")
    assert str(Sweep((run(1.0, seed=0), run(2.0, seed=1)))).endswith("best: train loss 1.5 (mean of 2 runs)")


def test_what_is_traced():
    settings = expanded({"a": [1, 2.0], "b": [1, 2], "c": [True, False], "d": ["x"], "e": [0.5], "seed": [1]})
    assert len(settings) == 8
    assert traced_names(settings, []) == ["a", "e"] and traced_names(settings, ["e"]) == ["a"]
    assert expanded([{"a": 1}, {"a": 3}]) == [{"a": 1}, {"a": 3}]
    assert [s["a"] for s in expanded({"a": jnp.array([0.5, 1.0]), "b": (1, 2)})] == [0.5, 0.5, 1.0, 1.0]


def test_numbers_that_setup_looks_at_are_static():
    def looking(learning_rate):
        return linear(learning_rate if learning_rate > 0.05 else 0.05)

    y = np.ones((8, 1))
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        hg.sweep({"learning_rate": [0.01, 0.1]}, looking, X, y, **SETTINGS)
    assert any("static=[names]" in note for note in caught.value.__notes__)
    found = hg.sweep({"learning_rate": [0.01, 0.1]}, looking, X, y, static=["learning_rate"], **SETTINGS)
    assert len(found.runs) == 2


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"grid": 3}, TypeError, "sweep: grid must be lists of values by name, or a list of dicts, got 3"),
        ({"grid": {}}, ValueError, "sweep: the grid must have at least one setting"),
        ({"grid": []}, ValueError, "sweep: the grid must have at least one setting"),
        ({"grid": {"learning_rate": 0.1}}, TypeError, r"grid\['learning_rate'\] must be a list .* write \[0.1\]"),
        ({"grid": {"learning_rate": []}}, ValueError, r"grid\['learning_rate'\] must have at least one value"),
        ({"grid": [{"learning_rate": 0.1}, {"rate": 1}]}, ValueError, "settings must have the same names"),
        ({"grid": {"learning_rate": [0.1], "seed": [0.5]}}, TypeError, "sweep: a seed must be an int, got 0.5"),
        ({"grid": {"rate": [0.1]}}, TypeError, "unexpected keyword argument 'rate'"),
        ({"grid": {"learning_rate": [-0.1, 0.1]}}, ValueError, "sgd: lr must be finite and at least 0, got -0.1"),
        ({"setup": lambda learning_rate: hg.sgd(0.1)}, TypeError, r"setup must give \(hg.Objective, optimizer\)"),
        ({"setup": lambda learning_rate: (linear(0.1)[0], 0.1)}, TypeError, "must have init and update, got 0.1"),
        ({"x": X.astype(int)}, TypeError, "sweep: x must be floating point, got int64"),
        ({"y": np.ones((7, 1))}, ValueError, "sweep: x and y must have as many examples"),
        ({"validation": (X, np.ones((7, 1)))}, ValueError, "sweep, validation: x and y must have as many examples"),
        ({"batch_size": 9}, ValueError, "batch_size must be at most"),
        ({"epochs": 0}, ValueError, "sweep: epochs must be at least 1, got 0"),
        ({"epochs": 1.5}, TypeError, "sweep: epochs must be an int, got 1.5"),
        ({"at_once": 0}, ValueError, "sweep: at_once must be at least 1, got 0"),
        ({"static": ["beta"]}, ValueError, r"sweep: static names \['beta'\], the grid has \['learning_rate'\]"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
    ],
)
def test_bad_input_is_named(change, error, message):
    given = {"grid": {"learning_rate": [0.1]}, "setup": linear, "x": X, "y": np.ones((8, 1)), **SETTINGS, **change}
    with pytest.raises(error, match=message):
        hg.sweep(given.pop("grid"), given.pop("setup"), given.pop("x"), given.pop("y"), **given)


def test_a_value_that_cannot_be_told_from_others():
    with pytest.raises(TypeError, match="each value must be a number or hashable"):
        hg.sweep({"a": [[1], [2]]}, lambda a: linear(0.1), X, np.ones((8, 1)), **SETTINGS)

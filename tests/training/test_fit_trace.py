"""fit(..., trace_every=N): what it keeps, and that a run that is stopped and resumed keeps the same."""

import json
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.insight import Trace
from handgrad.training import read_history

NET, OPTIMIZER = hg.Chain(hg.Dense(4), hg.Relu(), hg.Dropout(0.5), hg.Dense(3)), hg.sgd(0.1)
STEP = hg.make_train_step(hg.Objective(NET, hg.SoftmaxCrossEntropy(), l2=0.1), OPTIMIZER)
START = hg.init_train_state(NET, OPTIMIZER, jax.random.key(0), (5,), jnp.float64)
X, Y = np.random.default_rng(0).normal(size=(10, 5)), np.arange(10) % 3


def run(run_dir=None, epochs=3, trace_every: int | None = 3, step: Callable = STEP, **settings):
    settings = {"batch_size": 2, "progress": False, "run_dir": run_dir, "trace_every": trace_every, **settings}
    return hg.fit(START, step, X, Y, epochs=epochs, **settings)


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_every_third_step_is_traced_before_it_is_taken(tmp_path):
    """Same params, batch and masks as the step's own: the same loss, and the same gradient."""
    _, history = run(tmp_path)
    assert history["trace_step"] == [1, 4, 7, 10, 13] and len(history["step"]) == 15
    losses = [history["loss"][step - 1] for step in history["trace_step"]]
    assert [record["loss"] for record in history["trace"]] == pytest.approx(losses, rel=1e-12)
    x, y = next(iter(hg.data.batches(X, Y, 2, seed=0, epoch=0)))
    found = hg.trace(STEP.objective)(START.params, x, y, START.state, jax.random.fold_in(START.key, 0))
    again = Trace.from_record(history["trace"][0])
    np.testing.assert_allclose([row[4:] for row in again.rows], [row[4:] for row in found.rows], rtol=1e-12)
    assert read_history(tmp_path)["trace"] == history["trace"]
    assert [line["trace_step"] for line in lines(tmp_path) if "trace" in line] == history["trace_step"]


class InterruptedAt:
    """STEP, which raises in its at-th call."""

    def __init__(self, at):
        self.objective, self._calls, self._at = STEP.objective, iter(range(1, at + 1)), at

    def guarded(self, *args):
        if next(self._calls) == self._at:
            raise KeyboardInterrupt
        return STEP.guarded(*args)

    __call__ = STEP.__call__


@pytest.mark.parametrize("at", [1, 6, 7, 8])  # 7 is traced, and not taken
def test_a_run_that_is_stopped_and_resumed_has_the_same_traces(tmp_path, at):
    _, history = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", step=InterruptedAt(at))
    _, resumed = run(tmp_path / "parts", resume=True)
    assert resumed["trace"] == history["trace"] and resumed["trace_step"] == history["trace_step"]
    assert resumed["loss"] == history["loss"] and resumed["epoch_end"] == history["epoch_end"]
    assert [line for line in lines(tmp_path / "parts") if "trace" in line] == [
        line for line in lines(tmp_path / "whole") if "trace" in line
    ]


def test_tracing_changes_nothing_else():
    (state, history), (other, plain) = run(), run(trace_every=None)
    assert history["loss"] == plain["loss"] and set(history) - set(plain) == {"trace_step", "trace"}
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True))


def test_a_second_fit_goes_on_counting():
    _, history = hg.fit(
        START._replace(step=START.step + 5), STEP, X, Y, batch_size=2, epochs=1, progress=False, trace_every=4
    )
    assert history["trace_step"] == [6, 10]


@pytest.mark.parametrize(("wrong", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_trace_every_must_be_a_count(tmp_path, wrong, error):
    with pytest.raises(error, match="fit: trace_every must be"):
        run(tmp_path / "run", trace_every=wrong)
    assert not (tmp_path / "run").exists()


def test_tracing_needs_an_objective():
    with pytest.raises(TypeError, match="fit: trace_every needs a step with an objective; take one from make_train"):
        run(step=lambda *args: args)


def test_read_history_names_a_line_that_is_no_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nno JSON\n{"step": 2}\n')
    with pytest.raises(ValueError, match="metrics.jsonl must hold a line of JSON a step, line 2 is none"):
        read_history(path)
    with pytest.raises(OSError, match="nothing"):
        read_history(tmp_path / "nothing")

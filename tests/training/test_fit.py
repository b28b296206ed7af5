"""training/fit.py: a run that is stopped and resumed is the run that was not stopped."""

import json
import math
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.data import batches
from handgrad.gradient import Objective
from handgrad.layers import BatchNorm, Chain, Dense, Dropout, Flatten
from handgrad.losses import MeanSquaredError, SoftmaxCrossEntropy
from handgrad.optimizers import adam
from handgrad.training import checkpoint, evaluate, fit, init_train_state, make_train_step

NET = Chain(Flatten(), Dense(4), BatchNorm(), Dropout(0.2), Dense(3))
OPTIMIZER = adam(0.05)
STEP = make_train_step(Objective(NET, SoftmaxCrossEntropy(), l2=1e-3), OPTIMIZER)
X = np.random.default_rng(0).normal(size=(26, 2, 2, 1))
Y = (X.sum((1, 2, 3)) > 0).astype(int) + (X[:, 0, 0, 0] > 1)
SETTINGS = {"batch_size": 8, "seed": 3, "progress": False}
START = init_train_state(NET, OPTIMIZER, jax.random.key(0), (2, 2, 1), jnp.float64)


def run(epochs=3, step: Callable = STEP, start=START, **settings):
    return fit(start, step, X, Y, epochs=epochs, **{**SETTINGS, **settings})


def same(one, other):
    leaves = [jax.tree.leaves(t._replace(key=jax.random.key_data(t.key))) for t in (one, other)]
    for a, b in zip(*leaves, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def same_history(one, other):
    assert set(one) == set(other)
    for name in set(one) - {"seconds", "images_per_second"}:
        assert one[name] == other[name], name


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_is_the_plain_loop():
    expected, metrics = jax.tree.map(jnp.copy, START), []
    for epoch in range(2):
        for x, y in batches(X, Y, 8, seed=3, epoch=epoch):
            expected, m = STEP(expected, x, y)
            metrics.append([float(v) for v in m])
    train_state, history = run(2)
    same(train_state, expected)
    assert history["step"] == [1, 2, 3, 4, 5, 6] and history["epoch_end"] == [3, 6] and history["epoch"] == [1, 2]
    assert [list(m) for m in zip(history["loss"], history["accuracy"], history["grad_norm"], strict=True)] == metrics
    np.testing.assert_allclose(history["train_loss"], np.reshape(history["loss"], (2, 3)).mean(1), rtol=1e-12)
    assert all(rate > 0 for rate in history["images_per_second"] + history["seconds"])
    assert not START.key.is_deleted()


def test_a_second_fit_goes_on_from_the_first():
    train_state, history = run(1, start=run(1)[0])
    assert train_state.step == 6 and history["step"] == [4, 5, 6] and history["epoch_end"] == [6]


def test_validation_is_evaluate():
    validation = X[:5], Y[:5]
    train_state, history = run(2, validation=validation)
    expected = evaluate(NET, train_state.params, train_state.state, *validation, loss=SoftmaxCrossEntropy())
    assert history["validation_accuracy"][-1] == expected["accuracy"]
    assert history["validation_loss"][-1] == expected["loss"] and len(history["validation_loss"]) == 2


def test_augment_gets_a_key_of_its_own_each_step():
    keys = []

    def augment(key, x, y):
        keys.append(jax.random.key_data(key).tobytes())
        return x + jax.random.normal(key, x.shape), y

    one, _ = run(2, augment=augment)
    assert len(set(keys)) == 6
    same(run(2, augment=augment)[0], one)
    assert keys[:6] == keys[6:]
    assert not np.array_equal(one.params["dense1"]["kernel"], run(2)[0].params["dense1"]["kernel"])


def test_the_run_folder(tmp_path):
    train_state, history = run(5, run_dir=tmp_path, validation=(X, Y))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    best = f"step_{3 * history['best_epoch'][-1]:08d}.npz"
    assert names == sorted({best, "step_00000009.npz", "step_00000012.npz", "step_00000015.npz"})
    same(checkpoint.load(tmp_path / "checkpoints" / names[-1], like=START), train_state)
    written = lines(tmp_path)
    assert [line["step"] for line in written if "step" in line] == history["step"] == list(range(1, 16))
    assert [line["loss"] for line in written if "step" in line] == history["loss"]
    assert [line["validation_accuracy"] for line in written if "epoch" in line] == history["validation_accuracy"]
    assert list(written[3]) == [
        "epoch", "epoch_end", "train_loss", "train_accuracy", "seconds", "images_per_second",
        "validation_accuracy", "validation_loss", "best_epoch",
    ]  # fmt: skip


def test_numbers_that_are_not_finite_are_null(tmp_path):
    net = Chain(Flatten(), Dense(1))
    step = make_train_step(Objective(net, MeanSquaredError()), OPTIMIZER)
    start = init_train_state(net, OPTIMIZER, jax.random.key(0), (2, 2, 1), jnp.float64)
    y = np.ones((26, 1))
    for resume in (False, True):
        _, history = fit(start, step, X, y, epochs=1 + resume, run_dir=tmp_path, resume=resume, **SETTINGS)
        assert all(math.isnan(a) for a in history["accuracy"]) and len(history["accuracy"]) == 3 * (1 + resume)
    assert all(line["accuracy"] is None for line in lines(tmp_path) if "step" in line)


class Broken(Exception):
    pass


def breaking(at, error):
    """A step that raises in its at-th call."""
    calls = iter(range(1, at + 1))

    def step(*args):
        if next(calls) == at:
            raise error
        return STEP(*args)

    step.objective = STEP.objective  # pyright: ignore[reportFunctionMemberAccess]
    return step


@pytest.mark.parametrize("at", [1, 3, 4, 5, 9])
def test_resumed_after_ctrl_c_equals_uninterrupted_to_the_bit(tmp_path, at):
    expected, history = run(3, validation=(X, Y))
    with pytest.raises(KeyboardInterrupt):
        run(3, step=breaking(at, KeyboardInterrupt()), run_dir=tmp_path, validation=(X, Y))
    assert checkpoint.load(tmp_path / "checkpoints" / f"step_{at - 1:08d}.npz").step == at - 1
    assert [line["step"] for line in lines(tmp_path) if "step" in line] == list(range(1, at))
    train_state, resumed = run(3, run_dir=tmp_path, resume=True, validation=(X, Y))
    same(train_state, expected)
    same_history(resumed, history)
    assert [line["step"] for line in lines(tmp_path) if "step" in line] == list(range(1, 10))


@pytest.mark.parametrize("at", [2, 5, 9])
def test_resumed_after_a_crash_equals_uninterrupted_to_the_bit(tmp_path, at):
    expected, history = run(3)
    with pytest.raises(Broken):
        run(3, step=breaking(at, Broken()), run_dir=tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:  # what a crash between two writes may leave
        file.write('{"step": 8, "loss": 1.0, "accuracy": 0.0, "grad_norm": 0.0}\n{"step": 9, "lo')
    train_state, resumed = run(3, run_dir=tmp_path, resume=True)
    same(train_state, expected)
    same_history(resumed, history)


def test_a_finished_run_is_resumed_for_more_epochs(tmp_path):
    run(2, run_dir=tmp_path)
    unchanged, history = run(2, run_dir=tmp_path, resume=True)
    assert unchanged.step == 6 and history["epoch"] == [1, 2]
    same(run(3, run_dir=tmp_path, resume=True)[0], run(3)[0])


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path):
    expected, _ = run(3, run_dir=tmp_path)
    newest = tmp_path / "checkpoints" / "step_00000009.npz"
    newest.write_bytes(newest.read_bytes()[:200])
    with pytest.warns(UserWarning, match="passed over .*step_00000009.npz"):
        train_state, history = run(3, run_dir=tmp_path, resume=True)
    same(train_state, expected)
    assert history["step"] == list(range(1, 10))


SCRIPT = """
    import sys
    import jax, numpy as np
    from handgrad.data import batches
    from handgrad.gradient import Objective
    from handgrad.layers import Chain, Dense
    from handgrad.losses import SoftmaxCrossEntropy
    from handgrad.optimizers import sgd
    from handgrad.training import fit, init_train_state, make_train_step
    net = Chain(Dense(2))
    start = init_train_state(net, sgd(0.1), jax.random.key(0), (3,))
    step = make_train_step(Objective(net, SoftmaxCrossEntropy()), sgd(0.1))
    x, y = np.ones((64, 3), np.float32), np.arange(64) % 2
    fit(start, step, x, y, batch_size=2, epochs=10**6, run_dir=sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 0), (signal.SIGINT, -signal.SIGINT)])
def test_signals_save_and_say_how_to_go_on(tmp_path, number, code):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode in (code, 130 if code else 0), errors
    newest = checkpoint.latest(tmp_path / "checkpoints")
    assert newest is not None and f"fit: stopped by {number.name}; saved {newest}; resume=True" in errors
    steps = [line["step"] for line in lines(tmp_path) if "step" in line]
    assert steps == list(range(1, int(newest.stem.removeprefix("step_")) + 1))


@pytest.mark.parametrize("number, error", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_handlers_come_back(tmp_path, number, error):
    def own(number, frame):
        raise AssertionError

    def augment(key, x, y):
        signal.raise_signal(number)
        return x, y

    previous = signal.signal(number, own)
    try:
        with pytest.raises(error):
            run(1, run_dir=tmp_path, augment=augment, prefetch=0)  # in the middle of a step, not ahead of it
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, previous)
    assert checkpoint.load(tmp_path / "checkpoints" / "step_00000001.npz").step == 1


def test_in_another_thread_signals_are_left_alone(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(1, run_dir=tmp_path)))
    thread.start()
    thread.join()
    assert results[0][0].step == 3


def test_the_bar_shows_loss_accuracy_and_images(capsys):
    run(2, progress=True)
    shown = capsys.readouterr().err
    assert "epoch 2/2" in shown and "images/s" in shown and "48.0/48.0" in shown
    run(1)
    assert capsys.readouterr().err == ""


def fitted(**changes):
    arguments = {"train_state": START, "step": STEP, "x": X, "y": Y, "epochs": 1, **SETTINGS, **changes}
    return fit(**arguments)


BAD_VALUES = {
    "fit: labels must be from 0 to 2, for the net has 3 classes, got 3 at index 4": {
        "y": np.where(np.arange(26) > 3, 3, 0)
    },
    "fit: labels must be from 0 to 2, .* got -1 at index 0": {"y": jnp.full(26, -1)},
    r"fit: x and y must have as many examples, got x \(26, 2, 2, 1\) and y \(25,\)": {"y": Y[:25]},
    r"fit: y must be \(26,\) for 3 classes, got \(26, 1\); use y\[:, 0\]": {"y": Y[:, None]},
    "fit: x must hold at least one example": {"x": X[:0], "y": Y[:0]},
    "fit: batch_size must be at most the 26 examples, got 27": {"batch_size": 27},
    "fit: batch_size must be at least 1, got 0": {"batch_size": 0},
    "fit: epochs must be at least 1, got 0": {"epochs": 0},
    "fit: resume=True needs the run_dir": {"resume": True},
    r"SoftmaxCrossEntropy: labels must have": {"y": np.zeros((26, 2))},
    "dense: the last axis of x": {"x": X[:, :1]},
    "fit, validation: labels must be from 0 to 2, .* got 9 at index 1": {"validation": (X[:2], np.array([0, 9]))},
    "fit, validation: x and y must have as many": {"validation": (X, Y[:3])},
    r"fit: validation must be a pair \(x, y\), got ndarray": {"validation": X},
    "batches: seed must be at least 0": {"seed": -1},
}


@pytest.mark.parametrize("message", BAD_VALUES)
def test_bad_values_are_named_before_any_compute(message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fitted(run_dir=None if "resume" in BAD_VALUES[message] else tmp_path / "run", **BAD_VALUES[message])
    assert not (tmp_path / "run").exists()


BAD_TYPES = {
    "fit: x must be floating point, got uint8; turn images into floats by data.normalise": {"x": X.astype(np.uint8)},
    "fit: x must be an array, got list": {"x": X.tolist()},
    "fit: epochs must be an int, got 1.5": {"epochs": 1.5},
    "fit: wants a TrainState, got dict; make one with init_train_state": {"train_state": START.params},
    "fit: validation needs a step with an objective": {"step": lambda *args: None, "validation": (X, Y)},
}


@pytest.mark.parametrize("message", BAD_TYPES)
def test_bad_types_are_named(message):
    with pytest.raises(TypeError, match=message):
        fitted(**BAD_TYPES[message])


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    run(1, run_dir=tmp_path)
    with pytest.raises(ValueError, match="fit: run_dir .* holds a run already; pass resume=True to continue it"):
        run(1, run_dir=tmp_path)
    with pytest.raises(ValueError, match="has batch_size 8, got 4; resume with the same data, batch_size and seed"):
        run(2, run_dir=tmp_path, resume=True, batch_size=4)
    with pytest.raises(ValueError, match="leaf 'params/dense2/bias' must be"):
        other = init_train_state(Chain(*NET.layers[:-1], Dense(5)), OPTIMIZER, START.key, (2, 2, 1), jnp.float64)
        run(2, run_dir=tmp_path, resume=True, start=other)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="metrics.jsonl lacks lines of steps before step_00000003.npz"):
        run(2, run_dir=tmp_path, resume=True)

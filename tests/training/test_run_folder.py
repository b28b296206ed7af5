"""training/run_folder.py: what stays on disk, what a full disk leaves, and writing in the background."""

import errno
import json
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.training import checkpoint, fit, init_train_state, make_train_step, npz
from handgrad.training.run_folder import RunFolder
from handgrad.training.writer import Writer

NET, OPTIMIZER = hg.Chain(hg.Dense(4), hg.BatchNorm(), hg.Dense(3)), hg.momentum(0.1)
STEP = make_train_step(hg.Objective(NET, hg.SoftmaxCrossEntropy()), OPTIMIZER)
START = init_train_state(NET, OPTIMIZER, jax.random.key(0), (5,), jnp.float64)
X, Y = np.random.default_rng(0).normal(size=(12, 5)), np.arange(12) % 3


def run(run_dir=None, epochs=6, step: Callable = STEP, **settings):
    return fit(START, step, X, Y, batch_size=6, epochs=epochs, progress=False, run_dir=run_dir, **settings)


def names(run_dir):
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def saved(folder, losses, keep=2, name="validation_loss", **settings):
    """A folder after epochs of these losses, a step each, or None for a stop within an epoch."""
    run_folder = RunFolder(folder, {}, keep=keep, **settings)
    with run_folder:
        for step, loss in enumerate(losses, 1):
            run_folder.save(START._replace(step=jnp.int32(step)), 0, None if loss is None else (name, loss))
    return folder


NAN = float("nan")
KEPT = {
    "the best is old": ([3.0, 1.0, 2.0, 2.5, 4.0], [2, 4, 5], 2),
    "the best is new": ([3.0, 2.0, 1.5, 1.0], [3, 4], 4),
    "a better one takes its place": ([3.0, 1.0, 2.0, 0.5, 4.0, 5.0, 6.0], [4, 6, 7], 4),
    "of two equal the earlier": ([3.0, 1.0, 2.0, 1.0, 4.0], [2, 4, 5], 2),
    "NaN is never best": ([NAN, 3.0, NAN, NAN, NAN], [2, 4, 5], 2),
    "one of a stop has no score": ([3.0, None, 4.0, None], [1, 3, 4], 1),
    "no scores at all": ([None, None, None], [2, 3], None),
    "all NaN": ([NAN, NAN, NAN], [2, 3], None),
}


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("case", KEPT)
def test_the_newest_and_the_best_stay(tmp_path, case, background):
    losses, steps, best = KEPT[case]
    saved(tmp_path, losses, background=background)
    assert names(tmp_path) == [f"step_{step:08d}.npz" for step in steps]
    found = checkpoint.best(tmp_path)
    assert (None if found is None else found.name) == (best and f"step_{best:08d}.npz")
    assert found == checkpoint.best(tmp_path / "checkpoints")
    if found is not None and best is not None:
        assert checkpoint.metadata(found) == {
            "first_step": 0,
            "score_name": "validation_loss",
            "score": losses[best - 1],
        }


def test_a_damaged_best_is_passed_over_and_a_damaged_one_never_stands_for_the_best(tmp_path):
    saved(tmp_path, [1.0, 3.0, 2.0], keep=3)
    first = tmp_path / "checkpoints" / "step_00000001.npz"
    whole = first.read_bytes()
    place = whole.index(np.asarray(START.params["dense1"]["kernel"]).tobytes())
    first.write_bytes(whole[: place + 3] + bytes([whole[place + 3] ^ 1]) + whole[place + 4 :])
    with pytest.warns(
        UserWarning, match="checkpoint.best: passed over .*step_00000001.npz: leaf 'params/dense1/kernel'"
    ):
        assert checkpoint.best(tmp_path) == tmp_path / "checkpoints" / "step_00000003.npz"
    first.write_bytes(whole[:99])
    assert checkpoint.best(tmp_path) == tmp_path / "checkpoints" / "step_00000003.npz"


def test_scores_of_two_kinds_are_not_compared(tmp_path):
    saved(tmp_path, [0.1, 0.2], keep=9, name="train_loss")
    run_folder = RunFolder(tmp_path, {}, keep=9)
    for step, loss in ((3, 0.9), (4, 0.8), (5, 1.0)):
        run_folder.save(START._replace(step=jnp.int32(step)), 0, ("validation_loss", loss))
    assert checkpoint.best(tmp_path) == tmp_path / "checkpoints" / "step_00000004.npz"


@pytest.mark.parametrize("validated", [False, True])
def test_fit_keeps_the_best_and_says_which_it_is_across_a_resume(tmp_path, validated):
    """The rate makes the loss rise again after some epochs."""
    optimizer = hg.sgd(lambda step: jnp.where(step < 6, 0.1, 20.0))
    step = make_train_step(STEP.objective, optimizer)
    start = init_train_state(NET, optimizer, jax.random.key(0), (5,), jnp.float64)
    more: dict[str, Any] = {"validation": (X, Y)} if validated else {}
    for epochs in (5, 10):
        _, history = fit(
            start, step, X, Y, batch_size=6, epochs=epochs, progress=False, run_dir=tmp_path, resume=epochs > 5, keep=1,
            **more,
        )  # fmt: skip
    losses = history["validation_loss" if validated else "train_loss"]
    best = int(np.argmin(losses)) + 1
    assert 1 < best < 6 and history["best_epoch"] == [int(np.argmin(losses[: i + 1])) + 1 for i in range(10)]
    assert names(tmp_path) == [f"step_{2 * best:08d}.npz", "step_00000020.npz"]
    found = checkpoint.best(tmp_path)
    assert (
        found is not None
        and checkpoint.metadata(found)["score"] == min(losses)
        and checkpoint.load(found, start).step == 2 * best
    )


@pytest.mark.parametrize(("wrong", "error"), [(0, ValueError), (2.5, TypeError), (True, TypeError)])
def test_keep_must_be_a_count(tmp_path, wrong, error):
    with pytest.raises(error, match="fit: keep must be"):
        run(tmp_path / "run", keep=wrong)
    assert not (tmp_path / "run").exists()


def test_a_stop_at_an_epochs_end_leaves_its_score(tmp_path):
    run_folder = RunFolder(tmp_path, {})
    state = START._replace(step=jnp.int32(4))
    path = run_folder.save(state, 0, ("train_loss", 0.5))
    assert run_folder.save(state, 0) == path and checkpoint.metadata(path)["score"] == 0.5
    path.write_bytes(b"damaged")
    assert checkpoint.metadata(run_folder.save(state, 0)) == {"first_step": 0}


def test_what_a_killed_process_left_is_swept_away_and_nothing_else(tmp_path):
    run(tmp_path, epochs=1)
    left = [tmp_path / "checkpoints" / ".step_00000004.npz.123.tmp", tmp_path / ".metrics.jsonl.77.tmp"]
    others = [tmp_path / "notes.tmp", tmp_path / "checkpoints" / ".hidden"]
    for path in left + others:
        path.write_bytes(b"half")
    run(tmp_path, epochs=1, resume=True)
    assert not any(path.exists() for path in left) and all(path.exists() for path in others)


# A full disk.


def same(one, other):
    leaves = [jax.tree.leaves(t._replace(key=jax.random.key_data(t.key))) for t in (one, other)]
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(*leaves, strict=True))


def no_temporary(folder):
    return not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("room", [0, 100, 700, 2000, 4000])
def test_a_full_disk_leaves_the_checkpoints_before(tmp_path, monkeypatch, room, background):
    """Writing stops after so many bytes of the third checkpoint; there is room again when the run is resumed."""
    expected, history = run(None)
    real, opened = os.replace, []

    def replaced(source, target):
        real(source, target)
        if str(target).endswith("step_00000004.npz"):
            opened.append(1)

    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(npz, "open", full_after(room, lambda path: opened and "step_" in str(path)), raising=False)
    message = (
        r"could not write .*step_00000006.npz \(No space left on device\); the checkpoint before, step_00000004.npz"
    )
    with pytest.raises(OSError, match=f"fit: {message}, is whole; make room, then resume=True goes on") as found:
        run(tmp_path, background=background)
    assert found.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert names(tmp_path) == ["step_00000002.npz", "step_00000004.npz"] and no_temporary(tmp_path)
    train_state, resumed = run(tmp_path, resume=True)
    assert same(train_state, expected) and resumed["loss"] == history["loss"]


def full_after(room, concerns):
    """`open`, whose files take so many bytes and then no more."""

    def opening(path, mode="r", **settings):
        file = open(path, mode, **settings)  # noqa: SIM115
        if mode != "wb" or not concerns(path):
            return file
        raw, left = file.write, [room]

        def write(data):
            left[0] -= len(memoryview(data).cast("B"))
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return raw(data)

        return Full(file, write)

    return opening


class Full:
    """A file with another `write`."""

    def __init__(self, file, write):
        self._file, self.write = file, write

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_a_limit_of_the_system_on_a_files_size_is_told_too(tmp_path):
    """RLIMIT_FSIZE stops metrics.jsonl in the middle of a line; no half line stays."""
    run(tmp_path, epochs=2)
    size, before = (tmp_path / "metrics.jsonl").stat().st_size, (tmp_path / "metrics.jsonl").read_bytes()
    run_folder = RunFolder(tmp_path, {})
    run_folder.log({"step": 5, "loss": 0.125})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        with pytest.raises(
            OSError, match=r"fit: could not write .*metrics.jsonl \(File too large\); the checkpoint bef"
        ):
            run_folder.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    run_folder.flush()
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1]) == {"step": 5, "loss": 0.125}


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 KiB, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_is_really_full(tiny_disk, background):
    expected, _ = run(None, epochs=30)
    with pytest.raises(
        OSError, match=r"\(No space left on device\); the checkpoint before, step_0000\d+.npz, is whole"
    ):
        run(tiny_disk, epochs=30, keep=100, background=background)
    assert no_temporary(tiny_disk) and checkpoint.latest(tiny_disk) is not None
    for old in checkpoint.newest_first(tiny_disk)[1:]:
        old.unlink()
    train_state, _ = run(tiny_disk, epochs=30, keep=1, resume=True, background=background)
    assert same(train_state, expected)


# In the background.


def slow_write(monkeypatch, begun, go_on):
    real = npz.write

    def write(path, arrays):
        begun.set()
        assert go_on.wait(60)
        real(path, arrays)

    monkeypatch.setattr(npz, "write", write)


def test_in_the_background_steps_go_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """The second epoch is trained, and donates the state, while the first one's checkpoint waits to be written."""
    expected, _ = run(tmp_path / "plain", epochs=2)
    begun, go_on, steps = threading.Event(), threading.Event(), []
    slow_write(monkeypatch, begun, go_on)

    def step(train_state, x, y):
        steps.append(begun.is_set())
        if len(steps) == 4:
            go_on.set()
        return STEP(train_state, x, y)

    train_state, _ = run(tmp_path / "run", epochs=2, step=step, background=True)
    assert steps == [False, False, True, True] and same(train_state, expected)
    for name in names(tmp_path / "plain"):
        plain, other = (tmp_path / folder / "checkpoints" / name for folder in ("plain", "run"))
        assert plain.read_bytes() == other.read_bytes()


def test_at_most_one_checkpoint_is_under_way(tmp_path, monkeypatch):
    running, most, real = [], [], npz.write

    def write(path, arrays):
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        real(path, arrays)
        running.pop()

    monkeypatch.setattr(npz, "write", write)
    run(tmp_path, background=True)
    assert most == [1] * 6 and names(tmp_path)[-1] == "step_00000012.npz"


def test_a_snapshot_shares_no_memory_with_what_the_next_step_overwrites():
    for copy in (True, False):
        stored = checkpoint.snapshot(START, copy=copy).arrays["params/dense1/kernel"]
        assert np.shares_memory(stored, np.asarray(START.params["dense1"]["kernel"])) is not copy


def test_a_job_is_not_taken_when_the_one_before_has_failed():
    done, writer = [], Writer(background=True)
    writer.do(lambda: done.append(1 / 0))
    with pytest.raises(ZeroDivisionError):
        writer.do(lambda: done.append(2))
    writer.do(lambda: done.append(3))
    writer.close()
    assert done == [3]


@pytest.mark.parametrize("at", [3, 4])
def test_sigterm_waits_for_what_is_being_written(tmp_path, monkeypatch, capsys, at):
    """At step 3 the first epoch's checkpoint is under way, and then that of the step is written."""
    real, calls = npz.write, iter(range(1, 99))

    def slow(path, arrays):
        time.sleep(0.2)
        real(path, arrays)

    def augment(key, x, y):
        if next(calls) == at:
            signal.raise_signal(signal.SIGTERM)
        return x, y

    monkeypatch.setattr(npz, "write", slow)
    with pytest.raises(SystemExit) as left:
        run(tmp_path, augment=augment, prefetch=0, background=True)
    assert left.value.code == 0 and names(tmp_path) == ["step_00000002.npz", f"step_{at:08d}.npz"]
    assert f"saved {checkpoint.latest(tmp_path)}; resume=True" in capsys.readouterr().err


def test_an_error_of_the_thread_comes_out_at_the_next_save_or_at_the_end(tmp_path, monkeypatch):
    def fails(path, arrays):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(npz, "write", fails)
    threads = threading.active_count()
    for epochs in (1, 3):
        with pytest.raises(
            OSError, match=r"could not write .*step_00000002.npz \(broken disk\); there is no checkpoint"
        ):
            run(tmp_path / str(epochs), epochs=epochs, background=True)
    with pytest.raises(KeyError) as found:
        run(tmp_path / "both", step=breaking(3), background=True)
    assert "Beside that: " in found.value.__notes__[0] and "broken disk" in found.value.__notes__[0]
    assert threading.active_count() == threads


def breaking(at):
    calls = iter(range(1, at + 1))

    def step(*args):
        if next(calls) == at:
            raise KeyError("a bug")
        return STEP(*args)

    return step

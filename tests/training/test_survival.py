"""A run that is killed at random moments, and resumed, is the run that nobody killed: bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import killed_run
import pytest

from handgrad.training import checkpoint

EPOCHS = 60
ROOT = Path(__file__).parents[2]
TIMES = {"seconds", "images_per_second"}


def begun(folder, background=False):
    """The run in a process of its own, with this process's settings of JAX."""
    flags = [str(jax.config.values[name]) for name in killed_run.FLAGS]
    command = [sys.executable, "-W", "error", killed_run.__file__, str(folder), str(EPOCHS)]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [*command, "background" if background else "", *flags],
        env=os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 0, errors
    return errors


def files(folder):
    """The checkpoints of a run, and what else lies there."""
    return {path.name: path.read_bytes() for path in Path(folder).glob("checkpoints/*")}


def names(folder):
    """Of the checkpoints that are whole, by their names."""
    return sorted(path.name for path in Path(folder).glob("checkpoints/step_*"))


def lines(folder):
    """Of metrics.jsonl, without the times."""
    texts = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(text).items() if name not in TIMES} for text in texts]


def same_run(one, other):
    """Params, momentum, batch-norm state, key and step are in the checkpoints' bytes, the losses in the lines."""
    assert files(one) == files(other) and len(files(one)) >= 3
    assert lines(one) == lines(other)
    best = [checkpoint.best(folder) for folder in (one, other)]
    assert len({path.name for path in best if path is not None}) == 1
    assert not [path for path in Path(one).rglob("*") if path.name.endswith(".tmp")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody stops, in this process."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train_state, history = killed_run.run(folder, EPOCHS)
    assert int(train_state.step) == 3 * EPOCHS and len(history["loss"]) == 3 * EPOCHS
    return folder


def test_two_processes_do_the_same_to_the_bit(whole, tmp_path):
    """Same seed, same machine; the other one writes its checkpoints in the background."""
    finished(begun(tmp_path / "run", background=True))
    same_run(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [20])
def test_killed_at_random_moments_and_resumed_it_is_the_same_run(whole, tmp_path, kills):
    chance, folder = random.Random(kills), tmp_path / "run"
    for i in range(kills):
        before, process = names(folder), begun(folder, background=bool(i % 2))
        deadline = time.monotonic() + 300
        while names(folder) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == -signal.SIGKILL, errors or "it ended before it could be killed"
    finished(begun(folder))
    same_run(folder, whole)

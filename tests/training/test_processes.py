"""Two processes of two devices each, over gloo on loopback, are one run; when one of them ends, so does the other."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_of_two import settings, trained

from handgrad.training import checkpoint
from scripts import ROOT

SCRIPT = Path(__file__).parent / "one_of_two.py"
pytestmark = pytest.mark.slow  # each test starts two processes


def two(run_dir, mode, at=0):
    """Both processes' exit codes, outputs and errors."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_"))}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), address, str(number), str(run_dir), mode, str(at)],
            env=env | {"PYTHONPATH": str(ROOT / "src"), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        ended = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], *zip(*ended, strict=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbs, after one that could not begin for its seeds."""
    folder = tmp_path_factory.mktemp("whole")
    codes, outputs, errors = two(folder, "disagree")
    assert codes == [0, 0], errors
    return folder, outputs


def test_twenty_steps_of_two_processes_are_those_of_one_device(whole):
    folder, outputs = whole
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        end, history = trained(*settings())
    losses = [json.loads(output.splitlines()[-1]) for output in outputs]
    assert losses[0] == losses[1] and len(losses[0]) == 20
    np.testing.assert_allclose(losses[0], history["loss"], rtol=1e-4)  # float32
    found = [checkpoint.load(folder / f"end_{number}.npz") for number in range(2)]
    chex.assert_trees_all_equal(*found)
    assert_close(found[0], end, 1e-6)


def test_one_process_writes_what_both_know(whole):
    folder, _ = whole
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints", "end_0.npz", "end_1.npz", "metrics.jsonl", "run.json",
    ]  # fmt: skip
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "step" in line] == list(range(1, 21))
    assert [line["trace_step"] for line in lines if "trace_step" in line] == [1, 8, 15]
    assert all("validation_loss" in line for line in lines if "epoch" in line)
    newest = checkpoint.latest(folder / "checkpoints")
    assert newest is not None and newest.name == "step_00000020.npz"
    assert_close(checkpoint.load(newest), checkpoint.load(folder / "end_0.npz"), 0)


def test_processes_that_differ_do_not_begin(whole):
    for output in whole[1]:
        assert "\nfit: process 1 has another seed than process 0; start all with the same script" in output


def test_a_peer_is_killed_and_the_resumed_run_ends_as_if_nothing_had_happened(whole, tmp_path):
    codes, _, errors = two(tmp_path, "kill", at=13)
    assert codes == [75, -9], errors
    assert "distributed: process 1 of 2 is gone, no sign of it for" in errors[0]
    assert "fit with resume=True goes on from the newest checkpoint" in errors[0]
    assert two(tmp_path, "whole")[0] == [0, 0]
    assert_same_run(tmp_path, whole[0])


def test_a_peer_is_asked_to_end_and_both_save_after_the_same_step(whole, tmp_path):
    codes, _, errors = two(tmp_path, "term", at=4)
    assert codes == [0, 0], errors
    steps = set(re.findall(r"fit: stopped by SIGTERM; saved \S+/(step_\d+)\.npz; resume=True", "".join(errors)))
    assert len(steps) == 1 and "step_00000003" < min(steps) < "step_00000020"
    assert two(tmp_path, "whole")[0] == [0, 0]
    assert_same_run(tmp_path, whole[0])


def test_a_step_that_is_not_finite_stops_both_with_the_state_before_it_saved(whole, tmp_path):
    codes, _, errors = two(tmp_path, "nan")
    assert 0 not in codes, errors
    (step,) = re.findall(r"step (\d) is not finite: conv1 went first, forward, in x\[\d, 0, 0, 0\]", errors[0])
    newest = checkpoint.latest(tmp_path)
    assert newest is not None and newest.name == f"step_0000000{int(step) - 1}.npz"
    assert two(tmp_path, "whole")[0] == [0, 0]
    assert_same_run(tmp_path, whole[0])


def assert_same_run(folder, other):
    """The same train state, bit for bit, and the same losses."""
    for number in range(2):
        ends = [checkpoint.load(path / f"end_{number}.npz") for path in (folder, other)]
        chex.assert_trees_all_equal(*map(plain, ends))
    texts = [(path / "metrics.jsonl").read_text().splitlines() for path in (folder, other)]
    assert len(texts[0]) == len(texts[1])
    for line, wanted in zip(*texts, strict=True):
        if "seconds" not in line:
            assert line == wanted


def assert_close(found, wanted, atol):
    chex.assert_trees_all_close(plain(found), plain(wanted), rtol=0, atol=atol)


def plain(train_state):
    """Numbers in place of the key."""
    return jax.tree.map(np.asarray, train_state._replace(key=jax.random.key_data(jnp.asarray(train_state.key))))

"""`handgrad train` over several devices and in half precision: the run of one device, and errors of one line."""

import importlib

import chex
import jax
import numpy as np
import pytest

from handgrad.cli import main
from handgrad.training import checkpoint, distributed, read_history

cli_train = importlib.import_module("handgrad.cli.train")
QUICK = ["--model", "perceptron", "--batch-size", "200", "--no-figures", "--no-progress", "--no-check"]


def train(folder, *options, epochs=2):
    return main(["train", *QUICK, "--epochs", str(epochs), "--run-dir", str(folder), *options])


@pytest.fixture(scope="module", autouse=True)
def no_peers():
    """The suite's JAX runs already, where a command's own would first look for other processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "initialize", lambda: False)
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "alone"
    assert train(folder) == 0
    return folder


def params(folder):
    newest = checkpoint.latest(folder / "checkpoints")
    assert newest is not None
    return jax.tree.map(np.asarray, checkpoint.load(newest).params)


@pytest.mark.parametrize(("axes", "mesh"), [("2", {"data": 2}), ("2,2", {"data": 2, "model": 2})])
def test_train_over_devices_is_train_on_one(alone, tmp_path, axes, mesh, monkeypatch):
    meshes, fit = [], cli_train.fit

    def seen(train_state, step, *args, **settings):
        meshes.append(step.mesh)
        return fit(train_state, step, *args, **settings)

    monkeypatch.setattr(cli_train, "fit", seen)
    assert train(tmp_path / "run", "--mesh", axes) == 0
    assert [dict(found.shape) for found in meshes] == [mesh]
    chex.assert_trees_all_close(params(tmp_path / "run"), params(alone), atol=1e-5)
    assert len(read_history(tmp_path / "run")["loss"]) == len(read_history(alone)["loss"])


def test_train_over_all_devices_goes_on(alone, tmp_path):
    assert train(tmp_path / "run", "--mesh", "all") == 0
    assert train(tmp_path / "run", "--mesh", "all", "--resume", epochs=3) == 0
    history = read_history(tmp_path / "run")
    assert history["epoch"] == [1, 2, 3]
    np.testing.assert_allclose(history["loss"][: len(read_history(alone)["loss"])], read_history(alone)["loss"], 1e-4)


def test_half_precision_trains_near_the_whole_one(alone, tmp_path):
    assert train(tmp_path / "run", "--precision", "bf16") == 0
    losses = np.array([read_history(folder)["loss"] for folder in (tmp_path / "run", alone)])
    assert not np.array_equal(*losses)
    np.testing.assert_allclose(*losses, rtol=0.02)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params(tmp_path / "run")))


@pytest.mark.parametrize(
    "options, message",
    [
        (["--mesh", "64"], "--mesh 64 wants 64 devices, but JAX has 4"),
        (["--mesh", "3"], "a batch of 200 does not divide into the 3 parts of mesh axis 'data'"),
    ],
)
def test_a_mesh_that_does_not_fit_is_one_line(tmp_path, capsys, options, message):
    assert train(tmp_path / "run", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["0", "x", "2,2,2", "-1", "", "2,"])
def test_other_meshes_are_refused(tmp_path, capsys, text):
    with pytest.raises(SystemExit) as exit:
        train(tmp_path / "run", f"--mesh={text}")
    assert (
        exit.value.code == 2
        and f"must be a number of devices, two as D,M, or all, got {text!r}" in capsys.readouterr().err
    )

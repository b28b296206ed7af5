"""What `make train` runs, whole: above 98.5 % on the test digits, with all its files."""

import os
import re

import pytest

from scripts import run_example


def run_in(folder, *options):
    return run_example("train_digits.py", *options, cwd=folder)


@pytest.mark.slow
def test_the_default_run_reaches_its_accuracy(tmp_path):
    run = run_in(tmp_path)
    accuracy = re.fullmatch(r"test accuracy (\d+\.\d) %", run.stdout.splitlines()[-1])
    assert accuracy is not None and float(accuracy[1]) >= 98.5
    assert run.stdout.index("all three agree") < run.stdout.index("trained ") < run.stdout.index("true \\ predicted")
    assert "epoch 30/30" in run.stderr and "images/s" in run.stderr
    written = {str(path.relative_to(tmp_path / "runs" / "digits")) for path in tmp_path.rglob("*") if path.is_file()}
    figures = {f"figures/{name}.png" for name in ("learning_curve", "kernels", "wrong", "confusion")}
    assert written >= figures | {
        "figures/net.svg",
        "run.json",
        "test.npz",
        "metrics.jsonl",
        "checkpoints/step_00001200.npz",
    }


@pytest.mark.slow
def test_a_second_run_gets_a_folder_of_its_own(tmp_path):
    for folder in ("run", "run-2"):
        run = run_in(tmp_path, "--run-dir", "run", "--epochs", "1", "--batch-size", "600")
        assert f"metrics     {os.path.join(folder, 'metrics.jsonl')}" in run.stdout.splitlines()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2"]

"""examples/train_fashion_mnist.py as its reader runs it: on made files, stopped and resumed, and on the real ones."""

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def run_in(folder, *options):
    env = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [env.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "train_fashion_mnist.py"), *options],
        env=env | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "PYTHONIOENCODING": "utf-8"},
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=900,
        check=True,
    ).stdout


def accuracy_of(output):
    (percent,) = re.findall(r"^test accuracy (\d+\.\d\d) %$", output, re.MULTILINE)
    assert output.splitlines()[-1] == f"test accuracy {percent} %"
    return float(percent)


def made_files(folder):
    """Ten classes of images, each bright in a row of its own, with some noise: as easy as images can be."""
    random = np.random.default_rng(0)
    for part, count in (("train", 640), ("t10k", 200)):
        y = (np.arange(count) % 10).astype(np.uint8)
        x = random.integers(0, 60, (count, 28, 28)).astype(np.uint8)
        x[np.arange(count), 4 + 2 * y] = 255
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">HBB3I", 0, 8, 3, *x.shape) + x.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, count) + y.tobytes())


@pytest.mark.parametrize("net", ["small", "residual"])
def test_trains_on_made_images_and_goes_on_where_it_was_stopped(tmp_path, net):
    made_files(tmp_path)
    options = ("--data-dir", ".", "--net", net, "--batch-size", "64", "--run-dir", "run", "--images", "320")
    first = run_in(tmp_path, *options, "--epochs", "1")
    assert f"{net} net" in first and "trained 5 steps" in first
    resumed = run_in(tmp_path, *options, "--epochs", "2", "--resume")
    assert "trained 10 steps" in resumed
    assert accuracy_of(first) >= 0 and accuracy_of(resumed) >= 0


def test_learns_the_real_images(tmp_path, data_dir):
    folder = str(data_dir / "fashion_mnist")
    output = run_in(tmp_path, "--data-dir", folder, "--net", "small", "--images", "12800", "--epochs", "2")
    assert accuracy_of(output) > 70

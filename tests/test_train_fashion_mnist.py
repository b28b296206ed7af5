"""examples/train_fashion_mnist.py as its reader runs it: on made files, stopped and resumed, and on the real ones."""

import re
import struct

import numpy as np
import pytest

from scripts import run_example

pytestmark = pytest.mark.slow


def run_in(folder, *options):
    return run_example("train_fashion_mnist.py", *options, cwd=folder).stdout


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

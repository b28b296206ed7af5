"""The digits inside the package: their content, their split, and scikit-learn's copy where that is installed."""

import hashlib
from importlib import resources

import numpy as np
import pytest

from handgrad.data import Dataset, load_digits, normalise


def test_shapes_types_and_range():
    digits = load_digits()
    assert isinstance(digits, Dataset) and digits.classes == tuple("0123456789")
    for x, y, n in ((digits.train_x, digits.train_y, 1437), (digits.test_x, digits.test_y, 360)):
        assert x.shape == (n, 8, 8, 1) and x.dtype == np.uint8
        assert y.shape == (n,) and y.dtype == np.int32
        assert (x.min(), x.max()) == (0, 255) and set(y) == set(range(10))
    assert (normalise(digits.train_x).min(), normalise(digits.train_x).max()) == (0, 1)


def test_the_split_is_in_proportion_to_the_classes():
    digits = load_digits()
    train, test = np.bincount(digits.train_y), np.bincount(digits.test_y)
    assert np.abs(test - (train + test) * 360 / 1797).max() < 1


def test_the_content_is_fixed():
    digits = load_digits()
    content = b"".join(part.tobytes() for part in (digits.train_x, digits.test_x))
    content += digits.train_y.astype("<i4").tobytes() + digits.test_y.astype("<i4").tobytes()
    assert hashlib.sha256(content).hexdigest() == "d992070af8ce460baca30a76312957270a2f76910524f66f2f137ab444046c2f"


def test_the_split_is_as_hard_as_the_whole_set():
    digits = load_digits()
    x, held_out = (part.reshape(len(part), -1).astype(np.int64) for part in (digits.train_x, digits.test_x))
    distances = (held_out**2).sum(1)[:, None] + (x**2).sum(1)[None, :] - 2 * held_out @ x.T
    errors = (digits.train_y[distances.argmin(1)] != digits.test_y).sum()
    assert errors == 4  # 21 of the 1,797 are unlike their nearest neighbour, 4.2 of 360


def test_no_image_is_in_both_parts():
    digits = load_digits()
    rows = [{image.tobytes() for image in part} for part in (digits.train_x, digits.test_x)]
    assert not rows[0] & rows[1] and len(rows[0]) + len(rows[1]) == 1797


def test_each_call_gives_new_arrays():
    load_digits().train_x[:] = 0
    assert load_digits().train_x.max() == 255


def test_equals_scikit_learns_copy():
    datasets = pytest.importorskip("sklearn.datasets")
    original, digits = datasets.load_digits(), load_digits()
    counts = np.round(np.concatenate([digits.train_x, digits.test_x])[..., 0] * (16 / 255))
    labels = np.concatenate([digits.train_y, digits.test_y])
    ours = sorted((image.tobytes(), label) for image, label in zip(counts, labels, strict=True))
    assert ours == sorted(
        (image.tobytes(), label) for image, label in zip(original.images, original.target, strict=True)
    )
    np.testing.assert_array_equal(np.unique(digits.train_x), np.floor(np.arange(17) * 255 / 16 + 0.5))


def test_the_licence_note_travels_with_the_file():
    note = resources.files("handgrad.data").joinpath("LICENSE-digits.md").read_text()
    assert "CC BY 4.0" in note and "10.24432/C50P49" in note and "Alpaydin" in note and "What was changed" in note

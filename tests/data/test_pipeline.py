"""normalise, split and batches: values, every item once, orders that are fixed for good, errors."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handgrad.data import batches, normalise, pipeline, split

X = np.arange(23 * 2).reshape(23, 2)
Y = np.arange(23) + 100
few = settings(max_examples=25, derandomize=True, deadline=None)
mistyped: Any = pipeline  # the wrong types are meant


def test_normalise():
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    plain = normalise(images)
    assert plain.dtype == np.float32 and (plain.min(), plain.max()) == (0, 1)
    np.testing.assert_array_equal(plain, images.astype(np.float32) / np.float32(255))
    standard = normalise(images, mean=0.1307, std=0.3081)
    np.testing.assert_allclose(standard, (images / 255 - 0.1307) / 0.3081, rtol=1e-5, atol=1e-6)
    assert images.dtype == np.uint8 and images[0, 0, 1, 0] == 1


def test_normalise_by_channel():
    images = np.full((2, 3, 3, 2), 51, np.uint8)
    values = normalise(images, mean=(0.2, 0.0), std=[1.0, 0.1])
    np.testing.assert_allclose(values, np.broadcast_to([0, 2], images.shape), atol=1e-6)


def test_batches_are_one_permutation():
    for drop_last, sizes in ((True, [5, 5, 5, 5]), (False, [5, 5, 5, 5, 3])):
        got = list(batches(X, Y, 5, seed=3, epoch=1, drop_last=drop_last))
        assert [(len(x), len(y)) for x, y in got] == [(size, size) for size in sizes]
        x, y = (np.concatenate(part) for part in zip(*got, strict=True))
        np.testing.assert_array_equal(x, X[y - 100])
        assert len(set(y)) == len(y)
    assert sorted(y) == sorted(Y) and list(y) != list(Y)


@few
@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 2))
def test_every_item_comes_once(n, batch_size, seed, epoch):
    x = np.arange(n)
    got = [y for _, y in batches(x, x, batch_size, seed=seed, epoch=epoch, drop_last=False)]
    again = [y for _, y in batches(x, x, batch_size, seed=seed, epoch=epoch, drop_last=False)]
    assert sorted(np.concatenate(got)) == list(range(n))
    np.testing.assert_array_equal(np.concatenate(got), np.concatenate(again))
    assert {len(y) for y in got[:-1]} <= {batch_size} and len(got) == -(-n // batch_size)


def order(n, seed, epoch):
    return next(batches(np.arange(n), np.arange(n), n, seed=seed, epoch=epoch))[1].tolist()


def test_the_orders_are_fixed():
    assert order(10, 0, 0) == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert order(10, 7, 3) == [2, 5, 9, 7, 3, 0, 6, 8, 4, 1]
    (first, _), (second, _) = split(np.arange(10), np.arange(10), 0.7, seed=0)
    assert [*first, *second] == [7, 9, 8, 5, 0, 2, 4, 3, 6, 1]


def test_seeds_and_epochs_give_different_orders():
    orders = [order(50, seed, epoch) for seed in range(5) for epoch in range(5)]
    orders += [[*s[0][0], *s[1][0]] for s in (split(np.arange(50), np.arange(50), 0.5, seed) for seed in range(5))]
    assert len({tuple(o) for o in orders}) == 30


def test_the_order_does_not_touch_numpys_global_state():
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    list(batches(X, Y, 5, seed=0, epoch=0))
    assert np.random.random() == expected


def test_positions_are_uniform():
    counts = np.zeros((4, 4))
    for epoch in range(2000):
        counts[np.arange(4), order(4, 0, epoch)] += 1
    assert np.abs(counts / 2000 - 0.25).max() < 0.04  # four standard errors


@few
@given(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(0, 100))
def test_split_parts_everything(n, fraction, seed):
    x, first = np.arange(n), round(fraction * n)
    if not 0 < first < n:
        with pytest.raises(ValueError, match="split: fraction must lie between 0 and 1 and leave no part empty"):
            split(x, x, fraction, seed)
        return
    (x1, y1), (x2, y2) = split(x, x, fraction, seed)
    assert len(x1) == first and sorted([*x1, *x2]) == list(range(n))
    np.testing.assert_array_equal(x1, y1)
    np.testing.assert_array_equal(x2, y2)


BYTES = np.zeros((2, 4, 4, 3), np.uint8)
ERRORS = {  # call, class, message
    "floats": (
        lambda: normalise(np.ones((2, 4))),
        TypeError,
        "normalise: images must be uint8, got float64; floats are",
    ),
    "ints": (lambda: normalise(BYTES.astype(int)), TypeError, "normalise: images must be uint8, got int64"),
    "std 0": (lambda: normalise(BYTES, std=0.0), ValueError, "normalise: std must be above 0, got 0.0"),
    "std -1": (
        lambda: normalise(BYTES, std=[1, -1, 1]),
        ValueError,
        r"normalise: std must be above 0, got \[1, -1, 1\]",
    ),
    "std nan": (lambda: normalise(BYTES, std=float("nan")), ValueError, "normalise: std must be finite, got nan"),
    "mean": (
        lambda: normalise(BYTES, mean=[0.5, 0.5]),
        ValueError,
        r"normalise: mean must be a number or one for each channel, shape \(3,\), got shape \(2,\) for images",
    ),
    "mismatch": (
        lambda: batches(X, Y[1:], 5, seed=0, epoch=0),
        ValueError,
        r"batches: x and y must have as many items as each other, got shapes \(23, 2\) and \(22,\)",
    ),
    "scalar": (lambda: batches(3, Y, 5, seed=0, epoch=0), ValueError, r"batches: x and y must .* shapes \(\) and"),
    "empty": (
        lambda: batches(X[:0], Y[:0], 5, seed=0, epoch=0),
        ValueError,
        "batches: there must be at least one item",
    ),
    "batch 0": (lambda: batches(X, Y, 0, seed=0, epoch=0), ValueError, "batches: batch_size must be at least 1, got 0"),
    "batch 1.5": (
        lambda: mistyped.batches(X, Y, 1.5, seed=0, epoch=0),
        TypeError,
        "batch_size must be an int, got float",
    ),
    "batch 24": (
        lambda: batches(X, Y, 24, seed=0, epoch=0),
        ValueError,
        "batches: batch_size must be at most .* got 24 for 23 items, which makes no batch; .* drop_last=False",
    ),
    "seed": (
        lambda: batches(X, Y, 5, seed=-1, epoch=0),
        ValueError,
        "batches: seed must be at least 0 and below .* got -1",
    ),
    "seed none": (
        lambda: mistyped.batches(X, Y, 5, seed=None, epoch=0),
        TypeError,
        "batches: seed must be an int, got None",
    ),
    "epoch": (
        lambda: batches(X, Y, 5, seed=0, epoch=-1),
        ValueError,
        "batches: epoch must be at least 0 and below .* -1",
    ),
    "last epoch": (lambda: batches(X, Y, 5, seed=0, epoch=2**64 - 1), ValueError, "batches: epoch must be at least 0"),
    "split 0": (lambda: split(X, Y, 0, 0), ValueError, "split: fraction must lie between 0 and 1 .* got 0 of 23 items"),
    "split 1": (lambda: split(X, Y, 1.0, 0), ValueError, "split: fraction must lie between 0 and 1 .* got 1.0 of 23"),
    "split nan": (lambda: split(X, Y, float("nan"), 0), ValueError, "split: fraction must lie .* got nan of 23 items"),
    "split small": (lambda: split(X, Y, 0.01, 0), ValueError, "leave no part empty, got 0.01 of 23 items"),
    "split mismatch": (lambda: split(X, Y[1:], 0.5, 0), ValueError, "split: x and y must have as many items"),
    "split empty": (lambda: split(X[:0], Y[:0], 0.5, 0), ValueError, "split: there must be at least one item"),
    "split seed": (lambda: split(X, Y, 0.5, 2**64), ValueError, "split: seed must be at least 0 and below"),
}


@pytest.mark.parametrize("call, error, message", ERRORS.values(), ids=ERRORS)
def test_bad_input_is_named_at_the_call(call, error, message):
    with pytest.raises(error, match=message):
        call()

"""Batches of images for tests of random changes, and tests of how often each change comes."""

import jax
import numpy as np
from scipy import stats

KEY = jax.random.key(5)


def images(n=4, height=6, width=5, channels=2, dtype="float64"):
    return np.random.default_rng(0).normal(size=(n, height, width, channels)).astype(dtype)


def changed(augmentation, x, key=KEY):
    """The images that come out, and a check that labels and dtype stay."""
    y = np.arange(len(x)) * 3
    got, labels = augmentation(key, x, y)
    np.testing.assert_array_equal(labels, y)
    assert got.dtype == x.dtype
    return np.asarray(got)


def counts(got, candidates):
    """How often each candidate comes among the images, which must all be candidates."""
    index = {np.asarray(candidate).tobytes(): i for i, candidate in enumerate(candidates)}
    assert len(index) == len(candidates)
    return np.bincount([index[image.tobytes()] for image in got], minlength=len(index))


def assert_uniform(numbers):
    """A fair draw fails this once in a million keys; an end left out always does."""
    assert stats.chisquare(numbers).pvalue > 1e-6, numbers


def assert_uniform_between(values, low, high, slack=1e-9):
    assert low - slack <= values.min() and values.max() <= high + slack
    assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-6

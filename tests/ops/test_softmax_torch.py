"""Softmax and its logarithm against torch, forward and backward: shapes, axes and sizes drawn, masked classes too."""

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from against_torch import TIERS, assert_equal, cotangent, drawn_array, for_drawn, ours, theirs

both = pytest.mark.parametrize("name", ["softmax", "log_softmax"])


@TIERS
@both
def test_softmax(name, examples):
    def check(drawn):
        seed, shape, axis, scale, masked = drawn
        axis = axis % (2 * len(shape)) - len(shape)
        x = scale * drawn_array(seed, tuple(shape))
        if masked:
            x[np.random.default_rng(seed).uniform(size=x.shape) < 0.3] = -np.inf  # whole rows now and then: NaN
        assert_equal(ours(name, [x], axis=axis), theirs(lambda t: getattr(torch, name)(t, axis), [x], cotangent))

    shapes = st.lists(st.integers(1, 6), min_size=1, max_size=4)
    scales = st.sampled_from([0.1, 1.0, 30.0, 1e4])
    for_drawn(examples, st.tuples(st.integers(0, 10**6), shapes, st.integers(0, 7), scales, st.booleans()), check)

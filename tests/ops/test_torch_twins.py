"""dense, softmax and dropout against PyTorch, forward and backward; shapes drawn."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from against_torch import TIERS, assert_equal, cotangent, drawn_array, for_drawn
from against_torch import ours as by_hand
from against_torch import theirs as by_torch
from handgrad import ops

SIZES = st.integers(1, 4)
SEEDS = st.integers(0, 10**6)
LEAD = st.lists(SIZES, max_size=2).map(tuple)


@TIERS
def test_dense(examples):
    def check(drawn):
        seed, lead, i, o, with_bias = drawn
        shapes = [(*lead, i), (i, o), (o,)][: 3 if with_bias else 2]
        arrays = [drawn_array(seed + place, shape) for place, shape in enumerate(shapes)]
        want = by_torch(lambda x, w, *b: F.linear(x, w.T, *b), arrays, cotangent)
        assert_equal(by_hand("dense", arrays), want)

    for_drawn(examples, st.tuples(SEEDS, LEAD, SIZES, SIZES, st.booleans()), check)


@TIERS
@pytest.mark.parametrize("name, fn", [("softmax", F.softmax), ("log_softmax", F.log_softmax)])
def test_softmax(name, fn, examples):
    def check(drawn):
        seed, lead, k, scale, place = drawn
        x = drawn_array(seed, (*lead, k)) * scale
        axis = place % x.ndim
        assert_equal(by_hand(name, [x], axis=axis), by_torch(lambda x: fn(x, axis), [x], cotangent))

    scales = st.sampled_from([0.1, 1.0, 30.0])
    for_drawn(examples, st.tuples(SEEDS, LEAD, SIZES, scales, st.integers(0, 2)), check)


@TIERS
def test_dropout(examples):
    """Torch draws the mask itself; it is read off y and given to ours."""

    def check(drawn):
        seed, lead, k, rate = drawn
        x = drawn_array(seed, (*lead, k))
        torch.manual_seed(seed)
        want = by_torch(lambda x: F.dropout(x, rate), [x], cotangent)
        y, backward = ops.vjp("dropout", jnp.asarray(x), jnp.asarray(want[0] != 0), rate=rate)
        assert_equal([np.asarray(y), np.asarray(backward(cotangent(x.shape))[0])], want)

    for_drawn(examples, st.tuples(SEEDS, LEAD, SIZES, st.sampled_from([0.0, 0.2, 0.5, 0.9])), check)

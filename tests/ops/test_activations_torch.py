"""Activations against torch.nn.functional, forward and backward, inputs and settings drawn, kinks among them."""

from functools import cache

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from against_torch import TIERS, assert_equal, cotangent, for_drawn, ours, theirs
from handgrad import ops

KINKS = np.array([0.0, -0.0, 3.0, -3.0, 6.0, -6.0, 25.0, -25.0, 500.0, -500.0, 1e4, -1e4])
NUMBERS = st.sampled_from([0.05, 0.3, 1.0, 2.5])
CASES = [  # op, torch's function of (x, **settings), our settings drawn
    pytest.param("relu", F.relu, st.just({}), id="relu"),
    pytest.param("leaky_relu", F.leaky_relu, st.fixed_dictionaries({"negative_slope": NUMBERS}), id="leaky_relu"),
    pytest.param("relu6", F.relu6, st.just({}), id="relu6"),
    # not F.hardsigmoid, whose gradient has 1/6 in float32
    pytest.param("hard_sigmoid", lambda x: F.relu6(x + 3) / 6, st.just({}), id="hard_sigmoid"),
    pytest.param("hardswish", F.hardswish, st.just({}), id="hardswish"),
    pytest.param("tanh", torch.tanh, st.just({}), id="tanh"),
    pytest.param("sigmoid", torch.sigmoid, st.just({}), id="sigmoid"),
    pytest.param("softplus", lambda x: F.softplus(x, threshold=1000), st.just({}), id="softplus"),
    pytest.param("elu", F.elu, st.fixed_dictionaries({"alpha": NUMBERS}), id="elu"),
    pytest.param("selu", F.selu, st.just({}), id="selu"),
    pytest.param("silu", F.silu, st.just({}), id="silu"),
    pytest.param(
        "gelu",
        lambda x, approximate: F.gelu(x, approximate="tanh" if approximate else "none"),
        st.fixed_dictionaries({"approximate": st.booleans()}),
        id="gelu",
    ),
]


@cache
def by_hand(name, **settings):
    """The output and the gradient, compiled once for all drawn inputs."""

    def run(x, dy):
        y, backward = ops.vjp(name, x, **settings)
        return y, *backward(dy)

    return jax.jit(run)


@TIERS
@pytest.mark.parametrize("name, fn, settings", CASES)
def test_activation(name, fn, settings, examples):
    def check(drawn):
        seed, scale, setting = drawn
        x = np.concatenate([np.random.default_rng(seed).normal(size=28) * scale, KINKS])
        got = [np.asarray(a) for a in by_hand(name, **setting)(x, cotangent(x.shape))]
        assert_equal(got, theirs(lambda t: fn(t, **setting), [x], cotangent))

    for_drawn(examples, st.tuples(st.integers(0, 10**6), st.sampled_from([0.01, 1.0, 10.0, 100.0]), settings), check)


@TIERS
def test_prelu(examples):
    def check(drawn):
        seed, shape, shared = drawn
        random = np.random.default_rng(seed)
        x = np.where(random.uniform(size=shape) < 0.1, 0.0, random.normal(size=shape))
        slope = random.normal(size=(1 if shared else shape[-1],))
        move = (0, len(shape) - 1, *range(1, len(shape) - 1))  # channels behind the batch axis, as torch has them
        back = (0, *range(2, len(shape)), 1)
        y, dx, dslope = ours("prelu", [x, slope])
        theirs_y, theirs_dx, theirs_dslope = theirs(
            F.prelu, [x.transpose(move), slope], lambda s: cotangent_of(s, move)
        )
        assert_equal([y, dx, dslope], [theirs_y.transpose(back), theirs_dx.transpose(back), theirs_dslope])

    def cotangent_of(shape, move):
        ours_shape = tuple(np.array(shape)[np.argsort(move)])
        return cotangent(ours_shape).transpose(move)

    shapes = st.lists(st.integers(1, 4), min_size=2, max_size=5).map(tuple)
    for_drawn(examples, st.tuples(st.integers(0, 10**6), shapes, st.booleans()), check)


@pytest.mark.parametrize("name, fn", [c.values[:2] for c in CASES if c.id not in ("hardswish", "silu", "gelu")])
def test_infinity(name, fn):
    x = np.array([np.inf, -np.inf])  # those three are NaN at -inf in torch
    assert_equal(ours(name, [x]), theirs(fn, [x], cotangent))

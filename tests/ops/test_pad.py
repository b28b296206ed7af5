"""ops/pad.py against jax.vjp of the plain op and of jnp.pad, PyTorch's pad, and by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import strategies as st
from jax.test_util import check_vjp

from against_torch import TIERS, assert_equal, drawn_array, first, first_cotangent, for_drawn, last, ours, theirs
from handgrad.ops.pad import MODES, pad, pad_backward, pad_forward

CASES = [  # in_shape, settings
    pytest.param((2, 4, 5, 2), {"padding": 2}, id="both-sides"),
    pytest.param((2, 4, 5, 2), {"padding": (1, 3)}, id="by-axis"),
    pytest.param((1, 4, 3, 1), {"padding": ((3, 0), (0, 2))}, id="asymmetric-one-example-one-channel"),
    pytest.param((2, 4, 3, 2), {"padding": ((0, 0), (1, 1))}, id="one-axis-only"),
    pytest.param((2, 4, 3, 2), {"padding": 0}, id="nothing"),
    pytest.param((2, 5, 3), {"padding": ((4, 3),)}, id="1-D-nearly-all"),
    pytest.param((1, 3, 2, 4, 2), {"padding": ((1, 2), (0, 1), (3, 0))}, id="3-D"),
]
every_mode = pytest.mark.parametrize("mode", MODES)
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)
TORCH = {"constant": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}


def normal(shape, seed=0, dtype=jnp.float64):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def cotangent(x, **setting):
    return normal(jax.eval_shape(lambda x: pad(x, **setting), x).shape, 1, x.dtype)


def by_hand(x, dy, **setting):
    y, nothing = pad_forward(x, **setting)
    assert nothing is None
    return y, pad_backward(dy, in_shape=x.shape, **setting)


def automatic(fn, x, dy):
    y, vjp = jax.vjp(fn, x)
    return y, vjp(dy)[0]


def pairs_of(padding, ndim):
    entries = (padding,) * ndim if isinstance(padding, int) else padding
    return [(entry, entry) if isinstance(entry, int) else entry for entry in entries]


@every_mode
@pytest.mark.parametrize("in_shape, setting", CASES)
def test_matches_jax_vjp_of_the_formula_and_of_jnp_pad(in_shape, setting, mode):
    x, setting = normal(in_shape), setting | {"mode": mode, "value": 0.5}
    dy = cotangent(x, **setting)
    widths = ((0, 0), *pairs_of(setting["padding"], len(in_shape) - 2), (0, 0))
    filled = {"constant_values": 0.5} if mode == "constant" else {}

    def all_three(x, dy):
        theirs = automatic(lambda x: jnp.pad(x, widths, mode, **filled), x, dy)
        return by_hand(x, dy, **setting), automatic(partial(pad, **setting), x, dy), theirs

    got, plain, theirs = jax.jit(all_three)(x, dy)
    jax.tree.map(close, got, plain)
    jax.tree.map(close, got, theirs)


@TIERS
def test_torch_s_pad(examples):
    def check(drawn):
        mode, sizes, pairs, seed = drawn
        most = {"reflect": -1, "wrap": 0}.get(mode)
        pads = [
            tuple(p if most is None else min(p, a + most) for p in pair) for a, pair in zip(sizes, pairs, strict=False)
        ]
        x, value = drawn_array(seed, (2, *sizes, 2)), 0.25 if mode == "constant" else 0.0
        flat = [p for pair in reversed(pads) for p in pair]
        y, dx = theirs(lambda t: F.pad(t, flat, TORCH[mode], value), [first(x)], first_cotangent)
        assert_equal(ours("pad", [x], padding=tuple(pads), mode=mode, value=value), [last(y), last(dx)])

    pair = st.tuples(st.integers(0, 4), st.integers(0, 4))
    sizes = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)
    for_drawn(examples, st.tuples(st.sampled_from(MODES), sizes, st.tuples(*[pair] * 3), st.integers(0, 10**6)), check)


@pytest.mark.parametrize(
    "mode, y, dx",  # of x = [1, 2, 3] padded by (2, 1), and of dy = [1, 2, 4, 8, 16, 32], on paper
    [
        ("constant", [9, 9, 1, 2, 3, 9], [4, 8, 16]),
        ("edge", [1, 1, 1, 2, 3, 3], [7, 8, 48]),
        ("reflect", [3, 2, 1, 2, 3, 2], [4, 42, 17]),
        ("wrap", [2, 3, 1, 2, 3, 1], [36, 9, 18]),
    ],
)
def test_on_paper(mode, y, dx):
    x, dy = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1), 2 ** jnp.arange(6.0).reshape(1, 6, 1)
    setting = {"padding": ((2, 1),), "mode": mode, "value": 9.0}
    got_y, got_dx = by_hand(x, dy, **setting)
    assert pad(x, **setting).ravel().tolist() == got_y.ravel().tolist() == y
    assert got_dx.ravel().tolist() == dx


@every_mode
def test_matches_finite_differences(mode):
    setting = {"padding": ((2, 1), (0, 1)), "mode": mode}

    def hand_vjp(x):
        return pad_forward(x, **setting)[0], lambda dy: (pad_backward(dy, in_shape=x.shape, **setting),)

    check_vjp(jax.jit(partial(pad, **setting)), hand_vjp, (normal((2, 3, 4, 2)),), atol=1e-7, rtol=1e-7)


@every_mode
def test_a_nan_is_copied_with_its_place_and_comes_back_to_it(mode):
    setting = {"padding": 2, "mode": mode}
    x = normal((1, 4, 5, 1)).at[0, 1, 1, 0].set(jnp.nan)
    dy = cotangent(x, **setting).at[0, 0, 3, 0].set(jnp.nan).at[0, 4, 4, 0].set(jnp.inf)
    jax.tree.map(close, by_hand(x, dy, **setting), automatic(partial(pad, **setting), x, dy))


def test_minus_infinity_is_a_value():
    y, _ = pad_forward(jnp.ones((1, 1, 1), jnp.bfloat16), padding=1, value=-jnp.inf)
    assert y.ravel().tolist() == [-jnp.inf, 1, -jnp.inf] and y.dtype == jnp.bfloat16


def test_a_long_sum_of_halves_does_not_stall():
    dx = pad_backward(jnp.ones((1, 4096, 1), jnp.bfloat16), in_shape=(1, 1, 1), padding=((4000, 95),), mode="edge")
    assert dx.dtype == jnp.bfloat16 and dx.item() == 4096


@every_mode
def test_halves_are_rounded_once(mode):
    dy, setting = normal((2, 7, 7, 2), dtype=jnp.bfloat16), {"in_shape": (2, 3, 3, 2), "padding": 2, "mode": mode}
    dx = pad_backward(dy, **setting)
    np.testing.assert_array_equal(dx, pad_backward(dy.astype(jnp.float32), **setting).astype(jnp.bfloat16))


def test_an_empty_axis_takes_constants_only():
    x = jnp.ones((1, 0, 1))
    y, dx = by_hand(x, jnp.ones((1, 3, 1)), padding=((1, 2),), value=2.0)
    assert y.ravel().tolist() == [2, 2, 2] and dx.shape == x.shape
    for mode in MODES[1:]:
        with pytest.raises(ValueError, match=f"mode '{mode}' with padding .1, 2. needs . places on spatial axis 0, x"):
            pad(x, padding=((1, 2),), mode=mode)


X = jnp.ones((1, 4, 3, 1))


@pytest.mark.parametrize("op", [pad, pad_forward])
@pytest.mark.parametrize(
    "x, setting, error, message",
    [
        (X[0, 0], {"padding": 1}, ValueError, r"x must be \(N, L, C\), .* got shape \(3, 1\)"),
        (X.astype(int), {"padding": 1}, TypeError, "x must be floating, got int64"),
        (X, {"padding": 1, "mode": "mirror"}, ValueError, "mode must be 'constant', 'edge', .* got 'mirror'"),
        (X, {"padding": -1}, ValueError, "padding must not be negative, got -1"),
        (X, {"padding": (1, 1, 1)}, ValueError, "has 3 entries, the input has 2 spatial axes"),
        (X, {"padding": 1.5}, TypeError, "padding must be ints or .* got 1.5"),
        (X, {"padding": "SAME"}, ValueError, "padding 'SAME' has 4 entries"),
        (
            X,
            {"padding": 3, "mode": "reflect"},
            ValueError,
            r"padding \(3, 3\) needs 4 places on spatial axis 1",
        ),
        (X, {"padding": 4, "mode": "wrap"}, ValueError, r"padding \(4, 4\) needs 4 places on spatial axis 1, x has 3"),
    ],
)
def test_bad_settings_are_named(op, x, setting, error, message):
    with pytest.raises(error, match=f"{op.__name__}: .*{message}"):
        op(x, **setting)


def test_bad_cotangents_are_named():
    with pytest.raises(ValueError, match=r"pad_backward: dy must have shape \(1, 6, 5, 1\) for in_shape"):
        pad_backward(X, in_shape=X.shape, padding=1)
    with pytest.raises(TypeError, match="pad_backward: dy must be floating, got int64"):
        pad_backward(X.astype(int), in_shape=X.shape, padding=0)

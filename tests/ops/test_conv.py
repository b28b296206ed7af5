"""ops/conv.py against jax.vjp of lax's convolution, a sum written in NumPy, and finite differences."""

import functools
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads, check_vjp

from handgrad.ops import conv, conv_backward, conv_forward
from handgrad.ops.spatial import pad_pairs, per_axis

STATIC = ("strides", "padding", "dilation", "groups")
CASES = [  # x, kernel, settings
    pytest.param((2, 7, 1), (3, 1, 2), {}, id="one-axis"),
    pytest.param((2, 6, 5, 3), (3, 3, 3, 4), {}, id="same"),
    pytest.param((2, 6, 5, 3), (3, 2, 3, 4), {"padding": "VALID"}, id="valid"),
    pytest.param((1, 8, 7, 2), (3, 3, 2, 3), {"strides": 2}, id="same-stride"),
    pytest.param((2, 8, 9, 2), (3, 2, 2, 3), {"strides": (3, 4), "padding": "VALID"}, id="stride-leftovers"),
    pytest.param((2, 9, 2), (2, 2, 3), {"strides": 5, "padding": 1}, id="stride-beyond-kernel"),
    pytest.param((2, 6, 5, 2), (3, 3, 2, 2), {"padding": ((0, 2), (3, 1))}, id="asymmetric"),
    pytest.param((2, 3, 3, 2), (1, 1, 2, 2), {"padding": ((2, 1), (0, 4))}, id="padding-beyond-kernel"),
    pytest.param((2, 7, 8, 2), (3, 2, 2, 3), {"dilation": (2, 3), "strides": (2, 1)}, id="dilation-and-stride"),
    pytest.param((2, 3, 2, 2), (5, 3, 2, 2), {"padding": 2}, id="kernel-wider-than-input"),
    pytest.param((2, 5, 5, 4), (3, 3, 2, 6), {"groups": 2}, id="groups"),
    pytest.param((2, 5, 5, 3), (3, 3, 1, 6), {"groups": 3, "strides": 2}, id="depthwise-with-multiplier"),
    pytest.param((1, 4, 5, 3, 2), (2, 3, 2, 1, 4), {"groups": 2, "strides": (1, 2, 1)}, id="three-axes"),
    pytest.param((1, 1, 1, 1), (1, 1, 1, 1), {}, id="one-of-all"),
]


@functools.partial(jax.jit, static_argnames=STATIC)
def by_hand(x, kernel, bias, dy, **settings):
    y, kept = conv_forward(x, kernel, bias, **settings)
    return y, conv_backward(kept, kernel, dy, **settings)


@functools.partial(jax.jit, static_argnames=STATIC)
def automatic(x, kernel, bias, dy, **settings):
    y, vjp = jax.vjp(lambda *arrays: conv(*arrays, **settings), x, kernel, bias)
    return y, vjp(dy)


def draw(shapes, seed=0):
    return [jnp.asarray(a) for a in (np.random.default_rng(seed).normal(size=shape) for shape in shapes)]


def assert_hand_equals_automatic(x_shape, kernel_shape, settings, dtype=jnp.float64, rtol=1e-12):
    x, kernel, bias = (a.astype(dtype) for a in draw([x_shape, kernel_shape, kernel_shape[-1:]]))
    y = jax.eval_shape(lambda: conv(x, kernel, **settings))
    (dy,) = draw([y.shape], seed=1)
    y, gradients = by_hand(x, kernel, bias, dy.astype(dtype), **settings)
    expected_y, expected = automatic(x, kernel, bias, dy.astype(dtype), **settings)
    for name, got, want in zip(("y", "dx", "dkernel", "dbias"), (y, *gradients), (expected_y, *expected), strict=True):
        assert got.dtype == dtype and got.shape == want.shape, name
        np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * float(np.abs(want).max()), err_msg=name)


@pytest.mark.core
@pytest.mark.parametrize("x_shape, kernel_shape, settings", CASES)
def test_matches_jax_vjp(x_shape, kernel_shape, settings):
    assert_hand_equals_automatic(x_shape, kernel_shape, settings)


@pytest.mark.parametrize("dtype, rtol", [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2), (jnp.float16, 2e-3)])
def test_keeps_the_dtype(dtype, rtol):
    assert_hand_equals_automatic((2, 6, 5, 3), (3, 3, 3, 4), {"strides": 2}, dtype, rtol)


@st.composite
def drawn_settings(draw):
    ndim = draw(st.integers(1, 3))
    sizes = st.tuples(*[st.integers(1, 4)] * ndim)
    pad = st.integers(0, 3)
    padding = draw(st.sampled_from(["SAME", "VALID"]) | pad | st.tuples(*[st.tuples(pad, pad)] * ndim))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, features = draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    in_sizes, kernel_size = draw(st.tuples(*[st.integers(1, 7)] * ndim)), draw(sizes)
    settings = {"strides": draw(sizes), "padding": padding, "dilation": draw(sizes), "groups": groups}
    return (draw(st.integers(1, 2)), *in_sizes, groups * channels), (*kernel_size, channels, features), settings


def assert_drawn_case(case):
    x_shape, kernel_shape, kwargs = case
    ndim = len(x_shape) - 2
    strides, dilation = (per_axis("conv", n, kwargs[n], ndim) for n in ("strides", "dilation"))
    try:
        pad_pairs("conv", kwargs["padding"], x_shape[1:-1], kernel_shape[:-2], strides, dilation)
    except ValueError:
        assume(False)
    assert_hand_equals_automatic(*case)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(drawn_settings())
def test_matches_jax_vjp_over_drawn_settings(case):
    assert_drawn_case(case)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True)
@given(drawn_settings())
def test_matches_jax_vjp_over_many_drawn_settings(case):
    assert_drawn_case(case)


@pytest.mark.core
def test_equals_the_sum_it_is_defined_by():
    (x, w, b), (s, t), (d, e), (low, left) = draw([(2, 6, 7, 3), (2, 3, 3, 2), (2,)]), (2, 1), (2, 1), (1, 2)
    y = conv(x, w, b, strides=(s, t), dilation=(d, e), padding=((low, 0), (left, 1)))
    expected = np.zeros(y.shape) + np.asarray(b)
    for p, q, i, j in product(range(y.shape[1]), range(y.shape[2]), range(2), range(3)):
        row, column = p * s + i * d - low, q * t + j * e - left
        if 0 <= row < 6 and 0 <= column < 7:
            expected[:, p, q] += np.asarray(x)[:, row, column] @ np.asarray(w)[i, j]
    np.testing.assert_allclose(y, expected, rtol=1e-13)


def test_matches_finite_differences():
    settings = {"strides": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2)}

    def forward_and_backward(x, kernel):
        y, kept = conv_forward(x, kernel, **settings)
        return y, lambda dy: conv_backward(kept, kernel, dy, **settings)[:2]

    arrays = tuple(draw([(2, 5, 6, 2), (3, 2, 2, 3)]))
    check_vjp(lambda x, k: conv(x, k, **settings), forward_and_backward, arrays, atol=1e-6, rtol=1e-6)


def test_backward_is_differentiable_in_both_modes():
    x, kernel, dy = draw([(1, 5, 4, 2), (3, 3, 2, 2), (1, 3, 2, 2)])
    check_grads(lambda *arrays: conv_backward(*arrays, strides=2), (x, kernel, dy), order=2, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("axes", [(0, None, 0), (None, 0, 0), (0, 0, 0)], ids=["data", "kernels", "both"])
def test_backward_under_vmap_equals_a_loop(axes):
    shapes = [(3, 2, 5, 4, 2), (3, 3, 3, 2, 4), (3, 2, 5, 4, 4)]
    arrays = [a if axis == 0 else a[0] for a, axis in zip(draw(shapes), axes, strict=True)]
    together = jax.jit(jax.vmap(conv_backward, axes))(*arrays)
    backward = jax.jit(conv_backward)
    for member in range(3):
        alone = backward(*[a[member] if axis == 0 else a for a, axis in zip(arrays, axes, strict=True)])
        for got, want in zip(together, alone, strict=True):
            np.testing.assert_allclose(got[member], want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "x, kernel, settings, error, message",
    [
        ((1, 5, 5, 3), (3, 3, 16, 4), {}, ValueError, "conv: input has 3 channels, kernel expects 16"),
        ((1, 5, 5, 3), (3, 3, 2, 4), {"groups": 2}, ValueError, r"kernel expects 4 \(2 groups of 2\)"),
        ((1, 5, 5, 4), (3, 3, 2, 5), {"groups": 2}, ValueError, "groups must divide the 5 features"),
        ((1, 5), (3, 1, 1), {}, ValueError, r"x must be \(N, L, C\).*got shape \(1, 5\)"),
        ((1, 5, 5, 1), (3, 1, 1), {}, ValueError, "kernel must have 2 spatial axes"),
        ((5, 5, 1), (3, 3, 1, 1), {}, ValueError, r"must have 1 spatial axes .*; .* x\[None\] that of a batch of one"),
        ((1, 2, 2, 1), (3, 3, 1, 1), {"padding": "VALID"}, ValueError, "window spans 3 places on spatial axis 0"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"padding": "FULL"}, ValueError, "padding must be \"SAME\".*got 'FULL'"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"padding": -1}, ValueError, "padding must not be negative"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"padding": ((1, 1),)}, ValueError, "has 1 entries, the input has 2"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"padding": (1.5, 2)}, TypeError, "padding must be ints"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"strides": 0}, ValueError, "strides must be at least 1, got 0"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"strides": (1, 1, 1)}, ValueError, "strides .* has 3 sizes"),
        ((1, 5, 5, 1), (3, 3, 1, 1), {"dilation": 1.5}, TypeError, "dilation must be an int"),
    ],
)
def test_bad_settings_are_named(x, kernel, settings, error, message):
    with pytest.raises(error, match=message):
        conv(jnp.ones(x), jnp.ones(kernel), **settings)


@pytest.mark.core
def test_bad_dtypes_and_bias_are_named():
    x, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2))
    with pytest.raises(TypeError, match="conv: x must be floating, got uint8; .* images of bytes with data.normalise"):
        conv(x.astype(jnp.uint8), kernel)
    with pytest.raises(TypeError, match="one dtype, got x float64, kernel float32"):
        conv(x, kernel.astype(jnp.float32))
    with pytest.raises(ValueError, match=r"bias must be \(2,\)"):
        conv(x, kernel, jnp.ones(3))

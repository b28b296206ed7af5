"""ops/conv_transpose.py against jax.vjp of the plain op, a sum in NumPy, its dual conv, and finite differences."""

import functools
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads, check_vjp

from handgrad.initializers import he_normal
from handgrad.layers import ConvTranspose
from handgrad.ops import conv, conv_transpose, conv_transpose_backward, conv_transpose_forward

STATIC = ("strides", "padding", "output_padding", "dilation", "groups", "algorithm")
CASES = [  # x, kernel, settings
    pytest.param((2, 5, 1), (3, 1, 2), {}, id="one-axis"),
    pytest.param((2, 4, 5, 3), (4, 3, 3, 4), {"strides": 2}, id="same"),
    pytest.param((2, 4, 3, 2), (2, 1, 2, 2), {"strides": 3}, id="same-stride-beyond-kernel"),
    pytest.param((2, 4, 5, 3), (3, 2, 3, 4), {"padding": "VALID", "strides": (2, 1)}, id="valid"),
    pytest.param((2, 4, 3, 2), (3, 3, 2, 3), {"strides": 2, "padding": 1, "output_padding": 1}, id="output-padding"),
    pytest.param((2, 4, 2), (2, 2, 3), {"strides": 5, "padding": "VALID", "output_padding": 4}, id="leftovers"),
    pytest.param((2, 4, 2), (2, 2, 3), {"dilation": 4, "padding": 0, "output_padding": 3}, id="beyond-any-window"),
    pytest.param((2, 1, 1), (1, 1, 1), {"strides": 2, "padding": ((1, 0),), "output_padding": 1}, id="only-padding"),
    pytest.param((2, 4, 3, 2), (3, 3, 2, 2), {"padding": ((0, 2), (3, 1)), "strides": (1, 2)}, id="asymmetric"),
    pytest.param((2, 5, 4, 2), (3, 2, 2, 3), {"dilation": (2, 3), "strides": (3, 2)}, id="dilation-and-stride"),
    pytest.param((2, 3, 4), (3, 4, 3), {"groups": 2, "strides": 2}, id="groups"),
    pytest.param((2, 3, 4, 6), (3, 3, 6, 1), {"groups": 3, "strides": 2, "padding": 1}, id="one-feature-a-group"),
    pytest.param((1, 3, 2, 3, 2), (2, 3, 2, 2, 2), {"groups": 2, "strides": (1, 2, 1)}, id="three-axes"),
    pytest.param((3, 4, 3, 5), (1, 1, 5, 2), {"padding": "VALID", "strides": 2, "output_padding": 1}, id="one-place"),
    pytest.param((1, 1, 1, 1), (1, 1, 1, 1), {}, id="one-of-all"),
]
ALGORITHMS = [  # algorithm, x, kernel, settings
    ("product", (2, 4, 3, 5), (1, 1, 5, 2), {"strides": (2, 1), "padding": "VALID"}),
    ("product", (2, 4, 5), (1, 5, 2), {"strides": 3, "padding": 0, "output_padding": 2, "dilation": 2}),
    ("taps", (2, 4, 3, 3), (3, 2, 3, 1), {"groups": 3, "strides": (2, 1)}),
    ("taps", (2, 5, 4), (2, 4, 1), {"groups": 2, "padding": ((2, 0),), "dilation": 4, "output_padding": 3}),
    ("groups", (2, 3, 4, 4), (3, 3, 4, 3), {"groups": 2, "strides": 2, "output_padding": 1}),
    ("phases", (2, 4, 5, 2), (3, 4, 2, 3), {"strides": 2, "padding": 1}),
    ("phases", (2, 4, 4), (2, 4, 2), {"strides": 3, "output_padding": 2, "groups": 2, "padding": ((0, 1),)}),
    ("direct", (2, 4, 4), (2, 4, 2), {"strides": 3, "output_padding": 2, "groups": 2}),
]


@functools.partial(jax.jit, static_argnames=STATIC)
def by_hand(x, kernel, bias, dy, algorithm=None, **settings):
    y, kept = conv_transpose_forward(x, kernel, bias, algorithm=algorithm, **settings)
    algorithm = None if algorithm == "phases" else algorithm
    return y, conv_transpose_backward(kept, kernel, dy, algorithm=algorithm, **settings)


@functools.partial(jax.jit, static_argnames=STATIC)
def automatic(x, kernel, bias, dy, **settings):
    y, vjp = jax.vjp(lambda *arrays: conv_transpose(*arrays, **settings), x, kernel, bias)
    return y, vjp(dy)


def draw(shapes, seed=0):
    return [jnp.asarray(a) for a in (np.random.default_rng(seed).normal(size=shape) for shape in shapes)]


def assert_hand_equals_automatic(x_shape, kernel_shape, settings, dtype=jnp.float64, rtol=1e-12, algorithm=None):
    features = kernel_shape[-1] * settings.get("groups", 1)
    x, kernel, bias = (a.astype(dtype) for a in draw([x_shape, kernel_shape, (features,)]))
    out = jax.eval_shape(lambda: conv_transpose(x, kernel, **settings))
    dy = draw([out.shape], seed=1)[0].astype(dtype)
    y, gradients = by_hand(x, kernel, bias, dy, algorithm=algorithm, **settings)
    expected_y, expected = automatic(x, kernel, bias, dy, **settings)
    for name, got, want in zip(("y", "dx", "dkernel", "dbias"), (y, *gradients), (expected_y, *expected), strict=True):
        assert got.dtype == dtype and got.shape == want.shape, name
        np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * np.abs(want).max(initial=1e-3), err_msg=name)


@pytest.mark.core
@pytest.mark.parametrize("x_shape, kernel_shape, settings", CASES)
def test_matches_jax_vjp(x_shape, kernel_shape, settings):
    assert_hand_equals_automatic(x_shape, kernel_shape, settings)


@pytest.mark.parametrize("algorithm, x_shape, kernel_shape, settings", ALGORITHMS)
def test_each_algorithm_is_the_formula(algorithm, x_shape, kernel_shape, settings):
    assert_hand_equals_automatic(x_shape, kernel_shape, settings, algorithm=algorithm)


@pytest.mark.parametrize("dtype, rtol", [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2), (jnp.float16, 2e-3)])
def test_keeps_the_dtype(dtype, rtol):
    assert_hand_equals_automatic((2, 4, 3, 3), (3, 3, 3, 4), {"strides": 2}, dtype, rtol)


def test_an_empty_batch():
    assert_hand_equals_automatic((0, 4, 3, 3), (3, 3, 3, 4), {"strides": 2})


@pytest.mark.core
def test_equals_the_sum_it_is_defined_by():
    (x, w, b), (s, t), (d, e), (low, left) = draw([(2, 3, 4, 3), (2, 3, 3, 2), (2,)]), (2, 1), (3, 2), (1, 2)
    settings = {"strides": (s, t), "dilation": (d, e), "padding": ((low, 0), (left, 1)), "output_padding": (2, 1)}
    y = conv_transpose(x, w, b, **settings)
    assert y.shape == (2, 2 * s + d + 1 - 1 + 2, 3 * t + 2 * e + 1 - 3 + 1, 2)
    expected = np.zeros(y.shape) + np.asarray(b)
    for p, q, i, j in product(range(3), range(4), range(2), range(3)):
        row, column = p * s + i * d - low, q * t + j * e - left
        if 0 <= row < y.shape[1] and 0 <= column < y.shape[2]:
            expected[:, row, column] += np.asarray(x)[:, p, q] @ np.asarray(w)[i, j]
    np.testing.assert_allclose(y, expected, rtol=1e-13)


def test_on_paper():
    """Two places, three taps, steps of 2: each place writes 1, 2, 3 times itself; the middle place sums two."""
    x, kernel = jnp.array([1.0, 10.0]).reshape(1, 2, 1), jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    for padding, extra, want in [
        ("VALID", 0, [1, 2, 13, 20, 30]),
        ("VALID", 1, [1, 2, 13, 20, 30, 0]),
        ("SAME", 0, [1, 2, 13, 20]),
        (1, 0, [2, 13, 20]),
        (1, 1, [2, 13, 20, 30]),
        (((2, 0),), 1, [13, 20, 30, 0]),
    ]:
        dy = jnp.ones((1, len(want), 1))
        y, gradients = by_hand(x, kernel, jnp.zeros(1), dy, strides=2, padding=padding, output_padding=extra)
        assert y.ravel().tolist() == want
        dx, dkernel, dbias = (gradient.ravel().tolist() for gradient in gradients)
        assert dbias == [len(want)]
        if padding == "VALID":
            assert dx == [6, 6] and dkernel == [11, 11, 11]


@pytest.mark.parametrize("x_shape, kernel_shape, settings", CASES)
def test_is_the_adjoint_of_conv(x_shape, kernel_shape, settings):
    """<conv(v, Wᵀ), x> = <v, conv_transpose(x, W)>, where conv's windows fit as often as x has places."""
    of_conv = {name: value for name, value in settings.items() if name != "output_padding"}

    @jax.jit
    def products(x, kernel):
        y, _ = conv_transpose_forward(x, kernel, **settings)
        v = jnp.cos(jnp.arange(y.size, dtype=x.dtype)).reshape(y.shape)
        z = conv(v, jnp.swapaxes(kernel, -1, -2), **of_conv)
        assert all(p >= a for p, a in zip(z.shape, x.shape, strict=True))  # output_padding may make room for a window
        return jnp.vdot(z[tuple(map(slice, x.shape))], x), jnp.vdot(v, y)

    np.testing.assert_allclose(*products(*draw([x_shape, kernel_shape])), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k, s, d", [(3, 1, 1), (3, 2, 1), (4, 2, 1), (2, 2, 1), (1, 3, 1), (2, 3, 2), (4, 3, 2)])
def test_same_is_that_of_lax(k, s, d):
    x, kernel = draw([(2, 4, 3, 2), (k, k, 2, 3)])
    want = lax.conv_transpose(
        *(x, jnp.flip(kernel, (0, 1)), (s, s), "SAME", (d, d)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    got = conv_transpose(x, kernel, strides=s, dilation=d)
    assert got.shape == (2, 4 * s, 3 * s, 3)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_matches_finite_differences():
    settings = {"strides": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2), "output_padding": (1, 0)}

    def forward_and_backward(x, kernel):
        y, kept = conv_transpose_forward(x, kernel, **settings)
        return y, lambda dy: conv_transpose_backward(kept, kernel, dy, **settings)[:2]

    arrays = tuple(draw([(2, 3, 4, 2), (3, 2, 2, 3)]))
    check_vjp(lambda x, k: conv_transpose(x, k, **settings), forward_and_backward, arrays, atol=1e-6, rtol=1e-6)


def test_backward_is_differentiable_in_both_modes():
    x, kernel, dy = draw([(1, 2, 2, 2), (3, 3, 2, 2), (1, 4, 4, 2)])
    backward = functools.partial(conv_transpose_backward, strides=2)
    check_grads(backward, (x, kernel, dy), order=2, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("axes", [(0, None, 0), (None, 0, 0), (0, 0, 0)], ids=["data", "kernels", "both"])
def test_under_vmap_equals_a_loop(axes):
    shapes = [(3, 2, 2, 3, 2), (3, 3, 3, 2, 4), (3, 2, 4, 6, 4)]
    arrays = [a if axis == 0 else a[0] for a, axis in zip(draw(shapes), axes, strict=True)]

    def run(x, kernel, dy):
        y, kept = conv_transpose_forward(x, kernel, strides=2)
        return y, *conv_transpose_backward(kept, kernel, dy, strides=2)

    together, alone = jax.jit(jax.vmap(run, axes))(*arrays), jax.jit(run)
    for member in range(3):
        one = alone(*[a[member] if axis == 0 else a for a, axis in zip(arrays, axes, strict=True)])
        for got, want in zip(together, one, strict=True):
            np.testing.assert_allclose(got[member], want, rtol=1e-12, atol=1e-13)


MODES = {
    "jvp of grad": lambda op, x, k: jax.jvp(jax.grad(lambda k: (op(x, k) ** 3).sum()), (k,), (2 * k,))[1],
    "grad of grad": lambda op, x, k: jax.grad(lambda k: (jax.grad(lambda x: (op(x, k) ** 3).sum())(x) ** 2).sum())(k),
    "scan of vmap": lambda op, x, k: lax.scan(lambda c, k: (c, jax.vmap(op, (0, None))(x[:, None], k)), 0, k[None])[1],
}


@pytest.mark.parametrize("mode", MODES)
def test_forward_in_other_modes(mode):
    x, kernel = draw([(2, 3, 2), (3, 2, 2)])
    plain = functools.partial(conv_transpose, strides=2)
    got, want = jax.jit(
        lambda x, k: [MODES[mode](op, x, k) for op in (lambda x, k: conv_transpose_forward(x, k, strides=2)[0], plain)]
    )(x, kernel)
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11 * float(np.abs(want).max()))


def test_nan_and_infinity_stay_in_their_windows_and_groups():
    x, kernel = draw([(1, 3, 2), (2, 2, 1)])
    x = x.at[0, 1, 0].set(jnp.nan).at[0, 2, 1].set(jnp.inf)
    y, _ = conv_transpose_forward(x, kernel, strides=2, groups=2)
    assert jnp.isnan(y[0, :, 0]).tolist() == [False, False, True, True, False, False]
    assert jnp.isinf(y[0, :, 1]).tolist() == [False, False, False, False, True, True]


def test_takes_numpy_arrays():
    arrays: list[Any] = [np.asarray(a) for a in draw([(1, 3, 2), (2, 2, 1), (1, 6, 1)])]
    x, kernel, dy = arrays
    y, kept = conv_transpose_forward(x, kernel, strides=2)
    np.testing.assert_allclose(y, conv_transpose(x, kernel, strides=2), rtol=1e-12)
    conv_transpose_backward(kept, kernel, dy, strides=2)


ONE = ((1, 4, 4, 2), (3, 3, 2, 1))


@pytest.mark.parametrize(
    "x, kernel, settings, error, message",
    [
        ((1, 5, 5, 3), (3, 3, 4, 2), {}, ValueError, "conv_transpose: input has 3 channels, kernel expects 4"),
        ((1, 5, 5, 4), (3, 3, 4, 2), {"groups": 3}, ValueError, "groups must divide the 4 channels .* got 3"),
        ((1, 5), (3, 1, 1), {}, ValueError, r"x must be \(N, L, C\).*got shape \(1, 5\)"),
        ((1, 5, 5, 1), (3, 1, 1), {}, ValueError, "kernel must have 2 spatial axes"),
        (*ONE, {"padding": "FULL"}, ValueError, "padding must be \"SAME\".*got 'FULL'"),
        (*ONE, {"padding": -1}, ValueError, "padding must not be negative"),
        (*ONE, {"padding": ((3, 3), (0, 0))}, ValueError, r"nothing is left on spatial axis 0.*cropped by \(3, 3\)"),
        ((1, 0, 2), (3, 2, 1), {"padding": 0}, ValueError, "nothing is left on spatial axis 0, where an input of 0"),
        (*ONE, {"output_padding": 1}, ValueError, r"below the stride or the dilation .* got 1 with strides \(1, 1\)"),
        (*ONE, {"output_padding": -1}, ValueError, "output_padding must be at least 0, got -1"),
        (*ONE, {"output_padding": (0, 0, 0)}, ValueError, "output_padding .* has 3 sizes"),
        (*ONE, {"output_padding": 0.5}, TypeError, "output_padding must be an int"),
        (*ONE, {"strides": 0}, ValueError, "strides must be at least 1, got 0"),
        (*ONE, {"dilation": 1.5}, TypeError, "dilation must be an int"),
    ],
)
def test_bad_settings_are_named(x, kernel, settings, error, message):
    with pytest.raises(error, match=message):
        conv_transpose(jnp.ones(x), jnp.ones(kernel), **settings)


def test_bad_arrays_and_algorithms_are_named():
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 1))
    with pytest.raises(TypeError, match="conv_transpose: x must be floating, got uint8"):
        conv_transpose(x.astype(jnp.uint8), kernel)
    with pytest.raises(TypeError, match="one dtype, got x float64, kernel float32"):
        conv_transpose_forward(x, kernel.astype(jnp.float32))
    with pytest.raises(ValueError, match=r"bias must be \(2,\) .* in 2 groups, got \(1,\)"):
        conv_transpose(x, kernel, jnp.ones(1), groups=2)
    with pytest.raises(ValueError, match=r"conv_transpose_backward: dy must have shape \(1, 4, 4, 1\) .* got \(1, 5,"):
        conv_transpose_backward(x, kernel, jnp.ones((1, 5, 4, 1)))
    with pytest.raises(ValueError, match="conv_transpose_forward: 'product' cannot .* a kernel of one place"):
        conv_transpose_forward(x, kernel, algorithm="product")
    with pytest.raises(
        ValueError, match="conv_transpose_backward: algorithm must be one of direct, product, taps, gro"
    ):
        conv_transpose_backward(x, kernel, jnp.ones((1, 8, 8, 1)), strides=2, algorithm="phases")


def test_the_layers_kernel_is_drawn_like_a_convolutions():
    key = jax.random.key(0)
    params, _ = ConvTranspose(6, 3, groups=2).init(key, (5, 4))
    as_conv = he_normal(jax.random.split(key)[0], (3, 2, 6))
    assert params["kernel"].shape == (3, 4, 3)
    for group in range(2):
        ours = params["kernel"][:, 2 * group : 2 * group + 2]
        np.testing.assert_array_equal(ours, as_conv[..., 3 * group : 3 * group + 3])

"""ops/avg_pool.py against jax.vjp of the plain op, loops over windows written in NumPy, and finite differences."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_vjp

from handgrad.ops.avg_pool import (
    avg_pool,
    avg_pool_backward,
    avg_pool_forward,
    global_avg_pool,
    global_avg_pool_backward,
    global_avg_pool_forward,
)
from handgrad.ops.spatial import Padding

CASES = [  # in_shape, settings
    pytest.param((2, 6, 8, 3), {"window": 2}, id="side-by-side"),
    pytest.param((2, 5, 7, 2), {"window": (2, 3), "padding": ((1, 0), (2, 1))}, id="side-by-side-padded"),
    pytest.param((2, 7, 6, 3), {"window": 3, "strides": 2}, id="overlapping"),
    pytest.param((2, 6, 7, 2), {"window": (4, 3), "strides": (3, 1), "padding": ((3, 0), (0, 2))}, id="asymmetric"),
    pytest.param((1, 8, 9, 1), {"window": (2, 3), "strides": (3, 4)}, id="gaps-one-example-one-channel"),
    pytest.param((2, 2, 3, 2), {"window": 4, "strides": 1, "padding": 1}, id="window-larger-than-input"),
    pytest.param((2, 6, 8, 2), {"window": 3, "strides": 2, "padding": 1, "ceil_mode": True}, id="ceil-overhang"),
    pytest.param((1, 12, 13, 2), {"window": (9, 8), "strides": (2, 1), "padding": 2}, id="axis-by-axis"),
    pytest.param((2, 8, 9, 2), {"window": (2, 3), "strides": 2, "dilation": (3, 2), "padding": 1}, id="dilated"),
    pytest.param((1, 9, 2), {"window": 2, "dilation": 2, "padding": 2, "ceil_mode": True}, id="dilated-ceil-overhang"),
    pytest.param((1, 20, 18, 1), {"window": (9, 8), "strides": 1, "dilation": 2, "padding": 3}, id="dilated-by-axis"),
    pytest.param((2, 11, 3), {"window": 4, "strides": 3, "padding": "SAME"}, id="1-D"),
    pytest.param((2, 5, 4, 6, 2), {"window": (3, 2, 3), "strides": (2, 1, 2), "padding": "SAME"}, id="3-D"),
]
MODES = pytest.mark.parametrize(
    "setting",
    [
        {"window": 3, "strides": 2, "padding": ((1, 0), (0, 1))},
        {"window": 2},
        {"window": 9, "strides": 1, "padding": 2},
    ],
    ids=["phases", "tiles", "axes"],
)
NAMES = ("window", "strides", "padding", "dilation", "ceil_mode", "count_include_pad")
GLOBAL_SHAPES = pytest.mark.parametrize("in_shape", [(2, 5, 3), (2, 3, 4, 3), (1, 2, 3, 4, 1)])
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)


@partial(jax.jit, static_argnames=NAMES)
def by_hand(x, dy, **settings):
    y, nothing = avg_pool_forward(x, **settings)
    assert nothing is None
    return y, avg_pool_backward(dy, in_shape=x.shape, **settings)


@partial(jax.jit, static_argnames=NAMES)
def automatic(x, dy, **settings):
    y, vjp = jax.vjp(lambda x: avg_pool(x, **settings), x)
    return y, vjp(dy)[0]


def normal(shape, seed=0, dtype=jnp.float64):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def cotangent(x, **settings):
    return normal(jax.eval_shape(lambda x: avg_pool(x, **settings), x).shape, 1, x.dtype)


def axis_windows(size, k, s, d, low, high, ceil_mode, count_include_pad):
    """For each window of one axis its places in the input and how many it counts, as PyTorch; spread by d as ONNX."""
    free = low + size + high - (k - 1) * d - 1
    count = (-(-free // s) if ceil_mode else free // s) + 1
    while ceil_mode and (count - 1) * s >= size + low:
        count -= 1
    windows = [range(p * s - low, p * s - low + k * d, d) for p in range(count)]
    first, last = (-low, size + high) if count_include_pad else (0, size)
    return [([a for a in w if 0 <= a < size], sum(first <= a < last for a in w)) for w in windows]


def by_loops(
    x, dy, *, window, strides=None, padding: Padding = "VALID", dilation=1, ceil_mode=False, count_include_pad=True
):
    """y and dx window by window."""
    x, dy, ndim = np.asarray(x), np.asarray(dy), x.ndim - 2
    k, s, d = (v if isinstance(v, tuple) else (v,) * ndim for v in (window, strides or window, dilation))
    if isinstance(padding, str):
        spans = [(size - 1) * step + 1 for size, step in zip(k, d, strict=True)]
        padding = jax.lax.padtype_to_pads(x.shape[1:-1], spans, s, padding)
    lows, highs = zip(*((padding, padding),) * ndim if isinstance(padding, int) else padding, strict=True)
    flags = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    axes = [axis_windows(*each, **flags) for each in zip(x.shape[1:-1], k, s, d, lows, highs, strict=True)]
    y, dx = np.zeros((len(x), *map(len, axes), x.shape[-1])), np.zeros(x.shape)
    for p in np.ndindex(*map(len, axes)):
        chosen = [axis[q] for axis, q in zip(axes, p, strict=True)]
        counted = np.prod([count for _, count in chosen])
        for a in product(*(places for places, _ in chosen)):
            y[:, *p] += x[:, *a] / counted
            dx[:, *a] += dy[:, *p] / counted
    return y, dx


@pytest.mark.parametrize("in_shape, setting", CASES)
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_matches_jax_vjp_and_loops(in_shape, setting, count_include_pad):
    x, setting = normal(in_shape), setting | {"count_include_pad": count_include_pad}
    dy = cotangent(x, **setting)
    got = by_hand(x, dy, **setting)
    jax.tree.map(close, got, automatic(x, dy, **setting))
    jax.tree.map(close, got, by_loops(x, dy, **setting))


@st.composite
def pools(draw):
    ndim = draw(st.integers(1, 2))
    sizes = st.tuples(*[st.integers(1, 3)] * ndim)
    setting = {"window": draw(sizes), "strides": draw(st.none() | sizes)}
    setting["padding"] = draw(st.sampled_from(["SAME", "VALID", 1, ((0, 2), (2, 1))[:ndim]]))
    setting |= {"ceil_mode": draw(st.booleans()), "dilation": draw(st.sampled_from([1, 1, 2]))}
    return (2, *draw(st.tuples(*[st.integers(3, 8)] * ndim)), 2), setting


@settings(max_examples=12, derandomize=True, deadline=None)
@given(pools())
def test_drawn_settings_match_loops(pool):
    in_shape, setting = pool
    x = normal(in_shape)
    dy = cotangent(x, **setting)
    expected = by_loops(x, dy, **setting)
    jax.tree.map(close, by_hand(x, dy, **setting), expected)
    close(avg_pool(x, **setting), expected[0])


@pytest.mark.parametrize(
    "setting, expected",  # of torch.nn.functional.avg_pool1d on [1, 2, 4, 8, 16]
    [
        ({"window": 2, "ceil_mode": True}, [1.5, 6, 16]),
        ({"window": 3, "strides": 2, "padding": 1, "ceil_mode": True}, [1, 14 / 3, 8]),
        ({"window": 4, "strides": 3, "padding": 1, "ceil_mode": True}, [7 / 4, 28 / 4]),
        ({"window": 4, "strides": 3, "padding": 2, "ceil_mode": True}, [3 / 4, 30 / 4, 16 / 3]),
        ({"window": 3, "strides": 2, "padding": 1, "count_include_pad": False}, [1.5, 14 / 3, 12]),
    ],
)
def test_divisor_is_pytorch_s(setting, expected):
    x = jnp.asarray([1.0, 2.0, 4.0, 8.0, 16.0]).reshape(1, 5, 1)
    close(avg_pool(x, **setting).ravel(), expected)
    close(avg_pool_forward(x, **setting)[0].ravel(), expected)


@MODES
def test_matches_finite_differences(setting):
    plain = jax.jit(partial(avg_pool, **setting))

    def hand_vjp(x):
        y, _ = avg_pool_forward(x, **setting)
        return y, lambda dy: (avg_pool_backward(dy, in_shape=x.shape, **setting),)

    check_vjp(plain, hand_vjp, (normal((2, 6, 7, 2)),), atol=1e-7, rtol=1e-7)


@MODES
def test_second_order(setting):
    x, t = normal((1, 6, 7, 2)), normal((1, 6, 7, 2), 1)

    def gradient(x):  # of Σ y³/3, by hand
        y, _ = avg_pool_forward(x, **setting)
        return avg_pool_backward(y**2, in_shape=x.shape, **setting)

    def both_products(f):
        return jax.jit(lambda x: (*jax.jvp(f, (x,), (t,)), *jax.vjp(f, x)[1](t)))(x)

    plain = jax.grad(lambda x: (avg_pool(x, **setting) ** 3).sum() / 3)
    jax.tree.map(close, both_products(gradient), both_products(plain))


@MODES
def test_vmap_and_scan_equal_one_by_one(setting):
    xs = normal((3, 2, 6, 7, 2))

    def run(x):
        y, _ = avg_pool_forward(x, **setting)
        return y, avg_pool_backward(y + 1, in_shape=x.shape, **setting)

    one_by_one = jax.tree.map(lambda *each: jnp.stack(each), *map(jax.jit(run), xs))
    scan = partial(jax.lax.scan, lambda carry, x: (carry, run(x)), 0)
    for together in jax.jit(lambda xs: (jax.vmap(run)(xs), scan(xs)[1]))(xs):
        jax.tree.map(close, together, one_by_one)


@MODES
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_sums_in_float32(dtype, setting):
    x = normal((1, 6, 7, 2), dtype=dtype)
    dy = cotangent(x, **setting)
    halves = by_hand(x, dy, **setting)
    wide = by_hand(x.astype(jnp.float32), dy.astype(jnp.float32), **setting)
    plain = avg_pool(x, **setting), halves[1]
    for half, other, expected in zip(halves, plain, wide, strict=True):
        assert half.dtype == other.dtype == dtype
        for got in (half, other):
            np.testing.assert_array_equal(got, expected.astype(dtype))  # one rounding, at the end


def test_a_long_sum_of_halves_neither_stalls_nor_overflows():
    x = jnp.full((1, 90, 1), 1000.0, jnp.float16)
    ys = [avg_pool(x, window=90), jax.jit(partial(avg_pool_forward, window=90))(x)[0], global_avg_pool(x)]
    np.testing.assert_array_equal([y.item() for y in ys], 1000.0)


def test_a_nan_spoils_its_own_windows_only():
    x = jnp.ones((1, 6, 1)).at[0, 3].set(jnp.nan)
    for y in (avg_pool(x, window=2), avg_pool_forward(x, window=2)[0]):
        np.testing.assert_array_equal(y.ravel(), [1.0, jnp.nan, 1.0])


@GLOBAL_SHAPES
def test_global_matches_jax_vjp(in_shape):
    x, dy = normal(in_shape), normal((in_shape[0], in_shape[-1]), 1)
    expected, vjp = jax.vjp(lambda x: jnp.mean(x, tuple(range(1, x.ndim - 1))), x)
    y, nothing = global_avg_pool_forward(x)
    assert nothing is None
    close(y, expected)
    close(global_avg_pool(x), expected)
    close(global_avg_pool_backward(dy, in_shape=in_shape), *vjp(dy))


@GLOBAL_SHAPES
def test_global_matches_finite_differences_and_vmaps(in_shape):
    def hand_vjp(x):
        return global_avg_pool(x), lambda dy: (global_avg_pool_backward(dy, in_shape=x.shape),)

    check_vjp(global_avg_pool, hand_vjp, (normal(in_shape),), atol=1e-7, rtol=1e-7)
    dys = normal((4, in_shape[0], in_shape[-1]))
    backward = partial(global_avg_pool_backward, in_shape=in_shape)
    close(jax.jit(jax.vmap(backward))(dys), jnp.stack([backward(dy) for dy in dys]))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_global_keeps_the_dtype(dtype):
    x = normal((2, 7, 9, 3), dtype=dtype)
    y, dx = global_avg_pool(x), global_avg_pool_backward(x[:, 0, 0], in_shape=x.shape)
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_array_equal(dx[:, 6, 8], (x[:, 0, 0].astype(jnp.float32) / 63).astype(dtype))


X = jnp.ones((1, 4, 4, 1))


@pytest.mark.parametrize("op", [avg_pool, avg_pool_forward])
@pytest.mark.parametrize(
    "x, setting, error, message",
    [
        (X, {"window": 5}, ValueError, r"window spans 5 places on spatial axis 0, the padded input has 4 "),
        (X, {"window": (2,)}, ValueError, r"window \(2,\) has 1 sizes, the input has 2 spatial axes"),
        (X, {"window": 2, "strides": 0}, ValueError, r"strides must be at least 1, got 0"),
        (X, {"window": 2, "padding": "FULL"}, ValueError, r'padding must be "SAME", "VALID", .* got \'FULL\''),
        (X, {"window": 2, "padding": 2, "count_include_pad": False}, ValueError, r"lies wholly in the padding"),
        (X[0, 0], {"window": 2}, ValueError, r"x must be \(N, L, C\), .* got shape \(4, 1\)"),
        (X.astype(int), {"window": 2}, TypeError, r"x must be floating, got int64"),
    ],
)
def test_bad_settings_are_named(op, x, setting, error, message):
    with pytest.raises(error, match=f"{op.__name__}: .*{message}"):
        op(x, **setting)


def test_bad_cotangents_are_named():
    with pytest.raises(ValueError, match=r"avg_pool_backward: dy must have shape \(1, 2, 2, 1\) for in_shape"):
        avg_pool_backward(X, in_shape=X.shape, window=2)
    with pytest.raises(TypeError, match=r"avg_pool_backward: dy must be floating, got int64"):
        avg_pool_backward(X.astype(int), in_shape=X.shape, window=2)
    with pytest.raises(ValueError, match=r"avg_pool_backward: the window spans 5 places"):
        avg_pool_backward(X, in_shape=X.shape, window=5)
    with pytest.raises(ValueError, match=r"global_avg_pool_backward: dy must have shape \(1, 1\) for in_shape"):
        global_avg_pool_backward(X, in_shape=X.shape)
    with pytest.raises(TypeError, match=r"global_avg_pool_backward: dy must be floating, got int64"):
        global_avg_pool_backward(jnp.ones((1, 1), int), in_shape=X.shape)


@pytest.mark.parametrize("op", [global_avg_pool, global_avg_pool_forward])
def test_bad_global_input_is_named(op):
    with pytest.raises(ValueError, match=r"global_avg_pool: x must be \(N, L, C\), .* got shape \(4, 1\)"):
        op(X[0, 0])
    with pytest.raises(ValueError, match=r"with no empty spatial axis, got shape \(1, 0, 4, 1\)"):
        op(X[:, :0])
    with pytest.raises(TypeError, match=r"global_avg_pool: x must be floating, got int64"):
        op(X.astype(int))

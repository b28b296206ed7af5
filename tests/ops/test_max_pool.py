"""ops/max_pool.py against jax.vjp of the plain op, loops over windows written in NumPy, and finite differences."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_vjp

from handgrad import ops
from handgrad.ops.max_pool import max_pool, max_pool_backward, max_pool_forward
from handgrad.ops.spatial import Padding

inf, nan = np.inf, np.nan
CASES = [  # in_shape, settings
    pytest.param((2, 6, 8, 3), {"window": 2}, id="side-by-side"),
    pytest.param((2, 7, 9, 3), {"window": (3, 2)}, id="side-by-side-leftover"),
    pytest.param((2, 5, 7, 2), {"window": (2, 3), "padding": ((1, 0), (2, 1))}, id="side-by-side-padded"),
    pytest.param((2, 7, 6, 3), {"window": 3, "strides": 2}, id="overlapping"),
    pytest.param((2, 8, 9, 3), {"window": 3, "strides": 2, "padding": "SAME"}, id="overlapping-same"),
    pytest.param((2, 6, 7, 2), {"window": (4, 3), "strides": (3, 1), "padding": ((3, 0), (0, 2))}, id="asymmetric"),
    pytest.param((1, 7, 9, 1), {"window": (2, 3), "strides": (3, 4)}, id="gaps-one-example-one-channel"),
    pytest.param((1, 8, 9, 2), {"window": 1, "strides": (2, 3)}, id="window-of-one"),
    pytest.param((2, 4, 5, 1), {"window": (4, 5), "strides": 1}, id="one-window-is-all"),
    pytest.param((2, 2, 3, 2), {"window": 4, "strides": 1, "padding": 1}, id="window-larger-than-input"),
    pytest.param((2, 6, 8, 2), {"window": 3, "strides": 2, "ceil_mode": True}, id="ceil-overhang"),
    pytest.param((2, 5, 4, 2), {"window": 2, "padding": 1, "ceil_mode": True}, id="ceil-drops-a-window"),
    pytest.param((2, 11, 3), {"window": 4, "strides": 3, "padding": "SAME"}, id="1-D"),
    pytest.param((2, 5, 4, 6, 2), {"window": (3, 2, 3), "strides": (2, 1, 2), "padding": "SAME"}, id="3-D"),
    pytest.param((1, 4, 5, 6, 2), {"window": 2}, id="3-D-side-by-side"),
]
DILATED = [
    pytest.param((2, 7, 8, 2), {"window": 3, "strides": 1, "dilation": 2}, id="dilated"),
    pytest.param((2, 9, 8, 2), {"window": (2, 3), "strides": 2, "dilation": (3, 1), "padding": 1}, id="dilated-padded"),
    pytest.param((2, 8, 7, 2), {"window": 2, "dilation": 2}, id="dilated-window-as-stride"),
    pytest.param((2, 9, 2), {"window": 3, "strides": 4, "dilation": 2, "ceil_mode": True}, id="dilated-1-D-ceil"),
]
OVERLAPPING = {"window": 3, "strides": 2, "padding": ((1, 0), (0, 1))}
both_ties = pytest.mark.parametrize("ties", ["first", "split"])
NAMES = ("window", "strides", "padding", "dilation", "ceil_mode", "ties")


@partial(jax.jit, static_argnames=NAMES)
def forward(x, **settings):
    return max_pool_forward(x, **settings)


@partial(jax.jit, static_argnames=("in_shape", *NAMES))
def backward(winner, dy, in_shape, **settings):
    return max_pool_backward(winner, dy, in_shape=in_shape, **settings)


def by_hand(x, **settings):
    """y, winner, a random dy and dx, by the rules written by hand."""
    y, winner = forward(x, **settings)
    dy = jnp.asarray(np.random.default_rng(0).normal(size=y.shape), y.dtype)
    return y, winner, dy, backward(winner, dy, x.shape, **settings)


@partial(jax.jit, static_argnames=NAMES)
def automatic(x, dy, **settings):
    """y and dx of the plain op by jax.vjp."""
    y, vjp = jax.vjp(lambda x: max_pool(x, **settings), x)
    return y, vjp(dy)[0]


def distinct(shape, seed=0):  # no ties, and further apart than the finite-difference step
    return np.random.default_rng(seed).permutation(np.prod(shape)).reshape(shape) - 5.0


def tied(shape, seed=0):
    return distinct(shape, seed) % 3


def places(size, k, s, d, low, high, ceil_mode):
    """The places of each window on one axis, by PyTorch's rule for how many there are."""
    free = low + size + high - (k - 1) * d - 1
    count = (-(-free // s) if ceil_mode else free // s) + 1
    while ceil_mode and (count - 1) * s >= size + low:
        count -= 1
    return [[p * s + i * d - low for i in range(k)] for p in range(count)]


def by_loops(x, dy, *, window, strides=None, padding: Padding = "VALID", dilation=1, ceil_mode=False, ties="first"):
    """y and dx window by window, with the input's places of each window in a list."""
    x, ndim = np.asarray(x), x.ndim - 2
    k, s, d = (v if isinstance(v, tuple) else (v,) * ndim for v in (window, strides or window, dilation))
    if isinstance(padding, str):
        spans = [(k - 1) * d + 1 for k, d in zip(k, d, strict=True)]
        padding = jax.lax.padtype_to_pads(x.shape[1:-1], spans, s, padding)
    lows, highs = zip(*((padding, padding),) * ndim if isinstance(padding, int) else padding, strict=True)
    axes = [places(*each, ceil_mode=ceil_mode) for each in zip(x.shape[1:-1], k, s, d, lows, highs, strict=True)]
    y, dx = np.full((len(x), *map(len, axes), x.shape[-1]), -inf, x.dtype), np.zeros_like(x)
    for n, *p, c in np.ndindex(y.shape):
        tap_places = product(*(axis[q] for axis, q in zip(axes, p, strict=True)))
        inside = [(n, *a, c) for a in tap_places if all(0 <= b < size for b, size in zip(a, x.shape[1:], strict=False))]
        if not inside:
            continue
        values = [x[a] for a in inside]
        nans = [a for a in inside if np.isnan(x[a])]
        y[n, *p, c] = nan if nans else max(values)
        winners = nans[:1] or [a for a in inside if x[a] == max(values)]
        winners = winners[:1] if ties == "first" else winners
        for a in winners:
            dx[a] += dy[n, *p, c] / len(winners)
    return y, dx


@pytest.mark.parametrize("in_shape, setting", CASES)
@pytest.mark.parametrize("data", [distinct, tied])
def test_first_ties_equal_jax_vjp_to_the_bit(in_shape, setting, data):
    x = jnp.asarray(data(in_shape))
    y, _, dy, dx = by_hand(x, **setting)
    expected_y, expected_dx = automatic(x, dy, **setting)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(dx, expected_dx)


@both_ties
@pytest.mark.parametrize("in_shape, setting", DILATED + CASES[3:11:7])
def test_both_ways_match_loops_over_the_windows(in_shape, setting, ties):
    x = jnp.asarray(tied(in_shape))
    y, _, dy, dx = by_hand(x, **setting, ties=ties)
    for got_y, got_dx in ((y, dx), automatic(x, dy, **setting, ties=ties)):
        expected_y, expected_dx = by_loops(x, dy, **setting, ties=ties)
        np.testing.assert_array_equal(got_y, expected_y)
        np.testing.assert_allclose(got_dx, expected_dx, rtol=1e-12, atol=1e-15)


@st.composite
def pools(draw):
    ndim = draw(st.integers(1, 2))
    sizes = st.tuples(*[st.integers(1, 3)] * ndim)
    setting = {"window": draw(sizes), "strides": draw(st.none() | sizes), "dilation": draw(st.just(1) | sizes)}
    setting["padding"] = draw(st.sampled_from(["SAME", "VALID", 1, ((0, 2), (2, 1))[:ndim]]))
    setting |= {"ceil_mode": draw(st.booleans()), "ties": draw(st.sampled_from(["first", "split"]))}
    return (2, *draw(st.tuples(*[st.integers(7, 9)] * ndim)), 2), setting


@settings(max_examples=12, derandomize=True, deadline=None)
@given(pools(), st.booleans())
def test_drawn_settings_match_loops(pool, with_corners):
    in_shape, setting = pool
    x = tied(in_shape)
    if with_corners:
        x = np.where(distinct(in_shape, 1) % 7 == 0, nan, np.where(x == 2, -inf, x))
    y, _, dy, dx = by_hand(jnp.asarray(x), **setting)
    expected_y, expected_dx = by_loops(x, dy, **setting)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(max_pool(jnp.asarray(x), **setting), expected_y)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-12, atol=1e-14)


LARGE = [
    pytest.param((1, 12, 13, 2), {"window": (9, 8), "strides": (2, 1), "padding": 2}, id="2-D"),
    pytest.param(
        (1, 13, 12, 1), {"window": (5, 14), "strides": (3, 1), "dilation": (2, 1), "padding": 2}, id="dilated"
    ),
    pytest.param((1, 90, 1), {"window": 70, "strides": 7}, id="1-D"),
    pytest.param((1, 1, 270, 1), {"window": (1, 256), "strides": (1, 9)}, id="one-row"),
    pytest.param((1, 5, 6, 5, 1), {"window": (4, 5, 4), "strides": 1, "padding": ((0, 1), (2, 0), (1, 1))}, id="3-D"),
]


@pytest.mark.parametrize("in_shape, setting", LARGE)
@pytest.mark.parametrize("corner", [2.0, nan, -inf])
def test_large_windows_go_axis_by_axis(in_shape, setting, corner):
    x = tied(in_shape)
    x = np.full(in_shape, -inf) if corner == -inf else np.where(distinct(in_shape, 1) % 37 == 0, corner, x)
    y, _, dy, dx = by_hand(jnp.asarray(x), **setting)
    expected_y, expected_dx = by_loops(x, dy, **setting)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "window, ties, dtype, words",
    [(2, "first", "uint8", ()), (17, "first", "uint16", ()), ((2, 4), "split", "uint8", ()), (3, "split", "uint16", ())]
    + [((4, 8), "split", "uint32", ()), (6, "split", "uint32", (2,))],
)
def test_residual_is_a_number_or_a_bit_a_tap(window, ties, dtype, words):
    y, winner, dy, dx = by_hand(jnp.zeros((1, 20, 20, 3)), window=window, strides=3, ties=ties)
    assert winner.dtype == dtype and winner.shape == y.shape + words
    np.testing.assert_allclose(dx, by_loops(np.zeros(dx.shape), dy, window=window, strides=3, ties=ties)[1], rtol=1e-12)


@both_ties
@pytest.mark.parametrize("place", range(9))
def test_nan_anywhere_in_a_window_is_its_maximum(place, ties):
    x = jnp.arange(9.0).at[place].set(nan).at[8].set(nan).reshape(1, 3, 3, 1)
    y, _, dy, dx = by_hand(x, window=3, ties=ties)
    assert jnp.isnan(y).all() and jnp.isnan(max_pool(x, window=3, ties=ties)).all()
    np.testing.assert_array_equal(dx.ravel(), np.where(np.arange(9) == place, dy.item(), 0))


@both_ties
def test_a_window_of_minus_infinity_gives_to_places_that_are_no_padding(ties):
    x = jnp.full((1, 2, 2, 1), -inf)
    y, _, dy, dx = by_hand(x, window=2, strides=1, padding=1, ties=ties)
    assert (y == -inf).all()
    np.testing.assert_allclose(dx.sum(), dy.sum(), rtol=1e-12)
    np.testing.assert_allclose(dx, by_loops(x, dy, window=2, strides=1, padding=1, ties=ties)[1], rtol=1e-12)


@both_ties
def test_a_window_wholly_in_the_padding_is_dropped(ties):
    y, _, dy, dx = by_hand(jnp.ones((1, 2, 1)), window=2, padding=((2, 0),), ties=ties)
    assert y[0, 0, 0] == -inf and y[0, 1, 0] == 1
    np.testing.assert_allclose(dx.sum(), dy[0, 1, 0], rtol=1e-12)


def test_equal_maxima_share_as_under_jnp_max():
    x = jnp.asarray([5.0, 5.0, 5.0, 1.0]).reshape(1, 2, 2, 1)
    _, _, dy, dx = by_hand(x, window=2, ties="split")
    np.testing.assert_allclose(dx, jax.vjp(jnp.max, x)[1](dy[0, 0, 0, 0])[0], rtol=1e-12)
    _, _, dy, dx = by_hand(x, window=2, ties="first")
    np.testing.assert_array_equal(dx.ravel(), [dy.item(), 0, 0, 0])


@pytest.mark.parametrize(
    "size, setting, count",
    [
        (5, {"window": 2}, 3),
        (3, {"window": 4, "strides": 2}, 1),
        (4, {"window": 2, "padding": 1}, 3),
        (5, {"window": 2, "padding": 1}, 3),
        (7, {"window": 3, "strides": 3, "padding": 1}, 3),
        (6, {"window": 1, "strides": 4}, 2),
    ],
)
def test_ceil_mode_counts_windows_as_pytorch_does(size, setting, count):
    x = jnp.ones((1, size, 1))
    assert max_pool(x, **setting, ceil_mode=True).shape == (1, count, 1)
    assert max_pool_forward(x, **setting, ceil_mode=True)[0].shape == (1, count, 1)


MODES = pytest.mark.parametrize(
    "setting",
    [OVERLAPPING, OVERLAPPING | {"ties": "split"}, {"window": 2}, {"window": 9, "strides": 1, "padding": 2}],
    ids=["phases", "split", "tiles", "axes"],
)


@MODES
def test_matches_finite_differences(setting):
    @jax.jit
    def plain(x):
        return max_pool(x, **setting)

    def hand_vjp(x):
        y, winner = forward(x, **setting)
        return y, lambda dy: (backward(winner, dy, x.shape, **setting),)

    check_vjp(plain, hand_vjp, (jnp.asarray(distinct((2, 6, 7, 2))),), atol=1e-6, rtol=1e-6)


@MODES
def test_second_order(setting):
    x = jnp.asarray(distinct((1, 6, 7, 2))) / 50

    def gradient(x):  # of Σ y³/3, by hand
        y, winner = max_pool_forward(x, **setting)
        return max_pool_backward(winner, y**2, in_shape=x.shape, **setting)

    plain = jax.grad(lambda x: (max_pool(x, **setting) ** 3).sum() / 3)
    t = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))

    def both_products(f):
        return jax.jit(lambda x: (*jax.jvp(f, (x,), (t,)), *jax.vjp(f, x)[1](t)))(x)

    for got, want in zip(both_products(gradient), both_products(plain), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


@MODES
def test_vmap_and_scan_equal_one_by_one(setting):
    xs = jnp.asarray(tied((3, 2, 6, 7, 2)))

    def run(x):
        y, winner = max_pool_forward(x, **setting)
        return y, max_pool_backward(winner, y + 1, in_shape=x.shape, **setting)

    one_by_one = jax.tree.map(lambda *each: jnp.stack(each), *map(jax.jit(run), xs))
    scan = partial(jax.lax.scan, lambda carry, x: (carry, run(x)), 0)
    for together in jax.jit(lambda xs: (jax.vmap(run)(xs), scan(xs)[1]))(xs):
        jax.tree.map(np.testing.assert_array_equal, together, one_by_one)


@MODES
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_exact_forward_and_sums_in_float32(dtype, setting):
    x = jnp.asarray(tied((1, 6, 7, 2)), dtype)
    y, winner, dy, dx = by_hand(x, **setting)
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_array_equal(y, max_pool(x.astype(jnp.float64), **setting).astype(dtype))
    wide = backward(winner, dy.astype(jnp.float32), x.shape, **setting)
    np.testing.assert_array_equal(dx, wide.astype(dtype))


POOLS = [
    ("max_pool", {"window": 2}),
    ("max_pool", {"window": 3, "strides": 2, "padding": 1, "ties": "split"}),
    ("avg_pool", {"window": 2}),
    ("avg_pool", {"window": 3, "strides": 2, "padding": 1}),
    ("global_avg_pool", {}),
    ("global_max_pool", {}),
    ("adaptive_avg_pool", {"output_size": 4}),
    ("adaptive_max_pool", {"output_size": 4}),
    ("adaptive_max_pool", {"output_size": 4, "ties": "split"}),
]


@pytest.mark.parametrize("name, setting", POOLS)
def test_numpy_arrays_come_back_as_jax_arrays_and_float64_as_float32_without_x64(name, setting):
    op, op_forward, op_backward = (getattr(ops, name + part) for part in ("", "_forward", "_backward"))
    x = np.arange(70.0).reshape(1, 5, 7, 2)
    with jax.enable_x64(False):
        y, winner = op_forward(x, **setting)
        kept = () if winner is None else (jax.tree.map(np.asarray, winner),)
        dx = op_backward(*kept, np.ones(y.shape), in_shape=x.shape, **setting)
        for array in (op(x, **setting), y, dx):
            assert isinstance(array, jax.Array) and array.dtype == jnp.float32


def test_many_small_halves_add_up():
    x, dy = jnp.zeros((1, 9, 1)).at[0, 4].set(1.0), jnp.ones((1, 5, 1), jnp.bfloat16).at[0, 0].set(256)
    _, winner = forward(x, window=5, strides=1)
    with jax.disable_jit():  # under jit XLA may keep more than bfloat16 of itself
        dx = max_pool_backward(winner, dy, in_shape=x.shape, window=5, strides=1)
    assert dx[0, 4, 0] == 260  # 256 + 1 is 256 in bfloat16


X = jnp.ones((1, 4, 4, 1))
DY = jnp.ones((1, 2, 2, 1))


@pytest.mark.parametrize("op", [max_pool, max_pool_forward])
@pytest.mark.parametrize(
    "x, setting, error, message",
    [
        (X, {"window": 5}, ValueError, r"window spans 5 places on spatial axis 0, the padded input has 4 "),
        (X, {"window": 3, "dilation": 2}, ValueError, r"window spans 5 places on spatial axis 0"),
        (X, {"window": (2, 2, 2)}, ValueError, r"window \(2, 2, 2\) has 3 sizes, the input has 2 spatial axes"),
        (X, {"window": 0}, ValueError, r"window must be at least 1, got 0"),
        (X, {"window": 2, "strides": (1, 0)}, ValueError, r"strides must be at least 1, got \(1, 0\)"),
        (X, {"window": 2, "dilation": 0}, ValueError, r"dilation must be at least 1, got 0"),
        (X, {"window": 2.0}, TypeError, r"window must be an int or a tuple of ints, got 2.0"),
        (X, {"window": 2, "padding": "FULL"}, ValueError, r'padding must be "SAME", "VALID", .* got \'FULL\''),
        (X, {"window": 2, "padding": -1}, ValueError, r"padding must not be negative, got -1"),
        (X, {"window": 2, "padding": 0.5}, TypeError, r"padding must be ints or \(low, high\) pairs of ints, got 0.5"),
        (X, {"window": 2, "padding": (1,)}, ValueError, r"padding \(1,\) has 1 entries, the input has 2"),
        (X, {"window": 2, "ties": "last"}, ValueError, r"""ties must be "first" or "split", got 'last'"""),
        (jnp.ones((4, 4)), {"window": 2}, ValueError, r"x must be \(N, L, C\), .* got shape \(4, 4\)"),
        (jnp.ones((1, 4, 4, 1), int), {"window": 2}, TypeError, r"x must be floating, got int64"),
    ],
)
def test_bad_settings_are_named(op, x, setting, error, message):
    with pytest.raises(error, match=f"{op.__name__}: .*{message}"):
        op(x, **setting)


@pytest.mark.parametrize(
    "winner, dy, setting, error, message",
    [
        (
            jnp.zeros((1, 2, 2, 1), "uint8"),
            X,
            {},
            ValueError,
            r"dy must have shape \(1, 2, 2, 1\) .* \(1, 4, 4, 1\), got",
        ),
        (jnp.zeros((1, 3, 2, 1), "uint8"), DY, {}, ValueError, r"winner must have shape \(1, 2, 2, 1\)"),
        (jnp.zeros((1, 2, 2, 1), "uint8"), DY.astype(int), {}, TypeError, r"dy must be floating, got int64"),
        (DY, DY, {}, TypeError, r"winner must hold unsigned integers, got float64; pass what forward returned"),
        (jnp.zeros((1, 2, 2, 1), "uint8"), DY, {"ties": "none"}, ValueError, r"ties must be"),
        (jnp.zeros((1, 2, 2, 1), "uint8"), DY, {"window": 5}, ValueError, r"window spans 5 places"),
    ],
)
def test_bad_cotangents_are_named(winner, dy, setting, error, message):
    with pytest.raises(error, match=f"max_pool_backward: .*{message}"):
        max_pool_backward(winner, dy, in_shape=(1, 4, 4, 1), **{"window": 2, **setting})

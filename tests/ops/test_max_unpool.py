"""ops/max_unpool.py against jax.vjp of the plain op, loops in NumPy, and max_pool, its dual."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_vjp

from handgrad.ops.max_pool import max_pool, max_pool_backward, max_pool_forward
from handgrad.ops.max_unpool import max_unpool, max_unpool_backward, max_unpool_forward
from handgrad.ops.rules import vjp

CASES = [  # sizes of the max pool's input, its settings
    pytest.param((6, 8), {"window": 2}, id="side-by-side"),
    pytest.param((5, 7), {"window": (2, 3), "padding": ((1, 0), (2, 1))}, id="side-by-side-padded"),
    pytest.param((7, 9), {"window": 3, "strides": 2, "padding": "SAME"}, id="overlapping"),
    pytest.param((6, 7), {"window": (4, 3), "strides": (3, 1), "padding": ((3, 0), (0, 2))}, id="asymmetric"),
    pytest.param((7, 8), {"window": 2, "strides": 3, "ceil_mode": True}, id="gaps-ceil"),
    pytest.param((9, 8), {"window": (2, 3), "strides": 2, "dilation": (3, 1), "padding": 1}, id="dilated"),
    pytest.param((11,), {"window": 4, "strides": 3}, id="1-D"),
    pytest.param((4, 5, 3), {"window": 2, "strides": 1}, id="3-D"),
    pytest.param((12, 13), {"window": (9, 8), "strides": (2, 1), "padding": 2}, id="many-taps"),
    pytest.param((4,), {"window": 2, "padding": ((2, 0),)}, id="window-wholly-in-the-padding"),
]
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13)


def given(sizes, setting, winners="pooled"):
    """x, a winner (of a pool, or any taps and some that are none), and dy."""
    random = np.random.default_rng(0)
    image = random.integers(-2, 3, (2, *sizes, 2)).astype(float)
    y, winner = jax.jit(partial(max_pool_forward, **setting))(image)
    if winners == "any":
        winner = random.integers(0, np.prod(np.broadcast_to(setting["window"], len(sizes))) + 3, winner.shape)
    return random.normal(size=y.shape), np.asarray(winner, "uint8"), random.normal(size=image.shape)


def by_hand(x, winner, dy, sizes, setting):
    def run(x, winner, dy):
        y, backward = vjp("max_unpool", x, winner, output_size=sizes, **setting)
        return y, backward(dy)[0]

    return jax.jit(run)(x, winner, dy)


def automatic(x, winner, dy, sizes, setting):
    def run(x, winner, dy):
        y, vjp = jax.vjp(lambda x: max_unpool(x, winner, output_size=sizes, **setting), x)
        return y, *vjp(dy)

    return jax.jit(run)(x, winner, dy)


@pytest.mark.parametrize("winners", ["pooled", "any"])
@pytest.mark.parametrize("sizes, setting", CASES)
def test_matches_jax_vjp(sizes, setting, winners):
    x, winner, dy = given(sizes, setting, winners)
    jax.tree.map(close, by_hand(x, winner, dy, sizes, setting), automatic(x, winner, dy, sizes, setting))


@pytest.mark.parametrize("sizes, setting", CASES)
def test_is_the_dual_of_max_pool(sizes, setting):
    x, winner, dy = given(sizes, setting)
    y, dx = by_hand(x, winner, dy, sizes, setting)
    close((x * np.asarray(dx)).sum(), (np.asarray(y) * dy).sum())
    transposed = jax.jit(partial(max_pool_backward, in_shape=dy.shape, **setting))
    close(y, transposed(winner, x))


@pytest.mark.parametrize("sizes, setting", [c for c in CASES if c.id in ("side-by-side", "overlapping", "3-D")])
def test_backward_picks_what_max_pool_picked(sizes, setting):
    image = jnp.asarray(np.random.default_rng(4).normal(size=(2, *sizes, 2)))
    tangent = jnp.asarray(np.random.default_rng(5).normal(size=image.shape))
    y, winner = jax.jit(partial(max_pool_forward, **setting))(image)
    slope = jax.jit(lambda x, t: jax.jvp(partial(max_pool, **setting), (x,), (t,))[1])(image, tangent)
    picked = jax.jit(partial(max_unpool_backward, output_size=sizes, **setting))
    np.testing.assert_array_equal(picked(winner, image), y)
    close(picked(winner, tangent), slope)


def test_by_paper():
    x, winner = jnp.array([2.0, 3.0, 4.0]).reshape(1, 3, 1), jnp.array([1, 0, 1], jnp.uint8).reshape(1, 3, 1)
    dy = jnp.array([10.0, 20.0, 30.0, 40.0]).reshape(1, 4, 1)
    y, dx = by_hand(x, winner, dy, (4,), {"window": 2, "strides": 1})
    assert y.ravel().tolist() == [0, 5, 0, 4] and dx.ravel().tolist() == [20, 20, 40]


def test_nan_and_infinity_go_to_their_place_only():
    x, winner = np.array([np.nan, 3.0, -np.inf]).reshape(1, 3, 1), np.array([1, 0, 1], "uint8").reshape(1, 3, 1)
    for setting in ({"window": 2}, {"window": 2, "strides": 3, "ceil_mode": True}):
        size = 6 if setting == {"window": 2} else 8
        want = np.zeros(size)
        want[[1, 2, 5] if size == 6 else [1, 3, 7]] = x.ravel()
        for op in (max_unpool, lambda *arrays, **settings: max_unpool_forward(*arrays, **settings)[0]):
            y = jax.jit(partial(op, output_size=size, **setting))(x, winner)
            np.testing.assert_array_equal(y.ravel(), want)


MODES = pytest.mark.parametrize(
    "sizes, setting", [c for c in CASES if c.id in ("side-by-side", "overlapping", "many-taps")]
)


@MODES
def test_orders_and_finite_differences(sizes, setting):
    x, winner, _ = map(jnp.asarray, given(sizes, setting))
    settings = {"output_size": sizes, **setting}
    plain = jax.jit(lambda x: max_unpool(x, winner, **settings))

    def hand_vjp(x):
        y, backward = vjp("max_unpool", x, winner, **settings)
        return y, lambda dy: backward(dy)[:1]

    check_vjp(plain, hand_vjp, (x,), atol=1e-6, rtol=1e-6, eps=1e-4)

    def products(f):
        t = np.random.default_rng(1).normal(size=x.shape)
        return jax.jit(lambda x: (*jax.jvp(f, (x,), (t,)), *jax.vjp(f, x)[1](t)))(x)

    def gradient(x):  # of Σ y³/3
        y, backward = hand_vjp(x)
        return backward(y**2)[0]

    jax.tree.map(close, products(gradient), products(jax.grad(lambda x: (plain(x) ** 3).sum() / 3)))


@MODES
def test_vmap_equals_one_by_one(sizes, setting):
    arrays = [np.stack([a, a[::-1]]) for a in given(sizes, setting)]
    run = partial(by_hand, sizes=sizes, setting=setting)
    together = jax.vmap(run)(*arrays)
    over_x = jax.vmap(run, (0, None, None))(arrays[0], *(a[0] for a in arrays[1:]))
    for member in range(2):
        jax.tree.map(lambda got, want, m=member: close(got[m], want), together, run(*(a[member] for a in arrays)))
        alone = run(arrays[0][member], *(a[0] for a in arrays[1:]))
        jax.tree.map(lambda got, want, m=member: close(got[m], want), over_x, alone)


@MODES
@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_half_precision_sums_in_float32(sizes, setting, dtype):
    x, winner, dy = given(sizes, setting)
    x, dy = jnp.asarray(x, dtype), jnp.asarray(dy, dtype)
    got = (
        *by_hand(x, winner, dy, sizes, setting),
        jax.jit(partial(max_unpool, output_size=sizes, **setting))(x, winner),
    )
    y, dx = by_hand(x.astype(jnp.float32), winner, dy.astype(jnp.float32), sizes, setting)
    for half, wide in zip(got, (y, dx, y), strict=True):
        assert half.dtype == dtype
        np.testing.assert_array_equal(half, wide.astype(dtype))


@pytest.mark.parametrize("window", [2, 70])
def test_empty_batch(window):
    x, winner, dy = np.ones((0, 2, 3)), np.zeros((0, 2, 3), "uint8"), np.ones((0, 2 * window, 3))
    for run in (by_hand, automatic):
        assert [a.shape for a in run(x, winner, dy, 2 * window, {"window": window})] == [dy.shape, x.shape]


X, WINNER = jnp.ones((1, 2, 2, 1)), jnp.zeros((1, 2, 2, 1), jnp.uint8)


@pytest.mark.parametrize("op", [max_unpool, max_unpool_forward])
@pytest.mark.parametrize(
    "x, winner, setting, error, message",
    [
        (X, WINNER, {"output_size": 7}, ValueError, r"x must have shape \(1, 3, 3, 1\) for output_size 7, got"),
        (X, WINNER[:, :1], {}, ValueError, r"winner must have shape \(1, 2, 2, 1\) for output_size \(4, 4\), got"),
        (X, X, {}, TypeError, r"winner must hold unsigned integers, got float64; pass what max_pool_forward returned"),
        (WINNER, WINNER, {}, TypeError, r"x must be floating, got uint8"),
        (X, WINNER, {"output_size": (4, 4, 4)}, ValueError, r"output_size \(4, 4, 4\) has 3 sizes"),
        (X, WINNER, {"output_size": 0}, ValueError, r"output_size must be at least 1, got 0"),
        (X, WINNER, {"window": 5}, ValueError, r"the window spans 5 places on spatial axis 0"),
        (X[0, 0], WINNER, {}, ValueError, r"x must be \(N, L, C\), .* got shape \(2, 1\)"),
    ],
)
def test_bad_input_is_named(op, x, winner, setting, error, message):
    with pytest.raises(error, match=f"{op.__name__}: {message}"):
        op(x, winner, **{"output_size": 4, "window": 2, **setting})


def test_bad_cotangents_are_named():
    backward = partial(max_unpool_backward, output_size=4, window=2)
    with pytest.raises(ValueError, match=r"max_unpool_backward: dy must have shape \(1, 4, 4, 1\) for output_size 4"):
        backward(WINNER, X)
    with pytest.raises(ValueError, match=r"max_unpool_backward: winner must have shape \(1, 2, 2, 1\)"):
        backward(WINNER[:, :1], jnp.ones((1, 4, 4, 1)))
    with pytest.raises(TypeError, match=r"max_unpool_backward: dy must be floating, got uint8"):
        backward(WINNER, WINNER)

"""ops/global_max_pool.py against jax.vjp of the plain op, max_pool of one window, and paper."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_vjp

from handgrad.ops.global_max_pool import global_max_pool, global_max_pool_backward, global_max_pool_forward
from handgrad.ops.max_pool import max_pool_backward, max_pool_forward

inf, nan = np.inf, np.nan
SHAPES = pytest.mark.parametrize("in_shape", [(2, 5, 3), (2, 3, 4, 3), (1, 2, 3, 4, 1), (1, 20, 15, 2), (0, 3, 4, 2)])
both_ties = pytest.mark.parametrize("ties", ["first", "split"])


@partial(jax.jit, static_argnames="ties")
def by_hand(x, dy, ties):
    y, winner = global_max_pool_forward(x, ties=ties)
    return y, global_max_pool_backward(winner, dy, in_shape=x.shape, ties=ties)


@partial(jax.jit, static_argnames="ties")
def automatic(x, dy, ties):
    y, vjp = jax.vjp(partial(global_max_pool, ties=ties), x)
    return y, *vjp(dy)


def tied(shape, seed=0):
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(float)


def cotangent(shape, dtype=float):
    return np.random.default_rng(1).normal(size=(shape[0], shape[-1])).astype(dtype)


@SHAPES
@both_ties
def test_matches_jax_vjp(in_shape, ties):
    x, dy = tied(in_shape), cotangent(in_shape)
    for got, want in zip(by_hand(x, dy, ties), automatic(x, dy, ties), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


@both_ties
@pytest.mark.parametrize("corner", [nan, -inf, inf])
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_corners_are_those_of_max_pool_with_one_window(corner, share, ties):
    x = np.where(np.random.default_rng(3).uniform(size=(2, 3, 4, 2)) < share, corner, tied((2, 3, 4, 2)))
    dy = cotangent(x.shape)
    y, winner = max_pool_forward(x, window=(3, 4), ties=ties)
    dx = max_pool_backward(winner, jnp.asarray(dy)[:, None, None], in_shape=x.shape, window=(3, 4), ties=ties)
    got_y, got_dx = by_hand(x, dy, ties)
    np.testing.assert_array_equal(got_y, y[:, 0, 0])
    np.testing.assert_array_equal(global_max_pool(x, ties=ties), got_y)
    np.testing.assert_allclose(got_dx, dx, rtol=1e-12)
    if ties == "first":
        forward = global_max_pool_forward(x)[1]
        assert forward.dtype == winner.dtype
        np.testing.assert_array_equal(forward, winner[:, 0, 0])


def test_by_paper():
    x, dy = jnp.array([1.0, 4.0, 4.0, 2.0]).reshape(1, 2, 2, 1), jnp.array([[6.0]])
    assert by_hand(x, dy, "first")[1].ravel().tolist() == [0, 6, 0, 0]
    assert by_hand(x, dy, "split")[1].ravel().tolist() == [0, 3, 3, 0]


@pytest.mark.parametrize("places, dtype", [(255, "uint8"), (256, "uint16"), (70_000, "uint32")])
def test_the_winner_has_the_smallest_dtype(places, dtype):
    x = jnp.zeros((1, places, 1)).at[0, -1].set(1.0)
    _, winner = global_max_pool_forward(x)
    assert winner.dtype == dtype and winner.item() == places - 1


@both_ties
def test_orders_finite_differences_and_vmap(ties):
    x = jnp.asarray(np.random.default_rng(0).permutation(48).reshape(2, 3, 4, 2) / 12)

    def hand_vjp(x):
        y, winner = global_max_pool_forward(x, ties=ties)
        return y, lambda dy: (global_max_pool_backward(winner, dy, in_shape=x.shape, ties=ties),)

    check_vjp(partial(global_max_pool, ties=ties), hand_vjp, (x,), atol=1e-6, rtol=1e-6, eps=1e-4)

    def gradient(x):  # of Σ y³/3
        y, backward = hand_vjp(x)
        return backward(y**2)[0]

    def products(f, x):
        t = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))
        return jax.jit(lambda x: (*jax.jvp(f, (x,), (t,)), *jax.vjp(f, x)[1](t)))(x)

    plain = jax.grad(lambda x: (global_max_pool(x, ties=ties) ** 3).sum() / 3)
    for data in (x, jnp.asarray(tied(x.shape))):
        for got, want in zip(products(gradient, data), products(plain, data), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
    xs = jnp.stack([x, x[::-1]])
    np.testing.assert_array_equal(jax.jit(jax.vmap(gradient))(xs), jnp.stack([gradient(x) for x in xs]))


@both_ties
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(dtype, ties):
    x = jnp.asarray(tied((2, 9, 7, 2)), dtype)
    dy = jnp.asarray(cotangent(x.shape), dtype)
    y, dx = by_hand(x, dy, ties)
    wide_y, wide_dx = by_hand(x.astype(jnp.float32), dy.astype(jnp.float32), ties)
    assert y.dtype == dx.dtype == global_max_pool(x, ties=ties).dtype == dtype
    np.testing.assert_array_equal(y, wide_y.astype(dtype))
    np.testing.assert_array_equal(dx, wide_dx.astype(dtype))


X, DY, WINNER = jnp.ones((1, 4, 4, 1)), jnp.ones((1, 1)), jnp.zeros((1, 1), jnp.uint8)


@pytest.mark.parametrize("op", [global_max_pool, global_max_pool_forward])
def test_bad_input_is_named(op):
    with pytest.raises(ValueError, match=rf"{op.__name__}: x must be \(N, L, C\), .* got shape \(4, 1\)"):
        op(X[0, 0])
    with pytest.raises(ValueError, match=r"with no empty spatial axis, got shape \(1, 0, 4, 1\)"):
        op(X[:, :0])
    with pytest.raises(TypeError, match=rf"{op.__name__}: x must be floating, got int64"):
        op(X.astype(int))
    with pytest.raises(ValueError, match=rf'{op.__name__}: ties must be "first" or "split", got \'last\''):
        op(X, ties="last")
    with pytest.raises(ValueError, match=rf'{op.__name__}: ties must be "first" or "split", got None'):
        op(X, ties=None)


@pytest.mark.parametrize(
    "winner, dy, ties, error, message",
    [
        (
            WINNER,
            X,
            "first",
            ValueError,
            r"dy must have shape \(1, 1\) for in_shape \(1, 4, 4, 1\), got \(1, 4, 4, 1\)",
        ),
        (X > 0, DY, "first", ValueError, r"winner must have shape \(1, 1\) for in_shape"),
        (WINNER, DY, "split", ValueError, r"winner must have shape \(1, 4, 4, 1\) for in_shape"),
        (DY, DY, "first", TypeError, r"winner must hold unsigned integers, got float64; pass what forward returned"),
        (X, DY, "split", TypeError, r"winner must hold booleans, got float64"),
        (WINNER, WINNER, "first", TypeError, r"dy must be floating, got uint8"),
    ],
)
def test_bad_cotangents_are_named(winner, dy, ties, error, message):
    with pytest.raises(error, match=f"global_max_pool_backward: {message}"):
        global_max_pool_backward(winner, dy, in_shape=X.shape, ties=ties)

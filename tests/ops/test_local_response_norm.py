"""ops/local_response_norm.py against jax.vjp of the plain op, sums written out, finite differences, and its corners."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_vjp

from handgrad import ops

MISUSED: Any = ops  # for NumPy arrays, which are not in its signature
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13)
SETTINGS = [  # strong alphas, so that the window tells
    pytest.param((("alpha", 0.5),), id="default-power"),
    pytest.param((("size", 4), ("alpha", 0.5), ("beta", 0.6), ("k", 2.0)), id="even-size"),
    pytest.param((("size", 1), ("alpha", 2.0), ("beta", 1.0)), id="one-channel-windows"),
    pytest.param((("size", 30), ("alpha", 3.0)), id="wider-than-the-channels"),
    pytest.param((("size", 101), ("alpha", 9.0), ("beta", 0.5)), id="too-many-slices"),
]
every_setting = pytest.mark.parametrize("settings", SETTINGS)


@cache
def by_hand(settings):
    def run(x, dy):
        y, backward = ops.vjp("local_response_norm", x, **dict(settings))
        return y, backward(dy)[0]

    return jax.jit(run)


@cache
def automatic(settings):
    def run(x, dy):
        y, vjp = jax.vjp(partial(ops.local_response_norm, **dict(settings)), x)
        return y, vjp(dy)[0]

    return jax.jit(run)


def normal(seed, shape=(2, 3, 7)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def written_out(x, size=5, alpha=1e-4, beta=0.75, k=1.0):
    y = np.empty_like(x)
    for c in range(x.shape[-1]):
        window = x[..., max(c - size // 2, 0) : c + (size - 1) // 2 + 1]
        y[..., c] = x[..., c] / (k + alpha / size * (window**2).sum(-1)) ** beta
    return y


@every_setting
def test_matches_jax_vjp_and_the_sums_written_out(settings):
    x, dy = normal(0), normal(1)
    got = by_hand(settings)(x, dy)
    jax.tree.map(close, got, automatic(settings)(x, dy))
    close(got[0], written_out(np.asarray(x), **dict(settings)))


@every_setting
def test_matches_finite_differences(settings):
    op = jax.jit(partial(ops.local_response_norm, **dict(settings)))

    def forward_and_backward(x):
        return op(x), lambda dy: (by_hand(settings)(x, dy)[1],)

    check_vjp(op, forward_and_backward, (normal(2),), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[1]])
def test_second_order_matches_jax(settings):
    primals, tangents = (normal(3), normal(4)), (normal(5), normal(6))

    def both(run):
        return jax.jit(lambda p, t: (jax.jvp(run, p, t), jax.grad(lambda p: (run(*p)[1] ** 2).sum())(p)))

    got, want = (both(make(settings))(primals, tangents) for make in (by_hand, automatic))
    jax.tree.map(close, got, want)


def test_vmap_and_scan_are_a_loop():
    xs, dys = normal(7), normal(8)
    run = by_hand((("alpha", 0.5),))
    want = run(xs, dys)  # no place looks at another
    jax.tree.map(close, jax.vmap(run)(xs, dys), want)
    jax.tree.map(close, jax.lax.scan(lambda c, pair: (c, run(*pair)), 0, (xs, dys))[1], want)


@pytest.mark.parametrize("shape", [(6,), (1, 1), (2, 2, 3, 1, 4), (0, 5)], ids=str)
def test_any_rank_one_channel_and_an_empty_batch(shape):
    settings = (("alpha", 0.5),)
    x, dy = normal(9, shape), normal(10, shape)
    jax.tree.map(close, by_hand(settings)(x, dy), automatic(settings)(x, dy))
    y, backward = MISUSED.vjp("local_response_norm", np.asarray(x), **dict(settings))
    jax.tree.map(close, (y, backward(np.asarray(dy))[0]), by_hand(settings)(x, dy))


def test_on_paper():
    y, dx = by_hand((("size", 2), ("alpha", 2.0), ("beta", 1.0)))(jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0]))
    close(y, [1 / 2, 2 / 6])  # d = 1 + 1, 1 + 1 + 4
    close(dx, [-2 * 1 * 2 / 36, 1 / 6 - 2 * 2 * 2 / 36])  # y[1] = x1 / (1 + x0² + x1²)


def test_zeros_give_zeros_and_without_k_nan_as_the_formula():
    x, dy = jnp.zeros(5), jnp.ones(5)
    y, dx = by_hand((("k", 2.0),))(x, dy)
    assert not y.any()
    close(dx, jnp.full(5, 2**-0.75))
    for run in (by_hand, automatic):
        y, dx = run((("k", 0.0),))(x, dy)
        assert jnp.isnan(y).all() and jnp.isnan(dx).all()


def test_nan_reaches_its_window_and_its_neighbours_windows():
    settings = (("size", 4), ("alpha", 0.5))  # window c - 2 .. c + 1
    x, dy = normal(11, (9,)).at[4].set(jnp.nan), normal(12, (9,))
    for run in (by_hand, automatic):
        y, dx = run(settings)(x, dy)
        assert jnp.isnan(y).nonzero()[0].tolist() == [3, 4, 5, 6]
        assert jnp.isnan(dx).nonzero()[0].tolist() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_is_kept_and_narrow_ones_rounded_once(dtype):
    settings = (("alpha", 0.5),)
    x, dy = normal(13).astype(dtype), normal(14).astype(dtype)
    y, dx = by_hand(settings)(x, dy)
    assert y.dtype == dx.dtype == dtype
    exact = by_hand(settings)(x.astype(jnp.float64), dy.astype(jnp.float64))
    eps = float(jnp.finfo(dtype).eps)
    for low, high in zip((y, dx), exact, strict=True):
        np.testing.assert_allclose(low.astype(jnp.float64), high, rtol=8 * eps, atol=eps / 4)
    _, (_, d) = jax.eval_shape(ops.local_response_norm_forward, x)
    assert d.dtype == jnp.float32


@pytest.mark.parametrize("op", [ops.local_response_norm, ops.local_response_norm_forward])
def test_bad_input_is_named(op):
    x, name = jnp.ones((2, 3)), op.__name__
    for settings, match in [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"alpha": -0.1}, "alpha must not be negative, got -0.1"),
        ({"k": -1}, "k must not be negative, got -1"),
    ]:
        with pytest.raises(ValueError, match=f"^{name}: {match}"):
            op(x, **settings)
    with pytest.raises(TypeError, match=f"^{name}: size must be an int, got 2.5"):
        op(x, size=2.5)
    with pytest.raises(TypeError, match=f"^{name}: x must be floating, got int32"):
        op(x.astype(jnp.int32))
    with pytest.raises(ValueError, match=rf"^{name}: x must be \(..., channels\) with .* got shape \(2, 0\)"):
        op(x[:, :0])

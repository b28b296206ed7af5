"""ops/adaptive_pool.py against jax.vjp of the plain ops, loops over the windows in NumPy, and paper."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_vjp

from handgrad.ops import adaptive_pool as module
from handgrad.ops.adaptive_pool import (
    adaptive_avg_pool,
    adaptive_avg_pool_backward,
    adaptive_avg_pool_forward,
    adaptive_max_pool,
    adaptive_max_pool_backward,
    adaptive_max_pool_forward,
)
from handgrad.ops.adaptive_windows import as_plain_pool, axis_windows
from handgrad.ops.rules import vjp

inf, nan = np.inf, np.nan
CASES = [  # sizes of the input, output_size
    pytest.param((7,), 3, id="1-D"),
    pytest.param((5,), 8, id="1-D-more-windows-than-places"),
    pytest.param((7, 6), (3, 4), id="2-D"),
    pytest.param((6, 8), (3, 2), id="2-D-side-by-side"),
    pytest.param((13, 5), (6, 5), id="2-D-evenly-overlapping"),
    pytest.param((3, 4), (1, 1), id="2-D-global"),
    pytest.param((1, 3), (4, 2), id="2-D-one-row-to-four"),
    pytest.param((4, 5, 3), (3, 7, 2), id="3-D"),
    pytest.param((151, 2), 2, id="many-taps"),
    pytest.param((2,), 140, id="many-windows-a-place"),
]
KINDS = pytest.mark.parametrize("kind", ["avg", "first", "split"])


def name_and_settings(kind, output_size):
    return (
        ("adaptive_avg_pool", {"output_size": output_size})
        if kind == "avg"
        else (
            "adaptive_max_pool",
            {"output_size": output_size, "ties": kind},
        )
    )


def plain_of(kind, output_size):
    name, settings = name_and_settings(kind, output_size)
    return partial(getattr(module, name), **settings)


def by_hand(kind, output_size, x, dy=None):
    """y, dy (drawn unless given) and dx by the rules written by hand."""
    name, settings = name_and_settings(kind, output_size)

    def run(x):
        y, backward = vjp(name, x, **settings)
        cotangent = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), y.dtype) if dy is None else dy
        return y, cotangent, *backward(cotangent)

    return jax.jit(run)(x)


def automatic(kind, output_size, x, dy):
    def run(x, dy):
        y, vjp = jax.vjp(plain_of(kind, output_size), x)
        return y, *vjp(dy)

    return jax.jit(run)(x, dy)


def data(sizes, kind, seed=0):
    random = np.random.default_rng(seed)
    shape = (2, *sizes, 2)
    return random.normal(size=shape) if kind == "avg" else random.integers(-2, 3, shape).astype(float)


def by_loops(kind, output_size, x, dy):
    """y and dx, window by window."""
    counts = (output_size,) * (x.ndim - 2) if isinstance(output_size, int) else output_size
    y, dx = np.zeros((len(x), *counts, x.shape[-1])), np.zeros(x.shape)
    for n, *p, c in np.ndindex(y.shape):
        axes = [range(q * a // P, -(-(q + 1) * a // P)) for q, P, a in zip(p, counts, x.shape[1:-1], strict=True)]
        places = [(n, *a, c) for a in product(*axes)]
        values = np.array([x[a] for a in places])
        nans = [a for a in places if np.isnan(x[a])]
        y[n, *p, c] = values.mean() if kind == "avg" else values.max()
        chosen = places if kind == "avg" else nans[:1] or [a for a in places if x[a] == values.max()]
        chosen = chosen[:1] if kind == "first" else chosen
        for a in chosen:
            dx[a] += dy[n, *p, c] / len(chosen)
    return y, dx


close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13)


@KINDS
@pytest.mark.parametrize("sizes, output_size", CASES)
def test_matches_jax_vjp_and_loops(sizes, output_size, kind):
    x = data(sizes, kind)
    y, dy, dx = by_hand(kind, output_size, x)
    for want_y, want_dx in (automatic(kind, output_size, x, dy), by_loops(kind, output_size, x, np.asarray(dy))):
        close(y, want_y)
        close(dx, want_dx)


@pytest.mark.parametrize("kind", ["first", "split"])
@pytest.mark.parametrize("sizes, output_size", [((7, 6), (3, 4)), ((6, 4), (3, 2)), ((3, 4), 1), ((3, 2), (5, 2))])
def test_corners_match_loops(sizes, output_size, kind):
    """NaN anywhere, and whole windows of -inf."""
    random = np.random.default_rng(2)
    x = np.where(random.uniform(size=(2, *sizes, 2)) < 0.1, nan, np.where(data(sizes, kind) < 2, -inf, 2.0))
    y, dy, dx = by_hand(kind, output_size, x)
    want_y, want_dx = by_loops(kind, output_size, x, np.asarray(dy))
    np.testing.assert_array_equal(y, want_y)
    np.testing.assert_array_equal(plain_of(kind, output_size)(x), want_y)
    close(dx, want_dx)
    close(np.sum(dx), np.sum(dy))  # every window has a place to give to


def test_the_windows_that_share_a_place_are_adaptive_windows():
    for places, count in product(range(1, 13), repeat=2):
        index, own = axis_windows(places, count)
        shared, shared_own = axis_windows(count, places)
        inside = {(a, p) for p in range(count) for a in index[p][own[p]].tolist()}
        assert inside == {(a, p) for a in range(places) for p in shared[a][shared_own[a]].tolist()}
        assert {a for a, _ in inside} == set(range(places))


@pytest.mark.parametrize(
    "places, count, plain",
    [
        ((6, 8), (3, 2), {"window": (2, 4), "strides": (2, 4)}),
        ((13,), (6,), {"window": (3,), "strides": (2,)}),
        ((7,), (5,), {}),
        ((5,), (6,), {}),
        ((1,), (3,), {}),
        ((7, 200), (7, 1), {}),
    ],
)
def test_windows_of_a_plain_pool_are_found(places, count, plain):
    assert as_plain_pool(places, count) == plain


def test_by_paper():
    x = jnp.array([1.0, 2.0, 6.0, 4.0, 8.0]).reshape(1, 5, 1)  # windows 0 to 2 and 2 to 4
    dy = jnp.array([3.0, 30.0]).reshape(1, 2, 1)
    results = {kind: [np.ravel(a).tolist() for a in by_hand(kind, 2, x, dy)[::2]] for kind in ("avg", "first")}
    assert results == {"avg": [[3, 6], [1, 1, 11, 10, 10]], "first": [[6, 8], [0, 0, 3, 0, 30]]}
    ones = jnp.ones((1, 3, 1))  # windows 0 to 1 and 1 to 2
    assert np.ravel(by_hand("first", 2, ones, dy)[2]).tolist() == [3, 30, 0]
    assert np.ravel(by_hand("split", 2, ones, dy)[2]).tolist() == [1.5, 16.5, 15]


MODES = pytest.mark.parametrize("output_size", [(3, 4), 2, 1], ids=["general", "plain", "global"])


@pytest.mark.slow
@KINDS
@MODES
def test_orders_and_finite_differences(kind, output_size):
    x = jnp.asarray(np.random.default_rng(0).permutation(2 * 48).reshape(2, 8, 6, 1) / 48)
    name, settings = name_and_settings(kind, output_size)
    check_vjp(
        jax.jit(plain_of(kind, output_size)), partial(vjp, name, **settings), (x,), atol=1e-6, rtol=1e-6, eps=1e-4
    )

    def gradient(x):  # of Σ y³/3
        y, backward = vjp(name, x, **settings)
        return backward(y**2)[0]

    def products(f):
        t = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))
        return jax.jit(lambda x: (*jax.jvp(f, (x,), (t,)), *jax.vjp(f, x)[1](t)))(x)

    want = products(jax.grad(lambda x: (plain_of(kind, output_size)(x) ** 3).sum() / 3))
    jax.tree.map(close, products(gradient), want)


@KINDS
@MODES
def test_vmap_and_scan_equal_one_by_one(kind, output_size):
    name, settings = name_and_settings(kind, output_size)

    def run(x):
        y, backward = vjp(name, x, **settings)
        return y, *backward(y + 1)

    xs = jnp.asarray(np.stack([data((8, 6), kind, seed) for seed in range(3)]))
    one_by_one = jax.tree.map(lambda *each: jnp.stack(each), *map(jax.jit(run), xs))
    for together in jax.jit(lambda xs: (jax.vmap(run)(xs), jax.lax.scan(lambda c, x: (c, run(x)), 0, xs)[1]))(xs):
        jax.tree.map(close, together, one_by_one)


@KINDS
@pytest.mark.parametrize(
    "output_size, dtype", [((3, 4), jnp.bfloat16), ((3, 4), jnp.float16), (2, jnp.float16), (1, jnp.bfloat16)]
)
def test_half_precision_sums_in_float32(kind, output_size, dtype):
    x = jnp.asarray(data((8, 6), kind), dtype)
    y, dy, dx = by_hand(kind, output_size, x)
    wide_y, _, wide_dx = by_hand(kind, output_size, x.astype(jnp.float32), dy.astype(jnp.float32))
    plain = jax.jit(plain_of(kind, output_size))(x)
    assert y.dtype == dx.dtype == plain.dtype == dtype
    for got, want in ((y, wide_y), (plain, wide_y), (dx, wide_dx)):
        np.testing.assert_array_equal(got, want.astype(dtype))  # one rounding, at the end


@KINDS
@pytest.mark.parametrize("output_size", [(3, 4), 1])
def test_empty_batch(kind, output_size):
    y, _, dx = by_hand(kind, output_size, jnp.zeros((0, 5, 6, 2)))
    assert y.shape[0] == 0 and dx.shape == (0, 5, 6, 2)
    assert plain_of(kind, output_size)(jnp.zeros((0, 5, 6, 2))).shape == y.shape


X = jnp.ones((1, 5, 4, 1))


@pytest.mark.parametrize(
    "op", [adaptive_avg_pool, adaptive_avg_pool_forward, adaptive_max_pool, adaptive_max_pool_forward]
)
@pytest.mark.parametrize(
    "x, output_size, error, message",
    [
        (X, 0, ValueError, r"output_size must be at least 1, got 0"),
        (X, (2, 2, 2), ValueError, r"output_size \(2, 2, 2\) has 3 sizes, the input has 2 spatial axes"),
        (X, 2.0, TypeError, r"output_size must be an int or a tuple of ints, got 2.0"),
        (X[:, :0], 2, ValueError, r"with no empty spatial axis, got shape \(1, 0, 4, 1\)"),
        (X[0, 0], 2, ValueError, r"x must be \(N, L, C\), .* got shape \(4, 1\)"),
        (X.astype(int), 2, TypeError, r"x must be floating, got int64"),
    ],
)
def test_bad_input_is_named(op, x, output_size, error, message):
    with pytest.raises(error, match=f"{op.__name__}: .*{message}"):
        op(x, output_size=output_size)


def test_bad_cotangents_and_winners_are_named():
    dy, winner = jnp.ones((1, 2, 2, 1)), jnp.zeros((1, 2, 2, 1), jnp.uint8)
    with pytest.raises(ValueError, match=r"adaptive_avg_pool_backward: dy must have shape \(1, 2, 2, 1\) for in_shape"):
        adaptive_avg_pool_backward(X, in_shape=X.shape, output_size=2)
    with pytest.raises(TypeError, match=r"adaptive_avg_pool_backward: dy must be floating"):
        adaptive_avg_pool_backward(winner, in_shape=X.shape, output_size=2)
    backward = partial(adaptive_max_pool_backward, in_shape=X.shape, output_size=2)
    with pytest.raises(ValueError, match=r'adaptive_max_pool: ties must be "first" or "split", got'):
        adaptive_max_pool(X, output_size=2, ties="last")
    with pytest.raises(ValueError, match=r"adaptive_max_pool_backward: winner must have shape \(1, 2, 2, 1\), got"):
        backward(winner[:, :1], dy)
    with pytest.raises(TypeError, match=r"adaptive_max_pool_backward: winner must hold integers, got float64"):
        backward(dy, dy)
    with pytest.raises(TypeError, match=r"winner must be what forward returned with ties='split', got ArrayImpl"):
        backward(winner, dy, ties="split")

"""ops/softmax.py against jax.nn, jax.vjp of it, finite differences, and where exp overflows or a class is masked."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_vjp

from handgrad.ops.softmax import (
    log_softmax,
    log_softmax_backward,
    log_softmax_forward,
    softmax,
    softmax_backward,
    softmax_forward,
)

OPS = {
    "softmax": (softmax, softmax_forward, softmax_backward),
    "log_softmax": (log_softmax, log_softmax_forward, log_softmax_backward),
}
every_op = pytest.mark.parametrize("name", OPS)
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-15)


def parts(name, axis=-1):
    return [partial(part, axis=axis) for part in OPS[name]]


@cache
def by_hand(name, axis=-1):
    """The output, and the hand-derived gradient, as one function of x and dy."""
    _, forward, backward = parts(name, axis)

    def run(x, dy):
        y, residual = forward(x)
        return y, backward(residual, dy)

    return jax.jit(run)


@cache
def oracle(name, axis=-1):
    def run(x, dy):
        y, vjp = jax.vjp(partial(getattr(jax.nn, name), axis=axis), x)
        return y, vjp(dy)[0]

    return jax.jit(run)


def normal(seed, shape=(3, 4, 5)):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def assert_same(name, x, dy, axis=-1):
    jax.tree.map(close, by_hand(name, axis)(x, dy), oracle(name, axis)(x, dy))


@every_op
@settings(max_examples=15, derandomize=True, deadline=None)
@given(axis=st.sampled_from([0, 1, -1]), scale=st.floats(0, 50), seed=st.integers(0, 99))
def test_matches_jax_vjp(name, axis, scale, seed):
    assert_same(name, scale * normal(seed), normal(seed + 1), axis)


@every_op
def test_plain_formula_matches_jax(name):
    close(jax.jit(parts(name)[0])(normal(0)), getattr(jax.nn, name)(normal(0)))
    expected = oracle(name)(normal(0), normal(1))[1]
    close(jax.jit(lambda x, dy: jax.vjp(parts(name)[0], x)[1](dy)[0])(normal(0), normal(1)), expected)


@every_op
def test_matches_finite_differences(name):
    op, forward, backward = parts(name, 1)

    def forward_and_backward(x):
        y, residual = forward(x)
        return y, lambda dy: (backward(residual, dy),)

    check_vjp(op, forward_and_backward, (normal(2),), atol=1e-7, rtol=1e-7)


@every_op
def test_second_order_matches_jax(name):
    primals, tangents = (normal(3), normal(4)), (normal(5), normal(6))
    jax.tree.map(close, jax.jvp(by_hand(name), primals, tangents), jax.jvp(oracle(name), primals, tangents))


@every_op
def test_vmap_is_a_loop(name):
    jax.tree.map(close, jax.vmap(by_hand(name))(normal(7), normal(8)), by_hand(name)(normal(7), normal(8)))


CORNERS = {
    "huge": [[1e4, -1e4, 1e4], [1e308, -1e308, 0.0]],
    "masked class": [[0.0, -np.inf, 1.0], [-np.inf, -np.inf, 2.0]],
    "all masked": [[-np.inf, -np.inf]],
    "infinite": [[np.inf, 0.0]],
    "nan": [[np.nan, 0.0]],
    "one class": [[3.0], [-np.inf]],
}


@every_op
@pytest.mark.parametrize("corner", CORNERS)
def test_corners_match_jax(name, corner):
    x = jnp.asarray(CORNERS[corner])
    assert_same(name, x, normal(9, x.shape))


@every_op
def test_a_masked_class_stays_finite(name):
    x = jnp.array([[0.0, -jnp.inf, 1.0]])
    y, dx = by_hand(name)(x, jnp.array([[1.0, 0.0, 2.0]]))
    assert jnp.exp(y)[0, 1] == 0 if name == "log_softmax" else y[0, 1] == 0
    assert jnp.isfinite(dx).all() and dx[0, 1] == 0


@every_op
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_dtype_is_kept(name, dtype):
    x, dy = normal(10).astype(dtype), normal(11).astype(dtype)
    y, dx = by_hand(name)(x, dy)
    assert y.dtype == dx.dtype == dtype
    exact_y, exact_dx = by_hand(name)(x.astype(jnp.float64), dy.astype(jnp.float64))
    roundings = 8 if dtype == jnp.float32 else 0.6  # half a unit: narrow dtypes are rounded once, at the end
    np.testing.assert_allclose(y.astype(jnp.float64), exact_y, rtol=roundings * float(jnp.finfo(dtype).eps))
    np.testing.assert_allclose(dx.astype(jnp.float64), exact_dx, atol=8 * float(jnp.finfo(dtype).eps))


@every_op
def test_sums_run_in_float32(name):
    x = jnp.zeros((1, 4096), jnp.bfloat16)  # a bfloat16 sum of ones would stop at 256
    y, dx = by_hand(name)(x, jnp.ones_like(x))
    expected = 1 / 4096 if name == "softmax" else -np.log(4096)
    np.testing.assert_allclose(y.astype(jnp.float64), expected, rtol=4e-3)
    np.testing.assert_allclose(dx.astype(jnp.float64), 0, atol=0.02)  # e^y of a y near -8 in bfloat16


@every_op
def test_bad_input_is_named(name):
    op = OPS[name][0]
    with pytest.raises(TypeError, match=f"^{name}: x must be floating, got int32"):
        op(jnp.ones((2, 3), jnp.int32))
    with pytest.raises(ValueError, match=f"^{name}: axis must be an axis of x, got axis 2 for x of shape"):
        op(jnp.ones((2, 3)), axis=2)
    with pytest.raises(ValueError, match=f"^{name}: axis -1 must hold at least one class"):
        op(jnp.ones((2, 0)))

"""ops/activations.py against jax.vjp of formulas written in another way, and at the places where they bend or break."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_vjp

from handgrad.ops import activations as ops

inf, nan = np.inf, np.nan
CORNERS = np.array([0.0, -0.0, nan, inf, -inf, 800.0, -800.0, 1e-300, -1e-300, 30.0, -30.0])


class Case(NamedTuple):
    op: Callable
    forward: Callable
    backward: Callable
    reference: Callable


def case(name, reference, **arguments):
    op, forward, backward = (partial(getattr(ops, name + part), **arguments) for part in ("", "_forward", "_backward"))
    return pytest.param(Case(op, forward, backward, reference), id=f"{name}{arguments or ''}")


CASES = [
    case("relu", lambda x: jax.lax.max(x, jnp.zeros_like(x))),
    case("leaky_relu", lambda x: jax.nn.leaky_relu(x)),
    case("leaky_relu", lambda x: jax.nn.leaky_relu(x, 0.3), negative_slope=0.3),
    case("tanh", lambda x: (1 - jnp.exp(-2 * x)) / (1 + jnp.exp(-2 * x))),
    case("sigmoid", lambda x: 1 / (1 + jnp.exp(-x))),
]
every_case = pytest.mark.parametrize("case", CASES)
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-15)


@cache
def by_hand(case):
    """The hand-derived gradient as one function of x and dy."""
    return jax.jit(lambda x, dy: case.backward(case.forward(x)[1], dy))


@cache
def automatic(op):
    return jax.jit(lambda x, dy: jax.vjp(op, x)[1](dy)[0])


def normal(seed, shape=(3, 4, 5)):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


@every_case
def test_matches_an_independent_formula(case):
    x, dy = normal(0), normal(1)
    close(jax.jit(case.op)(x), case.reference(x))
    close(jax.jit(case.forward)(x)[0], case.reference(x))
    close(by_hand(case)(x, dy), automatic(case.reference)(x, dy))


@every_case
@settings(max_examples=15, derandomize=True, deadline=None)
@given(values=st.lists(st.floats(-40, 40), min_size=4, max_size=4))
def test_matches_jax_vjp_at_any_size(case, values):
    x, dy = jnp.asarray(values), normal(2, (4,))
    close(by_hand(case)(x, dy), automatic(case.op)(x, dy))  # atol: 1 - y, of a y rounded in another way, near 1


@every_case
def test_corners_match_jax_vjp(case):
    x, dy = jnp.asarray(CORNERS), normal(3, CORNERS.shape)
    np.testing.assert_array_equal(case.forward(x)[0], case.op(x))
    close(by_hand(case)(x, dy), automatic(case.op)(x, dy))


@every_case
def test_matches_finite_differences(case):
    def forward_and_backward(x):
        y, residual = case.forward(x)
        return y, lambda dy: (case.backward(residual, dy),)

    x = normal(4)
    x = x + jnp.sign(x) * 0.01  # further from the kink than the step
    check_vjp(case.op, forward_and_backward, (x,), atol=1e-7, rtol=1e-7)


@every_case
def test_second_order_matches_jax(case):
    primals, tangents = (normal(5), normal(6)), (normal(7), normal(8))
    expected = jax.jvp(automatic(case.op), primals, tangents)
    jax.tree.map(close, jax.jvp(by_hand(case), primals, tangents), expected)


@every_case
def test_vmap_is_a_loop(case):
    x, dy = normal(9), normal(10)
    np.testing.assert_array_equal(jax.vmap(by_hand(case))(x, dy), by_hand(case)(x, dy))


@every_case
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_dtype_is_kept(case, dtype):
    x, dy = normal(11).astype(dtype), normal(12).astype(dtype)
    y, residual = jax.jit(case.forward)(x)
    dx = jax.jit(case.backward)(residual, dy)
    assert y.dtype == dx.dtype == dtype
    exact = by_hand(case)(x.astype(jnp.float64), dy.astype(jnp.float64))
    np.testing.assert_allclose(dx.astype(jnp.float64), exact, atol=8 * float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("name, slope", [("relu", 0.0), ("leaky_relu", 0.01)])
def test_slope_at_zero_is_the_lower_one(name, slope):
    forward, backward = getattr(ops, f"{name}_forward"), getattr(ops, f"{name}_backward")
    _, residual = forward(jnp.array([0.0, -0.0]))
    np.testing.assert_array_equal(backward(residual, jnp.array([2.0, 3.0])), [2 * slope, 3 * slope])


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "sigmoid"])
def test_nan_passes_forward(name):
    assert jnp.isnan(getattr(ops, name)(jnp.array([nan])))[0]


def test_relu_of_nan_sends_dy_back():
    _, live = ops.relu_forward(jnp.array([nan]))
    assert ops.relu_backward(live, jnp.array([3.0]))[0] == 3


def test_tanh_keeps_the_digits_of_its_slope_near_one():
    y = jnp.array([0.999, -0.99999, 0.9999999], jnp.float32)
    exact = 1 - np.square(np.asarray(y, np.float64))
    np.testing.assert_allclose(ops.tanh_backward(y, jnp.ones(3, jnp.float32)), exact, rtol=3e-7)


def test_relu_keeps_one_byte_an_element():
    assert ops.relu_forward(jnp.ones((2, 3)))[1].dtype == jnp.bool_


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "sigmoid"])
def test_integers_are_refused(name):
    with pytest.raises(TypeError, match=f"{name}: x must be floating, got int32"):
        getattr(ops, name)(jnp.ones(3, jnp.int32))


@pytest.mark.parametrize("slope", [0.25, np.float64(0.25), jnp.float32(0.25)], ids=["number", "numpy", "array"])
def test_leaky_relu_keeps_half_precision_of_numpy_arrays_and_slopes(slope):
    x: Any = np.array([-4.0, 2.0], jnp.bfloat16)
    y, live = ops.leaky_relu_forward(x, negative_slope=slope)
    dx = ops.leaky_relu_backward(live, x, negative_slope=slope)
    assert y.dtype == dx.dtype == jnp.bfloat16 and y.tolist() == dx.tolist() == [-1.0, 2.0]

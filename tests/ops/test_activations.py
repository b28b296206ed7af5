"""ops/activations.py and smooth_activations.py against formulas written in another way, and where they bend."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handgrad import ops

inf, nan = np.inf, np.nan
CORNERS = np.array([0.0, -0.0, nan, inf, -inf, 800.0, -800.0, 1e-300, -1e-300, 1e300, -1e300, 30.0, -30.0, -3, 3, 6])
MISUSED: Any = ops  # for calls that the type checker would refuse


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
    case("relu6", lambda x: jnp.clip(x, 0, 6)),
    case("hard_sigmoid", lambda x: jnp.clip(x + 3, 0, 6) / 6),
    case("hard_sigmoid", lambda x: jnp.clip(0.2 * x + 0.4, 0, 1), alpha=0.2, beta=0.4),
    case("hardswish", lambda x: x * jnp.clip(x + 3, 0, 6) / 6),
    case("tanh", lambda x: (1 - jnp.exp(-2 * x)) / (1 + jnp.exp(-2 * x))),
    case("sigmoid", lambda x: 1 / (1 + jnp.exp(-x))),
    case("softplus", lambda x: jnp.log(1 + jnp.exp(x))),
    case("elu", lambda x: jnp.where(x > 0, x, jnp.exp(x) - 1)),
    case("elu", lambda x: jnp.where(x > 0, x, 0.3 * (jnp.exp(x) - 1)), alpha=0.3),
    case("selu", lambda x: jax.nn.selu(x)),
    case("silu", lambda x: x / (1 + jnp.exp(-x))),
    case("gelu", lambda x: x * jax.scipy.stats.norm.cdf(x)),
    case("gelu", lambda x: jax.nn.gelu(x, approximate=True), approximate=True),
]
NAMES = sorted({str(case.id).split("{")[0] for case in CASES})
every_case = pytest.mark.parametrize("case", CASES)
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-15)


def by_hand(case, x, dy):
    """The output, and the gradient by hand."""
    y, residual = case.forward(x)
    return y, case.backward(residual, dy)


def automatic(op, x, dy):
    y, vjp = jax.vjp(op, x)
    return y, *vjp(dy)


@cache
def three_ways(case):
    """By hand, by jax.vjp of the plain op, and by jax.vjp of the other formula, compiled once for a case."""
    ways = partial(by_hand, case), partial(automatic, case.op), partial(automatic, case.reference)
    return jax.jit(lambda x, dy: [way(x, dy) for way in ways])


def normal(seed, shape=CORNERS.shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def slope(name, x, **settings):
    """The gradient by hand for a dy of one."""
    x, (forward, backward) = jnp.asarray(x), (getattr(ops, f"{name}_{way}") for way in ("forward", "backward"))
    return backward(forward(x, **settings)[1], jnp.ones_like(x), **settings)


@every_case
def test_matches_an_independent_formula(case):
    for seed in range(3):
        hand, plain, other = three_ways(case)(normal(seed), normal(seed + 10))
        jax.tree.map(close, hand, other)
        jax.tree.map(close, plain, other)


@every_case
@settings(max_examples=15, derandomize=True, deadline=None)
@given(values=st.lists(st.floats(-40, 40), min_size=CORNERS.size, max_size=CORNERS.size))
def test_matches_jax_vjp_at_any_size(case, values):
    hand, plain, _ = three_ways(case)(jnp.asarray(values), normal(2))
    jax.tree.map(close, hand, plain)  # atol: 1 - y, of a y rounded in another way, near 1


@every_case
def test_corners_match_jax_vjp(case):
    (y, dx), (plain_y, plain_dx), _ = three_ways(case)(jnp.asarray(CORNERS), normal(3))
    np.testing.assert_array_equal(y, plain_y)
    close(dx, plain_dx)


@every_case
def test_matches_finite_differences(case):
    x, dy = normal(4), normal(5)
    x = x + jnp.sign(x) * 0.01  # further from the kink than the step
    ((_, dx), *_), step = three_ways(case)(x, dy), 1e-6
    (high, *_), (low, *_) = (three_ways(case)(x + sign * step, dy)[0] for sign in (1, -1))
    np.testing.assert_allclose(dx, dy * (high - low) / (2 * step), rtol=1e-7, atol=1e-8)


@every_case
def test_second_order_matches_jax(case):
    @jax.jit
    def both(primals, tangents):
        return [jax.jvp(way, primals, tangents) for way in (partial(by_hand, case), partial(automatic, case.op))]

    for x in (normal(5), jnp.where(jnp.isfinite(CORNERS), CORNERS, 1.0)):
        hand, plain = both((x, normal(6)), (normal(7), normal(8)))
        jax.tree.map(close, hand, plain)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(hand))


@every_case
def test_vmap_and_scan_are_a_loop(case):
    x, dy = normal(9, (2, 16)), normal(10, (2, 16))

    @jax.jit
    def both(x, dy):
        run = partial(by_hand, case)
        return jax.vmap(run)(x, dy), jax.lax.scan(lambda carry, row: (carry, run(*row)), 0, (x, dy))[1]

    one_by_one = [three_ways(case)(*row)[0] for row in zip(x, dy, strict=True)]
    for got in both(x, dy):
        jax.tree.map(lambda g, *rows: close(g, jnp.stack(rows)), got, *one_by_one)


@every_case
def test_dtype_is_kept_and_its_largest_numbers_have_finite_gradients(case):
    narrow = [jnp.dtype(dtype) for dtype in (jnp.float32, jnp.bfloat16, jnp.float16)]
    run = jax.jit(lambda pairs: [by_hand(case, *pair) for pair in pairs])
    x, dy = normal(11), normal(12)
    ends = [jnp.array([jnp.finfo(dtype).max, jnp.finfo(dtype).min, -inf], jnp.float64) for dtype in narrow]
    pairs = [(x.at[:3].set(end).astype(dtype), dy.astype(dtype)) for end, dtype in zip(ends, narrow, strict=True)]
    for (x, dy), dtype, (y, dx) in zip(pairs, narrow, run(pairs), strict=True):
        assert y.dtype == dx.dtype == dtype
        assert jnp.isfinite(dx).all() and not jnp.isnan(y).any()
        exact_y, exact_dx = three_ways(case)(x.astype(jnp.float64), dy.astype(jnp.float64))[0]
        close = partial(np.testing.assert_allclose, rtol=0, atol=8 * float(jnp.finfo(dtype).eps))
        close(y.astype(jnp.float64)[3:], exact_y[3:])
        close(dx.astype(jnp.float64), exact_dx)


@pytest.mark.parametrize(
    "name, settings, x, expected",
    [
        ("relu", {}, 0.0, 0.0),
        ("leaky_relu", {}, 0.0, 0.01),
        ("relu6", {}, [0.0, 6.0], [0, 0]),
        ("hard_sigmoid", {}, [-3.0, 3.0], [0, 0]),
        ("hard_sigmoid", {"alpha": 0.2}, [-2.5, 2.5], [0, 0]),
        ("hardswish", {}, [-3.0, 3.0], [0, 1]),
        ("elu", {"alpha": 0.3}, 0.0, 0.3),
        ("selu", {}, 0.0, 1.0507009873554805 * 1.6732632423543772),
    ],
)
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_slope_at_a_kink(name, settings, x, expected, dtype):
    for zero in (1, -1):
        got = slope(name, jnp.asarray(x, dtype) * (zero if x == 0.0 else 1), **settings)
        np.testing.assert_allclose(got, expected, rtol=1e-6 if dtype == jnp.float32 else 1e-15)


LIMITS = [  # op, settings, y and slope at -inf, at inf
    ("relu6", {}, (0, 0), (6, 0)),
    ("hard_sigmoid", {}, (0, 0), (1, 0)),
    ("hardswish", {}, (0, 0), (inf, 1)),
    ("softplus", {}, (0, 0), (inf, 1)),
    ("elu", {"alpha": 0.3}, (-0.3, 0), (inf, 1)),
    ("selu", {}, (-1.7580993408473766, 0), (inf, 1.0507009873554805)),
    ("silu", {}, (0, 0), (inf, 1)),
    ("gelu", {}, (0, 0), (inf, 1)),
    ("gelu", {"approximate": True}, (0, 0), (inf, 1)),
]


@pytest.mark.parametrize("name, settings, left, right", LIMITS)
def test_at_infinity_y_and_slope_are_the_limits(name, settings, left, right):
    x = jnp.array([-inf, inf])
    close(getattr(ops, name)(x, **settings), [left[0], right[0]])
    close(slope(name, x, **settings), [left[1], right[1]])


@pytest.mark.parametrize("name", NAMES)
def test_nan_passes_forward(name):
    assert jnp.isnan(getattr(ops, name)(jnp.array([nan])))[0]


@pytest.mark.parametrize("name, expected", [("relu", 1), ("relu6", 1), ("elu", 1), ("silu", nan), ("gelu", nan)])
def test_nan_backward(name, expected):
    np.testing.assert_array_equal(slope(name, [nan]), [expected])


def test_small_numbers_keep_their_digits():
    x = jnp.array([-1e-10, 1e-10, -1e-200])
    close(ops.elu(x), x, atol=0, rtol=1e-9)
    tail = jnp.array([-30.0, -36.0])  # e^x, and the tail of the normal law by its asymptotic series
    close(ops.softplus(tail), np.exp(tail), atol=0)
    close(slope("softplus", tail), np.exp(tail), atol=0)
    close(ops.silu(tail), tail * np.exp(tail), atol=0)
    law = -np.exp(-np.square(tail) / 2) / np.sqrt(2 * np.pi)
    close(ops.gelu(tail), law * (1 - 1 / np.square(tail)), atol=0, rtol=1e-5)


def test_tanh_keeps_the_digits_of_its_slope_near_one():
    y = jnp.array([0.999, -0.99999, 0.9999999], jnp.float32)
    exact = 1 - np.square(np.asarray(y, np.float64))
    np.testing.assert_allclose(ops.tanh_backward(y, jnp.ones(3, jnp.float32)), exact, rtol=3e-7)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "relu6", "hard_sigmoid"])
def test_pieces_keep_one_byte_an_element(name):
    assert getattr(ops, f"{name}_forward")(jnp.ones((2, 3)))[1].dtype == jnp.bool_


@pytest.mark.parametrize("name", NAMES)
def test_integers_are_refused(name):
    with pytest.raises(TypeError, match=f"{name}: x must be floating, got int32"):
        getattr(ops, name)(jnp.ones(3, jnp.int32))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda x: ops.elu(x, alpha=-0.1), ValueError, "elu: alpha must not be negative, got -0.1"),
        (lambda x: ops.hard_sigmoid(x, alpha=0.0), ValueError, "hard_sigmoid: alpha, the slope, must be above 0, got"),
        (lambda x: MISUSED.gelu(x, approximate="tanh"), TypeError, "gelu: approximate must be True .* got 'tanh'"),
        (lambda x: MISUSED.gelu_backward(x, x, approximate=1), TypeError, "gelu: approximate must be True .* got 1"),
    ],
)
def test_bad_settings_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.ones(3))


@pytest.mark.parametrize("number", [0.25, np.float64(0.25), jnp.float32(0.25)], ids=["number", "numpy", "array"])
@pytest.mark.parametrize(
    "name, setting", [("leaky_relu", "negative_slope"), ("elu", "alpha"), ("hard_sigmoid", "alpha")]
)
def test_settings_of_any_type_keep_half_precision_of_numpy_arrays(name, setting, number):
    x: Any = np.array([-4.0, 2.0], jnp.bfloat16)
    y, residual = getattr(ops, f"{name}_forward")(x, **{setting: number})
    dx = getattr(ops, f"{name}_backward")(residual, x, **{setting: number})
    assert y.dtype == dx.dtype == jnp.bfloat16
    if name == "leaky_relu":
        assert y.tolist() == dx.tolist() == [-1.0, 2.0]


def test_alpha_may_be_traced():
    x = normal(13)
    got = jax.jit(jax.vmap(lambda alpha: ops.elu(x, alpha=alpha)))(jnp.array([0.5, 2.0]))
    close(got, jnp.stack([ops.elu(x, alpha=0.5), ops.elu(x, alpha=2.0)]))

"""ops/prelu.py against jax.vjp of the plain op and another formula, and at zero, NaN and infinity."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.ops.prelu import prelu, prelu_backward, prelu_forward

CASES = [  # shapes of x and of the slope
    pytest.param((2, 4, 5, 3), (3,), id="channels"),
    pytest.param((2, 4, 5, 3), (1,), id="shared"),
    pytest.param((2, 4, 5, 3), (), id="scalar"),
    pytest.param((3, 4), (4,), id="rank-2"),
    pytest.param((1, 2, 3, 2, 1), (1,), id="one-example-one-channel-3-D"),
    pytest.param((4,), (), id="rank-1"),
    pytest.param((), (), id="rank-0"),
]
every_case = pytest.mark.parametrize("x_shape, slope_shape", CASES)
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13)


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def by_hand(x, slope, dy):
    y, x = prelu_forward(x, slope)
    return y, *prelu_backward(x, slope, dy)


def automatic(x, slope, dy):
    y, vjp = jax.vjp(prelu, x, slope)
    return y, *vjp(dy)


def another(x, slope, dy):
    """max(x, 0) + a min(x, 0), and its gradients."""
    y, vjp = jax.vjp(lambda x, a: jnp.maximum(x, 0) + jnp.broadcast_to(a, x.shape) * jnp.minimum(x, 0), x, slope)
    return y, *vjp(dy)


@every_case
def test_matches_jax_vjp(x_shape, slope_shape):
    arrays = normal(0, x_shape), normal(1, slope_shape), normal(2, x_shape)
    got, *expected = jax.jit(lambda *arrays: (by_hand(*arrays), automatic(*arrays), another(*arrays)))(*arrays)
    for want in expected:
        jax.tree.map(close, got, want)


@every_case
def test_second_order_matches_jax(x_shape, slope_shape):
    primals = normal(3, x_shape), normal(4, slope_shape), normal(5, x_shape)
    tangents = normal(6, x_shape), normal(7, slope_shape), normal(8, x_shape)

    @jax.jit
    def both(primals, tangents):
        return [jax.jvp(run, primals, tangents) for run in (by_hand, automatic)]

    jax.tree.map(close, *both(primals, tangents))


@pytest.mark.parametrize("axes", [(0, None, 0), (None, 0, None), (0, 0, 0)], ids=["data", "slopes", "both"])
@pytest.mark.parametrize("slope_shape", [(3,), ()])
def test_vmap_and_scan_are_a_loop(axes, slope_shape):
    members = normal(9, (2, 4, 5, 3)), normal(10, (2, *slope_shape)), normal(11, (2, 4, 5, 3))
    arrays = [a if axis == 0 else a[0] for a, axis in zip(members, axes, strict=True)]
    got = jax.jit(jax.vmap(by_hand, axes))(*arrays)
    one = [[a[i] if axis == 0 else a for a, axis in zip(arrays, axes, strict=True)] for i in range(2)]
    jax.tree.map(lambda g, *rows: close(g, jnp.stack(rows)), got, *(jax.jit(by_hand)(*row) for row in one))
    if axes == (0, 0, 0):
        scanned = jax.jit(lambda arrays: jax.lax.scan(lambda c, row: (c, by_hand(*row)), 0, arrays)[1])(members)
        jax.tree.map(close, scanned, got)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_dtype_is_kept_and_the_slope_is_summed_in_float32(dtype):
    x, slope, dy = (a.astype(dtype) for a in (normal(12, (8, 64, 3)), normal(13, (3,)), normal(14, (8, 64, 3))))
    y, dx, dslope = jax.jit(by_hand)(x, slope, dy)
    assert y.dtype == dx.dtype == dslope.dtype == dtype
    exact = jax.jit(by_hand)(*(a.astype(jnp.float64) for a in (x, slope, dy)))
    for got, want in zip((y, dx, dslope), exact, strict=True):
        np.testing.assert_allclose(got.astype(jnp.float64), want, rtol=2 * float(jnp.finfo(dtype).eps), atol=1e-4)


def test_slope_at_zero_is_the_learned_one():
    dx, dslope = prelu_backward(jnp.array([0.0, -0.0]), jnp.array(0.3), jnp.array([2.0, 3.0]))
    close(dx, [0.6, 0.9])
    assert dslope == 0


def test_nan_and_inf_leave_the_slope_finite():
    x, slope, dy = jnp.array([jnp.nan, jnp.inf, -2.0]), jnp.array(0.5), jnp.ones(3)
    y, dx, dslope = by_hand(x, slope, dy)
    np.testing.assert_array_equal(y, [jnp.nan, jnp.inf, -1])
    np.testing.assert_array_equal(dx, [1, 1, 0.5])
    assert dslope == -2
    jax.tree.map(np.testing.assert_array_equal, (y, dx, dslope), automatic(x, slope, dy))
    assert prelu(jnp.array([-jnp.inf]), slope)[0] == -jnp.inf


@pytest.mark.parametrize(
    "x, slope, error, message",
    [
        (
            jnp.ones((2, 3)),
            jnp.ones(2),
            ValueError,
            r"slope must have shape \(\) or \(1,\) or \(3,\) for x \(2, 3\)",
        ),
        (jnp.ones((2, 3)), jnp.ones((2, 3)), ValueError, r"prelu: slope must have shape .* got \(2, 3\)"),
        (jnp.ones(()), jnp.ones(1), ValueError, r"prelu: slope must have shape .* for x \(\), got \(1,\)"),
        (jnp.ones((2, 3), int), jnp.ones(3), TypeError, "prelu: x must be floating, got int64"),
        (jnp.ones((2, 3)), jnp.ones(3, int), TypeError, "prelu: slope must be floating, got int64"),
    ],
)
def test_what_does_not_fit_is_named(x, slope, error, message):
    with pytest.raises(error, match=message):
        prelu(x, slope)

"""ops/dropout.py against jax.vjp of mask times x, and the agreement of training and test on average."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.ops.dropout import dropout, dropout_backward, dropout_forward, dropout_inference

SETTINGS = [
    pytest.param({"rate": rate, "inverted": inverted}, id=f"{rate}-{'inverted' if inverted else 'classic'}")
    for rate in (0.0, 0.3, 0.5)
    for inverted in (True, False)
]
every_setting = pytest.mark.parametrize("setting", SETTINGS)
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=0)


def normal(seed, shape=(3, 4, 5)):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def mask(seed=0, shape=(3, 4, 5), rate=0.3):
    return jax.random.bernoulli(jax.random.key(seed), 1 - rate, shape)


def reference(x, keep, rate, inverted):
    return x * keep.astype(x.dtype) / (1 - rate if inverted else 1)


def by_hand(setting):
    def run(x, keep, dy):
        y, residual = dropout_forward(x, keep, **setting)
        return y, dropout_backward(residual, dy, **setting)

    return jax.jit(run)


def automatic(setting):
    def run(x, keep, dy):
        y, vjp = jax.vjp(lambda x: reference(x, keep, **setting), x)
        return y, *vjp(dy)

    return jax.jit(run)


@every_setting
@pytest.mark.parametrize("mask_shape", [(3, 4, 5), (3, 1, 5)], ids=["elements", "channels"])
def test_matches_jax_vjp(setting, mask_shape):
    x, keep, dy = normal(0), mask(shape=mask_shape), normal(1)
    expected = automatic(setting)(x, keep, dy)
    jax.tree.map(close, by_hand(setting)(x, keep, dy), expected)
    close(dropout(x, keep, **setting), expected[0])


@every_setting
def test_second_order_and_vmap_match_jax(setting):
    x, keep, dy, tangents = normal(2), mask(), normal(3), (normal(4), normal(5))
    hand, auto = (
        jax.jvp(lambda x, dy, run=run: run(setting)(x, keep, dy), (x, dy), tangents) for run in (by_hand, automatic)
    )
    jax.tree.map(close, hand, auto)
    jax.tree.map(close, jax.vmap(by_hand(setting))(x, keep, dy), by_hand(setting)(x, keep, dy))


@every_setting
def test_training_agrees_with_test_on_average(setting):
    keep = mask(1, (200_000,), setting["rate"])
    trained = dropout(jnp.full(keep.shape, 3.0), keep, **setting).mean()
    np.testing.assert_allclose(trained, dropout_inference(jnp.array(3.0), **setting), rtol=0.01)


@every_setting
def test_inference_is_its_own_backward(setting):
    x, dy = normal(6), normal(7)
    y, vjp = jax.vjp(lambda x: dropout_inference(x, **setting), x)
    close(y, x if setting["inverted"] else x * (1 - setting["rate"]))
    close(dropout_inference(dy, **setting), *vjp(dy))


def test_a_dropped_nan_or_inf_is_zero_and_a_kept_one_stays():
    x = jnp.array([jnp.nan, jnp.inf, jnp.nan])
    y, keep = dropout_forward(x, jnp.array([False, False, True]), rate=0.5)
    np.testing.assert_array_equal(y, [0, 0, jnp.nan])
    np.testing.assert_array_equal(dropout_backward(keep, x, rate=0.5), [0, 0, jnp.nan])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@every_setting
def test_dtype_is_kept(setting, dtype):
    x, keep = normal(8).astype(dtype), mask()
    y, dx = by_hand(setting)(x, keep, x)
    assert y.dtype == dx.dtype == dropout_inference(x, **setting).dtype == dtype
    exact = reference(x.astype(jnp.float64), keep, **setting).astype(dtype)
    np.testing.assert_allclose(y.astype(jnp.float64), exact.astype(jnp.float64), rtol=float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("inverted", [True, False])
def test_rate_may_be_traced(inverted):
    x, keep, rates = normal(9).astype(jnp.float32), mask(), jnp.array([0.1, 0.5], jnp.float32)
    y = jax.jit(jax.vmap(lambda rate: dropout(x, keep, rate=rate, inverted=inverted)))(rates)
    for member, rate in zip(y, (0.1, 0.5), strict=True):
        np.testing.assert_allclose(member, dropout(x, keep, rate=rate, inverted=inverted), rtol=1e-6)


@pytest.mark.parametrize("rate", [1, 1.0, -0.1, float("nan")])
def test_rate_out_of_range_is_named(rate):
    with pytest.raises(ValueError, match=r"^dropout: rate, .*, must be at least 0 and below 1, got"):
        dropout(jnp.ones(3), jnp.ones(3, bool), rate=rate)
    with pytest.raises(ValueError, match=r"^dropout_inference: rate, .*, must be at least 0 and below 1, got"):
        dropout_inference(jnp.ones(3), rate=rate)


def test_bad_input_is_named():
    with pytest.raises(TypeError, match="^dropout: x must be floating, got int32"):
        dropout(jnp.ones(3, jnp.int32), jnp.ones(3, bool), rate=0.5)
    with pytest.raises(TypeError, match="^dropout_inference: x must be floating, got int32"):
        dropout_inference(jnp.ones(3, jnp.int32), rate=0.5)
    with pytest.raises(TypeError, match="^dropout: keep must be boolean .*, got float64"):
        dropout(jnp.ones(3), jnp.ones(3), rate=0.5)
    for shape in ((3,), (2, 2), (1, 1, 3)):
        with pytest.raises(ValueError, match=r"^dropout: keep must have the shape of x or 1 on an axis, got"):
            dropout(jnp.ones((2, 3)), jnp.ones(shape, bool), rate=0.5)

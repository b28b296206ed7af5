"""ops/batch_norm.py against jax.vjp of a formula with square roots, closed forms, and finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_vjp

from handgrad.ops.batch_norm import (
    batch_norm,
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    batch_norm_inference_backward,
    batch_norm_inference_forward,
)

close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13)
SHAPES = [(4, 3), (2, 5, 3), (3, 4, 2, 5), (2, 2, 3, 2, 4)]


def normal(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def inputs(shape, seed=0):
    """x with an offset in each channel, scale, bias, and a cotangent."""
    channels = shape[-1:]
    x = 3 * normal(seed, shape) + jnp.broadcast_to(normal(seed + 1, channels), shape)
    return x, normal(seed + 2, channels), normal(seed + 3, channels), normal(seed + 4, shape)


def reference(x, scale, bias, eps, mean=None, var=None):
    def one_channel(x, scale, bias, mean, var):
        mean = x.sum() / x.size if mean is None else mean
        var = ((x - mean) ** 2).sum() / x.size if var is None else var
        return scale * (x - mean) / jnp.sqrt(var + eps) + bias

    axes = (-1, 0, 0, None if mean is None else 0, None if var is None else 0)
    return jax.vmap(one_channel, axes, -1)(x, scale, bias, mean, var)


@jax.jit
def by_hand(x, scale, bias, dy, eps=1e-5):
    y, residuals = batch_norm_forward(x, scale, bias, eps=eps)
    return y, batch_norm_backward(residuals, scale, dy, eps=eps)


@jax.jit
def automatic(x, scale, bias, dy, eps=1e-5):
    y, vjp = jax.vjp(lambda x, scale, bias: reference(x, scale, bias, eps), x, scale, bias)
    return y, vjp(dy)


@settings(max_examples=15, derandomize=True, deadline=None)
@given(shape=st.sampled_from(SHAPES), eps=st.sampled_from([1e-5, 0.1]), seed=st.integers(0, 99))
def test_matches_jax_vjp(shape, eps, seed):
    arrays = inputs(shape, seed)
    jax.tree.map(close, by_hand(*arrays, eps=eps), automatic(*arrays, eps=eps))


def test_plain_op_matches_and_its_vjp_too():
    *arrays, dy = inputs((2, 5, 3))
    y, vjp = jax.vjp(jax.jit(batch_norm), *arrays)
    jax.tree.map(close, (y, vjp(dy)), automatic(*arrays, dy))


def test_output_has_the_scale_and_bias_as_statistics():
    x, scale, bias, _ = inputs((50, 4, 3))
    y = batch_norm(x, scale, bias, eps=0)
    close(y.mean((0, 1)), bias)
    close(y.std((0, 1)), jnp.abs(scale))


def test_residuals_hold_the_statistics():
    x, scale, bias, _ = inputs((3, 4, 2, 5))
    _, (kept, mean, var) = batch_norm_forward(x, scale, bias)
    assert kept is x
    close(mean, x.mean((0, 1, 2)))
    close(var, x.var((0, 1, 2)))


def test_matches_finite_differences():
    def forward_and_backward(x, scale, bias):
        y, residuals = batch_norm_forward(x, scale, bias, eps=0.1)
        return y, lambda dy: batch_norm_backward(residuals, scale, dy, eps=0.1)

    *arrays, _ = inputs((2, 5, 3))
    check_vjp(partial(batch_norm, eps=0.1), forward_and_backward, tuple(arrays), atol=1e-7, rtol=1e-7)


def test_second_order_matches_jax():
    primals, tangents = inputs((2, 5, 3), 5), inputs((2, 5, 3), 10)
    jax.tree.map(close, jax.jvp(by_hand, primals, tangents), jax.jvp(automatic, primals, tangents))


def test_vmap_is_a_loop():
    batches = tuple(jnp.stack(pair) for pair in zip(inputs((4, 3)), inputs((4, 3), 7), strict=True))
    looped = [by_hand(*(a[i] for a in batches)) for i in range(2)]
    jax.tree.map(lambda whole, *parts: close(whole, jnp.stack(parts)), jax.vmap(by_hand)(*batches), *looped)


def test_variance_keeps_its_digits_far_from_zero():
    x = jnp.array([[1e4 - 0.5], [1e4 + 0.5]], jnp.float32)  # mean of squares minus squared mean would lose all of them
    close(batch_norm(x, jnp.ones(1, jnp.float32), jnp.zeros(1, jnp.float32), eps=0), [[-1], [1]], rtol=1e-6)


@pytest.mark.parametrize("x", [jnp.ones((1, 2)) * 7, jnp.ones((3, 2)) * 7], ids=["one-place", "constant-channel"])
def test_without_variance_the_output_is_the_bias(x):
    scale, bias, dy = jnp.array([2.0, 3.0]), jnp.array([4.0, 5.0]), normal(0, x.shape)
    y, (dx, dscale, dbias) = by_hand(x, scale, bias, dy)
    close(y, jnp.broadcast_to(bias, x.shape))
    jax.tree.map(partial(close, atol=1e-9), (y, (dx, dscale, dbias)), automatic(x, scale, bias, dy))
    close(dscale, [0, 0])
    close(dbias, dy.sum(0))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("parameter_dtype", [jnp.float32, None], ids=["float32-parameters", "same-parameters"])
def test_dtypes_are_kept(dtype, parameter_dtype):
    parameter_dtype = parameter_dtype or dtype
    x, scale, bias, dy = inputs((40, 7, 3))
    x, dy, scale, bias = x.astype(dtype), dy.astype(dtype), scale.astype(parameter_dtype), bias.astype(parameter_dtype)
    y, residuals = jax.jit(batch_norm_forward)(x, scale, bias)
    dx, dscale, dbias = jax.jit(batch_norm_backward)(residuals, scale, dy)
    assert y.dtype == dx.dtype == dtype and dscale.dtype == dbias.dtype == parameter_dtype
    assert residuals[1].dtype == residuals[2].dtype == jnp.float32
    exact = by_hand(*(a.astype(jnp.float64) for a in (x, scale, bias, dy)))
    rtol = 8 * float(jnp.finfo(dtype).eps)
    for low, high in zip((y, dx, dscale, dbias), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(low.astype(jnp.float64), high, rtol=rtol, atol=rtol + 1e-5)


def test_sums_run_in_float32():
    x = jnp.tile(jnp.array([[1.0], [3.0]], jnp.bfloat16), (2048, 1))  # a bfloat16 sum would stop at 512 or so
    one = jnp.ones(1, jnp.bfloat16)
    _, (_, mean, var) = batch_norm_forward(x, one, one)
    _, _, dbias = batch_norm_backward((x, mean, var), one, jnp.ones_like(x))
    assert mean[0] == 2 and var[0] == 1 and dbias[0] == 4096


@jax.jit
def inference_by_hand(x, scale, bias, mean, var, dy, eps=1e-3):
    y, residuals = batch_norm_inference_forward(x, scale, bias, mean, var, eps=eps)
    return y, batch_norm_inference_backward(residuals, scale, dy, eps=eps)


@jax.jit
def inference_automatic(x, scale, bias, mean, var, dy, eps=1e-3):
    y, vjp = jax.vjp(lambda x, scale, bias: reference(x, scale, bias, eps, mean, var), x, scale, bias)
    return y, vjp(dy)


@pytest.mark.parametrize("shape", SHAPES)
def test_inference_matches_jax_vjp(shape):
    x, scale, bias, dy = inputs(shape)
    arrays = (x, scale, bias, normal(8, shape[-1:]), jnp.exp(normal(9, shape[-1:])), dy)
    jax.tree.map(close, inference_by_hand(*arrays), inference_automatic(*arrays))
    close(batch_norm_inference(*arrays[:5], eps=1e-3), inference_automatic(*arrays)[0])


def test_inference_second_order_matches_jax():
    x, scale, bias, dy = inputs((2, 5, 3))
    primals = (x, scale, bias, normal(8, (3,)), jnp.exp(normal(9, (3,))), dy)
    tangents = jax.tree.map(jnp.sin, primals)
    jax.tree.map(close, jax.jvp(inference_by_hand, primals, tangents), jax.jvp(inference_automatic, primals, tangents))


def test_inference_on_the_batch_statistics_is_training():
    x, scale, bias, _ = inputs((3, 4, 2, 5))
    y, (_, mean, var) = batch_norm_forward(x, scale, bias)
    close(batch_norm_inference(x, scale, bias, mean, var), y)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_inference_keeps_dtypes(dtype):
    x, scale, bias, dy = (a.astype(dtype) for a in inputs((6, 3)))
    mean, var = jnp.zeros(3, jnp.float32), jnp.ones(3, jnp.float32)
    y, (dx, dscale, dbias) = inference_by_hand(x, scale, bias, mean, var, dy)
    assert {a.dtype for a in (y, dx, dscale, dbias)} == {jnp.dtype(dtype)}


def test_bad_input_is_named():
    x, c = jnp.ones((2, 3)), jnp.ones(3)
    for bad, match in [
        (
            (jnp.ones(3), c, c),
            r"^batch_norm: x must be \(..., channels\) of rank 2 or more and not empty, got shape \(3,\)",
        ),
        ((jnp.ones((0, 3)), c, c), r"^batch_norm: x must be .* not empty, got shape \(0, 3\)"),
        ((x, jnp.ones(2), c), r"^batch_norm: scale must have shape \(3,\) to match x \(2, 3\), got \(2,\)"),
        ((x, c, jnp.ones((1, 3))), r"^batch_norm: bias must have shape \(3,\) to match x \(2, 3\), got \(1, 3\)"),
    ]:
        with pytest.raises(ValueError, match=match):
            batch_norm(*bad)
    with pytest.raises(ValueError, match="^batch_norm: eps must not be negative, got -1"):
        batch_norm(x, c, c, eps=-1)
    with pytest.raises(TypeError, match="^batch_norm: x must be floating, got int32"):
        batch_norm(jnp.ones((2, 3), jnp.int32), c, c)
    with pytest.raises(ValueError, match=r"^batch_norm_inference: var must have shape \(3,\)"):
        batch_norm_inference(x, c, c, c, jnp.ones(1))

"""Batch norm over masked batches: against jax.vjp of a formula in weights, Flax, and the valid part alone."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import bridge, ops

close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13)
MASKS = {  # by their shape, for x (4, 3, 2, 5)
    "examples": np.array([True, True, False, True]),
    "places": np.arange(24).reshape(4, 3, 2) % 5 != 1,
    "rows of all examples": np.array([True, False, True]).reshape(1, 3, 1),
    "weights": np.array([1.0, 0.0, 1.0, 1.0]),
    "ints": np.array([1, 0, 0, 1]),
    "one place": np.arange(24).reshape(4, 3, 2) == 5,
    "all": np.ones(4, bool),
}
every_mask = pytest.mark.parametrize("mask", [pytest.param(jnp.asarray(m), id=name) for name, m in MASKS.items()])


def inputs(seed=0, shape=(4, 3, 2, 5)):
    random = np.random.default_rng(seed)
    x = 3 * random.normal(size=shape) + random.normal(size=shape[-1])
    return tuple(jnp.asarray(a) for a in (x, *random.normal(size=(2, shape[-1])), random.normal(size=shape)))


def by_hand(x, scale, bias, dy, mask):
    y, backward = ops.vjp("batch_norm", x, scale, bias, mask, eps=0.1)
    return y, backward(dy)[:3]


def automatic(x, scale, bias, dy, mask):
    w = jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (4 - mask.ndim)), x.shape).astype(x.dtype)

    def formula(x, scale, bias):
        axes, spread = (0, 1, 2), lambda c: jnp.broadcast_to(c, x.shape)
        mean = spread((w * x).sum(axes) / w.sum(axes))
        var = spread((w * (x - mean) ** 2).sum(axes) / w.sum(axes))
        return spread(scale) * (x - mean) / jnp.sqrt(var + 0.1) + spread(bias)

    y, vjp = jax.vjp(formula, x, scale, bias)
    return y, vjp(dy)


@every_mask
def test_matches_jax_vjp(mask):
    jax.tree.map(close, jax.jit(by_hand)(*inputs(), mask), jax.jit(automatic)(*inputs(), mask))


def test_second_order_matches_jax():
    mask, primals, tangents = jnp.asarray(MASKS["places"]), inputs(1), inputs(2)
    got, want = (jax.jit(partial(jax.jvp, partial(run, mask=mask)))(primals, tangents) for run in (by_hand, automatic))
    jax.tree.map(close, got, want)


def test_vmap_over_masks_is_a_loop():
    masks = jnp.stack([jnp.asarray(MASKS["examples"]), jnp.asarray(MASKS["all"])])
    run = jax.jit(partial(by_hand, *inputs()))
    looped = [run(mask) for mask in masks]
    whole = jax.vmap(run)(masks)
    jax.tree.map(lambda whole, *parts: close(whole, jnp.stack(parts)), whole, *looped)


def test_a_mask_of_ones_is_no_mask():
    x, scale, bias, dy = inputs()
    y, backward = ops.vjp("batch_norm", x, scale, bias, eps=0.1)
    jax.tree.map(close, by_hand(x, scale, bias, dy, jnp.ones(4, bool)), (y, backward(dy)))


def test_statistics_are_those_of_the_valid_part_and_all_places_are_normalised():
    x, scale, bias, _ = inputs()
    mask = MASKS["examples"]
    y, (_, mean, var) = ops.batch_norm_forward(x, scale, bias, mask)
    want, (_, *statistics) = ops.batch_norm_forward(x[mask], scale, bias)
    jax.tree.map(close, (y[mask], [mean, var]), (want, statistics))
    close(y, ops.batch_norm_inference(x, scale, bias, *statistics))


def test_masked_examples_whose_dy_is_zero_count_in_nothing():
    x, scale, bias, dy = inputs()
    mask = jnp.asarray(MASKS["examples"])
    dy = jnp.where(mask[:, None, None, None], dy, 0)
    y, (dx, *dparams) = by_hand(x, scale, bias, dy, mask)
    want, backward = ops.vjp("batch_norm", x[mask], scale, bias, eps=0.1)
    want_dx, *want_dparams = backward(dy[mask])
    jax.tree.map(close, (y[mask], dx[mask], dparams), (want, want_dx, want_dparams))
    assert not dx[~mask].any()
    other = by_hand(x.at[2].set(1e6), scale, bias, dy, mask)  # whatever the padding holds
    jax.tree.map(partial(close, rtol=1e-10), (other[1][1:], other[1][0][mask]), (tuple(dparams), dx[mask]))


def test_a_masked_place_has_the_direct_term_alone():
    x, scale, bias, dy = inputs()
    _, (dx, *_) = by_hand(x, scale, bias, dy, jnp.asarray(MASKS["examples"]))
    var = x[MASKS["examples"]].var((0, 1, 2))
    close(dx[2], dy[2] * jnp.broadcast_to(scale / jnp.sqrt(var + 0.1), dy[2].shape))


def test_matches_flax():
    x, scale, bias, dy = inputs()
    mask = jnp.asarray(MASKS["places"])
    norm = nn.BatchNorm(use_running_average=False, epsilon=0.1, dtype=jnp.float64, use_fast_variance=False)
    statistics = {"mean": jnp.zeros(5), "var": jnp.ones(5)}

    def theirs(x, scale, bias):
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": statistics}
        with jax.numpy_dtype_promotion("standard"):  # Flax mixes dtypes inside
            return norm.apply(variables, x, mask=mask[..., None], mutable=["batch_stats"])[0]

    y, vjp = jax.vjp(theirs, x, scale, bias)
    jax.tree.map(partial(close, rtol=1e-10), by_hand(x, scale, bias, dy, mask), (y, vjp(dy)))


@pytest.mark.parametrize("kind", ["examples", "ints", "weights"])
def test_a_mask_has_the_gradient_that_jax_gives_it(kind):
    x, scale, bias, dy = inputs()
    mask = jnp.asarray(MASKS[kind])
    got = ops.vjp("batch_norm", x, scale, bias, mask)[1](dy)
    want = jax.vjp(ops.batch_norm, x, scale, bias, mask)[1](dy)
    assert len(got) == 4 and got[3].dtype == want[3].dtype and got[3].shape == want[3].shape
    assert got[3].dtype == jax.dtypes.float0 or not got[3].any()
    bridged = jax.grad(lambda x: (bridge.batch_norm(x, scale, bias, mask) * dy).sum())(x)
    close(bridged, got[0])


def test_a_mask_that_counts_nothing_is_an_error_or_nan():
    x, scale, bias, dy = inputs()
    for nothing in (np.zeros(4, bool), np.zeros((4, 3, 2))):
        with pytest.raises(ValueError, match="^batch_norm: mask counts no place at all"):
            ops.batch_norm(x, scale, bias, nothing)
    y, (dx, dscale, _) = jax.jit(by_hand)(x, scale, bias, dy, jnp.zeros(4, bool))
    assert jnp.isnan(y).all() and jnp.isnan(dx).all() and jnp.isnan(dscale).all()


def test_bad_masks_are_named():
    x, scale, bias, _ = inputs()
    for shape in [(3,), (4, 3), (4, 3, 3), (4, 3, 2, 5), ()]:
        with pytest.raises(ValueError, match=r"^batch_norm: mask must be \(4,\) or \(4, 3, 2\), or 1 .*, got \("):
            ops.batch_norm(x, scale, bias, jnp.ones(shape, bool))
    with pytest.raises(TypeError, match="^batch_norm: mask must be booleans or real numbers, got complex128"):
        ops.batch_norm(x, scale, bias, jnp.ones(4, complex))
    with pytest.raises(ValueError, match="^batch_norm_backward: mask must be"):
        ops.batch_norm_backward((x, scale, scale), scale, x, jnp.ones(3, bool))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_dtypes_count_in_float32(dtype):
    x = jnp.tile(jnp.array([[1.0], [3.0], [100.0]], dtype), (2048, 1))  # 4096 valid: a bfloat16 count would stop at 256
    one, mask = jnp.ones(1, dtype), jnp.tile(jnp.array([True, True, False]), 2048)
    y, (_, mean, var) = jax.jit(ops.batch_norm_forward)(x, one, one, mask)
    assert y.dtype == dtype and mean.tolist() == [2] and var.tolist() == [1]

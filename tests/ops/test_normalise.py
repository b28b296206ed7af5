"""What layer, group and instance norm all promise, in one table: against jax.vjp of the plain op, and at the edges."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_vjp

from handgrad import ops

close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13)
CASES = [  # op, its settings, the shape of x, the axes of x as (N, P.., G, C/G) that make a set
    pytest.param("layer_norm", (), (5,), (-1,), id="layer-rank-1"),
    pytest.param("layer_norm", (), (2, 3, 2, 4), (-1,), id="layer"),
    pytest.param("group_norm", (("num_groups", 2),), (3, 4), (-1,), id="group-rank-2"),
    pytest.param("group_norm", (("num_groups", 2),), (2, 3, 2, 4), (1, 2, 4), id="group"),
    pytest.param("group_norm", (("num_groups", 1),), (2, 5, 3), (1, 3), id="one-group"),
    pytest.param("instance_norm", (), (1, 3, 2, 2, 2), (1, 2, 3, 5), id="instance-batch-of-one"),
    pytest.param("instance_norm", (), (2, 3, 1), (1, 3), id="instance-one-channel"),
]
every_norm = pytest.mark.parametrize("name, settings, shape, axes", CASES)
one_of_each = pytest.mark.parametrize(
    "name, settings, shape, axes", [case for case in CASES if case.id in ("layer", "group", "instance-batch-of-one")]
)


def inputs(shape, seed=0):
    """x with an offset in each channel, scale, bias, and a cotangent."""
    random = np.random.default_rng(seed)
    x = 3 * random.normal(size=shape) + random.normal(size=shape[-1])
    return tuple(jnp.asarray(a) for a in (x, *random.normal(size=(2, shape[-1])), random.normal(size=shape)))


def groups_of(name, settings, shape):
    return {"layer_norm": 1, "instance_norm": shape[-1]}.get(name) or dict(settings)["num_groups"]


@cache
def by_hand(name, settings, eps=1e-5):
    def run(x, scale, bias, dy):
        y, backward = ops.vjp(name, x, scale, bias, eps=eps, **dict(settings))
        return y, backward(dy)

    return jax.jit(run)


@cache
def automatic(name, settings, eps=1e-5):
    def run(x, scale, bias, dy):
        op = partial(getattr(ops, name), eps=eps, **dict(settings))
        y, vjp = jax.vjp(op, x, scale, bias)
        return y, vjp(dy)

    return jax.jit(run)


@every_norm
@pytest.mark.parametrize("eps", [1e-5, 0.1, 0.0])
def test_matches_jax_vjp(name, settings, shape, axes, eps):
    if eps == 0.0 and shape == (3, 4):
        pytest.skip("two numbers a set are 1 and -1 for any x: without eps dx is exactly 0")
    arrays = inputs(shape)
    jax.tree.map(close, by_hand(name, settings, eps)(*arrays), automatic(name, settings, eps)(*arrays))


@every_norm
def test_output_has_mean_0_and_variance_1_in_each_set(name, settings, shape, axes):
    x, *_ = inputs(shape)
    y = by_hand(name, settings, 0.0)(x, jnp.ones(shape[-1]), jnp.zeros(shape[-1]), x)[0]
    groups = y.reshape(*shape[:-1], groups_of(name, settings, shape), -1)
    close(groups.mean(axes), 0, atol=1e-12)
    close(groups.var(axes), 1)


@every_norm
def test_without_eps_the_gradient_is_orthogonal_to_ones_and_to_the_output(name, settings, shape, axes):
    x, scale, bias, dy = inputs(shape)
    one, zero = jnp.ones_like(scale), jnp.zeros_like(scale)
    y, (dx, *_) = by_hand(name, settings, 0.0)(x, one, zero, dy)
    for numbers in (dx, dx * y):
        close(numbers.reshape(*shape[:-1], groups_of(name, settings, shape), -1).sum(axes), 0, atol=1e-11)


@one_of_each
def test_matches_finite_differences(name, settings, shape, axes):
    *arrays, _ = inputs(shape)
    op = jax.jit(partial(getattr(ops, name), eps=0.1, **dict(settings)))

    def forward_and_backward(*arrays):
        return op(*arrays), lambda dy: by_hand(name, settings, 0.1)(*arrays, dy)[1]

    check_vjp(op, forward_and_backward, tuple(arrays), atol=1e-7, rtol=1e-7)


@one_of_each
def test_second_order_matches_jax(name, settings, shape, axes):
    primals, tangents = inputs(shape, 5), inputs(shape, 10)

    def both(run):
        return jax.jit(lambda p, t: (jax.jvp(run, p, t), jax.grad(lambda p: (run(*p)[1][0] ** 2).sum())(p)))

    got, want = (both(make(name, settings))(primals, tangents) for make in (by_hand, automatic))
    jax.tree.map(partial(close, rtol=1e-10, atol=1e-10), got, want)  # derivatives of long sums that nearly cancel


@one_of_each
def test_vmap_over_data_over_params_and_over_both_is_a_loop(name, settings, shape, axes):
    one, other = inputs(shape), inputs(shape, 7)
    run = by_hand(name, settings)
    for axis in ((0, None, None, 0), (None, 0, 0, None), (0, 0, 0, 0)):
        pairs = [jnp.stack([a, b]) if i == 0 else a for a, b, i in zip(one, other, axis, strict=True)]
        looped = [
            run(*(a if i == 0 else c for a, c, i in zip(arrays, one, axis, strict=True))) for arrays in (one, other)
        ]
        jax.tree.map(
            lambda whole, *parts: close(whole, jnp.stack(parts)), jax.jit(jax.vmap(run, axis))(*pairs), *looped
        )


@every_norm
def test_a_constant_gives_the_bias(name, settings, shape, axes):
    _, scale, bias, dy = inputs(shape)
    x = jnp.full(shape, 0.1)  # whose mean is not exactly 0.1 again
    y, (dx, dscale, dbias) = by_hand(name, settings)(x, scale, bias, dy)
    close(y, jnp.broadcast_to(bias, shape), atol=1e-12)
    close(dscale, 0, atol=1e-11)
    want = automatic(name, settings)(x, scale, bias, dy)
    jax.tree.map(partial(close, atol=1e-9), (y, (dx, dscale, dbias)), want)  # r is 316 here
    assert jnp.isnan(by_hand(name, settings, 0.0)(jnp.zeros(shape), scale, bias, dy)[0]).all()


@one_of_each
def test_small_differences_far_from_zero_keep_their_digits(name, settings, shape, axes):
    sizes = (2, 4, 4, 4)  # every set has as many of either kind
    near = jnp.asarray((np.indices(sizes).sum(0) % 2 - 0.5), jnp.float32)
    one, zero = jnp.ones(4, jnp.float32), jnp.zeros(4, jnp.float32)
    y, (dx, *_) = by_hand(name, settings, 0.0)(near + 1e4, one, zero, jnp.sin(near))
    np.testing.assert_allclose(y, 2 * near, rtol=1e-6)  # mean of squares minus squared mean would lose all digits
    np.testing.assert_allclose(dx, by_hand(name, settings, 0.0)(near, one, zero, jnp.sin(near))[1][0], atol=1e-6)


@one_of_each
@pytest.mark.parametrize(
    "dtype, parameter_dtype",
    [("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float16", "float32")],
)
def test_dtypes_are_kept_and_narrow_ones_rounded_once(name, settings, shape, axes, dtype, parameter_dtype):
    x, scale, bias, dy = inputs(shape)
    arrays = (x.astype(dtype), scale.astype(parameter_dtype), bias.astype(parameter_dtype), dy.astype(dtype))
    y, (dx, dscale, dbias) = by_hand(name, settings)(*arrays)
    assert y.dtype == dx.dtype == dtype and dscale.dtype == dbias.dtype == parameter_dtype
    exact = by_hand(name, settings)(*(a.astype(jnp.float64) for a in arrays))
    rtol = 8 * float(jnp.finfo(dtype).eps)
    for low, high in zip((y, dx, dscale, dbias), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(low.astype(jnp.float64), high, rtol=rtol, atol=rtol + 1e-5)


def test_statistics_and_sums_run_in_float32():
    x = jnp.tile(jnp.array([1.0, 3.0], jnp.bfloat16), 2048)  # a bfloat16 sum would stop at 512 or so
    one, zero = jnp.ones(4096, jnp.bfloat16), jnp.zeros(4096, jnp.bfloat16)
    _, (_, mean, var) = jax.jit(ops.layer_norm_forward)(x, one, zero)
    assert mean[0] == 2 and var[0] == 1 and mean.dtype == jnp.float32
    _, (_, mean, var) = jax.jit(partial(ops.group_norm_forward, num_groups=1))(x[None], one, zero)
    assert mean[0, 0] == 2 and var[0, 0] == 1 and var.dtype == jnp.float32
    x = x.reshape(1, 4096, 1)
    y, (_, _, dbias) = by_hand("instance_norm", (), 0.0)(x, one[:1], zero[:1], jnp.ones_like(x))
    assert y[0, :2, 0].tolist() == [-1, 1] and dbias.tolist() == [4096]


@one_of_each
def test_numpy_arrays_and_an_empty_batch_are_taken(name, settings, shape, axes):
    arrays = inputs(shape)
    run = partial(ops.vjp, name, **dict(settings))
    y, backward = run(*map(np.asarray, arrays[:3]))
    jax.tree.map(close, (y, backward(np.asarray(arrays[3]))), by_hand(name, settings)(*arrays))
    if len(shape) > 1:
        x = jnp.ones((0, *shape[1:]))
        y, backward = run(x, *arrays[1:3])
        dx, dscale, dbias = backward(y)
        assert y.shape == dx.shape == x.shape and not dscale.any() and not dbias.any()


@every_norm
def test_nan_stays_in_its_set(name, settings, shape, axes):
    x, scale, bias, dy = inputs(shape)
    y, (dx, dscale, _) = by_hand(name, settings)(x.at[(0,) * x.ndim].set(jnp.nan), scale, bias, dy)
    clean = by_hand(name, settings)(x, scale, bias, dy)
    spread = np.zeros((*shape[:-1], groups_of(name, settings, shape), shape[-1] // groups_of(name, settings, shape)))
    ours = tuple(slice(None) if a in {b % spread.ndim for b in axes} else 0 for a in range(spread.ndim))
    spread[ours] = 1
    bad = spread.reshape(shape) == 1
    for got, want in ((y, clean[0]), (dx, clean[1][0])):
        assert jnp.isnan(got[bad]).all()
        close(got[~bad], want[~bad])
    assert jnp.isnan(dscale[0])

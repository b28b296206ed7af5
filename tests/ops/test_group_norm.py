"""ops/group_norm.py: on paper, how the norms relate, errors. `test_normalise.py` has what all norms promise."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import ops

close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13)
MISUSED: Any = ops.group_norm  # for calls that the type checker would refuse


def vjp(name, *arrays, dy, **settings):
    def run(arrays, dy):
        y, backward = ops.vjp(name, *arrays, **settings)
        return y, backward(dy)

    return jax.jit(run)(arrays, dy)


def test_by_hand_on_paper():
    x = jnp.array([[[-1.0, 9.0], [1.0, 13.0]]])  # two groups of one channel: means 0 and 11, variances 1 and 4
    scale, bias, dy = jnp.array([2.0, 3.0]), jnp.array([5.0, 7.0]), jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    y, (dx, dscale, dbias) = vjp("group_norm", x, scale, bias, dy=dy, num_groups=2, eps=0.0)
    close(y, [[[3.0, 4.0], [7.0, 10.0]]])
    close(dx, jnp.zeros_like(x), atol=1e-12)  # two numbers of a set are always -1 and 1
    close(dscale, [-1.0, 1.0])
    close(dbias, [1.0, 1.0])


def test_neighbouring_channels_make_a_group():
    x = jnp.array([[0.0, 2.0, 100.0, 300.0]])
    close(ops.group_norm(x, jnp.ones(4), jnp.zeros(4), num_groups=2, eps=0.0), [[-1, 1, -1, 1]])


def test_as_many_groups_as_channels_is_instance_norm_and_batch_norm_of_one_example():
    arrays = [jnp.asarray(np.random.default_rng(i).normal(size=s)) for i, s in enumerate([(1, 3, 4, 5), (5,), (5,)])]
    dy = jnp.cos(arrays[0])
    want = vjp("batch_norm", *arrays, dy=dy)
    jax.tree.map(close, vjp("instance_norm", *arrays, dy=dy), want)
    jax.tree.map(close, vjp("group_norm", *arrays, dy=dy, num_groups=5), want)


def test_one_group_at_rank_2_is_layer_norm():
    arrays = [jnp.asarray(np.random.default_rng(i).normal(size=s)) for i, s in enumerate([(3, 5), (5,), (5,)])]
    dy = jnp.cos(arrays[0])
    jax.tree.map(close, vjp("group_norm", *arrays, dy=dy, num_groups=1), vjp("layer_norm", *arrays, dy=dy))


def test_examples_do_not_meet():
    arrays = [jnp.asarray(np.random.default_rng(i).normal(size=s)) for i, s in enumerate([(2, 3, 4), (4,), (4,)])]
    dx = vjp("group_norm", *arrays, dy=jnp.cos(arrays[0]).at[1].set(0.0), num_groups=2)[1][0]
    assert dx[0].all() and not dx[1].any()


def test_one_number_a_group_gives_the_bias_and_no_gradient():
    x, scale, bias = jnp.array([[3.0, 7.0]]), jnp.array([2.0, 3.0]), jnp.array([5.0, 6.0])
    y, (dx, dscale, dbias) = vjp("group_norm", x, scale, bias, dy=x, num_groups=2)
    assert y.tolist() == [[5.0, 6.0]] and not dx.any() and not dscale.any() and dbias.tolist() == [3.0, 7.0]


def test_residuals_hold_the_statistics_of_each_channels_group():
    x = jnp.arange(24.0).reshape(2, 3, 4) ** 2
    _, (kept, mean, var) = ops.group_norm_forward(x, jnp.ones(4), jnp.zeros(4), num_groups=2)
    groups = x.reshape(2, 3, 2, 2)
    assert kept is x
    close(mean, jnp.repeat(groups.mean((1, 3)), 2, 1)[:, None])
    close(var, jnp.repeat(groups.var((1, 3)), 2, 1)[:, None])


@pytest.mark.parametrize("op", [ops.group_norm, ops.group_norm_forward])
def test_bad_input_is_named(op):
    x, c, name = jnp.ones((2, 3, 4)), jnp.ones(4), op.__name__
    with pytest.raises(ValueError, match=rf"^{name}: num_groups must divide the 4 channels, got 3"):
        op(x, c, c, num_groups=3)
    with pytest.raises(ValueError, match=rf"^{name}: num_groups must divide the 4 channels, got 0"):
        op(x, c, c, num_groups=0)
    with pytest.raises(TypeError, match=rf"^{name}: num_groups must be an int, got 2.0"):
        op(x, c, c, num_groups=2.0)
    with pytest.raises(ValueError, match=rf"^{name}: x must be \(N, \*spatial, channels\), each .* got shape \(4,\)"):
        op(jnp.ones(4), c, c, num_groups=2)
    with pytest.raises(ValueError, match=rf"^{name}: x must be .* each example not empty, got shape \(2, 0, 4\)"):
        op(jnp.ones((2, 0, 4)), c, c, num_groups=2)
    with pytest.raises(ValueError, match=rf"^{name}: bias must have shape \(4,\) to match x \(2, 3, 4\), got \(3,\)"):
        op(x, c, jnp.ones(3), num_groups=2)
    with pytest.raises(ValueError, match=f"^{name}: eps must not be negative, got -0.1"):
        op(x, c, c, num_groups=2, eps=-0.1)
    with pytest.raises(TypeError, match=f"^{name}: x must be floating, got int32"):
        op(jnp.ones((2, 3, 4), jnp.int32), c, c, num_groups=2)
    with pytest.raises(TypeError, match="num_groups"):
        MISUSED(x, c, c)


@pytest.mark.parametrize("op", [ops.instance_norm, ops.instance_norm_forward])
@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 1, 1, 4)])
def test_instance_norm_wants_more_than_one_place(op, shape):
    with pytest.raises(ValueError, match=rf"^{op.__name__}: x must be .* more than one place, got shape \({shape[0]},"):
        op(jnp.ones(shape), jnp.ones(4), jnp.ones(4))

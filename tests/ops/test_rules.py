"""ops/rules.py: masks, keywords and errors of the one call; test_op_contract.py has every op."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import bridge, ops

pytestmark = pytest.mark.core


def draw(shapes):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def test_a_mask_has_a_gradient_of_float0():
    x, keep = jnp.ones((2, 3)), jnp.array([[True, False, True]] * 2)
    y, backward = ops.vjp("dropout", x, keep, rate=0.5)
    dx, dkeep = backward(y)
    assert dkeep.dtype == jax.dtypes.float0 and dkeep.shape == keep.shape
    np.testing.assert_array_equal(dx, jax.grad(lambda x: (bridge.dropout(x, keep, rate=0.5) ** 2).sum() / 2)(x))


def test_winners_have_a_gradient_of_float0():
    settings: dict[str, Any] = {"window": 3, "strides": 2}
    x, dy = draw([(2, 5, 6, 2)] * 2)
    pooled, winner = ops.max_pool_forward(x, **settings)
    dx, dwinner = ops.vjp("max_unpool", pooled, winner, output_size=(5, 6), **settings)[1](dy)
    assert dwinner.dtype == jax.dtypes.float0 and dwinner.shape == winner.shape

    def product(op):
        return lambda pooled: (op(pooled, winner, output_size=(5, 6), **settings) * dy).sum()

    for op in (ops.max_unpool, bridge.max_unpool):
        np.testing.assert_allclose(dx, jax.grad(product(op))(pooled), rtol=1e-12)


def test_arrays_may_be_given_by_keyword():
    x, kernel, bias = draw([(2, 4), (4, 3), (3,)])
    y, backward = ops.vjp("dense", x, kernel, bias=bias)
    assert len(backward(y)) == 3


def test_unknown_names_are_listed():
    with pytest.raises(ValueError, match="no op is named 'convolution'; there are adaptive_avg_pool, .*add, .*conv"):
        ops.vjp("convolution", jnp.ones(1))
    with pytest.raises(TypeError, match="conv: .*unexpected keyword argument 'stride'; its arguments are .*strides"):
        ops.vjp("conv", jnp.ones((1, 4, 1)), jnp.ones((3, 1, 1)), stride=2)


def test_a_bridged_op_has_reverse_mode_only():
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(bridge.relu, (jnp.ones(2),), (jnp.ones(2),))

"""ops/rules.py: every op through the one call, against jax.vjp of the op's plain formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import bridge, ops

pytestmark = pytest.mark.core
IMAGE, KERNEL = (2, 5, 6, 2), (3, 3, 2, 3)
CALLS = [  # op, shapes of the arrays, settings
    pytest.param("conv", [IMAGE, KERNEL, (3,)], {"strides": 2}, id="conv"),
    pytest.param("conv", [IMAGE, KERNEL], {"padding": "VALID"}, id="conv-without-bias"),
    pytest.param("dense", [(2, 4), (4, 3), (3,)], {}, id="dense"),
    pytest.param("dense", [(2, 4), (4, 3)], {}, id="dense-without-bias"),
    pytest.param("max_pool", [IMAGE], {"window": 3, "strides": 2}, id="max_pool"),
    pytest.param("max_pool", [IMAGE], {"window": 2, "dilation": 2, "strides": 1, "ties": "split"}, id="max_pool-split"),
    pytest.param("avg_pool", [IMAGE], {"window": 3, "strides": 2, "padding": "SAME"}, id="avg_pool"),
    pytest.param("avg_pool", [IMAGE], {"window": 2, "dilation": 2, "strides": 1}, id="avg_pool-dilated"),
    pytest.param("global_avg_pool", [IMAGE], {}, id="global_avg_pool"),
    pytest.param("global_max_pool", [IMAGE], {}, id="global_max_pool"),
    pytest.param("adaptive_avg_pool", [IMAGE], {"output_size": (3, 4)}, id="adaptive_avg_pool"),
    pytest.param("adaptive_max_pool", [IMAGE], {"output_size": (3, 4)}, id="adaptive_max_pool"),
    pytest.param("relu", [IMAGE], {}, id="relu"),
    pytest.param("leaky_relu", [IMAGE], {"negative_slope": 0.2}, id="leaky_relu"),
    pytest.param("relu6", [IMAGE], {}, id="relu6"),
    pytest.param("hard_sigmoid", [IMAGE], {"alpha": 0.2}, id="hard_sigmoid"),
    pytest.param("hardswish", [IMAGE], {}, id="hardswish"),
    pytest.param("prelu", [IMAGE, (2,)], {}, id="prelu"),
    pytest.param("tanh", [IMAGE], {}, id="tanh"),
    pytest.param("sigmoid", [IMAGE], {}, id="sigmoid"),
    pytest.param("softplus", [IMAGE], {}, id="softplus"),
    pytest.param("elu", [IMAGE], {"alpha": 0.5}, id="elu"),
    pytest.param("selu", [IMAGE], {}, id="selu"),
    pytest.param("silu", [IMAGE], {}, id="silu"),
    pytest.param("gelu", [IMAGE], {"approximate": True}, id="gelu"),
    pytest.param("softmax", [(3, 4)], {"axis": 0}, id="softmax"),
    pytest.param("log_softmax", [(3, 4)], {}, id="log_softmax"),
    pytest.param("batch_norm", [IMAGE, (2,), (2,)], {"eps": 1e-3}, id="batch_norm"),
    pytest.param("layer_norm", [IMAGE, (2,), (2,)], {"eps": 1e-3}, id="layer_norm"),
    pytest.param("group_norm", [(2, 5, 6), (6,), (6,)], {"num_groups": 3}, id="group_norm"),
    pytest.param("instance_norm", [IMAGE, (2,), (2,)], {"eps": 1e-3}, id="instance_norm"),
    pytest.param("local_response_norm", [(2, 3, 6)], {"size": 4, "alpha": 0.3}, id="local_response_norm"),
]


def draw(shapes):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def assert_close(got, want):
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name, shapes, settings", CALLS)
def test_vjp_is_the_plain_ops(name, shapes, settings):
    def by_hand(arrays, dy):
        y, backward = ops.vjp(name, *arrays, **settings)
        return [y, *backward(dy)]

    def automatic(arrays, dy):
        y, vjp = jax.vjp(lambda *arrays: getattr(ops, name)(*arrays, **settings), *arrays)
        return [y, *vjp(dy)]

    arrays = draw(shapes)
    y = jax.eval_shape(lambda *arrays: getattr(ops, name)(*arrays, **settings), *arrays)
    dy = jax.random.normal(jax.random.key(1), y.shape)
    assert_close(jax.jit(by_hand)(arrays, dy), jax.jit(automatic)(arrays, dy))


@pytest.mark.parametrize("name, shapes, settings", CALLS)
def test_bridged_op_has_the_same_gradient_under_jax_grad(name, shapes, settings):
    def gradient(op):
        everything = tuple(range(len(shapes)))
        return jax.jit(jax.grad(lambda *arrays: (op(*arrays, **settings) ** 2).sum(), everything))

    arrays = draw(shapes)
    assert_close(gradient(getattr(bridge, name))(*arrays), gradient(getattr(ops, name))(*arrays))


def test_every_rule_is_tested_and_bridged():
    assert {case.values[0] for case in CALLS} | {"dropout", "max_unpool"} == set(ops.RULES)
    assert all(callable(getattr(bridge, name)) for name in ops.RULES)


def test_a_mask_has_a_gradient_of_float0():
    x, keep = jnp.ones((2, 3)), jnp.array([[True, False, True]] * 2)
    y, backward = ops.vjp("dropout", x, keep, rate=0.5)
    dx, dkeep = backward(y)
    assert dkeep.dtype == jax.dtypes.float0 and dkeep.shape == keep.shape
    np.testing.assert_array_equal(dx, jax.grad(lambda x: (bridge.dropout(x, keep, rate=0.5) ** 2).sum() / 2)(x))


def test_winners_have_a_gradient_of_float0():
    settings = {"window": 3, "strides": 2}
    x, (winner, dy) = draw([IMAGE])[0], (ops.max_pool_forward(draw([IMAGE])[0], **settings)[1], draw([IMAGE])[0])
    pooled = ops.max_pool(x, **settings)
    y, backward = ops.vjp("max_unpool", pooled, winner, output_size=IMAGE[1:3], **settings)
    dx, dwinner = backward(dy)
    assert dwinner.dtype == jax.dtypes.float0 and dwinner.shape == winner.shape

    def product(op):
        return lambda pooled: (op(pooled, winner, output_size=IMAGE[1:3], **settings) * dy).sum()

    for op in (ops.max_unpool, bridge.max_unpool):
        assert_close([dx], [jax.grad(product(op))(pooled)])


def test_arrays_may_be_given_by_keyword():
    x, kernel, bias = draw([(2, 4), (4, 3), (3,)])
    y, backward = ops.vjp("dense", x, kernel, bias=bias)
    assert len(backward(y)) == 3


def test_unknown_names_are_listed():
    with pytest.raises(ValueError, match="no op is named 'convolution'; there are avg_pool, batch_norm, conv"):
        ops.vjp("convolution", jnp.ones(1))
    with pytest.raises(TypeError, match="conv: .*unexpected keyword argument 'stride'; its arguments are .*strides"):
        ops.vjp("conv", jnp.ones((1, 4, 1)), jnp.ones((3, 1, 1)), stride=2)


def test_a_bridged_op_has_reverse_mode_only():
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(bridge.relu, (jnp.ones(2),), (jnp.ones(2),))

"""bridge.py: hand-written layers under jax.grad, alone and inside a Flax module."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

MISUSED: Any = hg  # for calls that the type checker would refuse

NET = hg.Chain(hg.Conv(3, 3), hg.BatchNorm(), hg.Relu(), hg.MaxPool(2), hg.Flatten(), hg.Dropout(0.4), hg.Dense(2))
KEY = jax.random.key(2)


def close(got, want):
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-13), got, want)


def test_every_op_has_a_bridge():
    assert set(hg.bridge.__all__) == {*hg.ops.RULES, "layer"}


def test_a_net_under_jax_grad_has_the_gradient_of_its_formula():
    params, state = NET.init(jax.random.key(0), (6, 4, 1), jnp.float64)
    x = jax.random.normal(jax.random.key(1), (3, 6, 4, 1))

    def gradient(run):
        def loss(params, x):
            y, new_state = run(params, x, state, KEY)
            return (y**3).sum(), new_state

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)

    close(gradient(hg.bridge.layer(NET)), gradient(NET.apply_train))


def test_a_swapped_rule_is_used():
    class Straight(hg.Relu):
        def backward(self, params, residuals, dy):
            return dy, {}

    run = hg.bridge.layer(Straight())
    assert jax.grad(lambda x: run({}, x)[0].sum())(jnp.array([-1.0, 1.0])).tolist() == [1.0, 1.0]


def test_the_first_derivative_goes_backward_and_any_may_follow():
    net, x = hg.Chain(hg.Dense(3), hg.Tanh(), hg.Dense(1)), jnp.linspace(-1, 1, 8).reshape(2, 4)
    params = net.init(jax.random.key(0), (4,), jnp.float64)[0]

    def bridged(x):
        return hg.bridge.layer(net)(params, x)[0].sum()

    close(jax.hessian(bridged)(x), jax.hessian(lambda x: net.apply(params, x).sum())(x))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(bridged, (x,), (x,))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jacrev(jax.jacfwd(bridged))(x)


def test_under_vmap_and_scan():
    run, x = hg.bridge.layer(hg.Chain(hg.Dense(2), hg.Tanh())), jnp.linspace(0, 1, 12).reshape(3, 2, 2)
    params = hg.Chain(hg.Dense(2), hg.Tanh()).init(jax.random.key(0), (2,), jnp.float64)[0]
    gradient = jax.grad(lambda params, x: run(params, x)[0].sum())
    one_by_one = [gradient(params, row) for row in x]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)
    close(jax.vmap(gradient, (None, 0))(params, x), stacked)
    close(jax.lax.scan(lambda c, row: (c, gradient(params, row)), 0, x)[1], stacked)


class Theirs(nn.Module):
    """A Flax net whose pool and convolution may be replaced by the hand-written ones."""

    ours: bool

    @nn.compact
    def __call__(self, x):
        if self.ours:
            x = hg.bridge.layer(hg.Conv(4, 3))(
                self.param("Conv_0", lambda k: hg.Conv(4, 3).init(k, x.shape[1:], x.dtype)[0]), x
            )[0]
            x = hg.bridge.max_pool(hg.bridge.relu(x), window=3, strides=2)
        else:
            x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3), param_dtype=x.dtype)(x)), (3, 3), (2, 2))
        return nn.Dense(2, param_dtype=x.dtype)(x.reshape(x.shape[0], -1))


def test_inside_a_flax_module_the_gradients_are_flax_s():
    x = jax.random.normal(jax.random.key(1), (2, 7, 7, 1))
    params = Theirs(ours=False).init(jax.random.key(0), x)
    ours, theirs = (
        jax.jit(jax.grad(lambda p, module=module: jnp.square(jnp.asarray(module.apply(p, x))).sum()))(params)
        for module in (Theirs(ours=True), Theirs(ours=False))
    )
    close(ours, theirs)


def test_misuse_is_named():
    with pytest.raises(TypeError, match=r"bridge.layer: wants a layer, got the class Relu"):
        MISUSED.bridge.layer(hg.Relu)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: hg.bridge.layer(hg.Relu())({}, x)[0], (jnp.ones(2),), (jnp.ones(2),))

"""What a tap sees is what the chain rule says, by jax.vjp of each layer alone and of the whole net."""

from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest

import handgrad as hg
from handgrad.insight.leaves import backward_of, by_path, leaf_layers
from handgrad.insight.tap import opened
from handgrad.layers.container import Chain

LOSS = hg.SoftmaxCrossEntropy()


@dataclass(frozen=True, repr=False)
class Scale(hg.Layer):
    """No backward of its own."""

    def init(self, key, in_shape, dtype=jnp.float32):
        return {"scale": jnp.ones(in_shape[-1:], dtype)}, {}

    def apply(self, params: Any, x, state=()):
        return x * jnp.broadcast_to(params["scale"], x.shape)


class Whole(Chain):
    """A chain that is differentiated whole."""

    def forward(self, params, x, state=(), key=None):
        return hg.Layer.forward(self, params, x, state, key)

    backward = hg.Layer.backward


def every_container():
    return hg.Chain(
        hg.Conv(4, 3), hg.BatchNorm(), hg.Relu(),
        hg.Residual(hg.Chain(hg.Conv(4, 3), hg.Tanh(), hg.Dropout(0.5)), Scale()),
        hg.Parallel(hg.Conv(2, 1), hg.MaxPool(3, 1, padding="SAME"), join="concatenate"),
        hg.Flatten(), Whole(hg.Dense(5), hg.Relu()), hg.Dense(3),
    )  # fmt: skip


def case(net, in_shape=(5, 4, 2), batch=3):
    params, state = net.init(jax.random.key(0), in_shape, jnp.float64)
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(1), p.shape, p.dtype), params)
    x = jax.random.normal(jax.random.key(2), (batch, *in_shape), jnp.float64)
    return params, x, jnp.arange(batch) % 3, state, jax.random.key(3)


def test_the_gradient_is_that_of_value_and_grad_and_of_jax():
    net = every_container()
    objective, args = hg.Objective(net, LOSS, l2=0.1), case(net)
    found = jax.jit(opened(objective))(*args)
    (loss, aux), (grads, dx) = jax.value_and_grad(objective, (0, 1), has_aux=True)(*args)
    ours = (found.loss, found.aux, found.grads, found.dx)
    chex.assert_trees_all_close(ours, (loss, aux, grads, dx), rtol=1e-10, atol=1e-14)  # a bias before batch norm: 0
    chex.assert_trees_all_equal_structs(found.grads, args[0])


@pytest.mark.slow
def test_each_layer_saw_its_own_vjp():
    net = every_container()
    args = case(net)
    layers = opened(hg.Objective(net, LOSS))(*args).layers
    assert list(layers) == [path for path, _ in leaf_layers(net)]
    assert {"residual1/body/conv1", "residual1/shortcut", "parallel1/maxpool1", "chain1"} <= set(layers)
    for path, layer in leaf_layers(net):
        seen = layers[path]

        def output(params, x, layer=layer, seen=seen):
            return layer.apply_train(params, x, seen.state, seen.key)[0]

        y, vjp = jax.vjp(output, seen.params, seen.x)
        ours, theirs = jax.tree.leaves((seen.y, seen.dparams, seen.dx)), jax.tree.leaves((y, vjp(seen.dy)))
        chex.assert_trees_all_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_each_dy_is_the_gradient_where_the_layer_stands():
    """A probe added to the layer's output: the loss's automatic gradient in it is dy."""
    net = hg.Chain(hg.Dense(4), hg.Tanh(), hg.Dense(3))
    params, x, y, _, _ = case(net, (2,))
    layers = opened(hg.Objective(net, LOSS))(params, x, y).layers

    def loss(probe):
        h = jnp.tanh(net.layers[0].apply(params["dense1"], x) + probe)
        return LOSS(net.layers[2].apply(params["dense2"], h), y)

    chex.assert_trees_all_close(layers["dense1"].dy, jax.grad(loss)(jnp.zeros((3, 4))), rtol=1e-12)


@pytest.mark.parametrize("net", [hg.Dense(3), hg.Chain(hg.Dense(3)), hg.Dense(3, name="top")])
def test_a_net_of_one_layer(net):
    params, x, y, _, _ = case(net, (2,))
    found = opened(hg.Objective(net, LOSS))(params, x, y)
    chex.assert_trees_all_close(found.grads, jax.grad(hg.Objective(net, LOSS), has_aux=True)(params, x, y)[0])
    assert list(found.layers) == [leaf_layers(net)[0][0]]


def test_a_net_without_parameters():
    net = hg.Chain(hg.Relu(), hg.Flatten())
    for params in ({}, ()):
        found = opened(hg.Objective(net, LOSS))(params, jnp.ones((2, 3)), jnp.array([0, 1]))
        assert found.grads == params and list(found.layers) == ["relu1", "flatten1"]


def test_names_that_make_one_path_are_an_error():
    net = hg.Chain(hg.Relu(name="a/b"), hg.Chain(hg.Relu(name="b"), name="a"))
    with pytest.raises(ValueError, match="two layers have the path 'a/b'"):
        leaf_layers(net)


class Tied(Chain):
    """Keeps two layers alike: each gets the sum of both gradients."""

    total = staticmethod(jnp.add)

    def backward(self, params, residuals, dy):
        dx, dparams = super().backward(params, residuals, dy)
        total = jax.tree.map(self.total, *dparams.values())
        return dx, dict.fromkeys(dparams, total)


def test_a_container_that_adds_gradients_is_an_error_and_no_nonsense():
    net = Tied(hg.Dense(2), hg.Dense(2))
    params, x, y, _, _ = case(net, (2,))
    for total in (jnp.add, lambda a, b: a + b, lambda a, b: 0.5 * a):
        object.__setattr__(net, "total", total)
        with pytest.raises(
            TypeError, match="a container within Tied reckons with its layers' gradients.*derive it from hg.Layer"
        ):
            opened(hg.Objective(net, LOSS))(params, x, y % 2)


def test_who_has_a_backward_by_hand():
    assert [backward_of(layer) for layer in (hg.Relu(), Scale(), Scale().inference())] == [
        "by hand",
        "jax.vjp",
        "jax.vjp",
    ]


def test_by_path_gives_each_leaf_its_part():
    net = every_container()
    params, *_ = case(net)
    parts = by_path(net, params)
    assert parts["relu1"] == () and parts["residual1/body/conv1"] is params["residual1"]["body"]["conv1"]

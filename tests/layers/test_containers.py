"""Names, order, keys and errors of Chain, Residual and Parallel; map_layers and inference."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

MISUSED: Any = hg  # for calls that the type checker would refuse

pytestmark = pytest.mark.core
NET = hg.Chain(
    hg.Conv(2, 3, name="stem"),
    hg.Relu(),
    hg.Residual(hg.Chain(hg.Conv(2, 3), hg.Relu())),
    hg.Parallel(hg.MaxPool(2), hg.AvgPool(2), join="concatenate"),
    hg.Flatten(),
    hg.Dense(3),
)


def test_children_are_named_by_kind_and_count_or_by_name():
    assert [name for name, _ in NET.items()] == ["stem", "relu1", "residual1", "parallel1", "flatten1", "dense1"]
    assert [name for name, _ in hg.Chain(hg.Conv(1, 1), hg.Relu(), hg.Conv(1, 1)).items()] == [
        "conv1",
        "relu1",
        "conv2",
    ]


def test_layers_without_parameters_have_no_entry():
    params, state = NET.init(jax.random.key(0), (4, 4, 1))
    assert sorted(params) == ["dense1", "residual1", "stem"] and state == {}
    assert jax.tree.map(jnp.shape, params["residual1"]) == {"body": {"conv1": {"bias": (2,), "kernel": (3, 3, 2, 2)}}}


def test_the_same_layer_twice_is_two_sets_of_parameters():
    layer = hg.Dense(3)
    params, _ = hg.Chain(layer, layer).init(jax.random.key(0), (3,))
    assert not (params["dense1"]["kernel"] == params["dense2"]["kernel"]).any()


def test_child_i_gets_the_key_folded_with_i():
    net, key = hg.Chain(hg.Relu(), hg.Dropout(0.5)), jax.random.key(7)
    x = jnp.ones((2, 50))
    y = hg.Dropout(0.5).forward({}, x, key=jax.random.fold_in(key, 1))[0]
    np.testing.assert_array_equal(net.forward({}, x, key=key)[0], y)
    np.testing.assert_array_equal(net.apply_train({}, x, key=key)[0], y)


def test_init_gives_the_dtype_asked_for():
    params, _ = NET.init(jax.random.key(0), (4, 4, 1), jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}


def test_a_parallel_product_with_a_zero_has_its_gradient():
    net = hg.Parallel(hg.Lambda(jnp.sin), hg.Lambda(jnp.cos), join="multiply")
    x = jnp.zeros((1, 1))
    dx, _ = net.backward({}, net.forward({}, x)[2], jnp.ones((1, 1)))
    assert dx.item() == 1.0  # d(sin x cos x)/dx = cos 2x


def test_map_layers_reaches_every_leaf_and_keeps_names():
    @dataclass(frozen=True)
    class Other(hg.Layer):
        layer: hg.Layer

        def init(self, key, in_shape, dtype=jnp.float32):
            return self.layer.init(key, in_shape, dtype)

        def apply(self, params, x, state=()):
            return self.layer.apply(params, x, state)

    seen = []
    other = hg.map_layers(lambda layer: seen.append(layer.kind) or Other(layer), NET)
    assert seen == ["conv", "relu", "conv", "relu", "maxpool", "avgpool", "flatten", "dense"]
    params, x = NET.init(jax.random.key(0), (4, 4, 1), jnp.float64)[0], jnp.ones((2, 4, 4, 1))
    chex_equal = jax.tree.map(
        np.testing.assert_array_equal, other.init(jax.random.key(0), (4, 4, 1), jnp.float64)[0], params
    )
    assert jax.tree.structure(chex_equal) == jax.tree.structure(jax.tree.map(lambda _: None, params))
    np.testing.assert_allclose(other.apply(params, x), NET.apply(params, x))
    assert hg.map_layers(lambda layer: layer, NET) == NET


def test_map_layers_refuses_what_is_no_layer():
    with pytest.raises(TypeError, match=r"map_layers, in the place of Conv.*: wants a layer, got NoneType"):
        MISUSED.map_layers(lambda layer: None, NET)


class NoDataclass(hg.Relu):
    slope: float = 0.0


class OwnInit(hg.Relu):
    def __init__(self, slope):
        object.__setattr__(self, "slope", slope)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (
            lambda: MISUSED.Chain(hg.Relu),
            TypeError,
            r"Chain, layer 1: .* got the class Relu; write Relu\(...\)",
        ),
        (lambda: MISUSED.Chain(jnp.tanh), TypeError, r"wrap a function as hg.Lambda\(function\)"),
        (
            lambda: hg.Chain(NoDataclass()),
            TypeError,
            "NoDataclass has settings of its own; decorate it with @dataclass",
        ),
        (lambda: hg.Residual(OwnInit(1.0)), TypeError, "Residual, body: OwnInit has settings of its own"),
        (lambda: hg.Chain(hg.Conv(1, [3, 3])), TypeError, "not hashable .* give tuples"),
        (lambda: hg.Chain(hg.Relu(name="a"), hg.Dense(1, name="a")), ValueError, "two layers are named 'a'"),
        (lambda: hg.Chain(hg.Relu(name="relu2"), hg.Relu()), ValueError, "two layers are named 'relu2'"),
        (lambda: hg.Parallel(), ValueError, "at least one branch"),
        (
            lambda: MISUSED.Parallel(hg.Relu(), join="sum"),
            ValueError,
            'join must be "concatenate", .* got .sum',
        ),
        (lambda: NET.init(jax.random.key(0), (4, 0, 1)), ValueError, "in_shape must be positive ints"),
        (
            lambda: NET.apply({"conv7": {}}, jnp.ones((1, 4, 4, 1))),
            ValueError,
            r"params name \['conv7'\], which are no",
        ),
        (lambda: NET.apply([], jnp.ones((1, 4, 4, 1))), TypeError, "params must be a dict by layer name"),
    ],
)
def test_misuse_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_an_error_inside_names_the_layers_down_to_it():
    net = hg.Chain(hg.Residual(hg.Chain(hg.Relu(), hg.Conv(4, 3, name="deep")), name="block"))
    params = {"block": {"body": {"deep": {"kernel": jnp.ones((3, 3, 16, 4)), "bias": jnp.zeros(4)}}}}
    with pytest.raises(ValueError, match="input has 3 channels, kernel expects 16") as caught:
        net.forward(params, jnp.ones((1, 4, 4, 3)))
    assert caught.value.__notes__ == ["in Conv 'deep'", "in Chain 'body'", "in Residual 'block'"]


def test_paths_of_unequal_shape_are_named():
    with pytest.raises(ValueError, match=r"Residual: body gives shape \(1, 4, 4, 5\), x, .* has \(1, 4, 4, 2\)"):
        hg.Chain(hg.Residual(hg.Conv(5, 3))).init(jax.random.key(0), (4, 4, 2))
    with pytest.raises(ValueError, match=r"join='add' wants outputs equal in shape, .* got conv1 \(1, 4, 4, 5\), re"):
        hg.Parallel(hg.Conv(5, 3), hg.Relu(), join="add").init(jax.random.key(0), (4, 4, 2))


def test_an_unhashable_traced_setting_is_allowed_inside_its_transformation():
    def mean_kept(rate):
        net = hg.Chain(hg.Dropout(rate, inverted=False))
        return net.forward({}, jnp.ones((1, 1000)), key=jax.random.key(0))[0].mean()

    kept = jax.vmap(mean_kept)(jnp.array([0.1, 0.9]))
    np.testing.assert_allclose(kept, [0.9, 0.1], atol=0.05)


def test_so_it_is_deep_inside_the_net_of_an_objective():
    def slope(rate):
        net = hg.Chain(hg.Residual(hg.Chain(hg.Dropout(rate), name="body")), hg.Dense(2))
        params, state = net.init(jax.random.key(0), (4,), jnp.float64)
        grads, _ = hg.grad(hg.Objective(net, hg.MeanSquaredError()))(
            params, jnp.ones((3, 4)), jnp.zeros((3, 2)), state, jax.random.key(1)
        )
        return grads["dense1"]["kernel"]

    slopes = jax.vmap(slope)(jnp.array([0.0, 0.5]))
    assert bool((slopes[0] != slopes[1]).any())


def test_guided_backprop_is_one_line():
    class Guided(hg.Relu):
        def backward(self, params, residuals, dy):
            dx, dparams = super().backward(params, residuals, dy)
            return jnp.where(dx > 0, dx, 0), dparams

    net = hg.map_layers(lambda layer: Guided() if isinstance(layer, hg.Relu) else layer, hg.Chain(hg.Relu(), hg.Relu()))
    _, _, residuals = net.forward({}, jnp.array([1.0, 2.0, -1.0]))
    assert net.backward({}, residuals, jnp.array([3.0, -4.0, 5.0]))[0].tolist() == [3.0, 0.0, 0.0]


def test_numpy_input_in_float64_is_taken_without_a_warning_in_float32_mode():
    net = hg.Chain(hg.MaxPool(2), hg.AvgPool(2, padding=1), hg.BatchNorm(), hg.Dropout(0.5), hg.Softmax())
    with jax.enable_x64(False):
        state = {"batchnorm1": {"mean": jnp.zeros(1), "var": jnp.ones(1)}}
        params = {"batchnorm1": {"scale": jnp.ones(1), "bias": jnp.zeros(1)}}
        x: Any = np.random.default_rng(0).normal(size=(2, 4, 4, 1))
        y, _, residuals = net.forward(params, x, state, jax.random.key(0))
        dx, _ = net.backward(params, residuals, y)
        assert y.dtype == net.apply(params, x, state).dtype == dx.dtype == jnp.float32

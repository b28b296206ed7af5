"""Each rule beside the chain rule written out in NumPy or jax.custom_vjp; and the net is the old one otherwise."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import rules
from handgrad.initializers import he_normal
from handgrad.insight.leaves import leaf_layers

LOSS = hg.SoftmaxCrossEntropy()
SHARED = hg.Relu()
NET = hg.Chain(hg.Dense(6), SHARED, hg.Residual(hg.Chain(hg.Dense(6), SHARED)), hg.Dense(3))
PARAMS, _ = NET.init(jax.random.key(0), (5,), jnp.float64)
X, Y = jax.random.normal(jax.random.key(1), (4, 5)), jnp.arange(4) % 3


def dx(net, params=PARAMS, x=X):
    return jax.jit(hg.grad(hg.Objective(net, LOSS), 1))(params, x, Y)[0]


def by_custom_vjp(backward):
    """The same net in plain JAX, with a relu whose rule is a custom_vjp: backward(x, dy)."""

    @jax.custom_vjp
    def relu(x):
        return jnp.maximum(x, 0)

    relu.defvjp(lambda x: (relu(x), x), lambda x, dy: (backward(x, dy),))

    def loss(x):
        p = PARAMS
        h = relu(hg.ops.dense(x, **p["dense1"]))
        inner = p["residual1"]["body"]["dense1"]
        h = h + relu(hg.ops.dense(h, **inner))
        return LOSS(hg.ops.dense(h, **p["dense2"]), Y)

    return jax.grad(loss)(X)


RULES = {
    "guided": (rules.guided_backprop, lambda x, dy: dy * ((x > 0) & (dy > 0)).astype(dy.dtype)),
    "deconvnet": (rules.deconvnet, lambda x, dy: dy * (dy > 0).astype(dy.dtype)),
    "straight": (lambda net: rules.straight_through(net, hg.Relu), lambda x, dy: dy),
}


@pytest.mark.parametrize("name", RULES)
def test_a_relu_with_another_rule_used_twice_and_in_a_branch(name):
    swap, backward = RULES[name]
    net = swap(NET)
    chex.assert_trees_all_close(dx(net), by_custom_vjp(backward), rtol=1e-12)
    assert abs(dx(net) - dx(NET)).max() > 1e-3
    assert [name for name, _ in net.items()] == [name for name, _ in NET.items()]


@pytest.mark.parametrize("name", RULES)
def test_values_and_the_automatic_gradient_stay_bit_for_bit(name):
    net = RULES[name][0](NET)
    assert net != NET and net == RULES[name][0](NET) and hash(net) == hash(RULES[name][0](NET))
    plain, swapped = (jax.value_and_grad(hg.Objective(n, LOSS), has_aux=True)(PARAMS, X, Y) for n in (NET, net))
    chex.assert_trees_all_equal(plain, swapped)
    chex.assert_trees_all_equal(net.init(jax.random.key(0), (5,), jnp.float64)[0], PARAMS)


def test_a_nan_is_not_hidden():
    for rule in (rules.guided, rules.positive):
        out, _ = rule(hg.Relu(), {}, hg.Relu().forward({}, jnp.ones(2))[2], jnp.array([jnp.nan, 1.0]))
        assert np.isnan(out[0]) and out[1] == 1


def test_feedback_goes_through_fixed_random_kernels():
    """Two dense layers by NumPy: dW as ever, but for what comes through B."""
    net = rules.feedback_alignment(hg.Chain(hg.Dense(4), hg.Tanh(), hg.Dense(3)), seed=7)
    params, _ = net.init(jax.random.key(0), (5,), jnp.float64)
    h = np.tanh(X @ params["dense1"]["kernel"])
    logits = jnp.asarray(h) @ params["dense2"]["kernel"]
    d3 = np.asarray(LOSS.value_and_grad(logits, Y)[1])
    b1, b2 = (
        he_normal(jax.random.fold_in(jax.random.key(7), i), params[f"dense{i + 1}"]["kernel"].shape, jnp.float64)
        for i in range(2)
    )
    d1 = (d3 @ np.asarray(b2).T) * (1 - h**2)
    (grads, into), _ = hg.grad(hg.Objective(net, LOSS), (0, 1))(params, X, Y)
    np.testing.assert_allclose(grads["dense2"]["kernel"], h.T @ d3, rtol=1e-12)
    np.testing.assert_allclose(grads["dense1"]["kernel"], np.asarray(X).T @ d1, rtol=1e-12)
    np.testing.assert_allclose(into, d1 @ np.asarray(b1).T, rtol=1e-12)


def test_feedback_kernels_belong_to_the_seed_and_the_layer():
    net = hg.Chain(hg.Conv(3, 3), hg.Conv(3, 3), hg.ConvTranspose(2, 2), hg.Flatten(), hg.Dense(3))
    params, _ = net.init(jax.random.key(0), (4, 3, 3), jnp.float64)
    x = jax.random.normal(jax.random.key(1), (4, 4, 3, 3))
    one, same, other = (dx(rules.feedback_alignment(net, seed), params, x) for seed in (1, 1, 2))
    assert (one == same).all() and abs(one - other).max() > 1e-6
    layers = [layer for _, layer in leaf_layers(rules.feedback_alignment(net))]
    assert layers[0] != layers[1] and layers[3] == hg.Flatten()


def test_between_layers_each_example_is_clipped():
    net = rules.clip_between(hg.Chain(hg.Dense(4), hg.Tanh(), hg.Dense(3)), 0.05)
    params, _ = net.init(jax.random.key(0), (5,), jnp.float64)

    def clip(d):
        return d * np.minimum(1, 0.05 / np.linalg.norm(d, axis=1, keepdims=True))

    h = np.tanh(X @ params["dense1"]["kernel"])
    d3 = np.asarray(LOSS.value_and_grad(jnp.asarray(h) @ params["dense2"]["kernel"], Y)[1])
    d2 = clip(d3 @ np.asarray(params["dense2"]["kernel"]).T)
    d1 = clip(d2 * (1 - h**2))
    np.testing.assert_allclose(dx(net, params), clip(d1 @ np.asarray(params["dense1"]["kernel"]).T), rtol=1e-12)
    assert (clip(d3) != d3).any()
    zero, _ = rules.ClippedTo(1.0)(hg.Identity(), {}, hg.Identity().forward({}, jnp.ones((2, 3)))[2], jnp.zeros((2, 3)))
    assert (zero == 0).all()


def test_a_net_with_a_hard_threshold_learns_straight_through():
    """Its own gradient is 0, so that without the rule the first layer never moves."""
    step = hg.Lambda(lambda x: jnp.where(x > 0, 1.0, 0.0).astype(x.dtype))
    nets = [hg.Chain(hg.Dense(8), layer, hg.Dense(3)) for layer in (step, rules.straight_through(step))]
    params, _ = nets[0].init(jax.random.key(0), (5,), jnp.float64)
    dead, alive = (hg.grad(hg.Objective(net, LOSS))(params, X, Y)[0]["dense1"]["kernel"] for net in nets)
    assert (dead == 0).all() and (alive != 0).all()


def test_any_rule_on_any_kind_and_nets_without_it_come_back_equal():
    doubled = rules.swap_backward(NET, lambda layer, params, residuals, dy: (2 * dy, {}), hg.Relu)
    chex.assert_trees_all_close(dx(doubled), by_custom_vjp(lambda x, dy: 2 * dy), rtol=1e-12)
    plain = hg.Chain(hg.Dense(3), hg.Tanh())
    assert rules.guided_backprop(plain) == plain and rules.guided_backprop(hg.Relu()) != hg.Relu()
    norm = rules.swap_backward(hg.Chain(hg.BatchNorm(), hg.Dense(3)), rules.guided)
    (_, first), *_ = leaf_layers(hg.inference(norm))
    assert isinstance(first, rules.WithRule) and first.rule is rules.guided
    with pytest.raises(ValueError, match="batchnorm1 is a BatchNorm in training"):
        hg.per_example_norms(hg.Objective(norm, LOSS))


def test_errors():
    with pytest.raises(
        TypeError, match=r"swap_backward: rule must be a function \(layer, params, residuals, dy\), got 3"
    ):
        rules.swap_backward(NET, 3)  # pyright: ignore[reportArgumentType]
    for kind in (hg.Relu(), hg.Chain, int):
        with pytest.raises(TypeError, match="kinds must be classes of layers that are no containers"):
            rules.swap_backward(NET, rules.guided, kind)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="swap_backward, net: wants a layer, got the class Relu"):
        rules.guided_backprop(hg.Relu)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="max_norm must be above 0, got 0"):
        rules.clip_between(NET, 0)

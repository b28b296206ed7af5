"""Each rule beside the chain rule written out in NumPy or jax.custom_vjp; and the net is the old one otherwise."""

from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import rules
from handgrad.initializers import he_normal
from handgrad.insight.leaves import leaf_layers
from handgrad.layers.container import Chain

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
    one, other = (dx(rules.feedback_alignment(net, seed), params, x) for seed in (1, 2))
    assert abs(one - other).max() > 1e-6
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


def test_rules_stack_in_any_order():
    """Clipped, then sent back by random kernels; swapped before or after."""
    net = hg.Chain(hg.Dense(3))
    params, _ = net.init(jax.random.key(0), (5,), jnp.float64)
    kernel = he_normal(jax.random.fold_in(jax.random.key(4), 0), (5, 3), jnp.float64)
    into = LOSS.value_and_grad(X @ params["dense1"]["kernel"], Y)[1] @ kernel.T
    wanted = into * 0.01 / jnp.linalg.norm(into, axis=1, keepdims=True)
    clipped = (
        rules.feedback_alignment(rules.clip_between(net, 0.01), 4),
        rules.clip_between(rules.feedback_alignment(net, 4), 0.01),
    )
    for both in clipped:
        np.testing.assert_allclose(dx(both, params), wanted, rtol=1e-12)
    assert dx(rules.guided_backprop(rules.guided_backprop(NET))).tolist() == dx(rules.guided_backprop(NET)).tolist()
    thrice = rules.guided_backprop(rules.clip_between(rules.clip_between(hg.Relu(), 1.0), 2.0))
    assert isinstance(thrice, rules.WithRule) and thrice.rule is rules.guided


class Whole(Chain):
    """Differentiated whole."""

    forward, backward = hg.Layer.forward, hg.Layer.backward


def test_a_container_that_would_ask_no_rule_is_an_error():
    net = hg.Chain(hg.Dense(3), Whole(hg.Dense(4), hg.Relu()))
    with pytest.raises(ValueError, match="Whole has no backward of its own, so that jax.vjp differentiates it whole"):
        rules.guided_backprop(net)
    assert rules.swap_backward(net, rules.straight, hg.Tanh) == net


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_gradient_whose_square_overflows_is_clipped_and_not_lost(dtype):
    huge = jnp.array([[3e4, 4e4]] if dtype == "float16" else [[3e30, 4e30]], dtype)
    dx, _ = rules.clip_between(hg.Identity(), 1.0).backward({}, {}, huge)
    assert dx.dtype == dtype
    np.testing.assert_allclose(dx, [[0.6, 0.8]], rtol=1e-3)
    bad, _ = rules.clip_between(hg.Identity(), 1.0).backward({}, {}, jnp.array([[jnp.nan, 3.0], [jnp.inf, 3.0]]))
    assert np.isnan(bad[0, 0]) and not np.isfinite(bad[1, 0])


def test_nets_of_one_seed_are_one_net_to_jit_and_of_two_are_two():
    net, traced = hg.Chain(hg.Dense(3)), []
    params, _ = net.init(jax.random.key(0), (5,), jnp.float64)

    def into(net, params):
        traced.append(net)
        return net.backward(params, {"dense1": {"x": X}}, jnp.ones((4, 3)))[0]

    jitted = jax.jit(into, static_argnums=0)
    one, same, other = (jitted(rules.feedback_alignment(net, seed), params) for seed in (1, 1, 2))
    assert len(traced) == 2 and (one == same).all() and abs(one - other).max() > 1e-3
    many = jax.vmap(lambda p: jitted(rules.feedback_alignment(net, 1), p))(jax.tree.map(lambda p: p[None], params))
    np.testing.assert_allclose(many[0], one, rtol=1e-12)  # under vmap over parameters the kernel is the same one


def test_straight_through_moves_the_threshold_to_where_it_belongs():
    """One unit, a step at w x + b > 0, and targets with the step at x = 0.5: descent finds it, by the rule alone."""
    step = hg.Lambda(heaviside)
    x = jnp.linspace(-1, 1, 41)[:, None]
    y, params = heaviside(x - 0.5), {"dense1": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}}

    def losses(layer):
        objective = hg.Objective(hg.Chain(hg.Dense(1), layer), hg.MeanSquaredError())

        def descend(params, _):
            (loss, _), grads = hg.value_and_grad(objective)(params, x, y)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), loss

        return jax.lax.scan(descend, params, length=100)[1]

    stuck, learnt = losses(step), losses(rules.straight_through(step))
    assert (stuck == stuck[0]).all() and learnt[0] == stuck[0] > 0.2 and learnt[-1] == 0


def heaviside(x):
    return (x > 0).astype(x.dtype)


@dataclass(frozen=True, repr=False)
class Mine(hg.Layer):
    """A kernel, and no backward of its own; training differs from inference."""

    def init(self, key, in_shape, dtype=jnp.float32):
        return {"kernel": jnp.ones((in_shape[-1], 2), dtype)}, {}

    def apply(self, params: Any, x, state=()):
        return x @ params["kernel"]

    def apply_train(self, params: Any, x, state=(), key=None):
        return 2 * self.apply(params, x, state), state


def test_a_layer_of_the_users_own_takes_rules_too():
    params, _ = Mine().init(jax.random.key(0), (5,), jnp.float64)
    net = rules.feedback_alignment(Mine(), 3, Mine)
    _, _, residuals = net.forward(params, X)
    kernel = he_normal(jax.random.fold_in(jax.random.key(3), 0), (5, 2), jnp.float64)
    into, dparams = net.backward(params, residuals, jnp.ones((4, 2)))
    np.testing.assert_allclose(into, 2 * jnp.ones((4, 2)) @ kernel.T, rtol=1e-12)
    np.testing.assert_allclose(dparams["kernel"], 2 * X.T @ jnp.ones((4, 2)), rtol=1e-12)
    frozen = rules.feedback_alignment(hg.inference(hg.Chain(Mine())), 3, Mine)
    ((name, layer),) = leaf_layers(frozen)
    assert isinstance(layer, rules.WithRule) and name == "mine1"
    with pytest.raises(ValueError, match="Identity: params have no 'kernel'"):
        rules.feedback_alignment(hg.Identity(), 0, hg.Identity).backward({}, {}, X)


def test_the_bridge_takes_a_rule_into_jax_grad():
    net = rules.guided_backprop(hg.Chain(hg.Relu(), hg.Dense(3)))
    params, _ = net.init(jax.random.key(0), (5,), jnp.float64)
    inside = jax.grad(lambda x: LOSS(hg.bridge.layer(net)(params, x)[0], Y))(X)
    np.testing.assert_allclose(inside, dx(net, params), rtol=1e-12)
    assert (inside >= 0).all() and (inside > 0).any()


def test_a_summary_counts_a_layer_with_a_rule_as_the_layer():
    assert hg.summary(rules.feedback_alignment(NET), (5,)) == hg.summary(NET, (5,))


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
    with pytest.raises(TypeError, match="max_norm must be a number, which is part of the layer, got '1'"):
        rules.clip_between(NET, "1")  # pyright: ignore[reportArgumentType]
    for seed in (1.5, None, jax.random.key(0)):
        with pytest.raises(TypeError, match="feedback_alignment: seed must be an int, which is part of the layer"):
            rules.feedback_alignment(NET, seed)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="straight_through: say which layers of the Chain pass dy on, such as"):
        rules.straight_through(NET)
    with pytest.raises(ValueError, match=r"keep the shape of their input, Dense\(3\) makes \(4, 3\) of \(4, 6\)"):
        dx(rules.straight_through(NET, hg.Dense))

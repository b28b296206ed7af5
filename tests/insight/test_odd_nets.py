"""Nets that a tool meets less often: branches at the top, rules and inference around layers, zero gradients."""

from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.insight import NonFinite

LOSS = hg.SoftmaxCrossEntropy()
X, Y = jax.random.normal(jax.random.key(1), (6, 4)), jnp.arange(6) % 3


def params_of(net, in_shape=(4,)):
    return net.init(jax.random.key(0), in_shape, jnp.float64)[0]


@pytest.mark.parametrize("join", ["concatenate", "multiply"])
def test_what_arrives_is_counted_from_the_loss_though_branches_end_the_net(join):
    """Not from what reaches the last leaf, which is a part of the loss's gradient, or a product with it."""
    net = hg.Parallel(hg.Dense(3), hg.Dense(3), join=join)
    params = params_of(net)
    rows = jax.jit(hg.trace(hg.Objective(net, LOSS)))(params, X, Y).rows
    outputs = [layer.apply(params[name], X) for name, layer in net.items()]
    joined = {"concatenate": lambda a, b: jnp.concatenate([a, b], -1), "multiply": jnp.multiply}[join]
    dlogits = jax.grad(LOSS)(joined(*outputs), Y)
    parts = jax.grad(lambda outputs: LOSS(joined(*outputs), Y))(outputs)
    for row, part in zip(rows, parts, strict=True):
        assert row.arrived == pytest.approx(float(jnp.linalg.norm(part) / jnp.linalg.norm(dlogits)), rel=1e-10)


@dataclass(frozen=True)
class Kinked(hg.losses.Loss):
    """Its value is finite, its gradient in one logit is not."""

    logit: int

    def per_example(self, logits, y):
        one = logits[:, self.logit]
        return jnp.sqrt(jnp.abs(one - one)) + logits.sum(1)


@pytest.mark.parametrize("logit", [0, 5])
def test_a_loss_whose_gradient_breaks_is_named_though_branches_end_the_net(logit):
    net = hg.Parallel(hg.Dense(3), hg.Dense(3))
    found = hg.trace(hg.Objective(net, Kinked(logit)))(params_of(net), X, Y)
    assert found.first_nonfinite == NonFinite("loss", "backward", "dlogits", (0, logit))


@dataclass(frozen=True, repr=False)
class Centred(hg.Layer):
    """Mixes the batch in training; by hand."""

    def apply(self, params: Any, x, state=()):
        return x

    def apply_train(self, params, x, state=(), key=None):
        return x - x.mean(0, keepdims=True), state

    def forward(self, params, x, state=(), key=None):
        return *self.apply_train(params, x, state, key), ()

    def backward(self, params, residuals, dy):
        return dy - dy.mean(0, keepdims=True), {}


def test_a_table_says_where_a_rule_was_swapped_and_on_what():
    """A rule may leave the layer's own backward out, so neither "by hand" nor "jax.vjp" alone would be true."""
    plain = hg.Chain(hg.Dense(3), hg.Lambda(jnp.tanh), hg.Relu(), hg.Lambda(jnp.sin, name="own"))
    net = hg.rules.clip_between(hg.rules.guided_backprop(plain), 1.0, hg.Relu, hg.Lambda)
    said = ["by hand", "swapped, jax.vjp", "swapped", "swapped, jax.vjp"]
    look = hg.trace(hg.Objective(net, LOSS))(params_of(net), X, Y)
    assert [row.backward for row in look.rows] == said
    assert [row.kind for row in look.rows] == ["Dense", "Lambda", "Relu", "Lambda"]
    assert [row.backward for row in hg.ledger(net, (4,), temporary=False).rows if row.kind] == said
    assert [row.backward_by for row in hg.cost(net, (4,), 2, seconds=0).rows] == said
    assert "swapped, jax.vjp" in str(look)


def test_a_layer_in_inference_keeps_its_kind_in_every_table():
    net = hg.inference(hg.Chain(hg.Dense(3), Centred()))
    rows = hg.ledger(net, (4,), temporary=False).rows, hg.summary(net, (4,)).rows, hg.cost(net, (4,), 2, seconds=0).rows
    traced = hg.trace(hg.Objective(net, LOSS))(params_of(net), X, Y).rows
    assert [[row.kind for row in found] for found in (*rows, traced)] == [["Dense", "Centred"]] * 4
    assert traced[1].backward == "jax.vjp"


def test_an_error_within_a_tool_names_the_layer_and_not_the_tools_wrapper():
    net = hg.Chain(hg.Conv(2, 3), hg.Residual(hg.Dense(2)), Centred(), hg.Flatten(), hg.Dense(3))
    params, objective = params_of(net, (5, 4, 1)), hg.Objective(net, LOSS)
    for tool in (hg.trace, hg.per_example_norms):
        with pytest.raises(TypeError, match="x must be floating") as error:
            tool(objective)(params, jnp.ones((6, 5, 4, 1), jnp.uint8), Y)
        assert "in Conv 'conv1'" in error.value.__notes__
    with pytest.raises(ValueError) as error:
        hg.inference(hg.Chain(Centred(), hg.Dense(3))).forward({"dense1": params["dense1"]}, X)
    assert "in Dense 'dense1'" in error.value.__notes__


def test_a_gradient_that_is_cut_off_leaves_no_negative_memory_to_containers():
    """jax.grad of the net needs nothing before the sign; of the dense layer alone it would keep x."""
    net = hg.Chain(hg.Dense(3), hg.Lambda(jnp.sign))
    kept = hg.ledger(net, (4,), temporary=False)
    assert kept.automatic == 0 and kept.rows[0].automatic == 16
    assert [(row.name, row.automatic) for row in kept.rows[2:]] == [("(cut off)", -16)]
    assert "(containers)" not in str(kept)


def test_clipped_grad_has_a_derivative_where_an_example_has_no_gradient():
    """An ignored label: its length is 0, where the root has none. Beside jax.grad of the sum as its formula says it."""
    net, loss = hg.Chain(hg.Dense(3), hg.Tanh(), hg.Dense(3)), hg.SoftmaxCrossEntropy(ignore_index=2)
    objective, params = hg.Objective(net, loss), params_of(net)

    def by_formula(params):
        each = jax.vmap(jax.grad(lambda p, x, y: objective(p, x[None], y[None])[0]), (None, 0, 0))(params, X, Y)
        square = sum(jnp.sum(jnp.square(g), tuple(range(1, g.ndim))) for g in jax.tree.leaves(each))
        length = jnp.sqrt(jnp.where(square > 0, square, 1))
        scale = jnp.where((square > 0) & (length > 0.3), 0.3 / length, 1)
        return jax.tree.map(lambda g: jnp.tensordot(scale, g, 1), each)

    def size(total):
        return sum(jnp.sum(jnp.sin(g)) for g in jax.tree.leaves(total))

    found = jax.jit(jax.grad(lambda params: size(hg.clipped_grad(objective, 0.3)(params, X, Y))))(params)
    wanted = jax.jit(jax.grad(lambda params: size(by_formula(params))))(params)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert jnp.abs(one - other).max() <= 1e-10 * jnp.abs(other).max()


def test_clipping_between_layers_has_a_derivative_where_an_example_has_no_gradient():
    net = hg.rules.clip_between(hg.Chain(hg.Dense(3), hg.Tanh(), hg.Dense(3)), 1e-3)
    objective = hg.Objective(net, hg.SoftmaxCrossEntropy(ignore_index=2))

    def size(params):
        return sum(jnp.sum(jnp.sin(g)) for g in jax.tree.leaves(hg.grad(objective)(params, X, Y)[0]))

    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(jax.grad(size))(params_of(net))))


def test_noise_wants_a_finite_length_and_clipping_one_number():
    objective = hg.Objective(hg.Dense(3), LOSS)
    with pytest.raises(ValueError, match="clipped_grad: noise is in units of max_norm, which must be finite, got inf"):
        hg.clipped_grad(objective, float("inf"), 1.0)
    for max_norm in (jnp.ones(3), jnp.ones((1, 1))):
        with pytest.raises(TypeError, match=r"clipped_grad: max_norm must be a number, got an array of shape \("):
            hg.clipped_grad(objective, max_norm)


def test_sizes_may_be_numpys_integers_and_no_other_numbers():
    net, batch, in_shape = hg.Chain(hg.Dense(3)), cast(int, np.int64(2)), tuple(np.array([4]))
    assert hg.ledger(net, in_shape, batch, temporary=False) == hg.ledger(net, (4,), 2, temporary=False)
    assert hg.cost(net, in_shape, batch, seconds=0).multiply_adds == 24
    assert hg.summary(net, (4,), batch).rows == hg.summary(net, (4,), 2).rows
    wrongs: list[Any] = [0, 1.5, "2"]
    for tool in (hg.ledger, hg.cost, hg.summary):
        for wrong in wrongs:
            with pytest.raises(ValueError, match=f"{tool.__name__}: batch must be at least 1, got {wrong!r}"):
                tool(net, (4,), wrong)

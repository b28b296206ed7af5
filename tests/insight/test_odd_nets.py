"""Nets that a tool meets less often: branches at the top, rules and inference around layers, zero gradients."""

import jax
import jax.numpy as jnp
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


class Kinked(hg.losses.Loss):
    """Its value is finite, its gradient in the first logit is not."""

    def per_example(self, logits, y):
        return jnp.sqrt(jnp.abs(logits[:, 0] - logits[:, 0])) + logits.sum(1)


def test_a_loss_whose_gradient_breaks_is_named_though_branches_end_the_net():
    net = hg.Parallel(hg.Dense(3), hg.Dense(3))
    found = hg.trace(hg.Objective(net, Kinked()))(params_of(net), X, Y)
    assert found.first_nonfinite == NonFinite("loss", "backward", "dlogits", (0, 0))

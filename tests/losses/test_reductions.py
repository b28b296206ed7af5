"""Sum, mean and none of every loss: one and the same losses, by hand and by jax.vjp."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from loss_cases import CE, INTS, SOFT, UNEVEN, WEIGHTS, Absolute, N, close, main_cases, normal


@cache
def reduced(loss):
    """Value and dlogits by reduction: by hand, and by jax.vjp of the sum of what the call gives."""

    def by_vjp(logits, y, weights, reduction):
        value, vjp = jax.vjp(lambda o: loss(o, y, weights, reduction=reduction), logits)
        return value, vjp(jnp.ones_like(value))[0]

    def run(logits, y, weights):
        return {
            reduction: (
                loss.value_and_grad(logits, y, weights, reduction=reduction),
                by_vjp(logits, y, weights, reduction),
            )
            for reduction in ("mean", "sum", "none")
        }

    return jax.jit(run)


@main_cases
def test_all_three_are_of_the_same_losses(loss, y):
    results = reduced(loss)(normal(0), y, UNEVEN)
    for by_hand, by_vjp in results.values():
        jax.tree.map(close, by_hand, by_vjp)
    (mean, dmean), (total, dtotal), (losses, drows) = (results[name][0] for name in ("mean", "sum", "none"))
    close(losses, UNEVEN * loss.per_example(normal(0), y))
    close(total, losses.sum())
    close(mean, total / (UNEVEN * loss.divisor(normal(0), y)).sum())
    close(drows, dtotal)
    close(dmean, drows / (UNEVEN * loss.divisor(normal(0), y)).sum())


def test_with_none_each_row_is_the_gradient_of_its_own_loss():
    loss = hg.SoftmaxCrossEntropy(label_smoothing=0.2, class_weights=WEIGHTS)
    jacobian = jax.jit(jax.jacobian(lambda o: loss(o, INTS, UNEVEN, reduction="none")))(normal(1))
    _, drows = loss.value_and_grad(normal(1), INTS, UNEVEN, reduction="none")
    close(jacobian[np.arange(N), np.arange(N)], drows)
    assert np.abs(jacobian).sum() == pytest.approx(np.abs(drows).sum())


def test_a_users_loss_has_all_three():
    loss, error = Absolute(), np.abs(normal(2) - SOFT).sum(1)
    for reduction, expected in (("mean", error.mean()), ("sum", error.sum()), ("none", error)):
        close(jax.jit(loss, static_argnames="reduction")(normal(2), SOFT, reduction=reduction), expected)


def test_the_default_is_the_mean_and_ignored_examples_are_zeros_among_none():
    close(CE(normal(3), INTS), CE(normal(3), INTS, reduction="mean"))
    losses = hg.SoftmaxCrossEntropy(ignore_index=3)(normal(3), INTS, reduction="none")
    np.testing.assert_array_equal(losses == 0, INTS == 3)


@pytest.mark.parametrize("loss", [hg.Focal(), hg.KLDivergence()])
def test_an_objective_trains_on_the_mean(loss):
    net = hg.Chain(hg.Dense(4))
    params, state = net.init(jax.random.key(0), (3,), jnp.float64)
    x, objective = normal(4, (N, 3)), hg.Objective(net, loss)
    (value, aux), grads = jax.jit(hg.value_and_grad(objective))(params, x, SOFT, state)
    (expected, _), automatic = jax.jit(jax.value_and_grad(objective, has_aux=True))(params, x, SOFT, state)
    close(value, loss(aux.logits, SOFT))
    jax.tree.map(close, (value, grads), (expected, automatic))

"""gradient.py: the objective's hand-written gradient against jax.value_and_grad of the same objective."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

MISUSED: Any = hg  # for calls that the type checker would refuse

NET = hg.Chain(
    hg.Conv(4, 3),
    hg.BatchNorm(),
    hg.Relu(),
    hg.MaxPool(3, 2),
    hg.Residual(hg.Conv(4, 3)),
    hg.Flatten(),
    hg.Dense(6),
    hg.Tanh(),
    hg.Dropout(0.3),
    hg.Dense(3),
)
KEY = jax.random.key(2)


def point():
    random = np.random.default_rng(0)
    params, state = jax.eval_shape(lambda: NET.init(KEY, (7, 6, 2), jnp.float64))
    params, state = jax.tree.map(lambda leaf: jnp.asarray(random.uniform(0.1, 1, leaf.shape) - 0.3), (params, state))
    return params, jnp.asarray(random.normal(size=(4, 7, 6, 2))), jnp.array([0, 1, 2, 1]), state, KEY


def close(got, want, rtol=1e-12):
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(want))
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=rtol, atol=rtol * scale), got, want)


@pytest.mark.parametrize("argnums", [pytest.param(0, marks=pytest.mark.core), 1, (0, 1), (1,)])
def test_the_call_and_the_result_are_those_of_jax(argnums):
    objective, args = hg.Objective(NET, hg.SoftmaxCrossEntropy(), l2=1e-2), point()
    weights = jnp.array([1.0, 0.5, 2.0, 0.0])
    got = jax.jit(hg.value_and_grad(objective, argnums))(*args, weights)
    want = jax.jit(jax.value_and_grad(objective, argnums, has_aux=True))(*args, weights)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    close(got, want)
    close(jax.jit(hg.grad(objective, argnums))(*args, weights), (want[1], want[0][1]))


@pytest.mark.parametrize(
    "loss, target",
    [
        (hg.MeanSquaredError(), jnp.ones((4, 3))),
        (hg.BinaryCrossEntropy(), jnp.full((4, 3), 0.3)),
        (hg.Huber(0.1), jnp.ones((4, 3))),
        (hg.Hinge(), jnp.array([0, 1, 2, 1])),
        (hg.SoftmaxCrossEntropy(label_smoothing=0.1), jnp.eye(3)[jnp.array([0, 1, 2, 1])]),
    ],
    ids=["squared", "binary", "huber", "hinge", "soft-labels"],
)
def test_every_loss_through_a_net(loss, target):
    net = hg.Chain(hg.Dense(5), hg.Tanh(), hg.Dense(3))
    params, state = net.init(jax.random.key(0), (2,), jnp.float64)
    args = (params, jax.random.normal(jax.random.key(1), (4, 2)), target, state)
    objective = hg.Objective(net, loss)
    close(jax.jit(hg.value_and_grad(objective))(*args), jax.jit(jax.value_and_grad(objective, has_aux=True))(*args))


def test_the_penalty_adds_two_lambda_w_to_kernels_alone():
    objective, (params, *rest) = hg.Objective(NET, hg.SoftmaxCrossEntropy()), point()
    plain = jax.jit(hg.grad(objective))(params, *rest)[0]
    more = jax.jit(hg.grad(hg.Objective(NET, hg.SoftmaxCrossEntropy(), l2=0.5)))(params, *rest)[0]
    added = jax.tree.map_with_path(lambda path, p: p * float(path[-1].key == "kernel"), params)
    close(jax.tree.map(jnp.subtract, more, plain), added, rtol=1e-11)


def test_the_penalty_may_be_traced():
    args = point()

    def loss_and_norm(l2, value_and_grad):
        (loss, _), grads = value_and_grad(hg.Objective(NET, hg.SoftmaxCrossEntropy(), l2=l2))(*args)
        return loss, sum(jnp.sum(g**2) for g in jax.tree.leaves(grads))

    strengths = jnp.array([0.0, 0.1, 1.0])
    got, want = (
        jax.jit(jax.vmap(lambda l2, f=f: loss_and_norm(l2, f)))(strengths)
        for f in (hg.value_and_grad, lambda o: jax.value_and_grad(o, has_aux=True))
    )
    close(got, want)


def test_hand_gradient_is_differentiable_again():
    net = hg.Chain(hg.Dense(3), hg.Tanh(), hg.Dense(2))
    objective = hg.Objective(net, hg.SoftmaxCrossEntropy(), l2=0.1)
    params, _ = net.init(jax.random.key(0), (2,), jnp.float64)
    x, y = jax.random.normal(jax.random.key(1), (4, 2)), jnp.array([0, 1, 1, 0])
    tangent = jax.tree.map(jnp.cos, params)

    def hessian_product(grad):
        return jax.jit(lambda p: jax.jvp(lambda p: grad(p, x, y)[0], (p,), (tangent,))[1])(params)

    def in_reverse(grad):
        def along(p):
            return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grad(p, x, y)[0], tangent)))

        return jax.jit(jax.grad(along))(params)

    automatic = hessian_product(jax.grad(objective, has_aux=True))
    close(hessian_product(hg.grad(objective)), automatic)
    close(in_reverse(hg.grad(objective)), automatic)


def test_a_bad_label_turns_loss_and_gradient_to_nan_in_jit():
    objective, (params, x, _, state, key) = hg.Objective(NET, hg.SoftmaxCrossEntropy()), point()
    y = jnp.array([0, 1, 3, 1])
    for f in (hg.value_and_grad, lambda o: jax.value_and_grad(o, has_aux=True)):
        (loss, _), grads = jax.jit(f(objective))(params, x, y, state, key)
        assert jnp.isnan(loss) and jnp.isnan(grads["dense2"]["kernel"]).all()


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: MISUSED.Objective(hg.Relu, hg.MeanSquaredError()), TypeError, "Objective, net: .* got the class Relu"),
        (
            lambda: MISUSED.Objective(NET, hg.MeanSquaredError),
            TypeError,
            r"loss must .*; write MeanSquaredError\(\)",
        ),
        (
            lambda: MISUSED.Objective(NET, lambda o, y: 0.0),
            TypeError,
            r"loss must .*; a loss of your own is an hg.Loss with per_example\(logits, y\)",
        ),
        (lambda: MISUSED.value_and_grad(lambda p: p), TypeError, "wants an hg.Objective"),
        (lambda: hg.value_and_grad(hg.Objective(NET, hg.Hinge()), argnums=2), ValueError, "argnums must be 0"),
        (lambda: hg.value_and_grad(hg.Objective(NET, hg.Hinge()), has_aux=False), ValueError, "always has aux"),
    ],
)
def test_misuse_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()

"""training/step.py: hand and automatic training agree, in every transformation, and donation deletes no one else's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.gradient import Objective, grad
from handgrad.layers import BatchNorm, Chain, Dense, Dropout, Flatten, Relu
from handgrad.losses import (
    BinaryCrossEntropy,
    Focal,
    KLDivergence,
    MeanSquaredError,
    NegativeLogLikelihood,
    SoftmaxCrossEntropy,
)
from handgrad.optimizers import momentum, sgd
from handgrad.training import init_train_state, make_train_step

NET = Chain(Flatten(), Dense(4), BatchNorm(), Relu(), Dropout(0.3), Dense(3))
OBJECTIVE = Objective(NET, SoftmaxCrossEntropy(), l2=1e-2)
SHAPE = (2, 2, 1)
X = jax.random.normal(jax.random.key(1), (6, *SHAPE))
Y = jnp.array([0, 1, 2, 0, 1, 2])
equal = np.testing.assert_array_equal


def fresh(optimizer, seed=0, net=NET, dtype=jnp.float64):
    return init_train_state(net, optimizer, jax.random.key(seed), SHAPE, dtype)


def unkeyed(train_state):
    return train_state._replace(key=jax.random.key_data(train_state.key))


def close(one, other, rtol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-14), unkeyed(one), unkeyed(other))


def test_automatic_and_hand_gradients_train_alike():
    optimizer = momentum(0.1)
    hand, automatic = fresh(optimizer), fresh(optimizer)
    by_hand, by_jax = make_train_step(OBJECTIVE, optimizer), make_train_step(OBJECTIVE, optimizer, jax.value_and_grad)
    for _ in range(5):
        hand, m = by_hand(hand, X, Y)
        automatic, n = by_jax(automatic, X, Y)
        np.testing.assert_allclose(m, n, rtol=1e-12)
    close(hand, automatic)
    assert hand.step == 5 and not np.allclose(
        hand.params["dense1"]["kernel"], fresh(optimizer).params["dense1"]["kernel"]
    )


def test_one_step_is_what_it_says():
    optimizer, start = sgd(0.5), fresh(sgd(0.5), seed=3)._replace(step=jnp.int32(7))
    (loss, aux), grads = jax.jit(jax.value_and_grad(OBJECTIVE, has_aux=True))(
        start.params, X, Y, start.state, jax.random.fold_in(jax.random.key(3), 7)
    )
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, start.params, grads)
    train_state, metrics = make_train_step(OBJECTIVE, optimizer)(start, X, Y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14), train_state.params, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), train_state.state, aux.state)
    norm = np.sqrt(sum((np.asarray(g) ** 2).sum() for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(metrics, (loss, (aux.logits.argmax(1) == Y).mean(), norm), rtol=1e-6)
    assert train_state.step == 8


def test_init_is_the_nets_and_keeps_the_users_key():
    key, optimizer = jax.random.key(5), sgd(0.1)
    train_state = init_train_state(NET, optimizer, key, SHAPE, jnp.float64)
    params, state = NET.init(key, SHAPE, jnp.float64)
    jax.tree.map(equal, (train_state.params, train_state.state), (params, state))
    make_train_step(OBJECTIVE, optimizer)(train_state, X, Y)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(train_state))
    assert not key.is_deleted() and jax.random.bits(key) is not None


@pytest.mark.parametrize("donate", [True, False])
def test_donation(donate):
    train_state = fresh(sgd(0.1))
    make_train_step(OBJECTIVE, sgd(0.1), donate=donate)(train_state, X, Y)
    assert {leaf.is_deleted() for leaf in jax.tree.leaves(train_state)} == {donate}


def test_inside_jit_and_scan():
    optimizer = momentum(0.1)
    step, one_by_one = make_train_step(OBJECTIVE, optimizer), fresh(optimizer)
    scanned, metrics = jax.jit(lambda s: jax.lax.scan(lambda s, _: step(s, X, Y), s, None, length=3))(fresh(optimizer))
    losses = []
    for _ in range(3):
        one_by_one, one = step(one_by_one, X, Y)
        losses.append(one.loss)
    close(scanned, one_by_one)
    np.testing.assert_allclose(metrics.loss, losses, rtol=1e-12)
    start = fresh(optimizer)
    jax.jit(step)(start, X, Y)
    assert not start.params["dense1"]["kernel"].is_deleted()


def test_vmap_over_train_states_and_learning_rates():
    net = Chain(Flatten(), Dropout(0.3), Dense(3))

    def trained(rate, seed):
        optimizer = momentum(rate)
        train_state = init_train_state(net, optimizer, jax.random.key(seed), SHAPE, jnp.float64)
        return make_train_step(Objective(net, SoftmaxCrossEntropy()), optimizer)(train_state, X, Y)[0]

    rates, seeds = jnp.array([0.01, 0.3]), jnp.arange(2)
    together = jax.jit(jax.vmap(trained))(rates, seeds)
    for i in range(2):
        close(jax.tree.map(lambda a, i=i: a[i], together), jax.jit(trained)(rates[i], seeds[i]), rtol=1e-9)


def test_vmap_over_rates_alone_leaves_the_shared_state():
    start = fresh(sgd(0.1))
    step_of = lambda rate: make_train_step(OBJECTIVE, sgd(rate))(start, X, Y)[1].loss  # noqa: E731
    losses = jax.vmap(step_of)(jnp.array([0.1, 0.2]))
    assert losses[0] == losses[1] and not start.key.is_deleted()


def test_weights_take_examples_out_of_loss_and_accuracy():
    net = Chain(Flatten(), Dense(3))
    step = make_train_step(Objective(net, SoftmaxCrossEntropy()), sgd(0.1), donate=False)
    start = fresh(sgd(0.1), net=net)
    bad = X.at[4:].set(100.0)
    with_weights = step(start, bad, Y, jnp.array([1.0, 1, 1, 1, 0, 0]))[1]
    np.testing.assert_allclose(with_weights, step(start, X[:4], Y[:4])[1], rtol=1e-6)


def test_ignored_labels_do_not_count_in_the_accuracy():
    net = Chain(Flatten(), Dense(3))
    step = make_train_step(Objective(net, SoftmaxCrossEntropy(ignore_index=-1)), sgd(0.1), donate=False)
    start = fresh(sgd(0.1), net=net)
    some = step(start, X, Y.at[2:].set(-1))[1]
    np.testing.assert_allclose(some.accuracy, step(start, X[:2], Y[:2])[1].accuracy)
    assert jnp.isnan(step(start, X, jnp.full_like(Y, -1))[1].accuracy)


@pytest.mark.parametrize(
    "loss, classes",
    [
        (SoftmaxCrossEntropy(), True),
        (Focal(), True),
        (NegativeLogLikelihood(), True),
        (KLDivergence(), True),
        (BinaryCrossEntropy(), True),
        (MeanSquaredError(), False),
    ],
)
def test_accuracy_is_of_classes_only(loss, classes):
    net = Chain(Flatten(), Dense(3))
    train_state = fresh(sgd(0.1), net=net)
    right = (net.apply(train_state.params, X).argmax(1) == Y).mean()
    metrics = make_train_step(Objective(net, loss), sgd(0.1))(train_state, X, jax.nn.one_hot(Y, 3))[1]
    np.testing.assert_allclose(metrics.accuracy, right if classes else np.nan, rtol=1e-6)


def test_types_stay(dtype=jnp.bfloat16):
    train_state = fresh(momentum(0.1), dtype=dtype)
    before = jax.tree.map(lambda a: (a.shape, a.dtype), train_state)
    after, metrics = make_train_step(OBJECTIVE, momentum(0.1))(train_state, X.astype(dtype), Y)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == before
    assert all(jnp.isfinite(m) and m.dtype == jnp.float32 for m in metrics)


def test_an_equal_call_compiles_once():
    step, train_state = make_train_step(OBJECTIVE, momentum(0.1)), fresh(momentum(0.1))
    for _ in range(3):
        train_state, _ = step(train_state, np.asarray(X), np.asarray(Y))
    assert getattr(step._compiled._top_cpu, "_cache_size")() == 1  # noqa: B009


def test_what_is_no_objective_or_optimizer_is_named():
    with pytest.raises(TypeError, match=r"make_train_step: wants an hg.Objective, got Chain"):
        make_train_step(NET, sgd(0.1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="make_train_step: optimizer must have init and update, got 0.1"):
        make_train_step(OBJECTIVE, 0.1)
    for alone in (jax.grad, grad):
        with pytest.raises(TypeError, match="make_train_step: value_and_grad must give value and gradient, got grad"):
            make_train_step(OBJECTIVE, sgd(0.1), alone)
    with pytest.raises(TypeError, match="init_train_state, net: wants a layer, got the class Flatten"):
        init_train_state(Flatten, sgd(0.1), jax.random.key(0), SHAPE)  # pyright: ignore[reportArgumentType]


def test_a_state_that_was_donated_says_so():
    step, train_state = make_train_step(OBJECTIVE, sgd(0.1)), fresh(sgd(0.1))
    step(train_state, X, Y)
    with pytest.raises(Exception, match="donated") as caught:
        step(train_state, X, Y)
    assert caught.value.__notes__ == ["a step deletes the train state it is given: go on with the one that it returned"]

"""Wiggling against jax.grad, against a plain loop, in the corners, and its errors."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

LOSS = hg.SoftmaxCrossEntropy()


def case(net, in_shape=(3,), batch=4, dtype: Any = jnp.float64):
    """Params away from their zeros, a batch, state and a key; numpy draws, for each jax op of its own is a compile."""
    random = np.random.default_rng(0)
    shapes, state = jax.eval_shape(lambda: net.init(jax.random.key(0), in_shape, dtype))
    params = jax.tree.map(lambda p: random.normal(0, 0.6, p.shape).astype(dtype), shapes)
    state = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), state)
    x = random.normal(size=(batch, *in_shape)).astype(dtype)
    return params, x, np.arange(batch) % 3, state, jax.random.key(3)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


class Scale(hg.Layer):
    """A layer without a backward by hand."""

    def init(self, key, in_shape, dtype=jnp.float32):
        return {"scale": jnp.ones(in_shape[-1:], dtype)}, {}

    def apply(self, params, x, state=()):
        return x * jnp.broadcast_to(params["scale"], x.shape)


CONV = hg.Chain(hg.Conv(2, 3), hg.Tanh(), hg.Flatten(), hg.Dense(3))
NETS = {
    "conv": (CONV, (5, 4, 1)),
    "dropout": (hg.Chain(hg.Dense(6), hg.Dropout(0.5), hg.Dense(3)), (3,)),
    "residual": (hg.Chain(hg.Residual(hg.Chain(hg.Dense(3), hg.Relu())), Scale(), hg.Dense(3)), (3,)),
    "parallel": (hg.Parallel(hg.Dense(2), hg.Dense(1)), (3,)),
    "batch norm": (hg.Chain(hg.Dense(4), hg.BatchNorm(), hg.Dense(3)), (3,)),
    "single leaf": (hg.Dense(3), (3,)),
}


@pytest.mark.parametrize("name", NETS)
def test_signs_are_those_of_the_gradient_wherever_it_is_large(name):
    net, in_shape = NETS[name]
    objective, args = hg.Objective(net, LOSS, l2=0.1), case(net, in_shape)
    (loss, aux), signs = jax.jit(hg.wiggle(objective))(*args)
    (true_loss, true_aux), grads = jax.jit(jax.value_and_grad(objective, has_aux=True))(*args)
    chex.assert_trees_all_close((loss, aux), (true_loss, true_aux), rtol=1e-12)
    chex.assert_trees_all_equal_shapes_and_dtypes(signs, args[0])
    found, true = flat(signs), flat(grads)
    large = abs(true) > 1e-4  # against eps |H| / 2 with eps = 1e-6
    assert large.mean() > 0.4 and np.array_equal(found[large], np.sign(true[large]))


def loop(objective, args, eps, step, in_turn):
    """The lecture's words as a plain loop over the numbers of the weights."""
    params, *batch = args
    leaves, structure = jax.tree.flatten(jax.tree.map(np.array, params))
    loss = jax.jit(lambda leaves: objective(structure.unflatten(leaves), *batch)[0])
    start, signs = [leaf.copy() for leaf in leaves], [np.zeros_like(leaf) for leaf in leaves]
    for leaf, sign in zip(leaves, signs, strict=True):
        for place in np.ndindex(leaf.shape):
            before, kept = float(loss(leaves)), leaf[place].copy()
            leaf[place] += eps
            sign[place] = np.sign(float(loss(leaves)) - before)
            leaf[place] = kept - step * sign[place] if in_turn else kept
    moved = leaves if in_turn else [leaf - step * sign for leaf, sign in zip(start, signs, strict=True)]
    return structure.unflatten(signs), structure.unflatten(moved)


@pytest.mark.parametrize("in_turn", [False, True])
def test_it_is_the_plain_loop_bit_for_bit(in_turn):
    net = hg.Chain(hg.Dense(2), hg.Tanh(), hg.Dense(3))
    objective, args, step = hg.Objective(net, LOSS), case(net), 0.3  # a step so large that the order matters
    wiggled = hg.wiggle_in_turn(objective, step=step) if in_turn else hg.wiggle(objective)
    (loss, _), signs = jax.jit(wiggled)(*args)
    moved = jax.tree.map(lambda p, sign: np.asarray(p - step * np.asarray(sign)), args[0], signs)
    expected_signs, expected = loop(objective, args, 1e-6, step, in_turn)
    chex.assert_trees_all_equal(signs, expected_signs)
    chex.assert_trees_all_equal(moved, expected)
    assert float(loss) == pytest.approx(float(objective(*args)[0]), rel=1e-12)


def test_the_step_in_turn_is_eps_unless_given_and_the_order_matters():
    objective, args = hg.Objective(CONV, LOSS), case(CONV, (5, 4, 1))
    small, same, large = (
        flat(jax.jit(hg.wiggle_in_turn(objective, **step))(*args)[1]) for step in ({}, {"step": 1e-6}, {"step": 0.5})
    )
    assert (small == same).all() and (small != large).any()


def test_chunks_change_nothing():
    net = hg.Chain(hg.Dense(4), hg.Tanh(), hg.Dense(3))
    objective, args = hg.Objective(net, LOSS), case(net)
    count = len(flat(args[0]))
    assert count == 31
    whole = jax.jit(hg.wiggle(objective, chunk=count))(*args)[1]
    for chunk in (1, 7, 1000):
        chex.assert_trees_all_equal(jax.jit(hg.wiggle(objective, chunk=chunk))(*args)[1], whole)


@pytest.mark.parametrize("wiggle", [hg.wiggle, hg.wiggle_in_turn])
def test_a_change_that_is_lost_in_rounding_gives_0(wiggle):
    """In float32 1 + 1e-9 is 1, so no loss may differ, whatever XLA made of the loop; so too for dead units."""
    objective, args = hg.Objective(CONV, LOSS), case(CONV, (5, 4, 1), dtype=jnp.float32)
    args = (jax.tree.map(lambda p: p + np.sign(p), args[0]), *args[1:])
    assert not flat(jax.jit(wiggle(objective, 1e-9))(*args)[1]).any()
    dead = hg.Chain(hg.Dense(2), hg.Relu(), hg.Dense(3))
    params, *rest = case(dead)
    params = params | {"dense1": {"kernel": jnp.zeros((3, 2)), "bias": -jnp.ones(2)}}
    signs = jax.jit(wiggle(hg.Objective(dead, LOSS)))(params, *rest)[1]
    assert not flat(signs["dense1"]).any() and not flat(signs["dense2"]["kernel"]).any()
    assert flat(signs["dense2"]["bias"]).all()


def test_all_losses_have_the_same_mask():
    """With another mask each loss would differ by far more than the wiggle, and the masked weights would move."""
    net = hg.Chain(hg.Dropout(0.5), hg.Dense(3, use_bias=False))
    params, x, y, state, key = case(net, (8,), batch=1)
    seen = np.asarray(net.layers[0].apply_train({}, x, (), jax.random.fold_in(key, 0))[0])[0] != 0
    assert 0 < seen.sum() < 8
    signs = jax.jit(hg.wiggle(hg.Objective(net, LOSS)))(params, x, y, state, key)[1]["dense1"]["kernel"]
    assert np.array_equal((np.asarray(signs) != 0).any(1), seen)


@pytest.mark.parametrize("wiggle", [hg.wiggle, functools.partial(hg.wiggle_in_turn, step=0.05)])
def test_it_trains_in_the_place_of_the_gradient(wiggle):
    net = hg.Chain(hg.Dense(4), hg.Tanh(), hg.Dense(3))
    optimizer, x = hg.sgd(0.05), jnp.eye(3)
    step = hg.make_train_step(hg.Objective(net, LOSS), optimizer, wiggle)
    train_state = hg.init_train_state(net, optimizer, jax.random.key(0), (3,), dtype=jnp.float64)
    losses = []
    for _ in range(30):
        train_state, metrics = step(train_state, x, jnp.arange(3))
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.1 * losses[0] and metrics.accuracy == 1


def test_weights_of_examples_count():
    net = hg.Dense(3)
    objective, (params, x, y, state, key) = hg.Objective(net, LOSS), case(hg.Dense(3))
    weights = jnp.array([1.0, 0.0, 0.0, 0.0])
    signs = jax.jit(hg.wiggle(objective))(params, x, y, state, key, weights)[1]
    alone = jax.jit(hg.wiggle(objective))(params, x[:1], y[:1], state, key)[1]
    chex.assert_trees_all_equal(signs, alone)


def test_nan_stays_nan():
    net = hg.Dense(3)
    params, x, y, *_ = case(net)
    x[0, 0] = np.nan
    assert np.isnan(flat(jax.jit(hg.wiggle(hg.Objective(net, LOSS)))(params, x, y)[1])).all()


def test_signs_by_eps_in_both_precisions():
    """float64 sees every weight at 1e-6; float32 misses most there, and sees most at 1e-2: the V of rounding."""
    net = hg.Chain(hg.Dense(8), hg.Tanh(), hg.Dense(3))
    objective = hg.Objective(net, LOSS)
    found = {}
    for dtype in (jnp.float64, jnp.float32):
        found[dtype] = hg.wiggle_signs(objective, (1e-6, 1e-2))(*case(net, (5,), 16, dtype)[:3])
        assert [sum(row[1:]) for row in found[dtype].rows] == [75, 75] and found[dtype].dead == 0
    assert found[jnp.float64].rows[0] == (1e-6, 75, 0, 0)
    low, high = found[jnp.float32].rows
    assert low.unchanged > 15 and low.right < 60 and high.right > 70
    assert low.shares == (low.right / 75, low.wrong / 75, low.unchanged / 75)
    table = str(found[jnp.float64]).splitlines()
    assert table[0].startswith("eps in float64") and table[1].split()[:3] == ["1e-06", "100.0", "%"]


def test_signs_count_against_the_gradient_by_hand():
    """A change of 10 is far off, so some signs are wrong: they are counted as numpy counts them."""
    net = hg.Chain(hg.Dense(4), hg.Relu(), hg.Dense(3))
    objective, args = hg.Objective(net, LOSS), case(net)
    (row,), dead = (lambda s: (s.rows, s.dead))(hg.wiggle_signs(objective, [10.0])(*args))
    found = flat(jax.jit(hg.wiggle(objective, 10.0))(*args)[1])
    true = np.sign(flat(jax.jit(jax.grad(objective, has_aux=True))(*args)[0]))
    live = true != 0
    expected = (
        ((found == true) & live).sum(),
        ((found == -true) & live & (found != 0)).sum(),
        (live & (found == 0)).sum(),
    )
    assert row[1:] == tuple(expected) and row.wrong > 0 and dead == (~live).sum()


def test_a_net_without_a_live_weight():
    net = hg.Chain(hg.Dense(2), hg.Relu(), hg.Lambda(lambda x: 0 * x))
    params, x, y, *_ = case(net)
    signs = hg.wiggle_signs(hg.Objective(net, LOSS), (1e-6,))(params, x, y % 2)
    assert signs.rows[0].shares == (0, 0, 0) and signs.dead == 8 and "0.0 %" in str(signs)


def test_cost_counts_and_measures():
    cost = hg.wiggle_cost((1, 3), inputs=4, classes=2, batch=3, rounds=1)
    assert [(row.parameters, row.losses) for row in cost.rows] == [(9, 10), (23, 24)] and cost.batch == 3
    assert all(row.wiggle_ms > 0 and row.backprop_ms > 0 for row in cost.rows)
    assert cost.rows[0].ratio == cost.rows[0].wiggle_ms / cost.rows[0].backprop_ms
    assert str(cost).splitlines()[2].split()[:4] == ["23", "24", "about", "3"]


OBJECTIVE = hg.Objective(hg.Dense(3), LOSS)


@pytest.mark.parametrize("wiggle", [hg.wiggle, hg.wiggle_in_turn])
@pytest.mark.parametrize("eps", [0, -1e-6, float("nan"), float("inf")])
def test_eps_must_be_positive(wiggle, eps):
    with pytest.raises(ValueError, match=f"{wiggle.__name__}: eps must be a positive number, got {eps}"):
        wiggle(OBJECTIVE, eps)


def test_errors():
    with pytest.raises(TypeError, match=r"wiggle: wants an hg.Objective, got Dense\(3\)"):
        hg.wiggle(hg.Dense(3))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="wiggle: an Objective always has aux, got has_aux=False"):
        hg.wiggle(OBJECTIVE, has_aux=False)
    with pytest.raises(ValueError, match="wiggle: chunk must be a positive int, got 0"):
        hg.wiggle(OBJECTIVE, chunk=0)
    with pytest.raises(ValueError, match="wiggle_in_turn: step must be a positive number, got -1"):
        hg.wiggle_in_turn(OBJECTIVE, step=-1)
    with pytest.raises(ValueError, match="wiggle_signs: eps must be a sequence of positive numbers, got none"):
        hg.wiggle_signs(OBJECTIVE, ())
    with pytest.raises(ValueError, match="wiggle_signs: eps must be a positive number, got 0"):
        hg.wiggle_signs(OBJECTIVE, (1e-6, 0))
    for sizes in ((), (3, 0)):
        with pytest.raises(ValueError, match=r"wiggle_cost: sizes must be at least 1, got \("):
            hg.wiggle_cost(sizes)
    with pytest.raises(ValueError, match="wiggle_cost: batch must be at least 1, got 0"):
        hg.wiggle_cost(batch=0)


@pytest.mark.parametrize("wiggle", [hg.wiggle, hg.wiggle_in_turn])
@pytest.mark.parametrize("params", [(), {}])
def test_no_parameters_is_an_error(wiggle, params):
    with pytest.raises(ValueError, match=f"{wiggle.__name__}: params must hold a weight to wiggle"):
        wiggle(hg.Objective(hg.Chain(hg.Relu()), LOSS))(params, jnp.ones((2, 3)), jnp.array([0, 1]))


def test_integers_are_an_error():
    with pytest.raises(TypeError, match="wiggle: parameters must be floating point, got int"):
        hg.wiggle(OBJECTIVE)(
            {"kernel": jnp.ones((3, 3), int), "bias": jnp.zeros(3)}, jnp.ones((2, 3)), jnp.array([0, 1])
        )

"""losses/ against optax and closed forms; the hand-derived gradients against jax.grad of the plain formula."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handgrad.losses import (
    BinaryCrossEntropy,
    Focal,
    Hinge,
    Huber,
    KLDivergence,
    Loss,
    MeanSquaredError,
    SoftmaxCrossEntropy,
)
from loss_cases import (
    CE,
    ELEMENTWISE,
    INTS,
    RAW,
    SOFT,
    UNEVEN,
    WEIGHTS,
    Absolute,
    K,
    N,
    assert_agree,
    by_hand,
    close,
    every_case,
    main_cases,
    normal,
    three_ways,
)


@every_case
def test_hand_gradient_is_that_of_jax(loss, y):
    for scale in (1, 30):
        assert_agree(loss, scale * normal(2), y, UNEVEN)


@main_cases
def test_jvp_of_the_hand_gradient_is_that_of_jax(loss, y):
    def tangents(logits, tangent):
        return jax.jvp(lambda o: three_ways(loss)(o, y, UNEVEN), (logits,), (tangent,))[1]

    hand, automatic, derived = jax.jit(tangents)(normal(4), normal(5))
    jax.tree.map(close, hand, automatic)
    jax.tree.map(close, derived, automatic)


@main_cases
def test_vmap_is_a_loop(loss, y):
    logits = normal(6, (3, N, K))
    run = jax.jit(lambda o: loss.value_and_grad(o, y))
    looped = [run(o) for o in logits]
    jax.tree.map(lambda whole, *one: close(whole, jnp.stack(one)), jax.vmap(run)(logits), *looped)


@main_cases
@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_computed_in_float32_and_gradient_in_the_dtype_of_the_logits(loss, y, dtype):
    logits = normal(7).astype(dtype)
    value, dlogits = jax.jit(loss.value_and_grad)(logits, y)
    losses = jax.eval_shape(loss.per_example, logits, y)
    assert value.dtype == losses.dtype == jnp.float32 and dlogits.dtype == dtype
    (exact, dexact), *_ = three_ways(loss)(logits.astype(jnp.float64), y, jnp.ones(N))
    np.testing.assert_allclose(value, exact, rtol=2e-6)
    np.testing.assert_allclose(dlogits.astype(jnp.float64), dexact, atol=2 * float(jnp.finfo(dtype).eps))


@main_cases
def test_one_example_at_a_time(loss, y):
    run, logits, y = jax.jit(loss.per_example), np.asarray(normal(8)), np.asarray(y)
    one_by_one = [run(logits[i : i + 1], y[i : i + 1]) for i in range(N)]
    close(run(logits, y), np.concatenate(one_by_one))


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), Focal(), KLDivergence(), *ELEMENTWISE])
def test_matches_finite_differences(loss):
    _, dlogits = by_hand(loss)(normal(9), SOFT)
    for seed in range(10, 13):
        step = 1e-5 * normal(seed)
        (high, _), (low, _) = by_hand(loss)(normal(9) + step, SOFT), by_hand(loss)(normal(9) - step, SOFT)
        np.testing.assert_allclose((high - low) / 2, (dlogits * step).sum(), rtol=1e-5, atol=1e-13)


@settings(max_examples=20, derandomize=True, deadline=None)
@given(
    smoothing=st.floats(0, 1),
    class_weights=st.none() | st.tuples(*[st.floats(0.1, 3)] * K),
    ignore_index=st.sampled_from([None, 0, -1]),
    labels=st.lists(st.integers(0, K - 1), min_size=N, max_size=N),
)
def test_settings_drawn_at_random_against_numpy(smoothing, class_weights, ignore_index, labels):
    loss = SoftmaxCrossEntropy(smoothing, ignore_index, class_weights)
    o, c = np.asarray(normal(11)), np.ones(K) if class_weights is None else np.asarray(class_weights)
    log_p = o - np.log(np.exp(o).sum(1))[:, None]
    target = (1 - smoothing) * np.eye(K)[labels] + smoothing / K
    counted = [i for i, label in enumerate(labels) if label != ignore_index]
    expected = -(c[None, :] * target * log_p)[counted].sum() / max(c[labels][counted].sum(), 1e-9)
    close(loss(normal(11), np.array(labels)), expected, atol=1e-14)


ORACLES = [
    (SoftmaxCrossEntropy(), INTS, lambda o, y: optax.losses.softmax_cross_entropy_with_integer_labels(o, y)),
    (SoftmaxCrossEntropy(), SOFT, lambda o, y: optax.losses.softmax_cross_entropy(o, y)),
    (
        SoftmaxCrossEntropy(label_smoothing=0.1),
        SOFT,
        lambda o, y: optax.losses.softmax_cross_entropy(o, optax.losses.smooth_labels(y, 0.1)),
    ),
    (BinaryCrossEntropy(), SOFT, lambda o, y: optax.losses.sigmoid_binary_cross_entropy(o, y).mean(1)),
    (MeanSquaredError(), SOFT, lambda o, y: optax.losses.squared_error(o, y).mean(1)),
    (Huber(delta=0.3), SOFT, lambda o, y: optax.losses.huber_loss(o, y, delta=0.3).mean(1)),
]


@pytest.mark.parametrize("loss, y, oracle", ORACLES)
def test_matches_optax(loss, y, oracle):
    logits, weights = 3 * normal(12), UNEVEN
    expected, vjp = jax.vjp(jax.jit(lambda o: oracle(o, y)), logits)
    close(jax.jit(loss.per_example)(logits, y), expected)
    close(jax.jit(loss)(logits, y), np.mean(expected))
    value, dlogits = by_hand(loss)(logits, y, weights)
    close(value, np.average(expected, weights=weights))
    close(dlogits, *vjp(weights / 3.8), atol=1e-14)


def test_softmax_cross_entropy_gradient_is_p_minus_y():
    _, dlogits = by_hand(CE)(normal(13), INTS)
    close(dlogits, (jax.nn.softmax(normal(13)) - jax.nn.one_hot(INTS, K)) / N)


def test_int_one_hot_and_soft_labels_are_one():
    for loss in (SoftmaxCrossEntropy(0.1), SoftmaxCrossEntropy(class_weights=WEIGHTS)):
        one_hot = jax.nn.one_hot(INTS, K)
        jax.tree.map(close, by_hand(loss)(normal(14), INTS), by_hand(loss)(normal(14), one_hot))


def test_hinge_of_known_numbers():
    logits = jnp.array([[2.0, 1.5, 3.0, 1.0]])  # wrong classes within the margin 1: by 0.5, by 2, and exactly at it
    value, dlogits = assert_agree(Hinge(), logits, jnp.array([0]))
    close(value, (0.5 + 2) / 4)
    close(dlogits, [[-0.5, 0.25, 0.25, 0]])


def test_huber_at_its_joint_and_far_out():
    loss, e, y = Huber(delta=2.0), jnp.array([[0.0], [2.0], [-2.0], [1e200], [-jnp.inf]]), jnp.zeros((5, 1))
    _, dlogits = assert_agree(loss, e, y)
    close(loss.per_example(e, y), [0, 2, 2, 2e200, np.inf])
    close(dlogits, np.array([[0, 2, -2, 2, -2]]).T / 5)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_huge_logits(dtype):
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]], dtype)
    value, dlogits = assert_agree(SoftmaxCrossEntropy(), logits, jnp.array([0, 0]), compare=close)
    assert value == 1e4
    close(dlogits, [[0, 0], [-0.5, 0.5]])
    value, dlogits = assert_agree(BinaryCrossEntropy(), logits, jnp.array([[1, 0], [1, 0]]))
    assert value == 5e3
    close(dlogits, [[0, 0], [-0.25, 0.25]])


def test_binary_cross_entropy_keeps_tiny_losses():
    loss, o = BinaryCrossEntropy(), jnp.array([[30.0]], jnp.float32)
    value, dlogits = assert_agree(loss, o, jnp.array([[1]]), compare=partial(close, rtol=1e-6, atol=0))
    np.testing.assert_allclose([value, -dlogits[0, 0]], np.exp(-30), rtol=1e-6)


@pytest.mark.parametrize("y", [jnp.array([0, 2]), jnp.array([[1.0, 0, 0], [0, 0, 1]])], ids=["int", "one-hot"])
def test_a_masked_class_costs_nothing_and_has_gradient_zero(y):
    logits = jnp.array([[1.0, -jnp.inf, 2.0], [0.5, -jnp.inf, 0.1]])
    value, dlogits = assert_agree(SoftmaxCrossEntropy(), logits, y)
    kept_value, kept = by_hand(CE)(np.asarray(logits)[:, ::2], np.array([0, 1]))
    close(value, kept_value)
    close(dlogits, np.insert(kept, 1, 0, axis=1))


def test_a_masked_class_that_is_wanted_costs_infinitely():
    logits = jnp.array([[1.0, -jnp.inf, 2.0]])
    value, dlogits = assert_agree(SoftmaxCrossEntropy(), logits, jnp.array([1]))
    assert value == jnp.inf and jnp.isfinite(dlogits).all()
    assert by_hand(SoftmaxCrossEntropy(label_smoothing=0.1))(logits, jnp.array([0]))[0] == jnp.inf


def test_ignored_examples_are_as_if_they_were_not_there():
    loss = SoftmaxCrossEntropy(0.1, ignore_index=3, class_weights=WEIGHTS)
    logits, y, weights = np.asarray(normal(15)), np.asarray(INTS), np.arange(1.0, 6)
    value, dlogits = by_hand(loss)(logits, y, weights)
    expected, dkept = by_hand(loss)(logits[y != 3], y[y != 3], weights[y != 3])
    close(value, expected)
    close(np.asarray(dlogits)[y != 3], dkept)
    np.testing.assert_array_equal(np.asarray(dlogits)[y == 3], 0)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_ignoring_hides_even_broken_logits(bad):
    logits = normal(16).at[0].set(bad)
    value, dlogits = assert_agree(SoftmaxCrossEntropy(ignore_index=-1), logits, INTS.at[0].set(-1))
    assert jnp.isfinite(value) and jnp.isfinite(dlogits).all() and (dlogits[0] == 0).all()


def test_all_ignored_gives_zero():
    value, dlogits = assert_agree(SoftmaxCrossEntropy(ignore_index=-1), normal(17), jnp.full(N, -1))
    assert value == 0 and (dlogits == 0).all()


@every_case
def test_all_weights_zero_gives_zero(loss, y):
    value, dlogits = assert_agree(loss, normal(17), y, jnp.zeros(N))
    assert value == 0 and (dlogits == 0).all()


def test_weight_zero_hides_a_finite_loss_but_not_a_broken_one():
    logits, y, weights = np.array(normal(18)), np.asarray(INTS), np.array([0.0, 1, 1, 1, 1])
    close(by_hand(CE)(logits, y, weights)[0], by_hand(CE)(logits[1:], y[1:])[0])
    logits[0] = np.nan
    value, dlogits = map(np.asarray, assert_agree(CE, logits, y, weights))
    assert np.isnan(value) and np.isnan(dlogits[0]).all() and np.isfinite(dlogits[1:]).all()
    logits[0] = [0, -np.inf, 0, 0]
    assert np.isnan(by_hand(CE)(logits, y, weights)[0])


def test_bool_weights_select():
    chosen = np.array([True, False, True, True, False])
    logits, y = np.asarray(RAW)[chosen], np.asarray(INTS)[chosen]
    value, dlogits = by_hand(CE)(RAW, INTS, chosen)
    expected, dchosen = by_hand(CE)(logits, y)
    close(value, expected)
    close(np.asarray(dlogits)[chosen], dchosen)


def test_the_mean_is_over_all_numbers_of_any_shape():
    logits, y = normal(23, (3, 2, 4)), normal(24, (3, 2, 4))
    value, dlogits = assert_agree(MeanSquaredError(), logits, y)
    close(value, jnp.square(logits - y).mean())
    close(dlogits, 2 * (logits - y) / 24)
    assert_agree(Huber(), logits[:, 0, 0], y[:, 0, 0])


def test_a_users_loss_needs_per_example_alone():
    error = np.asarray(normal(25) - SOFT)
    value, dlogits = by_hand(Absolute())(normal(25), SOFT, UNEVEN)
    close(value, np.average(np.abs(error).sum(1), weights=UNEVEN))
    close(dlogits, np.sign(error) * np.asarray(UNEVEN)[:, None] / np.sum(UNEVEN))
    assert Absolute() == Absolute() and hash(Absolute()) == hash(Absolute()) and Absolute() != Loss()


def test_a_users_loss_in_low_precision_is_averaged_in_float32():
    logits = jnp.ones((512, 1), jnp.bfloat16)
    value, dlogits = by_hand(Absolute())(logits, jnp.zeros_like(logits))
    assert value.dtype == jnp.float32 and dlogits.dtype == jnp.bfloat16 and value == 1

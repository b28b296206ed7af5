"""losses.py against optax and closed forms; its hand-derived gradients against jax.grad of the plain formula."""

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handgrad.losses import BinaryCrossEntropy, Hinge, Huber, Loss, MeanSquaredError, SoftmaxCrossEntropy

N, K = 5, 4
WEIGHTS = (0.5, 2.0, 1.0, 3.0)
INTS = jnp.array([1, 0, 3, 3, 2])
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-15)


def normal(seed, shape=(N, K)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


RAW, SOFT = normal(0), jax.nn.softmax(normal(1))
UNEVEN = jnp.array([0.5, 0, 2, 1, 0.3])
CE = SoftmaxCrossEntropy()
ELEMENTWISE = [BinaryCrossEntropy(), MeanSquaredError(), Huber(), Huber(delta=0.3)]
CASES = [  # loss, labels; the last eight are one of each kind
    (SoftmaxCrossEntropy(), INTS.astype(jnp.uint8)),
    (SoftmaxCrossEntropy(), jax.nn.one_hot(INTS, K, dtype=jnp.int32)),
    (SoftmaxCrossEntropy(), SOFT),
    (SoftmaxCrossEntropy(label_smoothing=0.1), INTS),
    (SoftmaxCrossEntropy(ignore_index=3), INTS),
    (SoftmaxCrossEntropy(ignore_index=-100), INTS.at[1].set(-100)),
    (SoftmaxCrossEntropy(ignore_index=255), INTS.at[1].set(255).astype(jnp.uint8)),
    (SoftmaxCrossEntropy(class_weights=WEIGHTS), INTS),
    (SoftmaxCrossEntropy(class_weights=WEIGHTS), SOFT),
    (BinaryCrossEntropy(), jax.nn.one_hot(INTS, K, dtype=jnp.bool_)),
    (Hinge(margin=0.3), INTS),
    (SoftmaxCrossEntropy(), INTS),
    (SoftmaxCrossEntropy(label_smoothing=0.1), SOFT),
    (SoftmaxCrossEntropy(label_smoothing=0.2, ignore_index=0, class_weights=WEIGHTS), INTS),
    *((loss, SOFT) for loss in ELEMENTWISE),
    (Hinge(), INTS),
]
every_case, main_cases = (
    pytest.mark.parametrize("loss, y", [pytest.param(*c, id=f"{c[0]}-{c[1].dtype}{list(c[1].shape)}") for c in cases])
    for cases in (CASES, CASES[-8:])
)


@cache
def three_ways(loss):
    """Value and dlogits by hand, by jax.grad, and by the base class from per_example alone."""
    derived = type("Derived", (Loss,), {"per_example": loss.per_example, "divisor": loss.divisor})()
    ways = (loss.value_and_grad, jax.value_and_grad(loss), derived.value_and_grad)
    return jax.jit(lambda logits, y, weights: [way(logits, y, weights) for way in ways])


@cache
def by_hand(loss):
    return jax.jit(loss.value_and_grad)


def assert_agree(loss, logits, y, weights=None, compare=close):
    """The three ways agree; returns value and dlogits."""
    hand, automatic, derived = three_ways(loss)(logits, y, jnp.ones(len(logits)) if weights is None else weights)
    jax.tree.map(compare, hand, automatic)
    jax.tree.map(compare, derived, automatic)
    return hand


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
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
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


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), *ELEMENTWISE])
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


def with_second_row(row):
    rows = np.eye(K)[np.asarray(INTS)]
    rows[1] = row
    return rows


BAD_LABELS = [  # loss, labels whose second example is bad, message
    (SoftmaxCrossEntropy(), [1, 4, 3, 3, 2], "from 0 to 3, got 4 at index 1"),
    (SoftmaxCrossEntropy(), [1, -1, 3, 3, 2], "from 0 to 3, got -1 at index 1"),
    (SoftmaxCrossEntropy(ignore_index=-1), [1, -2, -1, 3, 2], "from 0 to 3, got -2 at index 1"),
    (SoftmaxCrossEntropy(class_weights=WEIGHTS), [1, 9, 3, 3, 2], "from 0 to 3, got 9 at index 1"),
    (SoftmaxCrossEntropy(0.1), with_second_row([0, 2, -1, 0]), "in [0, 1], got 2.0 at index (1, 1)"),
    (SoftmaxCrossEntropy(), with_second_row([0, 0, 0, 0]), "rows with sum 1, got 0.0 at index 1"),
    (SoftmaxCrossEntropy(), with_second_row([1, 0, np.nan, 0]), "in [0, 1], got nan at index (1, 2)"),
    (BinaryCrossEntropy(), with_second_row([0, 1, 1.5, 0]), "in [0, 1], got 1.5 at index (1, 2)"),
    (BinaryCrossEntropy(), with_second_row([0, -0.5, 1, 0]), "in [0, 1], got -0.5 at index (1, 1)"),
    (Hinge(), [1, 4, 3, 3, 2], "from 0 to 3, got 4 at index 1"),
]


@pytest.mark.parametrize("loss, y, message", BAD_LABELS)
@pytest.mark.parametrize("jit", [False, True])
def test_a_bad_label_that_can_be_read_is_named(loss, y, message, jit):
    run = jax.jit(lambda o: loss(o, y)) if jit else lambda o: loss(o, y)
    with pytest.raises(ValueError, match=f"^{type(loss).__name__}: labels must be {re.escape(message)}"):
        run(normal(20))
    with pytest.raises(ValueError, match=re.escape(message)):
        loss.value_and_grad(normal(20), np.asarray(y))


@pytest.mark.parametrize("loss, y", [case[:2] for case in BAD_LABELS])
def test_a_bad_label_that_cannot_be_read_poisons_loss_and_gradient(loss, y):
    for value, dlogits in three_ways(loss)(normal(21), jnp.asarray(y), jnp.ones(N)):
        assert jnp.isnan(value)
        np.testing.assert_array_equal(np.isnan(dlogits), np.arange(N)[:, None] * np.ones((1, K)) == 1)


def test_a_bad_label_in_a_jax_array_is_never_read():
    assert jnp.isnan(CE(RAW, jnp.array([1, 4, 3, 3, 2])))


def test_a_bad_label_for_the_hinge_poisons_even_where_no_class_is_near():
    logits, y = jnp.full((1, K), -50.0), jnp.array([K])
    for value, dlogits in three_ways(Hinge())(logits, y, jnp.ones(1)):
        assert jnp.isnan(value) and jnp.isnan(dlogits).all()


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.uint32, jnp.uint64])
def test_any_int_labels(dtype):
    loss, y = SoftmaxCrossEntropy(ignore_index=-100), np.asarray(INTS).astype(dtype)
    close(by_hand(loss)(RAW, y)[0], CE(RAW, INTS))
    close(loss(RAW, y), CE(RAW, INTS))


def test_narrow_labels_do_not_wrap_around():
    loss, logits, y = SoftmaxCrossEntropy(ignore_index=-100), normal(23, (2, 300)), jnp.array([156, 44])  # 256 - 100
    jax.tree.map(close, by_hand(loss)(logits, y.astype(jnp.uint8)), by_hand(loss)(logits, y))


def test_the_mean_is_over_all_numbers_of_any_shape():
    logits, y = normal(23, (3, 2, 4)), normal(24, (3, 2, 4))
    value, dlogits = assert_agree(MeanSquaredError(), logits, y)
    close(value, jnp.square(logits - y).mean())
    close(dlogits, 2 * (logits - y) / 24)
    assert_agree(Huber(), logits[:, 0, 0], y[:, 0, 0])


class Absolute(Loss):
    """A user's loss, with nothing but its formula."""

    def per_example(self, logits, y):
        return jnp.abs(logits - y).sum(1)


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


def test_a_users_loss_of_the_wrong_shape_is_named():
    wrong = type("Wrong", (Loss,), {"per_example": lambda self, logits, y: logits - y})()
    with pytest.raises(
        ValueError, match=r"^Wrong: per_example must give one loss for each of 5 examples, got \(5, 4\)"
    ):
        wrong(normal(26), SOFT)
    with pytest.raises(NotImplementedError, match="^Loss: write per_example"):
        Loss()(normal(26), SOFT)


BAD_SHAPES = [  # loss, logits, labels, message
    (CE, RAW, INTS[:, None], "labels must have the logits' shape (5, 4), got (5, 1); int classes have shape (n,)"),
    (CE, RAW, INTS[:3], "int labels must have shape (5,) for logits (5, 4), got (3,)"),
    (CE, RAW, 1, "int labels must have shape (5,) for logits (5, 4), got ()"),
    (CE, RAW, SOFT[:, :3], "labels must have the logits' shape (5, 4), got (5, 3)"),
    (CE, RAW[:, 0], INTS, "logits must be (n, classes), got shape (5,)"),
    (CE, RAW[:0], INTS[:0], "logits must be (n, ...) and not empty, got shape (0, 4)"),
    (SoftmaxCrossEntropy(ignore_index=0), RAW, SOFT, "ignore_index needs int labels of shape (n,), got labels of"),
    (SoftmaxCrossEntropy(class_weights=(1.0,)), RAW, INTS, "class_weights must have one number for each of 4 classes"),
    (BinaryCrossEntropy(), RAW[:, :1], INTS, "labels must have the logits' shape (5, 1), got (5,); reshape one"),
    (MeanSquaredError(), RAW[:, 0], INTS[:, None], "labels must have the logits' shape (5,), got (5, 1); reshape"),
    (Huber(), RAW, SOFT[:3], "labels must have the logits' shape (5, 4), got (3, 4)"),
    (Hinge(), RAW, SOFT, "int labels must have shape (5,) for logits (5, 4), got (5, 4)"),
]


@pytest.mark.parametrize("loss, logits, y, message", BAD_SHAPES)
def test_shapes_that_do_not_fit_are_named(loss, logits, y, message):
    for run in (loss, loss.value_and_grad, jax.jit(loss)):
        with pytest.raises(ValueError, match=re.escape(f"{type(loss).__name__}: {message}")):
            run(logits, y)


@pytest.mark.parametrize("weights", [jnp.ones(4), jnp.ones((5, 1)), 2.0])
def test_weights_of_another_shape_are_named(weights):
    with pytest.raises(ValueError, match=r"^Hinge: weights must be one number an example, shape \(5,\), got"):
        Hinge()(RAW, INTS, weights)


BAD_DTYPES = [  # loss, logits, labels, message
    (CE, RAW, INTS.astype(float), "labels of shape (n,) must be int class numbers, got float64; use astype(int)"),
    (CE, RAW, INTS > 1, "labels of shape (n,) must be int class numbers, got bool"),
    (CE, RAW.astype(int), INTS, "logits must be floating, got int64"),
    (MeanSquaredError(), RAW.astype(int), SOFT, "logits must be floating, got int64"),
    (MeanSquaredError(), RAW, SOFT.astype(complex), "labels must be real numbers, got complex128"),
    (Absolute(), RAW.astype(int), SOFT, "logits must be floating, got int64"),
]


@pytest.mark.parametrize("loss, logits, y, message", BAD_DTYPES)
def test_dtypes_that_do_not_fit_are_named(loss, logits, y, message):
    for run in (loss, loss.value_and_grad, jax.jit(loss)):
        with pytest.raises(TypeError, match=re.escape(f"{type(loss).__name__}: {message}")):
            run(logits, y)


BAD_SETTINGS = [  # loss class, settings, error, message
    (SoftmaxCrossEntropy, {"label_smoothing": 1.5}, ValueError, "label_smoothing must be from 0 to 1, got 1.5"),
    (SoftmaxCrossEntropy, {"ignore_index": 1.0}, TypeError, "ignore_index must be an int or None, got 1.0"),
    (SoftmaxCrossEntropy, {"class_weights": [1.0]}, TypeError, "class_weights must be a tuple of floats, got list"),
    (SoftmaxCrossEntropy, {"class_weights": (-1.0,)}, ValueError, "class_weights must be finite and >= 0, got"),
    (Huber, {"delta": 0}, ValueError, "delta must be above 0, got 0"),
]


@pytest.mark.parametrize("loss_class, arguments, error, message", BAD_SETTINGS)
def test_bad_settings_are_named(loss_class, arguments, error, message):
    with pytest.raises(error, match=f"^{loss_class.__name__}: {message}"):
        loss_class(**arguments)

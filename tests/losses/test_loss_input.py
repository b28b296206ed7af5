"""Losses given bad labels, shapes, dtypes and settings: an error by name, or NaN where the labels cannot be read."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
from loss_cases import CE, INTS, RAW, SOFT, WEIGHTS, Absolute, K, N, by_hand, close, normal, three_ways


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
    (Focal(), [1, 4, 3, 3, 2], "from 0 to 3, got 4 at index 1"),
    (Focal(ignore_index=-1), [1, -2, -1, 3, 2], "from 0 to 3, got -2 at index 1"),
    (Focal(0.5), with_second_row([0, 0, 0, 0]), "rows with sum 1, got 0.0 at index 1"),
    (KLDivergence(), with_second_row([0, 2, -1, 0]), "in [0, 1], got 2.0 at index (1, 1)"),
    (KLDivergence(), with_second_row([0, 0, 0, 0]), "rows with sum 1, got 0.0 at index 1"),
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
    (CE, RAW[:, None], INTS, "logits must be (n, classes), got shape (5, 1, 4); Flatten() makes an image one row"),
    (CE, RAW[:0], INTS[:0], "logits must be (n, ...) and not empty, got shape (0, 4)"),
    (SoftmaxCrossEntropy(ignore_index=0), RAW, SOFT, "ignore_index needs int labels of shape (n,), got labels of"),
    (SoftmaxCrossEntropy(class_weights=(1.0,)), RAW, INTS, "class_weights must have one number for each of 4 classes"),
    (BinaryCrossEntropy(), RAW[:, :1], INTS, "labels must have the logits' shape (5, 1), got (5,); reshape one"),
    (MeanSquaredError(), RAW[:, 0], INTS[:, None], "labels must have the logits' shape (5,), got (5, 1); reshape"),
    (Huber(), RAW, SOFT[:3], "labels must have the logits' shape (5, 4), got (3, 4)"),
    (Hinge(), RAW, SOFT, "int labels must have shape (5,) for logits (5, 4), got (5, 4)"),
    (Focal(), RAW, INTS[:3], "int labels must have shape (5,) for logits (5, 4), got (3,)"),
    (Focal(class_weights=(1.0,)), RAW, INTS, "class_weights must have one number for each of 4 classes"),
    (KLDivergence(), RAW, INTS, "labels must have the logits' shape (5, 4), got (5,); a row of probabilities"),
    (KLDivergence(), RAW[:, 0], RAW[:, 0], "logits must be (n, classes), got shape (5,)"),
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
    (Focal, {"gamma": -1.0}, ValueError, "gamma must be finite and >= 0, got -1.0"),
    (Focal, {"ignore_index": True}, TypeError, "ignore_index must be an int or None, got True"),
    (Focal, {"class_weights": [1.0]}, TypeError, "class_weights must be a tuple of floats, got list"),
]


@pytest.mark.parametrize("loss_class, arguments, error, message", BAD_SETTINGS)
def test_bad_settings_are_named(loss_class, arguments, error, message):
    with pytest.raises(error, match=f"^{loss_class.__name__}: {message}"):
        loss_class(**arguments)


def test_another_reduction_is_named():
    with pytest.raises(ValueError, match='^Hinge: reduction must be "mean", "sum" or "none", got \'batchmean\''):
        Hinge()(RAW, INTS, reduction="batchmean")  # pyright: ignore[reportArgumentType]

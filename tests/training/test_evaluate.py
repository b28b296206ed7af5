"""training/evaluate.py: exact on any batch size, and loud about bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.layers import BatchNorm, Chain, Dense, Dropout, Flatten
from handgrad.losses import Hinge, MeanSquaredError, SoftmaxCrossEntropy
from handgrad.training import evaluate, predict

NET = Chain(Flatten(), Dense(3), BatchNorm(), Dropout(0.5))
PARAMS, STATE = NET.init(jax.random.key(0), (2, 2, 1), jnp.float64)
STATE = {"batchnorm1": {"mean": jnp.array([0.1, 0.2, 0.3]), "var": jnp.array([1.0, 2.0, 3.0])}}
X = np.random.default_rng(0).normal(size=(11, 2, 2, 1))
Y = np.arange(11) % 3
LOGITS = np.asarray(NET.apply(PARAMS, jnp.asarray(X), STATE))


@pytest.mark.parametrize("batch_size", [4, 11, 256])
@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(class_weights=(1.0, 2.0, 5.0)), Hinge()], ids=["ce", "hinge"])
def test_exact_on_a_ragged_last_batch(batch_size, loss):
    result = evaluate(NET, PARAMS, STATE, X, Y, loss=loss, batch_size=batch_size)
    assert result["accuracy"] == (LOGITS.argmax(1) == Y).mean()
    np.testing.assert_allclose(result["loss"], loss(jnp.asarray(LOGITS), Y), rtol=1e-13)
    np.testing.assert_allclose(predict(NET, PARAMS, STATE, X, batch_size), LOGITS, rtol=1e-13)


def test_one_shape_is_compiled():
    shapes = []

    class Spy(Flatten):
        def apply(self, params, x, state=()):
            shapes.append(x.shape)
            return super().apply(params, x, state)

    predict(Chain(Spy()), {}, {}, X, batch_size=4)
    assert set(shapes) == {(1, 2, 2, 1), (4, 2, 2, 1)}  # the first to check shapes, without compute


def test_sums_do_not_drift_over_many_batches():
    x = np.full((3000, 1), 0.1, np.float32)
    net, y = Chain(Flatten()), np.zeros((3000, 1), np.float32)
    expected = np.float64(np.float32(0.1) ** 2)
    loss = evaluate(net, {}, {}, x, y, loss=MeanSquaredError(), batch_size=64)["loss"]
    np.testing.assert_allclose(loss, expected, rtol=1e-13)


def test_labels_that_are_no_classes_have_no_accuracy():
    result = evaluate(NET, PARAMS, STATE, X, LOGITS + 1, loss=MeanSquaredError())
    assert np.isnan(result["accuracy"]) and abs(result["loss"] - 1) < 1e-12
    assert evaluate(NET, PARAMS, STATE, X, np.eye(3)[Y]) == evaluate(NET, PARAMS, STATE, X, Y)


def test_ignored_labels_do_not_count():
    loss, y = SoftmaxCrossEntropy(ignore_index=-1), np.where(np.arange(11) < 5, Y, -1)
    result = evaluate(NET, PARAMS, STATE, X, y, loss=loss, batch_size=4)
    assert result["accuracy"] == (LOGITS[:5].argmax(1) == Y[:5]).mean()
    np.testing.assert_allclose(result["loss"], loss(jnp.asarray(LOGITS[:5]), Y[:5]), rtol=1e-13)


BAD = {
    r"evaluate: labels must be from 0 to 2, for the net has 3 classes, got 7 at index 9": (
        X,
        np.where(np.arange(11) > 8, 7, 1),
    ),
    r"evaluate: x and y must have as many examples, got x \(11, 2, 2, 1\) and y \(10,\)": (X, Y[:10]),
    r"evaluate: x must hold at least one example, .* got shape \(0, 2, 2, 1\)": (X[:0], Y[:0]),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_values_are_named(message):
    with pytest.raises(ValueError, match=message):
        evaluate(NET, PARAMS, STATE, *BAD[message])


def test_bad_types_are_named():
    with pytest.raises(TypeError, match="evaluate: x must be floating point, got uint8; .*data.normalise"):
        evaluate(NET, PARAMS, STATE, X.astype(np.uint8), Y)
    with pytest.raises(TypeError, match="predict: batch_size must be an int, got 2.0"):
        predict(NET, PARAMS, STATE, X, 2.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="evaluate: x must be an array, got list"):
        evaluate(NET, PARAMS, STATE, X.tolist(), Y)
    with pytest.raises(TypeError, match="evaluate: y must be an array, got list"):
        evaluate(NET, PARAMS, STATE, X, Y.tolist())
    with pytest.raises(TypeError, match="evaluate: loss must be an hg.losses.Loss, got 'hinge'"):
        evaluate(NET, PARAMS, STATE, X, Y, loss="hinge")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="predict: batch_size must be at least 1, got 0"):
        predict(NET, PARAMS, STATE, X, 0)


def test_an_x_of_another_shape_names_the_layer():
    with pytest.raises(ValueError, match="dense: the last axis of x") as error:
        predict(NET, PARAMS, STATE, X[:, :1])
    assert "in Dense 'dense1'" in error.value.__notes__

"""metrics.py against numpy, and which class wins a tie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.metrics import accuracy, confusion_matrix, top_k_accuracy, zero_one_loss

N, K = 40, 6
LOGITS = np.random.default_rng(0).normal(size=(N, K))
LABELS = np.random.default_rng(1).integers(0, K, N)
BEST = np.argsort(-LOGITS, axis=1)
LABEL_FORMS = [LABELS, LABELS.astype(np.uint8), jnp.asarray(LABELS), LABELS.tolist(), np.eye(K)[LABELS] * 0.6 + 0.1]


@pytest.mark.parametrize("y", LABEL_FORMS, ids=["numpy", "uint8", "jax", "list", "soft"])
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16])
def test_metrics_match_numpy(y, dtype):
    logits = jnp.asarray(LOGITS, dtype)
    hits = LABELS[:, None] == BEST
    assert accuracy(logits, y) == np.float32(hits[:, 0].mean())
    assert zero_one_loss(logits, y) == np.float32(1 - hits[:, 0].mean())
    for k in (1, 3, K):
        assert top_k_accuracy(logits, y, k) == np.float32(hits[:, :k].any(1).mean())
    assert {m(logits, y).dtype for m in (accuracy, zero_one_loss, top_k_accuracy)} == {jnp.dtype(jnp.float32)}


def test_jit_and_vmap():
    logits, y = LOGITS.reshape(4, 10, K), LABELS.reshape(4, 10)
    for metric in (accuracy, zero_one_loss, lambda o, y: top_k_accuracy(o, y, 2)):
        expected = [metric(o, labels) for o, labels in zip(logits, y, strict=True)]
        np.testing.assert_array_equal(jax.jit(jax.vmap(metric))(logits, y), expected)


@pytest.mark.parametrize("label, right, in_two", [(1, 1, 1), (2, 0, 1), (3, 0, 0)])
def test_the_first_maximum_wins_a_tie(label, right, in_two):
    logits, y = jnp.array([[0.0, 5.0, 5.0, 5.0]]), jnp.array([label])
    assert accuracy(logits, y) == right == 1 - zero_one_loss(logits, y)
    assert top_k_accuracy(logits, y, 2) == in_two


@pytest.mark.parametrize("y", [[1, 0, 0], [[1], [0], [0]], [[0.9], [0.1], [0.5]]])
def test_one_column_is_a_yes_or_no(y):
    logits = jnp.array([[2.0], [3.0], [0.0]])
    np.testing.assert_allclose(accuracy(logits, y), 2 / 3, rtol=1e-6)
    np.testing.assert_array_equal(confusion_matrix(logits, y, 2), [[1, 1], [0, 1]])


def test_a_label_that_is_no_class_is_never_right():
    logits = jnp.ones((2, 3))
    assert accuracy(logits, jnp.array([0, -1])) == 0.5 == top_k_accuracy(logits, jnp.array([3, 1]), 3)


def test_gradient_is_zero():
    assert (jax.grad(lambda o: zero_one_loss(o, LABELS))(jnp.asarray(LOGITS)) == 0).all()


def test_confusion_matrix_matches_a_loop():
    expected = np.zeros((K, K), int)
    for true, predicted in zip(LABELS, BEST[:, 0], strict=True):
        expected[true, predicted] += 1
    for given in (LOGITS, BEST[:, 0], jnp.asarray(BEST[:, 0])):
        counts = jax.jit(confusion_matrix, static_argnums=2)(given, LABELS, K)
        np.testing.assert_array_equal(counts, expected)
        assert counts.dtype == jnp.int32
    assert np.trace(expected) / N == pytest.approx(float(accuracy(LOGITS, LABELS)))


def test_confusion_matrix_leaves_out_what_is_no_class():
    counts = confusion_matrix(jnp.array([0, 1, -1, 2, 1]), jnp.array([0, -1, 1, 1, 1]), 2)
    np.testing.assert_array_equal(counts, [[1, 0], [0, 1]])


RAGGED = r"labels must be \(n,\) or \(n, K\) for logits \(40, 6\), got"
BAD = [
    (lambda: accuracy(LOGITS, LABELS[:, None]), ValueError, rf"^accuracy: {RAGGED} \(40, 1\)"),
    (lambda: top_k_accuracy(LOGITS, np.eye(K)), ValueError, rf"^top_k_accuracy: {RAGGED} \(6, 6\)"),
    (
        lambda: zero_one_loss(LOGITS, LABELS[:3]),
        ValueError,
        r"^zero_one_loss: labels must be \(n,\) .*, got shape \(3,\)",
    ),
    (lambda: accuracy(LOGITS[0], LABELS), ValueError, r"^accuracy: logits must be \(n, classes\) and not empty"),
    (
        lambda: accuracy(LOGITS[:0], LABELS[:0]),
        ValueError,
        r"^accuracy: logits must be .* not empty, got shape \(0, 6\)",
    ),
    (
        lambda: accuracy(LOGITS, LABELS * 1.0),
        TypeError,
        r"^accuracy: labels of shape \(n,\) must be int .* got float64",
    ),
    (
        lambda: top_k_accuracy(LOGITS, LABELS, 7),
        ValueError,
        "^top_k_accuracy: k must be from 1 to the 6 classes, got 7",
    ),
    (
        lambda: top_k_accuracy(LOGITS, LABELS, 0),
        ValueError,
        "^top_k_accuracy: k must be from 1 to the 6 classes, got 0",
    ),
    (lambda: top_k_accuracy(LOGITS[0], LABELS, 1), ValueError, "^top_k_accuracy: logits must be"),
    (
        lambda: confusion_matrix(LOGITS, LABELS, 5),
        ValueError,
        r"^confusion_matrix: logits must be \(n, 5\) for 5 classes",
    ),
    (lambda: confusion_matrix(LABELS * 1.0, LABELS, K), TypeError, "^confusion_matrix: predictions .* got float64"),
    (lambda: confusion_matrix(LABELS[:3], LABELS, K), ValueError, r"^confusion_matrix: labels must be \(n,\)"),
]


@pytest.mark.parametrize("call, error, message", BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()

"""data.augment.mixup: images and labels by one share, shares and partners as they should be, and training with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from draws import KEY, assert_uniform, images
from handgrad.data import augment
from handgrad.gradient import Objective
from handgrad.layers import Chain, Dense, Flatten
from handgrad.losses import SoftmaxCrossEntropy
from handgrad.optimizers import sgd
from handgrad.training import fit, init_train_state, make_train_step
from handgrad.training.step import batch_accuracy


def test_mixup_mixes_images_and_labels_by_the_same_share():
    x, y = images(50), np.arange(50)
    got, labels = augment.mixup(50, alpha=1.0)(KEY, x.astype("float64"), y)
    labels = np.asarray(labels, "float64")
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
    assert labels.min() >= 0 and labels.max() <= 1 and (labels > 0).sum(1).max() == 2
    np.testing.assert_allclose(got, np.einsum("nm,mhwc->nhwc", labels, x), atol=1e-6)  # float32 labels
    assert len(set(labels.max(1))) > 40


def test_mixup_takes_every_partner_alike():
    keys, y = jax.random.split(KEY, 500), np.arange(4)
    labels = jax.vmap(lambda key: augment.mixup(4, alpha=1.0)(key, np.zeros((4, 1, 1, 1)), y)[1])(keys)
    assert_uniform(np.count_nonzero(np.asarray(labels)[:, 0, 1:], axis=0))
    alone = (np.asarray(labels)[:, 0, 0] == 1).sum()
    assert stats.binomtest(int(alone), 500, 0.25).pvalue > 1e-6


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_the_shares_of_mixup_are_beta(alpha):
    keys, x = jax.random.split(KEY, 4000), np.zeros((2, 1, 1, 1))
    shares = np.asarray(jax.vmap(lambda key: augment.mixup(2, alpha=alpha)(key, x, np.eye(2))[1])(keys))[:, 0, 0]
    shares = shares[shares < 1]  # the others met themselves
    assert 0.45 < len(shares) / 4000 < 0.55
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-6


def test_mixup_of_soft_labels_keeps_their_dtype_and_their_sum():
    twice = augment.compose(augment.mixup(3), augment.mixup(3, alpha=2.0))
    assert twice(KEY, images(dtype="float32"), np.array([0, 1, 2, 2], np.uint8))[1].dtype == jnp.float32
    soft = np.array([[0.2, 0.3, 0.5], [1, 0, 0]])
    labels = augment.mixup(3)(KEY, images(2, dtype="float32"), soft)[1]
    assert labels.dtype == jnp.float64
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-7)


@pytest.mark.parametrize("alpha", [1e-30, 1e6])
def test_extreme_shares_are_labels_still(alpha):
    x, y = np.zeros((500, 1, 1, 1), "float32"), np.arange(500) % 2
    labels = np.asarray(augment.mixup(2, alpha=alpha)(KEY, x, y)[1])
    assert (labels >= 0).all() and (labels <= 1).all()
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)


def test_a_bad_label_is_seen_in_mixup():
    labels = np.asarray(augment.mixup(3)(KEY, images(), np.array([0, 3, -1, 2]))[1])
    assert np.isnan(labels[[1, 2]]).all()


def test_mixup_trains():
    x = images(32, 4, 4, 1, "float32")
    y = (x.sum((1, 2, 3)) > 0).astype("int32")
    net, loss = Chain(Flatten(), Dense(2)), SoftmaxCrossEntropy(label_smoothing=0.1)
    step = make_train_step(Objective(net, loss), sgd(0.5))
    start = init_train_state(net, sgd(0.5), jax.random.key(0), (4, 4, 1))
    settings = {"batch_size": 16, "epochs": 15, "progress": False}
    mix = augment.compose(augment.flip(), augment.mixup(2))
    _, history = fit(start, step, x, y, augment=mix, **settings)
    assert np.isfinite(history["loss"]).all() and history["loss"][-1] < history["loss"][0]
    assert history["accuracy"][-1] > 0.7


def test_accuracy_and_loss_of_mixed_labels_by_hand():
    logits, soft = np.log([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]), np.array([[0.7, 0.3, 0], [0.8, 0.2, 0]])
    loss = SoftmaxCrossEntropy()
    value, dlogits = jax.jit(loss.value_and_grad)(logits, soft)
    np.testing.assert_allclose(value, np.log(2) * np.mean([0.7 + 2 * 0.3, 2 * 0.8 + 0.2]))
    np.testing.assert_allclose(dlogits, (np.exp(logits) - soft) / 2, atol=1e-12)
    assert batch_accuracy(loss, jnp.asarray(logits), jnp.asarray(soft), None) == 0.5

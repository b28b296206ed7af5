"""losses/ against torch.nn.functional, value and gradient, for sum, mean and none; settings and logits drawn."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from against_torch import TIERS, assert_equal, for_drawn
from handgrad.losses import (
    BinaryCrossEntropy,
    Focal,
    Hinge,
    Huber,
    KLDivergence,
    MeanSquaredError,
    NegativeLogLikelihood,
    SoftmaxCrossEntropy,
)

N, K = 6, 5
REDUCTIONS = ("mean", "sum", "none")
WEIGHTS = (0.5, 2.0, 1.0, 3.0, 0.0)


@cache
def by_hand(loss):
    return jax.jit(lambda o, y: {r: loss.value_and_grad(o, y, reduction=r) for r in REDUCTIONS})


def assert_as_torch(loss, logits, y, fn, reductions=REDUCTIONS):
    """By hand as torch has it; fn(logits, labels, reduction) in torch gives a number, or the losses (n,) for none."""
    ours = by_hand(loss)(jnp.asarray(logits), jnp.asarray(y))
    for reduction in reductions:
        o = torch.tensor(logits, requires_grad=True)
        value = fn(o, torch.tensor(y), reduction)
        value.sum().backward()
        assert o.grad is not None
        assert_equal([np.asarray(a) for a in ours[reduction]], [value.detach().numpy(), o.grad.numpy()])


def drawn(seed, scale):
    """Logits (n, k), int labels (n,), and probabilities (n, k) with some zeros."""
    random = np.random.default_rng(seed)
    soft = random.exponential(size=(N, K)) * (random.uniform(size=(N, K)) < 0.7)
    soft[:, 0] += 0.1
    return random.normal(size=(N, K)) * scale, random.integers(0, K - 1, N), soft / soft.sum(1, keepdims=True)


POINTS = st.builds(drawn, st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 10.0, 1000.0]))


@TIERS
@pytest.mark.parametrize(
    ("smoothing", "weights"),
    [
        (0.0, None),
        pytest.param(0.0, WEIGHTS, marks=pytest.mark.slow),
        (0.2, WEIGHTS),
        pytest.param(1.0, None, marks=pytest.mark.slow),
    ],
)
def test_cross_entropy(smoothing, weights, examples):
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)

    def check(point):
        logits, labels, soft = point
        given = {"weight": weight, "label_smoothing": smoothing}
        labels[0], labels[1] = 1, 2
        loss = SoftmaxCrossEntropy(smoothing, 2, weights)
        assert_as_torch(
            loss, logits, labels, lambda o, y, r: F.cross_entropy(o, y, ignore_index=2, reduction=r, **given)
        )
        # torch divides the weighted losses of soft labels by n
        reductions = REDUCTIONS if weights is None else ("sum", "none")
        loss = SoftmaxCrossEntropy(smoothing, None, weights)
        assert_as_torch(loss, logits, soft, lambda o, y, r: F.cross_entropy(o, y, reduction=r, **given), reductions)

    for_drawn(examples, POINTS, check)


@TIERS
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_negative_log_likelihood(weights, examples):
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)

    def check(point):
        log_p, labels, _ = point
        labels[0], labels[1] = 1, 2
        loss = NegativeLogLikelihood(2, weights)
        assert_as_torch(loss, log_p, labels, lambda o, y, r: F.nll_loss(o, y, weight, ignore_index=2, reduction=r))

    for_drawn(examples, POINTS, check)


@TIERS
@pytest.mark.parametrize("gamma", [0.5, *(pytest.param(gamma, marks=pytest.mark.slow) for gamma in (2.0, 3.7))])
def test_focal_against_its_formula(gamma, examples):
    def focal(o, y, reduction):
        log_p = F.log_softmax(o, 1).gather(1, y[:, None])[:, 0]
        losses = -((-torch.expm1(log_p)) ** gamma) * log_p
        return {"mean": losses.mean, "sum": losses.sum, "none": losses.clone}[reduction]()

    def check(point):
        assert_as_torch(Focal(gamma), point[0], point[1], focal)

    mild = st.builds(drawn, st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 5.0]))  # at p = 1 torch's slope is NaN
    for_drawn(examples, mild, check)


@TIERS
def test_kl_divergence(examples):
    def divergence(o, y, reduction):
        log_p = F.log_softmax(o, 1)
        if reduction == "none":
            return F.kl_div(log_p, y, reduction="none").sum(1)
        return F.kl_div(log_p, y, reduction="batchmean" if reduction == "mean" else "sum")

    for_drawn(examples, POINTS, lambda point: assert_as_torch(KLDivergence(), point[0], point[2], divergence))


@TIERS
@pytest.mark.parametrize(
    "loss, fn",
    [
        pytest.param(BinaryCrossEntropy(), F.binary_cross_entropy_with_logits, id="binary_cross_entropy"),
        pytest.param(MeanSquaredError(), F.mse_loss, id="mse"),
        pytest.param(Huber(), F.huber_loss, id="huber"),
        pytest.param(Huber(0.3), lambda o, y, reduction: F.huber_loss(o, y, reduction, 0.3), id="huber-delta"),
    ],
)
def test_losses_of_numbers(loss, fn, examples):
    def per_example(o, y, reduction):  # an example's loss is the mean over its k numbers
        value = fn(o, y, reduction=reduction)
        return {"mean": value, "sum": value / K, "none": value.mean(1) if value.ndim else value}[reduction]

    for_drawn(examples, POINTS, lambda point: assert_as_torch(loss, point[0], point[2], per_example))


@TIERS
@pytest.mark.parametrize("margin", [1.0, 0.3])
def test_hinge(margin, examples):
    def hinge(o, y, reduction):
        return F.multi_margin_loss(o, y, margin=margin, reduction=reduction)

    for_drawn(examples, POINTS, lambda point: assert_as_torch(Hinge(margin), point[0], point[1], hinge))

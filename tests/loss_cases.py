"""What the tests of losses share: cases, drawn numbers, and three ways to one gradient."""

from functools import cache, partial

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
    NegativeLogLikelihood,
    SoftmaxCrossEntropy,
)

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
CASES = [  # loss, labels; the last eleven are one of each kind
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
    (Focal(1.0, ignore_index=3), INTS),
    (NegativeLogLikelihood(ignore_index=3), INTS),
    (NegativeLogLikelihood(class_weights=WEIGHTS), SOFT),
    (Focal(0.0), jax.nn.one_hot(INTS, K, dtype=jnp.int32)),
    (SoftmaxCrossEntropy(), INTS),
    (SoftmaxCrossEntropy(label_smoothing=0.1), SOFT),
    (SoftmaxCrossEntropy(label_smoothing=0.2, ignore_index=0, class_weights=WEIGHTS), INTS),
    *((loss, SOFT) for loss in ELEMENTWISE),
    (Hinge(), INTS),
    (Focal(), INTS),
    (Focal(gamma=0.5, class_weights=WEIGHTS), SOFT),
    (KLDivergence(), SOFT),
]
LIKE_OTHERS = (SoftmaxCrossEntropy(label_smoothing=0.1), MeanSquaredError(), Huber(), Focal())


def rows(cases, slow=()):
    """The parameters of a test; slow are those of a loss that is much like another among them."""
    marks = {True: pytest.mark.slow, False: ()}
    return [pytest.param(*c, id=f"{c[0]}-{c[1].dtype}{list(c[1].shape)}", marks=marks[c[0] in slow]) for c in cases]


every_case = pytest.mark.parametrize("loss, y", rows(CASES))
main_cases = pytest.mark.parametrize("loss, y", rows(CASES[-11:], LIKE_OTHERS))


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


class Absolute(Loss):
    """A user's loss, with nothing but its formula."""

    def per_example(self, logits, y):
        return jnp.abs(logits - y).sum(1)

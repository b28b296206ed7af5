"""losses/softmax.py: the focal loss and the divergence where they become the cross-entropy, and at their ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.losses import Focal, KLDivergence, SoftmaxCrossEntropy
from loss_cases import INTS, SOFT, UNEVEN, WEIGHTS, assert_agree, by_hand, close, normal

GAMMAS = pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0])


@pytest.mark.parametrize("y", [INTS, SOFT], ids=["int", "soft"])
@pytest.mark.parametrize("scale", [1, 1e4])
def test_with_gamma_zero_it_is_cross_entropy_to_the_bit(y, scale):
    logits, weights = scale * normal(0), UNEVEN
    focal, entropy = by_hand(Focal(0.0, class_weights=WEIGHTS)), by_hand(SoftmaxCrossEntropy(class_weights=WEIGHTS))
    jax.tree.map(np.testing.assert_array_equal, focal(logits, y, weights), entropy(logits, y, weights))


def test_known_numbers():
    logits = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))
    close(Focal(2.0).per_example(logits, jnp.array([0, 0])), [-0.01 * np.log(0.9), -0.25 * np.log(0.5)], rtol=1e-11)


@GAMMAS
def test_far_from_right_it_is_cross_entropy_and_far_on_the_right_side_nothing(gamma):
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]])
    value, dlogits = assert_agree(Focal(gamma), logits, jnp.array([0, 0]))
    close(value, 1e4)
    close(dlogits, [[0, 0], [-0.5, 0.5]])


@GAMMAS
def test_a_probability_one_ulp_below_one_has_no_infinite_slope(gamma):
    value, dlogits = assert_agree(Focal(gamma), jnp.array([[36.5, 0.0], [700.0, 0.0]]), jnp.array([0, 0]))
    assert jnp.isfinite(value) and jnp.isfinite(dlogits).all() and jnp.abs(dlogits).max() < 1e-15


@GAMMAS
@pytest.mark.parametrize("y", [jnp.array([0, 2]), jnp.array([[1.0, 0, 0], [0, 0, 1]])], ids=["int", "one-hot"])
def test_a_masked_class_costs_nothing_and_has_gradient_zero(gamma, y):
    logits = jnp.array([[1.0, -jnp.inf, 2.0], [0.5, -jnp.inf, 0.1]])
    value, dlogits = assert_agree(Focal(gamma), logits, y)
    kept_value, kept = by_hand(Focal(gamma))(np.asarray(logits)[:, ::2], np.array([0, 1]))
    close(value, kept_value)
    close(dlogits, np.insert(kept, 1, 0, axis=1))


@GAMMAS
def test_a_masked_class_that_is_wanted_costs_infinitely(gamma):
    value, dlogits = assert_agree(Focal(gamma), jnp.array([[1.0, -jnp.inf, 2.0]]), jnp.array([1]))
    assert value == jnp.inf and jnp.isfinite(dlogits).all()


def test_ignoring_hides_even_broken_logits():
    logits = normal(1).at[0].set(jnp.nan)
    value, dlogits = assert_agree(Focal(ignore_index=-1), logits, INTS.at[0].set(-1))
    assert jnp.isfinite(value) and jnp.isfinite(dlogits).all() and (dlogits[0] == 0).all()


def test_divergence_is_zero_at_its_target_and_has_the_gradient_of_cross_entropy():
    value, dlogits = assert_agree(KLDivergence(), jnp.log(SOFT), SOFT)
    close(value, 0)
    close(dlogits, 0)
    logits = normal(2)
    entropy = -(SOFT * jnp.log(SOFT)).sum(1).mean()
    value, dlogits = by_hand(KLDivergence())(logits, SOFT)
    close(value + entropy, SoftmaxCrossEntropy()(logits, SOFT))
    close(dlogits, by_hand(SoftmaxCrossEntropy())(logits, SOFT)[1])


def test_divergence_at_zeros_of_the_target_and_of_p():
    y = jnp.array([[0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])
    logits = jnp.array([[0.0, -jnp.inf, 0.0], [1e4, 0.0, -jnp.inf]])
    value, dlogits = assert_agree(KLDivergence(), logits, y)
    close(value, 0)
    close(dlogits, 0)
    value, dlogits = assert_agree(KLDivergence(), logits, jnp.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]))
    assert value == jnp.inf and jnp.isfinite(dlogits).all()
    far = KLDivergence().per_example(jnp.array([[1e4, -1e4]]), jnp.array([[0.0, 1.0]]))
    close(far, 2e4)

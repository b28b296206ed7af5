"""layers/norm.py: the running statistics, by numbers worked out on paper."""

import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

PARAMS = {"scale": jnp.ones(1), "bias": jnp.zeros(1)}
STATE = {"mean": jnp.array([10.0]), "var": jnp.array([5.0])}


@pytest.mark.parametrize("run", ["forward", "apply_train"])
def test_running_statistics_keep_the_share_of_momentum_and_take_the_biased_variance(run):
    x = jnp.array([[1.0], [2.0], [6.0]])  # mean 3, biased variance 14/3
    _, state, *_ = getattr(hg.BatchNorm(momentum=0.75), run)(PARAMS, x, STATE)
    np.testing.assert_allclose(state["mean"], [0.75 * 10 + 0.25 * 3], rtol=1e-14)
    np.testing.assert_allclose(state["var"], [0.75 * 5 + 0.25 * 14 / 3], rtol=1e-14)


def test_inference_uses_the_running_statistics_and_leaves_them():
    frozen = hg.inference(hg.BatchNorm(eps=0.0))
    y, state, _ = frozen.forward(PARAMS, jnp.array([[10.0 + 5.0**0.5]]), STATE)
    np.testing.assert_allclose(y, [[1.0]], rtol=1e-14)
    assert state is STATE

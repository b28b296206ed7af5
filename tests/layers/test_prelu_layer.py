"""layers/activation.py: the one activation that learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

KEY = jax.random.key(0)


@pytest.mark.parametrize("shared, shape", [(False, (3,)), (True, (1,))])
def test_prelu_starts_at_a_quarter_and_is_no_kernel(shared, shape):
    net = hg.Chain(hg.Dense(3), hg.PRelu(shared=shared))
    params, state = net.init(KEY, (2,), jnp.float64)
    np.testing.assert_array_equal(params["prelu1"]["slope"], np.full(shape, 0.25))
    x, y = jnp.ones((4, 2)), jnp.array([0, 1, 2, 0])
    gradients = [
        jax.jit(hg.value_and_grad(hg.Objective(net, hg.SoftmaxCrossEntropy(), l2=l2)))(params, x, y, state)[1]
        for l2 in (0.0, 0.5)
    ]
    np.testing.assert_array_equal(*(g["prelu1"]["slope"] for g in gradients))

"""ops/layer_norm.py: numbers worked out on paper, and its errors. `test_normalise.py` has what all norms promise."""

import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.ops.layer_norm import layer_norm, layer_norm_backward, layer_norm_forward


def test_by_hand_on_paper():
    x, scale, bias = jnp.array([[-1.0, 1.0]]), jnp.array([2.0, 3.0]), jnp.array([5.0, 7.0])  # mean 0, variance 1
    y, residuals = layer_norm_forward(x, scale, bias, eps=3.0)  # r = 1/2, unit (-1/2, 1/2)
    np.testing.assert_allclose(y, [[4.0, 8.5]], rtol=1e-14)
    # dunit (2, 3): its mean is 5/2, its mean with unit 1/4; dx = 1/2 (2 - 5/2 + 1/8, 3 - 5/2 - 1/8)
    dx, dscale, dbias = layer_norm_backward(residuals, scale, jnp.ones((1, 2)), eps=3.0)
    np.testing.assert_allclose(dx, [[-3 / 16, 3 / 16]], rtol=1e-14)
    np.testing.assert_allclose(dscale, [-0.5, 0.5], rtol=1e-14)
    np.testing.assert_allclose(dbias, [1.0, 1.0], rtol=1e-14)


def test_one_channel_gives_its_bias_and_no_gradient():
    x, scale, bias = jnp.array([[3.0], [7.0]]), jnp.array([2.0]), jnp.array([5.0])
    y, residuals = layer_norm_forward(x, scale, bias)
    dx, dscale, dbias = layer_norm_backward(residuals, scale, jnp.array([[1.0], [4.0]]))
    assert y.tolist() == [[5.0], [5.0]] and not dx.any() and dscale.tolist() == [0.0] and dbias.tolist() == [5.0]


def test_residuals_hold_the_statistics_of_each_place():
    x = jnp.arange(24.0).reshape(2, 3, 4) ** 2
    _, (kept, mean, var) = layer_norm_forward(x, jnp.ones(4), jnp.zeros(4))
    assert kept is x
    np.testing.assert_allclose(mean, x.mean(-1, keepdims=True), rtol=1e-14)
    np.testing.assert_allclose(var, x.var(-1, keepdims=True), rtol=1e-13)


@pytest.mark.parametrize("op", [layer_norm, layer_norm_forward])
def test_bad_input_is_named(op):
    x, c, name = jnp.ones((2, 3)), jnp.ones(3), op.__name__
    with pytest.raises(ValueError, match=rf"^{name}: x must be \(..., channels\) with .*, got shape \(\)"):
        op(jnp.ones(()), c, c)
    with pytest.raises(ValueError, match=rf"^{name}: x must be .* at least one channel, got shape \(2, 0\)"):
        op(jnp.ones((2, 0)), c, c)
    with pytest.raises(ValueError, match=rf"^{name}: scale must have shape \(3,\) to match x \(2, 3\), got \(2,\)"):
        op(x, jnp.ones(2), c)
    with pytest.raises(ValueError, match=rf"^{name}: bias must have shape \(3,\) to match x \(2, 3\), got \(1, 3\)"):
        op(x, c, jnp.ones((1, 3)))
    with pytest.raises(ValueError, match=f"^{name}: eps must not be negative, got -1"):
        op(x, c, c, eps=-1)
    with pytest.raises(TypeError, match=f"^{name}: x must be floating, got int32"):
        op(jnp.ones((2, 3), jnp.int32), c, c)
    with pytest.raises(TypeError, match=f"^{name}: scale must be floating, got int32"):
        op(x, jnp.ones(3, jnp.int32), c)

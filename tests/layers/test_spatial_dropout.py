"""layers/dropout.py: what SpatialDropout drops together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

KEY = jax.random.key(0)


@pytest.mark.parametrize("inverted", [True, False])
@pytest.mark.parametrize("shape", [(6, 5, 4, 8), (6, 7, 8), (6, 2, 3, 2, 8)], ids=["2-D", "1-D", "3-D"])
def test_a_channel_of_an_example_goes_as_a_whole(shape, inverted):
    layer, x = hg.SpatialDropout(0.4, inverted=inverted), jnp.full(shape, 3.0)
    y, _, residuals = jax.jit(layer.forward)({}, x, (), KEY)
    rows = np.asarray(y).reshape(6, -1, 8)
    assert (rows == rows[:, :1]).all() and len(np.unique(rows[:, 0], axis=0)) > 1
    np.testing.assert_allclose(np.unique(rows), [0, 3 / 0.6 if inverted else 3])
    assert residuals["keep"].shape == (6, *(1,) * (len(shape) - 2), 8)
    np.testing.assert_array_equal(layer.apply_train({}, x, (), KEY)[0], y)


@pytest.mark.parametrize("inverted", [True, False])
def test_training_agrees_with_inference_on_average(inverted):
    layer, x = hg.SpatialDropout(0.3, inverted=inverted), jnp.ones((500, 1, 2, 100))
    np.testing.assert_allclose(layer.forward({}, x, (), KEY)[0].mean(), layer.apply({}, x).mean(), rtol=0.02)


def test_inference_of_a_net_turns_it_off_and_keeps_its_name():
    net = hg.inference(hg.Chain(hg.SpatialDropout(0.5), hg.Relu()))
    assert isinstance(net, hg.Chain) and [name for name, _ in net.items()] == ["spatialdropout1", "relu1"]
    x = jnp.ones((2, 3, 3, 4))
    np.testing.assert_array_equal(net.forward({}, x)[0], x)

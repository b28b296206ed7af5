"""The training step lowers for every platform from this one, in the algorithms of that platform."""

import chex
import jax
import jax.export
import numpy as np
import pytest

import handgrad as hg
from handgrad.training import export_step

NET = hg.Chain(hg.Conv(4, 3), hg.BatchNorm(), hg.Relu(), hg.MaxPool(2), hg.Flatten(), hg.Dropout(0.5), hg.Dense(3))
STEP = hg.make_train_step(hg.Objective(NET, hg.SoftmaxCrossEntropy(), l2=0.1), hg.adam(0.1))
X, Y = np.random.default_rng(0).normal(size=(6, 8, 8, 2)), np.arange(6) % 3


def fresh():
    return hg.init_train_state(NET, STEP.optimizer, jax.random.key(0), X.shape[1:], np.float64)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_the_step_lowers_for_each_platform(platform):
    shapes = jax.ShapeDtypeStruct(X.shape, X.dtype), jax.ShapeDtypeStruct(Y.shape, Y.dtype)
    exported = export_step(STEP, jax.eval_shape(fresh), *shapes, platform=platform)
    assert exported.platforms == (platform,)
    text = exported.mlir_module()
    assert "stablehlo.convolution" in text
    # the windows over whole axes that XLA adds up fastest on CPU are for it alone
    windows = text.count("reduce_window")
    assert windows > 0 if platform == "cpu" else windows == 0


def test_a_step_out_of_its_bytes_is_the_step():
    exported = export_step(STEP, fresh(), X, Y, platform="cpu")
    found = jax.export.deserialize(exported.serialize()).call(fresh(), X, Y, None)
    wanted = STEP(fresh(), X, Y)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    keys = [jax.random.key_data(train_state.key) for train_state, _ in (found, wanted)]
    chex.assert_trees_all_equal(*keys)
    numbers = [(train_state[:4], metrics) for train_state, metrics in (found, wanted)]
    chex.assert_trees_all_close(*numbers, rtol=1e-12, atol=1e-14)


def test_what_cannot_be_exported_is_named():
    with pytest.raises(TypeError, match="wants a step from make_train_step, got function"):
        export_step(fresh, fresh(), X, Y, platform="cpu")
    with pytest.raises(ValueError, match="platform must be one of cpu, cuda, rocm, tpu, got 'gpu'"):
        export_step(STEP, fresh(), X, Y, platform="gpu")

"""Saliency beside jax.grad of the logit, and what each method promises in a formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.insight.leaves import leaf_layers

NET = hg.Chain(
    hg.Conv(4, 3), hg.BatchNorm(), hg.Relu(), hg.Dropout(0.5), hg.MaxPool(2), hg.Conv(3, 3, name="last"), hg.Relu(),
    hg.Flatten(), hg.Dense(5),
)  # fmt: skip
PARAMS, STATE = NET.init(jax.random.key(0), (6, 4, 2), jnp.float64)
STATE = jax.tree.map(lambda s: s + 0.3, STATE)
X = jax.random.normal(jax.random.key(1), (3, 6, 4, 2))


def logit(x, target):
    return jnp.take_along_axis(NET.apply(PARAMS, x, STATE), target[:, None], 1)[:, 0]


TARGET = jnp.array([4, 0, 2])


@pytest.mark.parametrize("target", [TARGET, 3, None])
def test_saliency_is_the_gradient_of_the_logit_in_inference(target):
    wanted = jnp.argmax(NET.apply(PARAMS, X, STATE), 1) if target is None else jnp.broadcast_to(jnp.asarray(target), 3)
    found = hg.saliency(NET, PARAMS, X, target, STATE)
    np.testing.assert_allclose(found, jax.grad(lambda x: logit(x, wanted).sum())(X), rtol=1e-10, atol=1e-14)


def test_swapped_rules_are_followed():
    guided = hg.saliency(hg.rules.guided_backprop(NET), PARAMS, X, TARGET, STATE)
    assert abs(guided - hg.saliency(NET, PARAMS, X, TARGET, STATE)).max() > 1e-3


def test_integrated_gradients_are_the_sum_at_the_midpoints_and_complete():
    steps, start = 4, jnp.full_like(X, 0.2)
    at = [start + (i + 0.5) / steps * (X - start) for i in range(steps)]
    wanted = sum(jax.grad(lambda x: logit(x, TARGET).sum())(a) for a in at) / steps * (X - start)
    found = hg.integrated_gradients(NET, PARAMS, X, TARGET, STATE, baseline=0.2, steps=steps)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-14)
    whole = hg.integrated_gradients(NET, PARAMS, X, TARGET, STATE, baseline=0.2, steps=2000).sum((1, 2, 3))
    np.testing.assert_allclose(whole, logit(X, TARGET) - logit(start, TARGET), rtol=2e-3, atol=2e-3)  # kinks on the way


def test_smooth_grad_is_the_mean_over_the_noise():
    key = jax.random.key(5)
    spread = (X.reshape(3, -1).max(1) - X.reshape(3, -1).min(1)).reshape(3, 1, 1, 1) * 0.2
    copies = [X + spread * jax.random.normal(k, X.shape) for k in jax.random.split(key, 3)]
    wanted = sum(jax.grad(lambda x: logit(x, TARGET).sum())(copy) for copy in copies) / 3
    found = hg.smooth_grad(NET, PARAMS, X, TARGET, STATE, key=key, noise=0.2, samples=3)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("name", "split"), [("last", 6), ("relu2", 7), (None, 7), ("conv1", 1)])
def test_grad_cam_by_the_upper_part_of_the_net(name, split):
    """The net cut in two behind the layer: its output, and jax.grad of the logit in it."""
    names, layers = zip(*leaf_layers(hg.inference(NET)), strict=True)

    def run(h, part):
        for n, layer in part:
            h = layer.apply(PARAMS.get(n, {}), h, STATE.get(n, ()))
        return h

    parts = list(zip(names, layers, strict=True))
    a = run(X, parts[:split])
    da = jax.grad(lambda a: jnp.take_along_axis(run(a, parts[split:]), TARGET[:, None], 1).sum())(a)
    wanted = np.maximum((np.asarray(a) * np.asarray(da).mean((1, 2), keepdims=True)).sum(-1), 0)
    found = hg.grad_cam(NET, PARAMS, X, TARGET, STATE, layer=name)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-14)
    assert found.shape == ((3, 6, 4) if name == "conv1" else (3, 3, 2))


def test_activations_are_each_layers_output():
    found = hg.activations(NET, PARAMS, X, STATE)
    assert list(found) == [name for name, _ in NET.items()]
    np.testing.assert_allclose(found["dense1"], NET.apply(PARAMS, X, STATE), rtol=1e-12)
    np.testing.assert_array_equal(found["relu1"], np.maximum(found["batchnorm1"], 0))
    np.testing.assert_array_equal(found["dropout1"], found["relu1"])
    dense = hg.Dense(2)
    params, _ = dense.init(jax.random.key(0), (3,), jnp.float64)
    assert list(hg.activations(dense, params, jnp.ones((1, 3)))) == ["dense"]


def test_integrated_gradients_are_complete_where_nothing_kinks():
    net = hg.Chain(hg.Dense(4), hg.Tanh(), hg.Dense(3))
    params, _ = net.init(jax.random.key(0), (5,), jnp.float64)
    x = jax.random.normal(jax.random.key(1), (1, 5))
    wanted = net.apply(params, x)[0, 1] - net.apply(params, jnp.zeros_like(x))[0, 1]
    errors = [abs(hg.integrated_gradients(net, params, x, 1, steps=n).sum() - wanted) for n in (64, 128)]
    assert errors[1] < 1e-4 * abs(wanted)
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)  # the midpoint rule's error falls as 1 / steps²


def test_many_steps_in_bfloat16_are_summed_in_float32():
    params = {"kernel": jnp.array([[1.0], [3.0]], jnp.bfloat16)}
    x = jnp.ones((1, 2), jnp.bfloat16)
    found = hg.integrated_gradients(hg.Dense(1, use_bias=False), params, x, 0, steps=1000)
    assert found.dtype == jnp.bfloat16 and found.tolist() == [[1, 3]]
    smooth = hg.smooth_grad(hg.Dense(1, use_bias=False), params, x, 0, key=jax.random.key(0), samples=1000)
    assert smooth.dtype == jnp.bfloat16 and smooth.tolist() == [[1, 3]]


def test_a_class_that_is_none_is_nan_under_jit():
    found = jax.jit(lambda target: hg.saliency(NET, PARAMS, X, target, STATE))(jnp.array([0, 9, -1]))
    assert np.isnan(found).all((1, 2, 3)).tolist() == [False, True, True]


def scaled(x):
    return 1.5 * x


def test_grad_cam_within_branches_beside_a_probe():
    """The gradient in a number added to the layer's output, which jax.grad takes through the whole net."""
    body = hg.Chain(hg.Conv(2, 3), hg.Lambda(scaled))
    net = hg.Chain(hg.Residual(body), hg.Parallel(hg.Relu(), hg.Tanh()), hg.GlobalAvgPool(), hg.Dense(3))
    params, _ = net.init(jax.random.key(0), (4, 3, 2), jnp.float64)
    x = jax.random.normal(jax.random.key(1), (1, 4, 3, 2))
    conv = hg.Conv(2, 3).apply(params["residual1"]["body"]["conv1"], x)

    def logit(probe):
        h = x + 1.5 * (conv + probe)
        h = jnp.concatenate([jnp.maximum(h, 0), jnp.tanh(h)], -1).mean((1, 2))
        return (h @ params["dense1"]["kernel"])[0, 2]

    da = jax.grad(logit)(jnp.zeros_like(conv))
    wanted = jnp.maximum((conv * da.mean((1, 2), keepdims=True)).sum(-1), 0)
    assert wanted.max() > 0
    found = hg.grad_cam(net, params, x, 2, layer="residual1/body/conv1")
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-14)
    paths = ["residual1/body/conv1", "residual1/body/lambda1", "parallel1/relu1", "parallel1/tanh1", "globalavgpool1"]
    assert list(hg.activations(net, params, x)) == [*paths, "dense1"]


def test_errors():
    with pytest.raises(TypeError, match="saliency: x must be floating point, got uint8"):
        hg.saliency(NET, PARAMS, np.zeros((3, 6, 4, 2), "uint8"))
    with pytest.raises(ValueError, match=r"grad_cam: target must be a class from 0 to 4, got \[0, 5, 1\]"):
        hg.grad_cam(NET, PARAMS, X, [0, 5, 1], STATE)
    with pytest.raises(ValueError, match=r"saliency: target must be an int or 3 of them, got int64 \(2,\)"):
        hg.saliency(NET, PARAMS, X, np.array([0, 1]), STATE)
    with pytest.raises(ValueError, match=r"must be one whose output has places, \['conv1', .*'relu2'\], got 'dense1'"):
        hg.grad_cam(NET, PARAMS, X, TARGET, STATE, layer="dense1")
    with pytest.raises(ValueError, match=r"saliency: the net must give logits \(N, K\), got \(3, 6, 4, 2\)"):
        hg.saliency(hg.Relu(), {}, X)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        hg.integrated_gradients(NET, PARAMS, X, TARGET, STATE, steps=0)
    with pytest.raises(TypeError, match="integrated_gradients: steps must be an int, got 2.5"):
        hg.integrated_gradients(NET, PARAMS, X, TARGET, STATE, steps=2.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"baseline must be a number or broadcast to x \(3, 6, 4, 2\), got \(7,\)"):
        hg.integrated_gradients(NET, PARAMS, X, TARGET, STATE, baseline=np.zeros(7))
    with pytest.raises(ValueError, match="smooth_grad: samples must be at least 1, got 0"):
        hg.smooth_grad(NET, PARAMS, X, TARGET, STATE, key=jax.random.key(0), samples=0)
    for noise in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="smooth_grad: noise must be at least 0, got"):
            hg.smooth_grad(NET, PARAMS, X, TARGET, STATE, key=jax.random.key(0), noise=noise)
    with pytest.raises(ValueError, match="smooth_grad: the noise needs a key"):
        hg.smooth_grad(NET, PARAMS, X, TARGET, STATE, key=None)  # pyright: ignore[reportArgumentType]
    dense = hg.Chain(hg.Dense(2))
    with pytest.raises(ValueError, match=r"must be one whose output has places, \[\], got None"):
        hg.grad_cam(dense, dense.init(jax.random.key(0), (3,), jnp.float64)[0], jnp.ones((1, 3)))

"""The contract every layer keeps: one list of layers, one test a promise. A new layer is one line here."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

MISUSED: Any = hg  # for calls that the type checker would refuse


@dataclass(frozen=True)
class Scale(hg.Layer):
    """A user's layer with init and apply only."""

    factor: float = 2.0

    def init(self, key, in_shape, dtype=jnp.float32):
        return {"gain": jax.random.normal(key, in_shape[-1:], dtype)}, {}

    def apply(self, params, x, state=()):
        return x * jnp.broadcast_to(params["gain"], x.shape) * jnp.asarray(self.factor, x.dtype)


IMAGE = (6, 5, 2)
BODY = hg.Chain(hg.Conv(2, 3), hg.BatchNorm(), hg.Relu(), hg.Dropout(0.3))
LAYERS = [  # layer, in_shape without the batch axis
    pytest.param(hg.Dense(4), (5,), id="dense"),
    pytest.param(hg.Dense(4, use_bias=False), (3, 5), id="dense-without-bias-leading-axes"),
    pytest.param(hg.Conv(3, 3), IMAGE, id="conv"),
    pytest.param(hg.Conv(4, (3, 2), strides=2, dilation=(1, 2), padding=2, groups=2), IMAGE, id="conv-settings"),
    pytest.param(hg.Conv(2, 3, use_bias=False), (7, 3), id="conv-1d"),
    pytest.param(hg.Conv(2, 2), (3, 4, 3, 2), id="conv-3d"),
    pytest.param(hg.ConvTranspose(3, 3, strides=2), IMAGE, id="convtranspose"),
    pytest.param(
        hg.ConvTranspose(4, (3, 2), 2, ((1, 0), (0, 2)), output_padding=1, dilation=(1, 2), groups=2, use_bias=False),
        IMAGE,
        id="convtranspose-settings",
    ),
    pytest.param(hg.MaxPool(2), IMAGE, id="maxpool"),
    pytest.param(hg.MaxPool(3, 2, padding="SAME"), IMAGE, id="maxpool-overlapping"),
    pytest.param(hg.MaxPool(2, 1, dilation=2, ties="split"), IMAGE, id="maxpool-dilated-split"),
    pytest.param(hg.AvgPool(3, 2, padding=1, count_include_pad=False), IMAGE, id="avgpool"),
    pytest.param(hg.GlobalAvgPool(), IMAGE, id="globalavgpool"),
    pytest.param(hg.GlobalMaxPool(), IMAGE, id="globalmaxpool"),
    pytest.param(hg.AdaptiveAvgPool((4, 2)), IMAGE, id="adaptiveavgpool"),
    pytest.param(hg.AdaptiveMaxPool((4, 2), ties="split"), IMAGE, id="adaptivemaxpool"),
    pytest.param(hg.Relu(), IMAGE, id="relu"),
    pytest.param(hg.LeakyRelu(0.2), IMAGE, id="leakyrelu"),
    pytest.param(hg.Relu6(), IMAGE, id="relu6"),
    pytest.param(hg.PRelu(), IMAGE, id="prelu"),
    pytest.param(hg.PRelu(shared=True), (4, 3), id="prelu-shared"),
    pytest.param(hg.HardSigmoid(), IMAGE, id="hardsigmoid"),
    pytest.param(hg.Hardswish(), IMAGE, id="hardswish"),
    pytest.param(hg.Tanh(), IMAGE, id="tanh"),
    pytest.param(hg.Sigmoid(), IMAGE, id="sigmoid"),
    pytest.param(hg.Softplus(), IMAGE, id="softplus"),
    pytest.param(hg.Elu(0.5), IMAGE, id="elu"),
    pytest.param(hg.Selu(), IMAGE, id="selu"),
    pytest.param(hg.Silu(), IMAGE, id="silu"),
    pytest.param(hg.Gelu(), IMAGE, id="gelu"),
    pytest.param(hg.Gelu(approximate=True), IMAGE, id="gelu-tanh"),
    pytest.param(hg.Softmax(), (4,), id="softmax"),
    pytest.param(hg.LogSoftmax(axis=1), (4, 3), id="logsoftmax"),
    pytest.param(hg.Dropout(0.4), IMAGE, id="dropout"),
    pytest.param(hg.Dropout(0.4, inverted=False), IMAGE, id="dropout-classic"),
    pytest.param(hg.SpatialDropout(0.4), IMAGE, id="spatialdropout"),
    pytest.param(hg.SpatialDropout(0.4, inverted=False), (7, 3), id="spatialdropout-classic-1d"),
    pytest.param(hg.BatchNorm(), IMAGE, id="batchnorm"),
    pytest.param(hg.LayerNorm(), IMAGE, id="layernorm"),
    pytest.param(hg.LayerNorm(eps=1e-2), (5,), id="layernorm-eps"),
    pytest.param(hg.GroupNorm(2), (3, 5, 4), id="groupnorm"),
    pytest.param(hg.GroupNorm(1, eps=1e-2), (7, 3), id="groupnorm-one-group"),
    pytest.param(hg.InstanceNorm(), IMAGE, id="instancenorm"),
    pytest.param(hg.LocalResponseNorm(3, alpha=0.5), (3, 2, 6), id="localresponsenorm"),
    pytest.param(hg.LocalResponseNorm(4, alpha=0.5, beta=0.6, k=2.0), (3, 6), id="localresponsenorm-even"),
    pytest.param(hg.Flatten(), IMAGE, id="flatten"),
    pytest.param(hg.Reshape((3, -1, 4)), IMAGE, id="reshape"),
    pytest.param(hg.Identity(), IMAGE, id="identity"),
    pytest.param(hg.Upsample(2), IMAGE, id="upsample"),
    pytest.param(hg.Upsample(output_size=(5, 9), method="bilinear", align_corners=True), IMAGE, id="upsample-bilinear"),
    pytest.param(hg.Pad(((1, 0), (2, 1)), value=0.5), IMAGE, id="pad"),
    pytest.param(hg.Pad(2, mode="reflect"), IMAGE, id="pad-reflect"),
    pytest.param(hg.Lambda(jnp.sin), IMAGE, id="lambda"),
    pytest.param(Scale(3.0), IMAGE, id="user's layer"),
    pytest.param(BODY, IMAGE, id="chain"),
    pytest.param(hg.Residual(BODY), IMAGE, id="residual"),
    pytest.param(hg.Residual(hg.Conv(3, 3), hg.Conv(3, 1)), IMAGE, id="residual-shortcut"),
    pytest.param(hg.Parallel(BODY, hg.Conv(3, 1), hg.Relu()), IMAGE, id="parallel"),
    pytest.param(hg.Parallel(BODY, hg.Conv(2, 1), join="add"), IMAGE, id="parallel-add"),
    pytest.param(hg.Parallel(BODY, hg.Sigmoid(), hg.Conv(2, 1), join="multiply"), IMAGE, id="parallel-multiply"),
    pytest.param(hg.squeeze_excite(2, ratio=1), IMAGE, id="squeeze-excite"),
]
every_layer = pytest.mark.parametrize("layer, in_shape", LAYERS)
KEY = jax.random.key(3)


def given(layer, in_shape, dtype=jnp.float64, batch=3):
    """params without a zero among them, state, and x; from NumPy, which compiles nothing."""
    random = np.random.default_rng(0)
    params, state = jax.eval_shape(lambda: layer.init(KEY, in_shape, dtype))
    params = jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape) + 0.1, p.dtype), params)
    state = jax.tree.map(lambda s: jnp.asarray(random.uniform(0.1, 1, size=s.shape), s.dtype), state)
    return params, state, jnp.asarray(random.normal(size=(batch, *in_shape)), dtype)


def close(got, want, rtol=1e-12):
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=rtol, atol=1e-13), got, want)


@every_layer
def test_backward_is_the_vjp_of_apply_train_even_across_jit(layer, in_shape):
    params, state, x = given(layer, in_shape)

    def automatic(params, x, dy):
        y, vjp, new_state = jax.vjp(lambda p, x: layer.apply_train(p, x, state, KEY), params, x, has_aux=True)
        return y, new_state, vjp(dy)

    y, new_state, residuals = jax.jit(layer.forward)(params, x, state, KEY)
    dy = jnp.asarray(np.random.default_rng(1).normal(size=y.shape))
    dx, dparams = jax.jit(layer.backward)(params, residuals, dy)
    assert jax.tree.structure(dparams) == jax.tree.structure(params)
    close((y, new_state, (dparams, dx)), jax.jit(automatic)(params, x, dy))


@every_layer
def test_gradients_keep_the_dtype_of_float32(layer, in_shape):
    params, state, x = jax.eval_shape(lambda: given(layer, in_shape, jnp.float32))
    y, new_state, residuals = jax.eval_shape(layer.forward, params, x, state, KEY)
    dx, dparams = jax.eval_shape(layer.backward, params, residuals, y)
    assert {leaf.dtype for leaf in jax.tree.leaves((y, new_state, dx, dparams))} == {jnp.dtype("float32")}


def of_inference(row):
    """A layer that inference leaves as it is has the backward of training, which has its own test: slow."""
    layer, in_shape = row.values
    changes = hg.inference(layer) != layer or row.id in ("dense", "user's layer")
    return pytest.param(layer, in_shape, id=row.id, marks=() if changes else pytest.mark.slow)


@pytest.mark.parametrize("layer, in_shape", [of_inference(row) for row in LAYERS])
def test_inference_equals_apply_and_keeps_the_name(layer, in_shape):
    params, state, x = given(layer, in_shape)
    frozen = hg.inference(layer)

    def by_hand(params, x):
        y, new_state, residuals = frozen.forward(params, x, state)
        return y, frozen.apply_train(params, x, state)[0], frozen.backward(params, residuals, y**2), new_state

    def automatic(params, x):
        y, vjp = jax.vjp(lambda p, x: layer.apply(p, x, state), params, x)
        return y, y, vjp(y**2)[::-1], state

    close(jax.jit(by_hand)(params, x), jax.jit(automatic)(params, x))
    assert frozen.kind == layer.kind
    assert hg.inference(frozen) == frozen


@every_layer
def test_an_equal_layer_compiles_once(layer, in_shape):
    traces = []
    run = jax.jit(lambda layer: traces.append(layer) or jnp.zeros(()), static_argnums=0)
    names = {"Scale": Scale, "sin": jnp.sin} | vars(hg)
    for _ in range(2):
        twin = eval(repr(layer), names)
        assert twin == layer and hash(twin) == hash(layer)
        run(twin)
    assert len(traces) == 1


@every_layer
def test_an_empty_state_comes_back_as_given_and_a_scan_carries_it(layer, in_shape):
    params, state, x = jax.eval_shape(lambda: given(layer, in_shape))
    for empty in ((), {}) if not state else ():
        for run in (layer.apply_train, layer.forward):
            assert (
                jax.eval_shape(lambda params, x, run=run, empty=empty: run(params, x, empty, KEY), params, x)[1]
                == empty
            )

    def steps(params, x, state):
        return jax.lax.scan(lambda s, k: (layer.forward(params, x, s, k)[1], 0), state, jax.random.split(KEY, 2))

    assert jax.eval_shape(steps, params, x, state)[0] == state


@every_layer
def test_params_and_state_of_the_wrong_kind_are_refused_with_the_name(layer, in_shape):
    params, state, x = given(layer, in_shape)
    if params:
        with pytest.raises((ValueError, KeyError, TypeError)):
            layer.apply({}, x, state)
    if state:
        with pytest.raises(ValueError, match="BatchNorm: needs its state"):
            layer.forward(params, x, (), KEY)


@pytest.mark.parametrize(
    "layer, in_shape", [case for case in LAYERS if case.id in ("dropout", "spatialdropout", "chain", "residual")]
)
def test_training_with_dropout_wants_a_key_and_inference_does_not(layer, in_shape):
    params, state, x = given(layer, in_shape)
    with pytest.raises(ValueError, match="Dropout: training needs a key"):
        layer.forward(params, x, state)
    layer.apply(params, x, state)


def test_a_subclass_with_another_backward_is_unequal():
    class Guided(hg.Relu):
        def backward(self, params, residuals, dy):
            dx, dparams = super().backward(params, residuals, dy)
            return jnp.where(dx > 0, dx, 0), dparams

    assert Guided() != hg.Relu() and Guided() == Guided()
    assert Guided().kind == "relu"


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: hg.Dense(0), ValueError, "Dense: features must be at least 1, got 0"),
        (lambda: MISUSED.Conv(2.5, 3), TypeError, "Conv: features must be an int, got 2.5"),
        (lambda: hg.Dropout(1.0), ValueError, "at least 0 and below 1, got 1.0"),
        (lambda: hg.SpatialDropout(-0.1), ValueError, "SpatialDropout: rate .* at least 0 and below 1, got -0.1"),
        (
            lambda: hg.SpatialDropout(0.1).forward({}, jnp.ones((2, 3)), key=KEY),
            ValueError,
            r"x must be .* \(2, 3\); use",
        ),
        (lambda: hg.PRelu().init(KEY, ()), ValueError, "PRelu: in_shape must have a channel axis"),
        (lambda: hg.LayerNorm().init(KEY, ()), ValueError, "LayerNorm: in_shape must have a channel axis"),
        (
            lambda: hg.GroupNorm(4).init(KEY, (6,)),
            ValueError,
            "GroupNorm: num_groups must divide the 6 channels, got 4",
        ),
        (lambda: hg.InstanceNorm().apply({}, jnp.ones((1, 2, 3))), ValueError, "InstanceNorm: params have no 'scale'"),
        (lambda: hg.LocalResponseNorm(0).apply({}, jnp.ones(2)), ValueError, "size must be at least 1, got 0"),
        (lambda: hg.Elu(-1.0).apply({}, jnp.ones(2)), ValueError, "elu: alpha must not be negative, got -1.0"),
        (lambda: hg.BatchNorm(momentum=2), ValueError, "momentum must be between 0 and 1, got 2"),
        (lambda: MISUSED.Lambda(3), TypeError, "Lambda: wants a function, got 3"),
        (lambda: hg.Dense(2).init(KEY, ()), ValueError, "in_shape must have a last axis"),
        (lambda: hg.Conv(2, 3).init(KEY, (5,)), ValueError, r"in_shape must be \(L, C\)"),
        (lambda: hg.Conv(4, 3, groups=3).init(KEY, (5, 5, 3)), ValueError, "groups must divide the 3 input .* 4 feat"),
        (
            lambda: hg.ConvTranspose(4, 3, groups=3).init(KEY, (5, 3)),
            ValueError,
            "ConvTranspose: groups must divide the 3",
        ),
        (lambda: hg.Conv(4, (3, 3)).init(KEY, (5, 3)), ValueError, "kernel_size .* has 2 sizes, the input has 1"),
        (lambda: hg.Layer().apply({}, jnp.ones(1)), NotImplementedError, "a layer must define apply"),
    ],
)
def test_bad_settings_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()

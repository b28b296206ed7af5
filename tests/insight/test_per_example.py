"""Each example's gradient beside jax.vmap of jax.grad of the objective on that example alone."""

from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.insight import ghost
from handgrad.insight.per_example import uses_key
from handgrad.insight.tap import opened

LOSS = hg.SoftmaxCrossEntropy()


@dataclass(frozen=True, repr=False)
class Scale(hg.Layer):
    """Learns a factor for each channel; no backward of its own."""

    def init(self, key, in_shape, dtype=jnp.float32):
        return {"kernel": jnp.ones(in_shape[-1:], dtype)}, {}

    def apply(self, params, x, state=()):
        return x * jnp.broadcast_to(params["kernel"], x.shape)


@dataclass(frozen=True, repr=False)
class NoisyScale(Scale):
    """The same, with a factor of 0 or 2 for each number in training."""

    def apply_train(self, params, x, state=(), key=None):
        assert key is not None
        return self.apply(params, x, state) * 2 * jax.random.bernoulli(key, 0.5, x.shape).astype(x.dtype), state


def case(net, in_shape, batch=4):
    params, state = net.init(jax.random.key(0), in_shape, jnp.float64)
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(1), p.shape, p.dtype), params)
    return params, jax.random.normal(jax.random.key(2), (batch, *in_shape)), jnp.arange(batch) % 3, state


def automatic(objective, params, x, y, state=()):
    """Each gradient by JAX alone, for nets without random numbers."""
    return jax.vmap(lambda x, y: jax.grad(objective, has_aux=True)(params, x[None], y[None], state)[0])(x, y)


def lengths(each):
    return jnp.sqrt(sum(jnp.sum(jnp.square(g.reshape(g.shape[0], -1)), 1) for g in jax.tree.leaves(each)))


def clipped(each, max_norm):
    scale = jnp.minimum(1, max_norm / lengths(each))
    return jax.tree.map(lambda g: jnp.tensordot(scale, g, 1), each)


def check(objective, args, each):
    """All three tools against the gradients of each."""
    one, norms = (jax.jit(tool(objective))(*args) for tool in (hg.per_example_grads, hg.per_example_norms))
    chex.assert_trees_all_close(one, each, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(norms, lengths(each), rtol=1e-10)
    bound = float(jnp.median(norms))  # so that some are clipped and some are not
    total = jax.jit(hg.clipped_grad(objective, bound))(*args)
    chex.assert_trees_all_close(total, clipped(each, bound), rtol=1e-10, atol=1e-13)


NETS = {
    "dense": (hg.Chain(hg.Flatten(), hg.Dense(4), hg.Tanh(), hg.Dense(3)), (5, 2)),
    "dense on places": (
        hg.Chain(hg.Dense(4), hg.Relu(), hg.Dense(2, use_bias=False), hg.Flatten(), hg.Dense(3)),
        (5, 2),
    ),
    "conv 1-D": (hg.Chain(hg.Conv(4, 3, strides=2, padding=1), hg.Flatten(), hg.Dense(3)), (7, 2)),
    "conv 2-D": (
        hg.Chain(hg.Conv(4, (3, 2), dilation=2, padding="VALID", use_bias=False), hg.Flatten(), hg.Dense(3)),
        (6, 5, 2),
    ),
    "conv 3-D": (hg.Chain(hg.Conv(2, 2), hg.GlobalAvgPool(), hg.Dense(3)), (3, 2, 4, 2)),
    "groups": (hg.Chain(hg.Conv(6, 3, groups=2, strides=2), hg.Relu(), hg.Flatten(), hg.Dense(3)), (5, 4, 4)),
    "depthwise": (hg.Chain(hg.Conv(3, 3, groups=3), hg.GlobalAvgPool()), (5, 4, 3)),
    "transposed": (hg.Chain(hg.ConvTranspose(2, 3, strides=2), hg.Flatten(), hg.Dense(3)), (3, 2, 2)),
    "norms": (hg.Chain(hg.LayerNorm(), hg.GroupNorm(2), hg.PRelu(), hg.Flatten(), hg.Dense(3)), (3, 2, 4)),
    "branches": (
        hg.Chain(
            hg.Residual(hg.Chain(hg.Conv(2, 3), hg.Relu())),
            hg.Parallel(hg.Conv(2, 1), Scale()),
            hg.Flatten(),
            hg.Dense(3),
        ),
        (4, 3, 2),
    ),
    "frozen batch norm": (
        hg.inference(hg.Chain(hg.Conv(2, 3), hg.BatchNorm(), hg.Dropout(0.5), hg.Flatten(), hg.Dense(3))),
        (4, 3, 2),
    ),
    "one layer": (hg.Dense(3), (4,)),
}


@pytest.mark.parametrize("name", NETS)
def test_equal_to_vmap_of_grad(name):
    net, in_shape = NETS[name]
    args, objective = case(net, in_shape), hg.Objective(net, LOSS, l2=0.05)
    check(objective, args, automatic(objective, *args))


@pytest.mark.parametrize(
    "loss", [hg.SoftmaxCrossEntropy(0.1, ignore_index=1, class_weights=(1.0, 2.0, 3.0)), hg.MeanSquaredError()]
)
def test_each_example_is_a_batch_of_one_for_the_loss(loss):
    """Class weights divide out in a batch of one; an ignored example has a gradient of the penalty alone."""
    net, in_shape = NETS["dense"]
    params, x, y, state = case(net, in_shape)
    y = y if isinstance(loss, hg.SoftmaxCrossEntropy) else jax.random.normal(jax.random.key(5), (4, 3))
    for l2 in (0.0, 0.1):
        objective = hg.Objective(net, loss, l2=l2)
        check(objective, (params, x, y, state), automatic(objective, params, x, y, state))


def test_a_gradient_of_zero_is_no_nan():
    net, in_shape = NETS["dense"]
    params, x, _, state = case(net, in_shape)
    objective = hg.Objective(net, hg.SoftmaxCrossEntropy(ignore_index=-1))
    grads = hg.clipped_grad(objective, 1.0)(params, x, jnp.full(4, -1), state)
    assert all((g == 0).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("batch", [1, 4])
def test_each_example_has_the_masks_of_the_whole_batch(batch):
    """The oracle is jax.grad of the sum of the losses, weighted to leave one example, with the batch's key."""
    net = hg.Chain(hg.Conv(2, 3), hg.Dropout(0.5), NoisyScale(), hg.Flatten(), hg.Dropout(0.3), hg.Dense(3))
    params, x, y, state = case(net, (4, 3, 2), batch)
    key, objective = jax.random.key(7), hg.Objective(net, LOSS)

    def one(i):
        def loss(params):
            return LOSS.per_example(net.apply_train(params, x, state, key)[0], y)[i]

        return jax.grad(loss)(params)

    each = jax.tree.map(lambda *grads: jnp.stack(grads), *(one(i) for i in range(batch)))
    check(objective, (params, x, y, state, key), each)


def test_whether_a_layer_uses_its_key_is_read_from_its_jaxpr():
    net = hg.Chain(hg.Dense(3), NoisyScale(), Scale())
    params, x, y, state = case(net, (2,))
    seen = opened(hg.Objective(net, LOSS))(params, x, y, state, jax.random.key(0)).layers
    assert [uses_key(layer, seen[name]) for name, layer in net.items()] == [False, True, False]


@pytest.mark.parametrize(
    "layer", [hg.Conv(6, 3, groups=2), hg.Conv(4, (2, 3), strides=2, use_bias=False), hg.Conv(3, 2)]
)
@pytest.mark.parametrize("channels", [2, 16])
def test_both_forms_of_the_ghost_norm_agree_also_a_few_examples_at_once(layer, channels, monkeypatch):
    params, x, _, _ = case(layer, (5, 4, channels))
    dy = jax.random.normal(jax.random.key(3), layer.apply(params, x).shape)
    want = [jnp.sum(layer.backward(params, {"x": x[i : i + 1]}, dy[i : i + 1])[1]["kernel"] ** 2) for i in range(4)]
    for form in ("gram", "direct", None):
        np.testing.assert_allclose(ghost.kernel_squares(layer, params, x, dy, form), want, rtol=1e-12)
    monkeypatch.setattr(ghost, "AT_ONCE", 3 * params["kernel"].size // dy.shape[-1] * (dy[0].size // dy.shape[-1]))
    np.testing.assert_allclose(ghost.kernel_squares(layer, params, x, dy), want, rtol=1e-12)


class Scaled(hg.Dense):
    """A swapped rule: the gradient of its parameters is half of what it is."""

    def backward(self, params, residuals, dy):
        dx, dparams = super().backward(params, residuals, dy)
        return dx, jax.tree.map(lambda g: g / 2, dparams)


def test_a_swapped_backward_is_asked_and_not_passed_over():
    net, other = hg.Chain(hg.Dense(3)), hg.Chain(Scaled(3))
    args = case(net, (2,))
    norms = [hg.per_example_norms(hg.Objective(n, LOSS))(*args) for n in (net, other)]
    np.testing.assert_allclose(norms[1], norms[0] / 2, rtol=1e-12)


def test_noise_has_the_deviation_that_was_asked_for_and_leaves_the_masks_alone():
    net = hg.Chain(hg.Dropout(0.5), hg.Dense(100, use_bias=False), hg.Dense(3, use_bias=False))
    params, x, y, state = case(net, (200,))
    objective, key = hg.Objective(net, LOSS), jax.random.key(4)
    plain, noisy = (hg.clipped_grad(objective, 0.5, noise)(params, x, y, state, key) for noise in (0.0, 3.0))
    noise = np.concatenate([np.ravel(a - b) for a, b in zip(*map(jax.tree.leaves, (noisy, plain)), strict=True)])
    assert abs(noise.std() - 1.5) < 0.03 and abs(noise.mean()) < 0.03  # 20,300 numbers: ten and four standard errors
    again = hg.clipped_grad(objective, 0.5, 3.0)(params, x, y, state, key)
    chex.assert_trees_all_equal(noisy, again)


def test_norms_may_be_differentiated():
    net, in_shape = NETS["dense"]
    params, x, y, state = case(net, in_shape)
    objective = hg.Objective(net, LOSS)
    ours = jax.grad(lambda p: hg.per_example_norms(objective)(p, x, y, state).sum())(params)
    theirs = jax.grad(lambda p: lengths(automatic(objective, p, x, y, state)).sum())(params)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_errors():
    net = hg.Chain(hg.Residual(hg.Chain(hg.Conv(2, 3), hg.BatchNorm(), name="part")), hg.Flatten(), hg.Dense(3))
    objective = hg.Objective(net, LOSS)
    with pytest.raises(ValueError, match=r"residual1/body/batchnorm1 is a BatchNorm in training.*use hg.inference"):
        hg.per_example_norms(objective)
    with pytest.raises(TypeError, match=r"per_example_grads: wants an hg.Objective, got Chain"):
        hg.per_example_grads(net)  # pyright: ignore[reportArgumentType]
    plain = hg.Objective(hg.Chain(hg.Dense(3)), LOSS)
    for norm in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="max_norm must be above 0"):
            hg.clipped_grad(plain, norm)
    with pytest.raises(ValueError, match="noise must be at least 0, got -1"):
        hg.clipped_grad(plain, 1.0, noise=-1)
    with pytest.raises(ValueError, match="noise needs a key"):
        hg.clipped_grad(plain, 1.0, noise=1.0)(*case(plain.net, (2,))[:3])

"""Gradients in parts and in half precision, beside those of the whole batch in full."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import handgrad as hg
from handgrad.training import distributed, gradient_accumulation, mixed_precision

NET = hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.MaxPool(2), hg.Flatten(), hg.Dense(3))
PARAMS, _ = NET.init(jax.random.key(0), (6, 4, 2), jnp.float64)
X, Y = jax.random.normal(jax.random.key(1), (12, 6, 4, 2)), jnp.arange(12) % 3
WEIGHTS = jax.random.uniform(jax.random.key(2), (12,))


@pytest.mark.parametrize("whose", [hg.value_and_grad, jax.value_and_grad])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_four_parts_are_the_whole(whose, weights):
    """With ignored labels and class weights, so that the parts' divisors differ; one part counts nothing at all."""
    loss = hg.SoftmaxCrossEntropy(ignore_index=2, class_weights=(1.0, 3.0, 0.5))
    objective = hg.Objective(NET, loss, l2=0.1)
    y = Y.at[2::4].set(2)
    whole = jax.value_and_grad(objective, has_aux=True)(PARAMS, X, y, (), None, weights)
    parts = jax.jit(gradient_accumulation(4, whose)(objective))(PARAMS, X, y, (), None, weights)
    chex.assert_trees_all_close(parts, whole, rtol=1e-10, atol=1e-14)


def test_batch_norm_takes_its_statistics_part_by_part():
    """State goes from part to part: the running mean after two parts is that of two steps."""
    net = hg.Chain(hg.BatchNorm(momentum=0.5), hg.Flatten(), hg.Dense(3))
    params, state = net.init(jax.random.key(0), (6, 4, 2), jnp.float64)
    (_, aux), _ = gradient_accumulation(2)(hg.Objective(net, hg.SoftmaxCrossEntropy()))(params, X, Y, state)
    for part in (X[0::2], X[1::2]):
        _, state = net.apply_train(params, part, state)
    chex.assert_trees_all_close(aux.state, state, rtol=1e-12)
    assert aux.logits.shape == (12, 3)


def test_each_part_has_a_mask_of_its_own():
    net = hg.Chain(hg.Flatten(), hg.Dropout(0.5))
    objective = hg.Objective(net, hg.SoftmaxCrossEntropy())
    (_, aux), _ = gradient_accumulation(2)(objective)({}, jnp.ones((4, 1000)), jnp.zeros(4, int), (), jax.random.key(0))
    kept = np.asarray(aux.logits) > 0
    assert not (kept[0] == kept[1]).all() and 0.4 < kept.mean() < 0.6


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
def test_parts_over_four_devices(kind):
    objective = hg.Objective(NET, hg.SoftmaxCrossEntropy(), l2=0.1)
    alone = hg.make_train_step(objective, hg.sgd(0.1))
    parts = hg.make_train_step(objective, hg.sgd(0.1), value_and_grad=gradient_accumulation(3))
    over = distributed.data_parallel(parts, jax.make_mesh((4,), ("data",), axis_types=(kind,)))
    states = [hg.init_train_state(NET, hg.sgd(0.1), jax.random.key(0), (6, 4, 2), jnp.float64) for _ in range(2)]
    (one, metrics), (other, others) = alone(states[0], X, Y), over(states[1], X, Y)
    chex.assert_trees_all_close((one.params, metrics), (other.params, others), rtol=1e-10, atol=1e-14)


def test_half_precision_computes_in_it_and_updates_in_float32():
    """The passes run on rounded numbers; an update of a ten-thousandth of a weight is not lost."""
    net = hg.Chain(hg.Conv(4, 3), hg.BatchNorm(), hg.Relu(), hg.Flatten(), hg.Dense(3))
    objective = hg.Objective(net, hg.SoftmaxCrossEntropy())
    x = X.astype(jnp.float32)
    steps = [hg.make_train_step(objective, hg.sgd(1e-4), precision=precision) for precision in ("float32", "bf16")]
    start = hg.init_train_state(net, hg.sgd(1e-4), jax.random.key(0), (6, 4, 2))
    (full, metrics), (half, rounded) = (step(jax.tree.map(jnp.copy, start), x, Y) for step in steps)
    chex.assert_trees_all_equal_dtypes(full, half)
    assert abs(metrics.loss - rounded.loss) / metrics.loss < 0.02 and metrics.loss != rounded.loss
    moved, other = (jax.tree.map(lambda new, old: new - old, s.params, start.params) for s in (full, half))
    kernel, rough = moved["dense1"]["kernel"], other["dense1"]["kernel"]
    assert jnp.linalg.norm(kernel - rough) < 0.05 * jnp.linalg.norm(kernel)
    narrow = start.params["dense1"]["kernel"].astype(jnp.bfloat16)
    lost = narrow + rough.astype(jnp.bfloat16) == narrow
    assert (rough != 0).mean() > 0.9 and lost.mean() > 0.9


def test_half_precision_reaches_convolutions():
    text = str(jax.make_jaxpr(mixed_precision()(hg.Objective(NET, hg.SoftmaxCrossEntropy())))(PARAMS, X, Y))
    assert "bf16[12,6,4,4]" in text and "f64[12,6,4,4]" not in text


def test_parts_in_half_precision_are_summed_in_float32():
    """A thousand small parts after a large one: in bfloat16 they would be lost."""
    net = hg.Chain(hg.Dense(1, use_bias=False))
    x = jnp.concatenate([jnp.full((1, 1), 256.0), jnp.full((255, 1), 0.5)]).astype(jnp.float32)
    objective = hg.Objective(net, hg.MeanSquaredError())
    params = {"dense1": {"kernel": jnp.zeros((1, 1), jnp.float32)}}
    y = jnp.full((256, 1), -0.5, jnp.float32)
    gradient = mixed_precision(value_and_grad=gradient_accumulation(256))
    for way in (gradient, gradient_accumulation(256, mixed_precision())):
        _, grads = way(objective)(params, x, y)
        assert grads["dense1"]["kernel"][0, 0] == pytest.approx((256 + 127.5) / 256, rel=2**-8)


def test_errors():
    with pytest.raises(ValueError, match="n must be an int of at least 1, got 0"):
        gradient_accumulation(0)
    objective = hg.Objective(NET, hg.SoftmaxCrossEntropy())
    with pytest.raises(ValueError, match="a batch of 12 does not divide into 5 parts"):
        gradient_accumulation(5)(objective)(PARAMS, X, Y)
    with pytest.raises(ValueError, match="gradient_accumulation: argnums must be 0"):
        gradient_accumulation(2)(objective, argnums=1)
    with pytest.raises(ValueError, match="mixed_precision: argnums must be 0"):
        mixed_precision()(objective, argnums=1)
    with pytest.raises(ValueError, match="dtype must be bfloat16, got float16"):
        mixed_precision(jnp.float16)
    with pytest.raises(ValueError, match="precision must be one of float32, bf16, bfloat16, got 'half'"):
        hg.make_train_step(objective, hg.sgd(0.1), precision="half")

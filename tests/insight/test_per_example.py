"""Each example's gradient beside jax.vmap of jax.grad of the objective on that example alone."""

from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import handgrad as hg
from handgrad.insight import ghost
from handgrad.insight.per_example import uses_key
from handgrad.insight.tap import opened
from handgrad.layers.container import Chain

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


class Whole(Chain):
    """A chain that is differentiated whole: one layer, with a key for each child."""

    def forward(self, params, x, state=(), key=None):
        return hg.Layer.forward(self, params, x, state, key)

    backward = hg.Layer.backward


def case(net, in_shape, batch=4):
    """Params, x, y and state of random numbers, without anything to compile."""
    random = np.random.default_rng(0)
    params, state = jax.eval_shape(lambda: net.init(jax.random.key(0), in_shape, jnp.float64))
    params = jax.tree.map(lambda p: jnp.asarray(random.normal(scale=0.5, size=p.shape)), params)
    state = jax.tree.map(lambda s: jnp.asarray(random.uniform(0.5, 1.5, s.shape)), state)
    return params, jnp.asarray(random.normal(size=(batch, *in_shape))), jnp.asarray(np.arange(batch) % 3), state


def automatic(objective, params, x, y, state=()):
    """Each gradient by JAX alone, for nets without random numbers."""
    return jax.vmap(lambda x, y: jax.grad(objective, has_aux=True)(params, x[None], y[None], state)[0])(x, y)


def lengths(each):
    return jnp.sqrt(sum(jnp.sum(jnp.square(g.reshape(g.shape[0], -1)), 1) for g in jax.tree.leaves(each)))


def clipped(each, max_norm):
    scale = jnp.minimum(1, max_norm / lengths(each))
    return jax.tree.map(lambda g: jnp.tensordot(scale, g, 1), each)


def check(objective, args, oracle=automatic):
    """All three tools against the gradients of each; the bound of some, not all, is above the median length."""

    @jax.jit
    def both(*args):
        norms = hg.per_example_norms(objective)(*args)
        bound = jnp.median(norms)
        ours = hg.per_example_grads(objective)(*args), norms, hg.clipped_grad(objective, bound)(*args)
        each = oracle(objective, *args)
        return ours, (each, lengths(each), clipped(each, bound))

    ours, theirs = both(*args)
    chex.assert_trees_all_equal_structs(ours, theirs)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-10, atol=1e-13)


HEAD = hg.Flatten(), hg.Dense(3)
NETS = {
    "dense": (hg.Chain(hg.Flatten(), hg.Dense(4), hg.Tanh(), hg.Dense(3)), (5, 2)),
    "dense on places": (hg.Chain(hg.Dense(4), hg.Relu(), hg.Dense(2, use_bias=False), *HEAD), (5, 2)),
    "conv 1-D": (hg.Chain(hg.Conv(4, 3, strides=2, padding=1), *HEAD), (7, 2)),
    "conv 2-D": (hg.Chain(hg.Conv(4, (3, 2), dilation=2, padding="VALID", use_bias=False), *HEAD), (6, 5, 2)),
    "conv 3-D": (hg.Chain(hg.Conv(2, 2), hg.GlobalAvgPool(), hg.Dense(3)), (3, 2, 4, 2)),
    "groups": (hg.Chain(hg.Conv(6, 3, groups=2, strides=2), hg.Relu(), *HEAD), (5, 4, 4)),
    "depthwise": (hg.Chain(hg.Conv(3, 3, groups=3), hg.GlobalAvgPool()), (5, 4, 3)),
    "transposed": (hg.Chain(hg.ConvTranspose(2, 3, strides=2), *HEAD), (3, 2, 2)),
    "transposed in groups": (
        hg.Chain(hg.ConvTranspose(4, (2, 3), 2, ((1, 0), (1, 1)), output_padding=1, dilation=2, groups=2), *HEAD),
        (3, 2, 6),
    ),
    "norms": (hg.Chain(hg.LayerNorm(), hg.GroupNorm(2), hg.PRelu(), *HEAD), (3, 2, 4)),
    "branches": (
        hg.Chain(hg.Residual(hg.Chain(hg.Conv(2, 3), hg.Relu())), hg.Parallel(hg.Conv(2, 1), Scale()), *HEAD),
        (4, 3, 2),
    ),
    "frozen batch norm": (
        hg.inference(hg.Chain(hg.Conv(2, 3), hg.BatchNorm(), hg.Dropout(0.5), *HEAD)),
        (4, 3, 2),
    ),
    "one layer": (hg.Dense(3), (4,)),
}


@pytest.mark.parametrize("name", NETS)
def test_equal_to_vmap_of_grad(name):
    net, in_shape = NETS[name]
    check(hg.Objective(net, LOSS, l2=0.05), case(net, in_shape))


@pytest.mark.parametrize(
    "loss", [hg.SoftmaxCrossEntropy(0.1, ignore_index=1, class_weights=(1.0, 2.0, 3.0)), hg.MeanSquaredError()]
)
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_each_example_is_a_batch_of_one_for_the_loss(loss, l2):
    """Class weights divide out in a batch of one; an ignored example has a gradient of the penalty alone."""
    net, in_shape = NETS["dense"]
    params, x, y, state = case(net, in_shape)
    y = y if isinstance(loss, hg.SoftmaxCrossEntropy) else jnp.asarray(np.random.default_rng(5).normal(size=(4, 3)))
    check(hg.Objective(net, loss, l2=l2), (params, x, y, state))


def test_soft_labels_and_a_batch_of_one():
    net, in_shape = NETS["dense"]
    params, x, _, state = case(net, in_shape, batch=1)
    check(hg.Objective(net, LOSS), (params, x, jnp.array([[0.2, 0.5, 0.3]]), state))


@pytest.mark.parametrize("batch", [1, 3])
def test_each_example_has_the_masks_of_the_whole_batch(batch):
    """The oracle is jax.grad of the sum of the losses, weighted to leave one example, with the batch's key."""
    unseen = Whole(hg.Dropout(0.5), hg.Dense(2))
    net = hg.Chain(hg.Conv(2, 3), hg.Dropout(0.5), NoisyScale(), unseen, hg.Flatten(), hg.Dropout(0.3), hg.Dense(3))

    def one_by_one(objective, params, x, y, state, key):
        def loss(params, i):
            return LOSS.per_example(objective.net.apply_train(params, x, state, key)[0], y)[i]

        return jax.vmap(jax.grad(loss), (None, 0))(params, jnp.arange(batch))

    check(hg.Objective(net, LOSS), (*case(net, (4, 3, 2), batch), jax.random.key(7)), one_by_one)


def test_whether_a_layer_uses_its_key_is_read_from_its_jaxpr():
    net = hg.Chain(hg.Dense(3), NoisyScale(), Scale(), Whole(hg.Dense(2), hg.Relu()), Whole(hg.Dropout(0.5)))
    params, x, y, state = case(net, (2,))
    found = []

    def trace(key):
        seen = opened(hg.Objective(net, LOSS))(params, x, y % 2, state, key).layers
        found.extend(uses_key(layer, seen[name]) for name, layer in net.items())

    jax.eval_shape(trace, jax.random.key(0))
    assert found == [False, True, False, False, True]


@pytest.mark.parametrize(
    "layer, channels",
    [
        (hg.Conv(6, 3, groups=2), 4),
        (hg.Conv(4, (2, 3), strides=2, use_bias=False), 16),
        (hg.ConvTranspose(6, 2, 2, groups=2), 4),
        (hg.Dense(3), 2),
    ],
)
def test_both_forms_of_the_ghost_norm_agree_also_a_few_examples_at_once(layer, channels, monkeypatch):
    params, x, _, _ = case(layer, (5, 4, channels))
    dy = jnp.asarray(np.random.default_rng(3).normal(size=jax.eval_shape(layer.apply, params, x).shape))

    def alone(x, dy):
        return jnp.sum(jnp.square(layer.backward(params, {"x": x[None]}, dy[None])[1]["kernel"]))

    def squares(form):
        return ghost.kernel_squares(layer, params, x, dy, form)

    def found():
        return [squares("gram"), squares("direct"), squares(None)], jax.lax.map(lambda pair: alone(*pair), (x, dy))

    at_once, wanted = jax.jit(found)()
    monkeypatch.setattr(ghost, "AT_ONCE_ON_CPU", 1)  # convolutions now one by one
    one_by_one = jax.jit(lambda: squares("direct"))
    assert isinstance(layer, hg.Dense) or "length=4" in str(jax.make_jaxpr(one_by_one)())
    for ours in (*at_once, one_by_one()):
        np.testing.assert_allclose(ours, wanted, rtol=1e-12)


def test_norms_make_no_array_as_large_as_the_gradients():
    net = hg.Chain(hg.Conv(16, 3), hg.Relu(), hg.Flatten(), hg.Dense(30), hg.Relu(), hg.Dense(3))
    args = case(net, (4, 4, 16), batch=5)
    objective = hg.Objective(net, LOSS)
    largest_kernel = args[0]["dense1"]["kernel"].size
    assert largest(hg.per_example_grads(objective), args) >= 5 * largest_kernel
    for tool in (hg.per_example_norms(objective), hg.clipped_grad(objective, 1.0)):
        assert largest(tool, args) < 2 * largest_kernel


def largest(function, args):
    """Numbers in the largest array that is computed on the way."""

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (variable.aval.size for variable in equation.outvars)
            for inner in jaxprs_in_params(equation.params):
                yield from sizes(inner)

    return max(sizes(jax.make_jaxpr(function)(*args).jaxpr))


@pytest.mark.parametrize("batch", [2, 18])  # a vmap over kernels goes one by one, and as a whole above 16
def test_a_swapped_backward_is_asked_and_not_passed_over(batch):
    def half(layer, params, residuals, dy):
        dx, dparams = layer.backward(params, residuals, dy)
        return dx, jax.tree.map(lambda g: g / 2, dparams)

    net = hg.Chain(hg.Conv(2, 2), *HEAD)
    halved = hg.rules.swap_backward(net, half)
    args = case(net, (3, 2, 2), batch)
    check(
        hg.Objective(halved, LOSS),
        args,
        lambda _, *a: jax.tree.map(lambda g: g / 2, automatic(hg.Objective(net, LOSS), *a)),
    )


def test_over_an_ensemble_by_vmap():
    net, in_shape = NETS["conv 1-D"]
    params, x, y, state = case(net, in_shape)
    two, objective = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params), hg.Objective(net, LOSS)

    def ours(params):
        return hg.per_example_norms(objective)(params, x, y), hg.clipped_grad(objective, 0.5)(params, x, y)

    found, wanted = jax.jit(lambda two: (jax.vmap(ours)(two), jax.lax.map(ours, two)))(two)
    chex.assert_trees_all_close(found, wanted, rtol=1e-12)


def test_norms_may_be_differentiated_also_where_one_is_0():
    net, in_shape = NETS["conv 1-D"]
    params, x, y, state = case(net, in_shape)
    objective = hg.Objective(net, hg.SoftmaxCrossEntropy(ignore_index=3))

    @jax.jit
    def both(params, y):
        ours = jax.grad(lambda p: hg.per_example_norms(objective)(p, x, y, state).sum())(params)
        return ours, jax.grad(lambda p: lengths(automatic(objective, p, x, y, state)).sum())(params)

    chex.assert_trees_all_close(*both(params, y), rtol=1e-9, atol=1e-12)
    with_an_ignored_one, without_it = both(params, y.at[2].set(3))[0], both(params, y)[1]
    chex.assert_tree_all_finite((with_an_ignored_one, without_it))


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_a_gradient_of_zero_is_no_nan(l2):
    net = hg.Dense(3)
    params, x, _, state = case(net, (2,))
    objective, none = hg.Objective(net, hg.SoftmaxCrossEntropy(ignore_index=-1), l2), jnp.full(4, -1)
    norms, grads = jax.jit(
        lambda: [f(params, x, none) for f in (hg.per_example_norms(objective), hg.clipped_grad(objective, 1e9))]
    )()
    kernel = params["kernel"]
    np.testing.assert_allclose(norms, 2 * l2 * jnp.linalg.norm(kernel), rtol=1e-12)
    chex.assert_trees_all_close(grads, {"kernel": 8 * l2 * kernel, "bias": jnp.zeros(3)}, rtol=1e-12)


def test_a_net_without_parameters():
    objective, x, y = hg.Objective(hg.Chain(hg.Relu(), hg.Flatten()), LOSS), jnp.ones((2, 3)), jnp.array([0, 1])
    for params in ({}, ()):
        tools = hg.per_example_norms, hg.per_example_grads, lambda objective: hg.clipped_grad(objective, 1.0)
        norms, *grads = jax.jit(lambda params: [tool(objective)(params, x, y) for tool in tools])(params)  # noqa: B023
        assert norms.tolist() == [0, 0] and grads == [params, params]


def test_half_precision_is_summed_in_float32():
    net = hg.Chain(hg.Conv(4, 3), *HEAD)
    params, x, y, state = jax.tree.map(lambda a: a.astype("bfloat16") if a.dtype == float else a, case(net, (4, 2)))
    tools = [tool(hg.Objective(net, LOSS)) for tool in (hg.per_example_norms, hg.per_example_grads)]
    norms, each = jax.jit(lambda: [tool(params, x, y, state) for tool in tools])()
    assert norms.dtype == jnp.float32 and each["conv1"]["kernel"].dtype == jnp.bfloat16
    np.testing.assert_allclose(norms, lengths(jax.tree.map(lambda g: g.astype("float32"), each)), rtol=1e-2)


def test_noise_is_normal_with_the_deviation_that_was_asked_for_and_leaves_the_masks_alone():
    net = hg.Chain(hg.Dropout(0.5), hg.Dense(100, use_bias=False), hg.Dense(3, use_bias=False))
    params, x, y, state = case(net, (200,))
    objective, key = hg.Objective(net, LOSS), jax.random.key(4)
    plain, noisy = jax.jit(
        lambda key: [hg.clipped_grad(objective, 0.5, noise)(params, x, y, state, key) for noise in (0.0, 3.0)]
    )(key)
    noise = np.concatenate([np.ravel(a - b) for a, b in zip(*map(jax.tree.leaves, (noisy, plain)), strict=True)])
    assert abs(noise.mean()) < 4 * 1.5 / np.sqrt(noise.size)  # 20,300 numbers; four standard errors each
    assert abs(noise.std() - 1.5) < 4 * 1.5 / np.sqrt(2 * noise.size)
    assert abs((np.abs(noise) < 1.5).mean() - 0.6827) < 0.014
    layers = [np.ravel(a - b)[:300] for a, b in zip(*map(jax.tree.leaves, (noisy, plain)), strict=True)]
    assert abs(np.corrcoef(layers)[0, 1]) < 0.25  # each leaf has its own


def test_bad_labels():
    net = hg.Dense(3)
    params, x, _, state = case(net, (2,))
    norms = hg.per_example_norms(hg.Objective(net, LOSS))
    with pytest.raises(ValueError, match="labels must be from 0 to 2, got 7 at index 1"):
        jax.eval_shape(lambda: norms(params, x, np.array([0, 7, 1, 2]), state))
    with pytest.raises(ValueError, match=r"int labels must have shape \(4,\)"):
        jax.eval_shape(lambda: norms(params, x, jnp.array([0, 1]), state))
    assert np.isnan(jax.jit(norms)(params, x, jnp.array([0, 7, 1, 2]), state)).tolist() == [False, True, False, False]


@pytest.mark.parametrize("tool", [hg.per_example_grads, hg.per_example_norms, lambda o: hg.clipped_grad(o, 1.0)])
def test_batch_norm_in_training_is_refused_by_name(tool):
    norm = hg.BatchNorm()
    for net, path in (
        (hg.Chain(hg.Residual(hg.Chain(hg.Conv(2, 3), norm, name="part"))), "residual1/body/batchnorm1"),
        (hg.Chain(hg.Dense(2), Whole(hg.Dense(2), norm)), "chain1/batchnorm1"),
        (hg.rules.swap_backward(hg.Chain(norm), lambda layer, p, r, dy: layer.backward(p, r, dy)), "batchnorm1"),
        (norm, "batchnorm"),
    ):
        with pytest.raises(ValueError, match=f"{path} is a BatchNorm in training.*use hg.inference"):
            tool(hg.Objective(net, LOSS))
        tool(hg.Objective(hg.inference(net), LOSS))
    with pytest.raises(TypeError, match=r"(per_example|clipped)_\w+: wants an hg.Objective, got Chain"):
        tool(hg.Chain(hg.Dense(3)))


def test_errors_of_clipping():
    plain = hg.Objective(hg.Chain(hg.Dense(3)), LOSS)
    for norm in (0, -1.0, float("nan"), np.float32(-2)):
        with pytest.raises(ValueError, match="clipped_grad: max_norm must be above 0, got"):
            hg.clipped_grad(plain, norm)  # pyright: ignore[reportArgumentType]
    for noise in (-1, float("inf")):
        with pytest.raises(ValueError, match="clipped_grad: noise must be at least 0 and finite, got"):
            hg.clipped_grad(plain, 1.0, noise)
    for bad in ("1", True, None):
        with pytest.raises(TypeError, match="clipped_grad: max_norm must be a number, got"):
            hg.clipped_grad(plain, bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="noise needs a key"):
        hg.clipped_grad(plain, 1.0, noise=1.0)(*case(plain.net, (2,))[:3])


def test_a_training_step_takes_it_as_docs_per_example_says():
    def private(objective, has_aux=True):
        clipped = hg.clipped_grad(objective, max_norm=1e6, noise=0.0)

        def value_and_grad(params, x, y, state, key, weights):  # weights are not for this
            total = clipped(params, x, y, state, key)
            return objective(params, x, y, state, key), jax.tree.map(lambda g: g / len(x), total)

        return value_and_grad

    net, optimizer, x, y = hg.Dense(3), hg.sgd(0.5), np.eye(4, 2, dtype="float32"), np.arange(4) % 3
    objective, start = hg.Objective(net, LOSS), hg.init_train_state(net, optimizer, jax.random.key(0), (2,))
    steps = [hg.make_train_step(objective, optimizer, how, donate=False) for how in (private, hg.value_and_grad)]
    (ours, _), (theirs, _) = (step(start, x, y) for step in steps)
    chex.assert_trees_all_close(ours.params, theirs.params, rtol=1e-5, atol=1e-7)

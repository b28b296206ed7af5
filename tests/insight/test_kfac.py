"""Kronecker factors beside their formulas by numpy, and the step beside the solution with their kron."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import handgrad as hg
from curvature_cases import SOFTMAX, SQUARES, case, matrices

SIZE, STRIDES, PADDING, DILATION = (3, 2), (2, 1), ((1, 0), (1, 2)), (1, 2)
CONV = hg.Conv(2, SIZE, strides=STRIDES, padding=PADDING, dilation=DILATION)
NET = hg.Chain(CONV, hg.Tanh(), hg.Residual(hg.Conv(2, 1, use_bias=False)), hg.Flatten(), hg.Dense(4), hg.Relu(),
               hg.Dense(3))  # fmt: skip


def probed(params, x, probes):
    """The logits of NET with a probe added to each layer's output, and what goes into the layers."""
    h = jnp.tanh(CONV.apply(params["conv1"], x) + probes["conv1"])
    inputs = {"residual1/body": h.reshape(len(x), -1, 2)}
    inner = h @ params["residual1"]["body"]["kernel"][0, 0] + probes["residual1/body"]
    inputs["dense1"] = h = (h + inner).reshape(len(x), -1)
    h = h @ params["dense1"]["kernel"] + params["dense1"]["bias"][None] + probes["dense1"]
    inputs["dense2"] = h = jnp.maximum(h, 0)
    return h @ params["dense2"]["kernel"] + params["dense2"]["bias"][None] + probes["dense2"], inputs


def conv_inputs(x):
    """The rows of the convolution by loops over its places, (N, T, I)."""
    x, (h, w) = np.pad(x, ((0, 0), *PADDING, (0, 0))), SIZE
    (n, height, width, _) = x.shape
    patches = [
        x[:, i : i + (h - 1) * DILATION[0] + 1 : DILATION[0], j : j + (w - 1) * DILATION[1] + 1 : DILATION[1]]
        for i in range(0, height - (h - 1) * DILATION[0], STRIDES[0])
        for j in range(0, width - (w - 1) * DILATION[1], STRIDES[1])
    ]
    return np.stack(patches, 1).reshape(n, len(patches), -1)


def test_factors_by_their_formulas():
    params, x, y, state, key = case(NET, SOFTMAX, (4, 3, 2), 3)
    found = jax.jit(hg.kfac_factors(hg.Objective(NET, SOFTMAX, l2=0.1)))(params, x, y, state, key)
    shapes = {"conv1": (3, 2, 4, 2), "residual1/body": (3, 2, 4, 2), "dense1": (3, 4), "dense2": (3, 3)}
    probes = {name: jnp.zeros(shape) for name, shape in shapes.items()}

    @jax.jit
    def oracle(params, x, probes):
        jacobians, inputs = jax.jacrev(lambda probes: probed(params, x, probes), has_aux=True)(probes)
        logits, _ = probed(params, x, probes)
        return jacobians, inputs, jax.hessian(lambda o: SOFTMAX(o, y))(logits)

    jacobians, inputs, hessian = jax.tree.map(np.asarray, oracle(params, x, probes))
    block = np.stack([hessian[i, :, i] for i in range(3)])
    inputs |= {"conv1": conv_inputs(x)}
    assert set(found) == set(shapes)
    for name, jacobian in jacobians.items():
        a = inputs[name].reshape(3, -1, inputs[name].shape[-1])
        a = a if name == "residual1/body" else np.concatenate([a, np.ones((*a.shape[:2], 1))], -1)
        g = np.stack([jacobian[i, :, i] for i in range(3)])  # an example's logits by its places, (N, K, *P, O)
        g = g.reshape(*g.shape[:2], -1, g.shape[-1])
        np.testing.assert_allclose(found[name].inputs, np.einsum("nti,ntj->ij", a, a) / 3, rtol=1e-10, atol=1e-13)
        wanted = np.einsum("nkto,nkj,njtp->op", g, block, g) / g.shape[2]
        np.testing.assert_allclose(found[name].outputs, wanted, rtol=1e-10, atol=1e-13)


def test_for_one_example_the_factors_product_is_the_block_itself():
    objective, args, _, gauss_newton, _ = matrices("one example")
    found = jax.jit(hg.kfac_factors(objective))(*args)
    block = np.kron(*found["dense2"])  # a kernel (I, O) row by row; the penalty is not in the factors
    np.testing.assert_allclose(block + 0.06 * np.eye(6), gauss_newton[6:, 6:], rtol=1e-10, atol=1e-13)
    bias_first = [*range(4, 6), *range(4)]  # ravel_pytree has the bias before the kernel, the factors behind it
    block = np.kron(*found["dense1"])[np.ix_(bias_first, bias_first)]
    penalty = np.diag([0.0, 0.0, *[0.06] * 4])
    np.testing.assert_allclose(block + penalty, gauss_newton[:6, :6], rtol=1e-10, atol=1e-13)


class Doubled(hg.Dense):
    """A layer whose backward was swapped: it is no dense layer to K-FAC."""

    def backward(self, params, residuals, dy):
        return super().backward(params, residuals, 2 * dy)


def test_who_has_no_factors():
    net = hg.Chain(hg.Conv(2, 1, groups=2), hg.ConvTranspose(2, 1), hg.LayerNorm(), hg.PRelu(), Doubled(3),
                   hg.Residual(hg.Dense(3)), hg.Flatten(), hg.Dense(3, name="top"))  # fmt: skip
    objective, with_factors = hg.Objective(net, SOFTMAX), {"residual1/body", "top"}
    params, state = jax.eval_shape(lambda key: net.init(key, (2, 2)), jax.random.key(0))
    x, y = jax.ShapeDtypeStruct((2, 2, 2), jnp.float32), jnp.zeros(2, jnp.int32)
    factors = jax.eval_shape(hg.kfac_factors(objective), params, x, y, state)
    assert set(factors) == with_factors
    kept = jax.eval_shape(hg.kfac(objective).init, params)
    assert set(kept.factors) == with_factors and jax.tree.map(jnp.shape, kept.factors) == jax.tree.map(
        jnp.shape, factors
    )


def test_an_example_without_weight_is_none():
    objective, (params, x, y, state, key), *_ = matrices("leaf")
    factors, few = jax.jit(hg.kfac_factors(objective)), np.array([0, 2, 3])
    some = factors(params, x, y, state, key, jnp.array([2.0, 0.0, 2.0, 2.0]))
    rest = factors(params, x[few], y[few], state, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), some, rest)
    none = factors(params, x, y, state, key, jnp.zeros(4))
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(none))


def test_samples_have_the_right_mean():
    """The mean over 2000 draws, within five standard errors."""
    objective, args, *_ = matrices("one example")
    exact = jax.jit(hg.kfac_factors(objective))(*args)
    keys = jax.random.split(jax.random.key(0), 2000)
    draws = jax.jit(jax.vmap(lambda key: hg.kfac_factors(objective, 1)(*args[:4], key)))(keys)
    for name, (_, outputs) in jax.tree.map(np.asarray, draws).items():
        error = outputs.std(0) / 2000**0.5
        assert (abs(outputs.mean(0) - exact[name].outputs) < 5 * error + 1e-12).all() and error.max() > 1e-6


SMALL = hg.Chain(hg.Dense(4), hg.PRelu(), hg.Dense(3, use_bias=False))
OBJECTIVE = hg.Objective(SMALL, SOFTMAX)


def rows(part):
    """A layer's gradient as one matrix, the bias as its last row."""
    return np.concatenate([part["kernel"], part["bias"][None]]) if "bias" in part else np.asarray(part["kernel"])


def divided(a, g, gradient, damping):
    """The gradient divided by the damped Kronecker product, as one large matrix."""
    pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
    damped = np.kron(a + pi * damping**0.5 * np.eye(len(a)), g + damping**0.5 / pi * np.eye(len(g)))
    return np.linalg.solve(damped, gradient.ravel()).reshape(len(a), len(g))


@pytest.fixture(scope="module")
def small():
    """Arguments, factors and gradients of the small net."""
    args = case(SMALL, SOFTMAX, (5,), 3)
    factors, grads = jax.jit(lambda *args: (hg.kfac_factors(OBJECTIVE)(*args), hg.grad(OBJECTIVE)(*args)[0]))(*args)
    return args, factors, grads


def test_steps_divide_by_the_damped_product_of_running_means(small):
    """Four updates with a look at every second, at batches of four sizes: by hand after the formulas in the header."""
    (params, *batch), _, grads = small
    optimizer = hg.optimizers.chain(hg.kfac(OBJECTIVE, 0.3, 0.25, every=2), optax.scale(-1.0))
    state, update, look = optimizer.init(params), jax.jit(optimizer.update), jax.jit(hg.kfac_factors(OBJECTIVE))
    means = {name: (0, 0) for name in ("dense1", "dense2")}
    for t, size in enumerate((1.0, 9.0, 3.0, 9.0, 2.0)):
        x = size * batch[0]
        updates, state = update(grads, state, params, (params, x, *batch[1:], None))
        if t % 2 == 0:
            keep = min(1 - 1 / (t // 2 + 1), 0.25)
            seen = look(params, x, *batch[1:])
            pairs = {name: zip(means[name], seen[name], strict=True) for name in means}
            means = {name: [keep * m + (1 - keep) * np.asarray(f) for m, f in p] for name, p in pairs.items()}
        for name, (a, g) in means.items():
            np.testing.assert_allclose(rows(updates[name]), -divided(a, g, rows(grads[name]), 0.3), rtol=1e-10)
        np.testing.assert_allclose(updates["prelu1"]["slope"], -grads["prelu1"]["slope"])
    assert int(state[0].step) == 5


def test_a_leaf_takes_newtons_step():
    """Least squares of one layer: the product of the factors is the Hessian itself. The damping is traced."""
    objective = hg.Objective(hg.Dense(1, use_bias=False), SQUARES)
    params, x, y, *_ = case(objective.net, SQUARES, (2,), 5)

    @jax.jit
    def newton(damping):
        optimizer, grads = hg.kfac(objective, damping), hg.grad(objective)(params, x, y)[0]
        return optimizer.update(grads, optimizer.init(params), at=(params, x, y))[0]

    np.testing.assert_allclose(params["kernel"] - newton(1e-20)["kernel"], np.linalg.lstsq(x, y)[0], rtol=1e-8)


def test_layers_that_saw_nothing_are_divided_by_the_damping_alone(small):
    """Weights of zero: no factors at all. An input of zero: none of the inputs alone."""
    (params, x, y, state, key), _, grads = small
    update = jax.jit(lambda *at: hg.kfac(OBJECTIVE, 0.25).update(grads, hg.kfac(OBJECTIVE).init(params), at=at)[0])
    found = update(params, x, y, state, key, jnp.zeros(3))
    for name in ("dense1", "dense2"):
        np.testing.assert_allclose(rows(found[name]), 4 * rows(grads[name]), rtol=1e-10)
    unbiased = params | {"dense1": {"kernel": params["dense1"]["kernel"], "bias": 0 * params["dense1"]["bias"]}}
    found = update(unbiased, 0 * x, y, state, key, jnp.ones(3))
    np.testing.assert_allclose(rows(found["dense2"]), 4 * rows(grads["dense2"]), rtol=1e-10)


def test_a_mask_and_half_precision(small):
    (params, *batch), factors, grads = small
    mask = {"dense1": {"kernel": True, "bias": False}, "prelu1": True, "dense2": True}
    frozen = hg.optimizers.masked(hg.optimizers.chain(hg.kfac(OBJECTIVE), optax.scale(1.0)), mask)
    state = frozen.init(params)
    assert list(state[0].factors) == ["dense2"]  # of dense1 a part is frozen: what is trained keeps its gradient
    updates, _ = jax.jit(frozen.update)(grads, state, params, (params, *batch, None))
    np.testing.assert_allclose(updates["dense1"]["kernel"], grads["dense1"]["kernel"])
    assert (np.asarray(updates["dense1"]["bias"]) == 0).all()
    a, g = factors["dense2"]
    wanted = divided(a, g, rows(grads["dense2"]), 0.01)
    np.testing.assert_allclose(rows(updates["dense2"]), wanted, rtol=1e-10)
    alone = hg.kfac(OBJECTIVE)
    half, narrow = (jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree) for tree in ((params, batch[0]), grads))
    updates, state = jax.jit(alone.update)(narrow, alone.init(half[0]), half[0], (*half, *batch[1:], None))
    assert {leaf.dtype for leaf in jax.tree.leaves(state[1:])} == {jnp.dtype(jnp.float32)}
    assert updates["dense2"]["kernel"].dtype == jnp.bfloat16
    np.testing.assert_allclose(updates["dense2"]["kernel"].astype(float), wanted, rtol=0.1, atol=0.02)


def test_inputs_of_many_sizes_take_few_steps(tmp_path):
    """Inputs of sizes 1 to 100: ten steps of K-FAC in `fit` go where momentum does not come in a hundred.

    What comes back from the checkpoint is what was saved, and goes on the same.
    """
    even = jax.random.normal(jax.random.key(0), (64, 5))
    y = np.asarray(jnp.argmax(even @ jax.random.normal(jax.random.key(1), (5, 3)), 1))  # all inputs matter alike
    x = np.asarray(even * jnp.array([[1.0, 3.0, 10.0, 30.0, 100.0]]))
    net = hg.Chain(hg.Dense(3, kernel_init=hg.initializers.zeros))
    objective, losses = hg.Objective(net, hg.SoftmaxCrossEntropy()), {}
    curved = hg.optimizers.chain(hg.kfac(objective, 1e-4, every=3), hg.sgd(0.5))
    for name, optimizer, epochs in (("momentum", hg.momentum(3e-4), 100), ("kfac", curved, 10)):
        step = hg.make_train_step(objective, optimizer)
        start = hg.init_train_state(net, optimizer, jax.random.key(0), (5,), jnp.float64)
        end, history = hg.fit(start, step, x, y, batch_size=64, epochs=epochs, progress=False)
        losses[name] = history["loss"]
    assert losses["kfac"][-1] < 0.5 * losses["momentum"][-1] and losses["momentum"][-1] < losses["momentum"][0]
    hg.checkpoint.save(tmp_path / "a.npz", end)
    back = hg.checkpoint.load(tmp_path / "a.npz")
    assert jax.tree.structure(back) == jax.tree.structure(end)
    (end, one), (back, other) = step(end, x, y), step(back, x, y)
    assert float(one.loss) == float(other.loss)
    np.testing.assert_array_equal(end.params["dense1"]["kernel"], back.params["dense1"]["kernel"])


def test_a_step_on_a_mesh_is_that_of_the_whole_batch_and_batch_norm_is_looked_at_by_its_inference():
    net = hg.Chain(hg.Dense(4), hg.BatchNorm(), hg.Relu(), hg.Dense(3))
    objective, frozen = hg.Objective(net, SOFTMAX), hg.Objective(hg.inference(net), SOFTMAX)
    _, x, y, *_ = case(net, SOFTMAX, (5,), 6)
    optimizer = hg.optimizers.chain(hg.optimizers.clip_by_global_norm(1.0), hg.kfac(frozen, samples=1), hg.sgd(0.1))
    step = hg.make_train_step(objective, optimizer, donate=False)
    start = hg.init_train_state(net, optimizer, jax.random.key(0), (5,), jnp.float64)
    alone, metrics = step(start, x, y)
    devices = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    spread, again = hg.distributed.data_parallel(step, devices)(start, x, y)
    for ours, theirs in zip(jax.tree.leaves((alone[1:4], metrics)), jax.tree.leaves((spread[1:4], again)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert (np.asarray(alone.state["batchnorm1"]["mean"]) != 0).any()
    first = float(metrics.loss)
    for _ in range(10):
        alone, metrics = step(alone, x, y)
    assert metrics.loss < 0.7 * first


def test_errors(small):
    (params, *_), _, grads = small
    for optimizer in (hg.kfac(OBJECTIVE), hg.optimizers.chain(hg.kfac(OBJECTIVE)), optax.chain(hg.kfac(OBJECTIVE))):  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match=r"kfac: update needs at=\(params, x, y, state, key, weights\).*make_train"):
            optimizer.update(grads, optimizer.init(params), params)
    for argument, bad, says in (("damping", 0, "must be above 0, got 0"), ("damping", -1.0, "must be finite"),
                                ("decay", 1.0, "must be at least 0 and below 1, got 1.0"),
                                ("every", 0, "must be an int of at least 1, got 0"),
                                ("samples", 1.5, "must be None or an int of at least 1, got 1.5")):  # fmt: skip
        settings: dict[str, Any] = {argument: bad}
        with pytest.raises(ValueError, match=f"kfac: {argument} {says}"):
            hg.kfac(OBJECTIVE, **settings)
    with pytest.raises(TypeError, match="kfac: wants an hg.Objective, got Chain"):
        hg.kfac(SMALL)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="kfac: batchnorm1 is a BatchNorm in training"):
        hg.kfac(hg.Objective(hg.Chain(hg.Dense(2), hg.BatchNorm()), SOFTMAX))

"""Second order beside jax.hessian, the whole matrix, on small nets."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import handgrad as hg

LOSSES = {"softmax": hg.SoftmaxCrossEntropy(0.1), "squares": hg.MeanSquaredError()}
NETS = {
    "dense": hg.Chain(hg.Flatten(), hg.Dense(3), hg.Tanh(), hg.Dense(3)),
    "conv": hg.Chain(
        hg.Conv(2, 2, strides=2, groups=2), hg.Tanh(), hg.Residual(hg.Conv(2, 1)), hg.Flatten(), hg.Dense(3)
    ),
    "normed": hg.Chain(hg.LayerNorm(), hg.Flatten(), hg.Dropout(0.4), hg.Dense(3, use_bias=False)),
}


def case(net, loss, batch=3, in_shape=(4, 3, 2)):
    params, state = net.init(jax.random.key(0), in_shape, jnp.float64)
    params = jax.tree.map(lambda p: p + 0.2 * jax.random.normal(jax.random.key(1), p.shape, p.dtype), params)
    x = jax.random.normal(jax.random.key(2), (batch, *in_shape))
    y = (
        jnp.arange(batch) % 3
        if isinstance(loss, hg.SoftmaxCrossEntropy)
        else jax.random.normal(jax.random.key(3), (batch, 3))
    )
    return params, x, y, state, jax.random.key(4)


def matrices(objective, args):
    """The Hessian and the Gauss-Newton matrix, and the way from a vector to params."""
    params, x, y, state, key = args
    flat, unravel = ravel_pytree(params)

    def logits(flat):
        return objective.net.apply_train(unravel(flat), x, state, key)[0]

    @jax.jit
    def both(flat):
        jacobian = jax.jacobian(logits)(flat)
        inner = jax.hessian(lambda o: objective.loss(o, y))(logits(flat))
        two_l2 = jax.hessian(lambda flat: objective.penalty(unravel(flat), flat.dtype))(flat)
        gauss_newton = jnp.einsum("nki,nkmj,mjl->il", jacobian, inner, jacobian) + two_l2
        return jax.hessian(lambda flat: objective(unravel(flat), x, y, state, key)[0])(flat), gauss_newton

    return *both(flat), unravel


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("loss", LOSSES)
def test_products_and_diagonal_are_those_of_the_matrices(name, loss):
    objective = hg.Objective(NETS[name], LOSSES[loss], l2=0.03)
    args = case(NETS[name], LOSSES[loss])
    hessian, gauss_newton, unravel = matrices(objective, args)
    v = jax.random.normal(jax.random.key(9), hessian.shape[:1])
    for tool, matrix in ((hg.hvp, hessian), (hg.gauss_newton_product, gauss_newton)):
        product = jax.jit(tool(objective))(*args, unravel(v))
        np.testing.assert_allclose(ravel_pytree(product)[0], matrix @ v, rtol=1e-9, atol=1e-11)
    diagonal = jax.jit(hg.gauss_newton_diagonal(objective))(*args)
    np.testing.assert_allclose(ravel_pytree(diagonal)[0], jnp.diag(gauss_newton), rtol=1e-9, atol=1e-11)


def test_in_a_linear_net_both_matrices_are_one_and_batch_norm_has_products():
    net = hg.Chain(hg.Flatten(), hg.Dense(3))
    objective, args = hg.Objective(net, LOSSES["softmax"]), case(net, LOSSES["softmax"], batch=1)
    hessian, gauss_newton, _ = matrices(objective, args)
    np.testing.assert_allclose(hessian, gauss_newton, atol=1e-12)
    normed = hg.Chain(hg.BatchNorm(), hg.Flatten(), hg.Dense(3))
    objective, args = hg.Objective(normed, LOSSES["softmax"]), case(normed, LOSSES["softmax"])
    hessian, _, unravel = matrices(objective, args)
    v = jax.random.normal(jax.random.key(9), hessian.shape[:1])
    found = ravel_pytree(jax.jit(hg.hvp(objective))(*args, unravel(v)))[0]
    np.testing.assert_allclose(found, hessian @ v, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["dense", "normed"])
def test_sharpness_is_the_end_of_the_spectrum(name):
    objective, args = hg.Objective(NETS[name], LOSSES["softmax"]), case(NETS[name], LOSSES["softmax"])
    hessian, _, _ = matrices(objective, args)
    found = jax.jit(hg.sharpness(objective, iterations=40))(*args)
    ends, vectors = jnp.linalg.eigh(hessian)
    assert float(found.largest) == pytest.approx(float(ends[-1]), rel=1e-7)
    assert float(found.smallest) == pytest.approx(float(ends[0]), abs=1e-4)
    assert abs(ravel_pytree(found.vector)[0] @ vectors[:, -1]) == pytest.approx(1, abs=1e-5)
    assert found.residual < 1e-3


def test_sharpness_where_the_vectors_run_out():
    """Two parameters and 30 iterations; and a Hessian of rank one, whose Krylov space closes after two vectors."""
    objective = hg.Objective(hg.Chain(hg.Dense(1, use_bias=False)), hg.MeanSquaredError())
    params = {"dense1": {"kernel": jnp.zeros((6, 1))}}
    x = jnp.arange(1.0, 7.0)[None]
    found = jax.jit(hg.sharpness(objective))(params, x, jnp.ones((1, 1)))
    assert float(found.largest) == pytest.approx(2 * 91, rel=1e-10) and found.residual < 1e-8
    assert abs(found.smallest) < 1e-6
    negative = hg.Objective(hg.Chain(hg.Dense(1, use_bias=False), hg.Lambda(lambda o: -(o**2))), hg.MeanSquaredError())
    found = jax.jit(hg.sharpness(negative))(
        params, x, jnp.full((1, 1), -9.0)
    )  # (9 - o²)² at o = 0: a top, curvature -36 |x|²
    assert float(found.smallest) == pytest.approx(-36 * 91, rel=1e-9) and abs(found.largest) < 1e-6


def brute_factors(net, loss, args, name, layer):
    """A and Γ by numpy: jax.jacobian of the logits in the layer's output at a probe, and the loss's Hessian."""
    params, x, y, state, key = args
    outputs = hg.activations(net, params, x, state)
    names = list(outputs)
    before = x if names.index(name) == 0 else outputs[names[names.index(name) - 1]]
    rest = [(n, lay) for n, lay in net.items()][names.index(name) + 1 :]

    def logits(h):
        for n, lay in rest:
            h = lay.apply(params.get(n, {}), h)
        return h

    h = outputs[name]
    jac = jax.vmap(jax.jacobian(lambda one: logits(one[None])[0]))(h).reshape(len(x), 3, -1, h.shape[-1])
    inner = jax.hessian(lambda o: loss(o, y))(logits(h))
    block = np.stack([inner[i, :, i, :] for i in range(len(x))])
    places = jac.shape[2]
    gamma = np.einsum("nkto,nkj,njtp->op", jac, block, jac) / places
    kernel = params[name]["kernel"]
    if isinstance(layer, hg.Conv):
        sizes, channels = kernel.shape[:2], kernel.shape[2]
        patches = jax.lax.conv_general_dilated_patches(
            jnp.moveaxis(before, -1, 1), sizes, (2, 2), "SAME"
        )  # (N, C * K, *P), channel-major
        patches = patches.reshape(len(x), channels, -1, places).transpose(0, 3, 2, 1).reshape(len(x), places, -1)
    else:
        patches = np.asarray(before).reshape(len(x), 1, -1)
    patches = np.concatenate([patches, np.ones((*patches.shape[:2], 1))], -1)
    return np.einsum("nti,ntj->ij", patches, patches) / len(x), gamma


KFC = hg.Chain(hg.Conv(2, 2, strides=2), hg.Tanh(), hg.Flatten(), hg.Dense(4), hg.Tanh(), hg.Dense(3))


@pytest.mark.parametrize("loss", LOSSES)
def test_factors_by_their_formulas(loss):
    args = case(KFC, LOSSES[loss])
    found = jax.jit(hg.kfac_factors(hg.Objective(KFC, LOSSES[loss])))(*args)
    assert list(found) == ["conv1", "dense1", "dense2"]
    for name, layer in KFC.items():
        if name in found:
            inputs, outputs = brute_factors(KFC, LOSSES[loss], args, name, layer)
            np.testing.assert_allclose(found[name].inputs, inputs, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(found[name].outputs, outputs, rtol=1e-9, atol=1e-12)


def test_for_one_example_the_factors_product_is_the_block_itself():
    net = hg.Chain(hg.Flatten(), hg.Dense(3, use_bias=False))
    objective, args = hg.Objective(net, LOSSES["softmax"]), case(net, LOSSES["softmax"], batch=1)
    _, gauss_newton, _ = matrices(objective, args)
    a, g = hg.kfac_factors(objective)(*args)["dense1"]
    np.testing.assert_allclose(jnp.kron(a, g), gauss_newton, rtol=1e-9, atol=1e-12)


def test_samples_have_the_right_mean():
    """The mean over 2000 draws, within five standard errors."""
    net = hg.Chain(hg.Flatten(), hg.Dense(3))
    objective, args = hg.Objective(net, LOSSES["softmax"]), case(net, LOSSES["softmax"])
    exact = jax.jit(hg.kfac_factors(objective))(*args)["dense1"].outputs
    keys = jax.random.split(jax.random.key(0), 2000)
    draws = jax.jit(jax.vmap(lambda k: hg.kfac_factors(objective, 1)(*args[:4], k)["dense1"].outputs))(keys)
    error = draws.std(0) / 2000**0.5
    assert (abs(draws.mean(0) - exact) < 5 * error + 1e-12).all() and error.max() < 0.05 * abs(exact).max()


def test_the_preconditioner_divides_by_the_damped_kronecker_product():
    net = hg.Chain(hg.Dense(4), hg.PRelu(), hg.Dense(3, use_bias=False))
    objective, loss = hg.Objective(net, LOSSES["softmax"]), LOSSES["softmax"]
    params, x, y, state, key = case(net, loss, in_shape=(5,))
    (_, curved), optimizer = hg.kfac_value_and_grad(None)(objective)(params, x, y, state, key), hg.kfac(net, 0.3, 0.9)
    updates, opt_state = jax.jit(optimizer.update)(curved, optimizer.init(params), params)
    for name in ("dense1", "dense2"):
        a, g = curved.factors[name]
        pi = jnp.sqrt((jnp.trace(a) / len(a)) / (jnp.trace(g) / len(g)))
        damped = jnp.kron(a + pi * 0.3**0.5 * jnp.eye(len(a)), g + 0.3**0.5 / pi * jnp.eye(len(g)))
        rows = [curved.grads[name]["kernel"], *([curved.grads[name]["bias"][None]] if name == "dense1" else [])]
        wanted = jnp.linalg.solve(damped, jnp.concatenate(rows).ravel()).reshape(len(a), len(g))
        found = jnp.concatenate([updates[name]["kernel"], *([updates[name]["bias"][None]] if name == "dense1" else [])])
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-12)
        chex.assert_trees_all_close(opt_state.factors[name], jax.tree.map(lambda f: 0.1 * f, curved.factors[name]))
    chex.assert_trees_all_equal(updates["prelu1"], curved.grads["prelu1"])


def test_it_solves_an_ill_conditioned_problem_in_few_steps():
    """Inputs of sizes 1 to 100: ten steps of K-FAC go where momentum does not come in a hundred."""
    even = jax.random.normal(jax.random.key(0), (64, 5))
    y = jnp.argmax(even @ jax.random.normal(jax.random.key(1), (5, 3)), 1)  # all inputs matter alike
    x, net = even * jnp.array([[1.0, 3.0, 10.0, 30.0, 100.0]]), hg.Chain(hg.Dense(3))
    objective, losses = hg.Objective(net, hg.SoftmaxCrossEntropy(), l2=1e-6), {}
    ways = {"kfac": (hg.optimizers.chain(hg.kfac(net, 1e-4), hg.sgd(0.5)), hg.kfac_value_and_grad(None), 10),
            "momentum": (hg.momentum(3e-4), hg.value_and_grad, 100)}  # fmt: skip
    for name, (optimizer, gradient, steps) in ways.items():
        state = hg.init_train_state(net, optimizer, jax.random.key(2), (5,), jnp.float64)
        state = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
        state = state._replace(opt_state=optimizer.init(state.params))
        step = hg.make_train_step(objective, optimizer, value_and_grad=gradient)
        for _ in range(steps):
            state, metrics = step(state, x, y)
            losses[name] = float(metrics.loss)
    assert losses["kfac"] < 0.5 * losses["momentum"]


def test_errors():
    net = hg.Chain(hg.BatchNorm(), hg.Flatten(), hg.Dense(3))
    objective, args = hg.Objective(net, LOSSES["softmax"]), case(net, LOSSES["softmax"])
    for tool in (hg.gauss_newton_diagonal, hg.kfac_factors):
        with pytest.raises(ValueError, match="batchnorm1 is a BatchNorm in training"):
            tool(objective)
    for tool in (hg.hvp, hg.gauss_newton_product):
        with pytest.raises(
            TypeError, match=r"v must be like params: dense1/kernel is float64 \(2, 2\), wanted float64 \(24, 3\)"
        ):
            tool(objective)(*args, args[0] | {"dense1": args[0]["dense1"] | {"kernel": jnp.ones((2, 2))}})
        with pytest.raises(TypeError, match=rf"{tool.__name__}: wants an hg.Objective, got Chain"):
            tool(net)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="iterations must be at least 2, got 1"):
        hg.sharpness(objective, 1)
    plain = hg.Objective(hg.Chain(hg.Dense(3)), LOSSES["softmax"])
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        hg.kfac_factors(plain, 0)
    with pytest.raises(ValueError, match="samples need a key"):
        hg.kfac_factors(plain, 1)(*case(plain.net, LOSSES["softmax"], in_shape=(2,))[:3])
    with pytest.raises(TypeError, match=r"must bring its factors; .*value_and_grad=hg.kfac_value_and_grad\(\)"):
        optimizer = hg.kfac(plain.net)
        params = plain.net.init(jax.random.key(0), (2,))[0]
        optimizer.update(params, optimizer.init(params))
    with pytest.raises(ValueError, match="damping must be above 0 and decay from 0 to 1, got 0 and 0.95"):
        hg.kfac(plain.net, 0)

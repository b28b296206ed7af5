"""Kronecker factors beside their formulas by numpy, and the step beside the solution with their kron."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from curvature_cases import SOFTMAX, SQUARES, case, matrices
from handgrad.insight import Factors, KfacState

STRIDES, PADDING, DILATION = (2, 1), ((1, 0), (1, 2)), (1, 2)
CONV = hg.Conv(2, (3, 2), strides=STRIDES, padding=PADDING, dilation=DILATION)
NET = hg.Chain(CONV, hg.Tanh(), hg.Residual(hg.Conv(2, 1, use_bias=False)), hg.Flatten(), hg.Dense(4), hg.Relu(),
               hg.Dense(3))  # fmt: skip


def gammas(loss, args, shapes):
    """Γ of each layer by numpy: the logits' Jacobian in a probe on its output, and the loss's Hessian, by jax."""
    params, x, y, _, _ = args

    def logits(probes):
        h = jnp.tanh(CONV.apply(params["conv1"], x) + probes["conv1"])
        inner = hg.Conv(2, 1, use_bias=False).apply(params["residual1"]["body"], h) + probes["residual1/body"]
        h = (h + inner).reshape(len(x), -1)
        h = h @ params["dense1"]["kernel"] + params["dense1"]["bias"][None] + probes["dense1"]
        return jax.nn.relu(h) @ params["dense2"]["kernel"] + params["dense2"]["bias"][None] + probes["dense2"]

    probes = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    o = logits(probes)
    inner = np.asarray(jax.hessian(lambda o: loss(o, y))(o))
    jacobians = jax.jit(jax.jacrev(logits))(probes)
    found = {}
    for name, jacobian in jacobians.items():
        own = np.stack([jacobian[i, :, i] for i in range(len(x))])  # (N, K, *P, O): an example's logits by its places
        own = own.reshape(*own.shape[:2], -1, own.shape[-1])
        block = np.stack([inner[i, :, i] for i in range(len(x))])
        found[name] = np.einsum("nkto,nkj,njtp->op", own, block, own) / own.shape[2]
    return found


def conv_inputs(x, kernel, bias=True):
    """A of the convolution by loops over its places."""
    x = np.pad(x, ((0, 0), *PADDING, (0, 0)))
    (n, height, width, _), (h, w) = x.shape, kernel.shape[:2]
    patches = [
        x[:, i : i + (h - 1) * DILATION[0] + 1 : DILATION[0], j : j + (w - 1) * DILATION[1] + 1 : DILATION[1]]
        for i in range(0, height - (h - 1) * DILATION[0], STRIDES[0])
        for j in range(0, width - (w - 1) * DILATION[1], STRIDES[1])
    ]
    a = np.stack(patches, 1).reshape(n, len(patches), -1)
    a = np.concatenate([a, np.ones((*a.shape[:2], 1))], -1)
    return np.einsum("nti,ntj->ij", a, a) / n


def test_factors_by_their_formulas():
    args = case(NET, SOFTMAX, (4, 3, 2), 3)
    params, x, *_ = args
    found = jax.jit(hg.kfac_factors(hg.Objective(NET, SOFTMAX, l2=0.1)))(*args)
    h = hg.activations(NET, params, x)
    names = {"conv1": "conv1", "residual1/body": "residual1/body", "dense1": "dense1", "dense2": "dense2"}
    assert set(found) == set(names)
    wanted = gammas(SOFTMAX, args, {name: h[name].shape for name in names})
    for name in names:
        np.testing.assert_allclose(found[name].outputs, wanted[name], rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(found["conv1"].inputs, conv_inputs(x, params["conv1"]["kernel"]), rtol=1e-10)
    a = np.concatenate([np.asarray(h["relu1"]), np.ones((3, 1))], 1)
    np.testing.assert_allclose(found["dense2"].inputs, a.T @ a / 3, rtol=1e-10)
    places = np.asarray(h["tanh1"]).reshape(3, -1, 2)
    np.testing.assert_allclose(found["residual1/body"].inputs, np.einsum("nti,ntj->ij", places, places) / 3, rtol=1e-10)


def test_for_one_example_the_factors_product_is_the_block_itself():
    objective, args, _, gauss_newton, _, _ = matrices("one example")
    found = jax.jit(hg.kfac_factors(objective))(*args)
    block = jnp.kron(*found["dense2"])  # a kernel (I, O) row by row; the penalty is not in the factors
    np.testing.assert_allclose(block + 0.06 * jnp.eye(6), gauss_newton[6:, 6:], rtol=1e-10, atol=1e-13)
    bias_first = [*range(4, 6), *range(4)]  # ravel_pytree has the bias before the kernel, the factors behind it
    block = jnp.kron(*found["dense1"])[np.ix_(bias_first, bias_first)]
    penalty = jnp.diag(jnp.array([0.0, 0.0, *[0.06] * 4]))
    np.testing.assert_allclose(block + penalty, gauss_newton[:6, :6], rtol=1e-10, atol=1e-13)


def test_who_has_no_factors():
    class Swapped(hg.Dense):
        def backward(self, params, residuals, dy):
            return super().backward(params, residuals, 2 * dy)

    net = hg.Chain(hg.Conv(2, 1, groups=2), hg.ConvTranspose(2, 1), hg.LayerNorm(), hg.PRelu(), Swapped(3), hg.Dense(3),
                   hg.Flatten(), hg.Dense(3, name="top"))  # fmt: skip
    args = case(net, SOFTMAX, (2, 2), 2)
    assert set(jax.eval_shape(hg.kfac_factors(hg.Objective(net, SOFTMAX)), *args)) == {"dense2", "top"}
    grads = jax.tree.map(jnp.ones_like, args[0])
    optimizer = hg.kfac(net)
    state = optimizer.init(args[0])
    state = hg.kfac_update(state, {name: Factors(2 * f[0], 2 * f[1]) for name, f in state.inverses.items()})
    updates, _ = optimizer.update(grads, state)
    left = [name for name in grads if name not in ("dense2", "top")]
    assert all((leaf == 1).all() for leaf in jax.tree.leaves({name: updates[name] for name in left}))
    assert all((leaf < 0.5).all() for leaf in jax.tree.leaves({name: updates[name] for name in ("dense2", "top")}))


def test_an_example_without_weight_is_none():
    params, x, y, state, key = case(hg.Dense(3), SOFTMAX, (2,), 4)
    factors, few = jax.jit(hg.kfac_factors(hg.Objective(hg.Dense(3), SOFTMAX))), jnp.array([0, 2, 3])
    some = factors(params, x, y, state, key, jnp.array([2.0, 0.0, 2.0, 2.0]))
    rest = factors(params, x[few], y[few], state, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), some, rest)
    none = factors(params, x, y, state, key, jnp.zeros(4))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(none))


def test_samples_have_the_right_mean():
    """The mean over 2000 draws, within five standard errors."""
    objective, args, *_ = matrices("one example")
    exact = jax.jit(hg.kfac_factors(objective))(*args)
    keys = jax.random.split(jax.random.key(0), 2000)
    draws = jax.jit(jax.vmap(lambda key: hg.kfac_factors(objective, 1)(*args[:4], key)))(keys)
    for name, (_, outputs) in draws.items():
        error = outputs.std(0) / 2000**0.5
        assert (abs(outputs.mean(0) - exact[name].outputs) < 5 * error + 1e-12).all() and error.max() > 1e-6


@pytest.fixture(scope="module")
def divided():
    """A net, its arguments, factors, and a chain of K-FAC alone with those in its state."""
    net = hg.Chain(hg.Dense(4), hg.PRelu(), hg.Dense(3, use_bias=False))
    args = case(net, SOFTMAX, (5,), 3)
    objective = hg.Objective(net, SOFTMAX)
    return net, args, jax.jit(hg.kfac_factors(objective))(*args), hg.grad(objective)(*args)[0]


def rows(part):
    return jnp.concatenate([part["kernel"], part["bias"][None]]) if "bias" in part else part["kernel"]


def test_the_preconditioner_divides_by_the_damped_kronecker_product(divided):
    net, (params, *_), factors, grads = divided
    optimizer = hg.optimizers.chain(hg.kfac(net, damping=0.3), hg.sgd(1.0))
    opt_state = jax.jit(hg.kfac_update)(optimizer.init(params), factors)
    updates, _ = jax.jit(optimizer.update)(grads, opt_state, params)
    for name in ("dense1", "dense2"):
        a, g = factors[name]
        pi = jnp.sqrt((jnp.trace(a) / len(a)) / (jnp.trace(g) / len(g)))
        damped = jnp.kron(a + pi * 0.3**0.5 * jnp.eye(len(a)), g + 0.3**0.5 / pi * jnp.eye(len(g)))
        wanted = -jnp.linalg.solve(damped, rows(grads[name]).ravel()).reshape(len(a), len(g))
        np.testing.assert_allclose(rows(updates[name]), wanted, rtol=1e-6)  # the damping is kept in float32
    np.testing.assert_allclose(updates["prelu1"]["slope"], -grads["prelu1"]["slope"])


def test_before_any_factors_the_gradient_stays_and_each_look_moves_the_mean(divided):
    net, (params, *_), factors, grads = divided
    optimizer = hg.kfac(net, decay=0.6)
    state = optimizer.init(params)
    jax.tree.map(np.testing.assert_array_equal, optimizer.update(grads, state)[0], grads)
    look, seen = jax.jit(hg.kfac_update), []
    for size in (1.0, 3.0, 8.0, 0.0):
        state = look(state, jax.tree.map(lambda f, size=size: size * f, factors))
        assert isinstance(state, KfacState)
        seen.append(float(state.factors["dense1"].inputs[0, 0] / factors["dense1"].inputs[0, 0]))
    assert seen == pytest.approx([1, 2, 0.6 * 2 + 0.4 * 8, 0.36 * 2 + 0.24 * 8], rel=1e-6)
    assert int(state.updates) == 4


def test_it_goes_with_clipping_masks_and_half_precision(divided):
    net, (params, *_), factors, grads = divided
    alone, clip = hg.kfac(net), hg.optimizers.clip_by_global_norm(0.01)
    plain = alone.update(jax.tree.map(lambda g: 0.01 * g / float(hg.optimizers.transforms.global_norm(grads)), grads),
                         hg.kfac_update(alone.init(params), factors))[0]  # fmt: skip
    both = hg.optimizers.chain(clip, alone)
    clipped = both.update(grads, hg.kfac_update(both.init(params), factors))[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), clipped, plain)
    half = hg.optimizers.masked(alone, {"dense1": False, "prelu1": True, "dense2": True})
    state = hg.kfac_update(half.init(params), factors)
    assert list(state.factors) == ["dense2"]
    updates, _ = half.update(grads, state, params)
    assert (updates["dense1"]["kernel"] == 0).all() and (updates["dense2"]["kernel"] != grads["dense2"]["kernel"]).all()
    narrow = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    state = hg.kfac_update(alone.init(narrow), factors)
    updates, _ = alone.update(jax.tree.map(lambda g: g.astype(jnp.bfloat16), grads), state)
    assert state.inverses["dense1"].inputs.dtype == jnp.float32 and updates["dense1"]["bias"].dtype == jnp.bfloat16
    exact = alone.update(grads, hg.kfac_update(alone.init(params), factors))[0]["dense1"]["kernel"]
    np.testing.assert_allclose(updates["dense1"]["kernel"].astype(float), exact, rtol=0.1, atol=0.02)


def test_factors_of_zero_divide_by_the_damping_alone(divided):
    net, (params, *_), factors, grads = divided
    optimizer = hg.kfac(net, damping=0.25)
    for dead in (lambda f: Factors(0 * f.inputs, 0 * f.outputs), lambda f: Factors(0 * f.inputs, f.outputs)):
        state = hg.kfac_update(optimizer.init(params), {name: dead(f) for name, f in factors.items()})
        updates, _ = optimizer.update(grads, state)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))
    dead = hg.kfac_update(optimizer.init(params), jax.tree.map(jnp.zeros_like, factors))
    updates, _ = optimizer.update(grads, dead)
    np.testing.assert_allclose(updates["dense1"]["kernel"], 4 * grads["dense1"]["kernel"])


def test_a_net_of_one_layer():
    objective = hg.Objective(hg.Dense(1, use_bias=False), SQUARES)
    params, x, y, *_ = case(objective.net, SQUARES, (2,), 5)
    optimizer = hg.kfac(objective.net, damping=1e-9)
    state = hg.kfac_update(optimizer.init(params), jax.jit(hg.kfac_factors(objective))(params, x, y))
    newton, _ = optimizer.update(hg.grad(objective)(params, x, y)[0], state)
    least = jnp.linalg.lstsq(x, y)[0]
    np.testing.assert_allclose(params["kernel"] - newton["kernel"], least, rtol=1e-3)


def test_errors(divided):
    net, (params, *_), factors, _ = divided
    state = hg.kfac(net).init(params)
    with pytest.raises(TypeError, match=r"opt_state must be that of an optimizer with hg.kfac in it, got OptState"):
        hg.kfac_update(hg.sgd(0.1).init(params), factors)
    with pytest.raises(ValueError, match="factors must have the layers of the state, dense2 is missing"):
        hg.kfac_update(state, {"dense1": factors["dense1"]})
    with pytest.raises(
        ValueError, match=r"dense1 must have factors of \[\(6, 6\), \(4, 4\)\], got \[\(6, 6\), \(3, 3\)"
    ):
        hg.kfac_update(state, factors | {"dense1": Factors(factors["dense1"].inputs, jnp.eye(3))})
    for bad, says in (({"damping": 0}, "damping must be above 0, got 0"), ({"damping": -1.0}, "damping must be finite"),
                      ({"decay": 1.0}, "decay must be at least 0 and below 1, got 1.0")):  # fmt: skip
        with pytest.raises(ValueError, match=f"kfac: {says}"):
            hg.kfac(net, **bad)
    with pytest.raises(TypeError, match="kfac, net: wants a layer"):
        hg.kfac(params)

"""Second order beside jax.hessian, the whole matrix, on small nets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import handgrad as hg
from curvature_cases import CASES, SOFTMAX, SQUARES, matrices


def assert_like(tree, vector, rtol=1e-10):
    np.testing.assert_allclose(ravel_pytree(tree)[0], vector, rtol=rtol, atol=rtol * float(np.abs(vector).max()))


@pytest.mark.parametrize("name", CASES)
def test_products_and_diagonal_are_those_of_the_matrices(name):
    objective, args, hessian, gauss_newton, v, tree = matrices(name)
    assert_like(jax.jit(hg.hvp(objective))(*args, tree), hessian @ v)
    assert_like(jax.jit(hg.gauss_newton_product(objective))(*args, tree), gauss_newton @ v)
    if name == "batch norm":
        return
    assert_like(jax.jit(hg.gauss_newton_diagonal(objective))(*args), jnp.diag(gauss_newton))
    assert (name == "not convex") == (float(jnp.linalg.eigvalsh(gauss_newton)[0]) < -1e-6)


def test_where_the_net_is_linear_gauss_newton_is_the_hessian():
    for name, linear in (("leaf", True), ("images", True), ("mixed", False)):
        _, _, hessian, gauss_newton, _, _ = matrices(name)
        assert np.allclose(hessian, gauss_newton, rtol=1e-10, atol=1e-12) == linear


def test_samples_of_the_diagonal_have_the_right_mean():
    """The mean over 2000 draws of each number, within five standard errors; also where eigenvalues are negative."""
    keys = jax.random.split(jax.random.key(0), 2000)
    for name in ("leaf", "not convex"):
        objective, args, _, gauss_newton, _, _ = matrices(name)
        sampled = hg.gauss_newton_diagonal(objective, samples=2)
        draws = jax.jit(jax.vmap(lambda key, f=sampled, args=args: ravel_pytree(f(*args[:4], key))[0]))(keys)
        error = draws.std(0) / 2000**0.5
        assert (abs(draws.mean(0) - jnp.diag(gauss_newton)) < 5 * error + 1e-12).all() and error.max() > 1e-6


@pytest.mark.parametrize("name", ["batch norm", "one example"])
def test_sharpness_is_the_end_of_the_spectrum(name):
    objective, args, hessian, _, _, _ = matrices(name)
    ends, vectors = jnp.linalg.eigh(hessian)
    found = jax.jit(hg.sharpness(objective, iterations=60))(*args)
    assert float(found.largest) == pytest.approx(float(ends[-1]), rel=1e-10)
    assert float(found.smallest) == pytest.approx(float(ends[0]), rel=1e-8)
    assert abs(ravel_pytree(found.vector)[0] @ vectors[:, -1]) == pytest.approx(1, abs=1e-8)
    assert found.residual < 1e-6
    rough = jax.jit(hg.sharpness(objective, iterations=3, seed=5))(*args)
    assert abs(ends - rough.largest).min() <= rough.residual * (1 + 1e-9) and rough.residual > 1e-6  # the promise
    assert rough.largest < ends[-1]


ONE = hg.Objective(hg.Dense(1, use_bias=False), SQUARES)
TOP = hg.Objective(hg.Chain(hg.Dense(1, use_bias=False), hg.Lambda(lambda o: -(o**2))), SQUARES)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_sharpness_where_the_vectors_run_out(dtype):
    """A Hessian of rank one, whose Krylov space closes after two vectors, on either side of 0; and none at all."""
    x, weights = jnp.arange(1.0, 7.0, dtype=dtype)[None], {"kernel": jnp.zeros((6, 1), dtype)}
    rounding = 1e4 * float(jnp.finfo(dtype).eps)
    found = jax.jit(hg.sharpness(ONE))(weights, x, jnp.ones((1, 1), dtype))
    assert float(found.largest) == pytest.approx(2 * 91, rel=rounding) and found.residual < 182 * rounding
    assert abs(found.smallest) < 182 * rounding and found.largest.dtype == dtype
    top = jax.jit(hg.sharpness(TOP))  # (o² - 9)² at o = 0 is a hilltop of curvature -36 |x|²
    found = top({"dense1": weights}, x, jnp.full((1, 1), -9.0, dtype))
    assert float(found.smallest) == pytest.approx(-36 * 91, rel=rounding) and abs(found.largest) < 3276 * rounding
    flat = top({"dense1": weights}, x, jnp.zeros((1, 1), dtype))
    assert (flat.largest, flat.smallest, flat.residual) == (0, 0, 0)
    broken = top({"dense1": weights}, x, jnp.full((1, 1), jnp.nan, dtype))
    assert np.isnan([broken.largest, broken.smallest, broken.residual]).all()


def test_bfloat16_keeps_its_type_and_is_near():
    objective, args, _, gauss_newton, _, _ = matrices("leaf")
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), args[:2])
    found = jax.jit(hg.gauss_newton_diagonal(objective))(*half, *args[2:])
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(ravel_pytree(found)[0].astype(float), jnp.diag(gauss_newton), rtol=0.03)
    sharpest = jax.jit(hg.sharpness(objective))(*half, *args[2:])
    assert sharpest.largest.dtype == jnp.float32
    assert float(sharpest.largest) == pytest.approx(float(jnp.linalg.eigvalsh(gauss_newton)[-1]), rel=0.05)


def test_errors():
    objective, args, *_, tree = matrices("batch norm")
    for tool in (hg.gauss_newton_diagonal, hg.kfac_factors):
        with pytest.raises(ValueError, match=rf"{tool.__name__}: batchnorm1 is a BatchNorm in training.*hg.inference"):
            tool(objective)
        tool(hg.Objective(hg.inference(objective.net), SOFTMAX))
        with pytest.raises(ValueError, match="samples must be None or an int of at least 1, got 0"):
            tool(ONE, 0)
        with pytest.raises(ValueError, match=f"{tool.__name__}: samples need a key"):
            tool(ONE, 1)({"kernel": jnp.ones((2, 1))}, jnp.ones((3, 2)), jnp.ones((3, 1)))
    for tool in (hg.hvp, hg.gauss_newton_product):
        wrong = tree | {"dense1": tree["dense1"] | {"kernel": jnp.ones((2, 3))}}
        says = r"v must be like params: dense1/kernel is float64 \(2, 3\), wanted float64 \(2, 2\)"
        with pytest.raises(TypeError, match=says):
            tool(objective)(*args, wrong)
        with pytest.raises(TypeError, match="v must be like params: dense2/bias is missing"):
            tool(objective)(*args, tree | {"dense2": {"kernel": tree["dense2"]["kernel"]}})
    for tool in (hg.hvp, hg.gauss_newton_product, hg.gauss_newton_diagonal, hg.sharpness, hg.kfac_factors):
        with pytest.raises(TypeError, match=rf"{tool.__name__}: wants an hg.Objective, got Dense"):
            tool(hg.Dense(1))
    with pytest.raises(ValueError, match="iterations must be at least 2, got 1"):
        hg.sharpness(objective, 1)
    with pytest.raises(ValueError, match="sharpness: the net must have parameters, got none"):
        hg.sharpness(hg.Objective(hg.Relu(), SQUARES))({}, jnp.ones((1, 2)), jnp.ones((1, 2)))


def test_a_net_without_parameters():
    objective, x = hg.Objective(hg.Chain(hg.Relu()), SQUARES, l2=0.1), jnp.ones((1, 2))
    assert hg.hvp(objective)({}, x, x, (), None, {}) == hg.gauss_newton_product(objective)({}, x, x, (), None, {}) == {}
    assert hg.gauss_newton_diagonal(objective)({}, x, x) == hg.kfac_factors(objective)({}, x, x) == {}

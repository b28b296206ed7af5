"""Second order beside jax.hessian, the whole matrix, on small nets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import handgrad as hg
from curvature_cases import CASES, SOFTMAX, SQUARES, flat, matrices


def assert_like(tree, vector, rtol=1e-10):
    np.testing.assert_allclose(flat(tree), vector, rtol=rtol, atol=rtol * float(np.abs(vector).max()))


@pytest.mark.parametrize("name", CASES)
def test_products_and_diagonal_are_those_of_the_matrices(name):
    objective, args, hessian, gauss_newton, tree = matrices(name)

    @jax.jit
    def found(*args):
        diagonal = None if name == "batch norm" else hg.gauss_newton_diagonal(objective)(*args)
        return hg.hvp(objective)(*args, tree), hg.gauss_newton_product(objective)(*args, tree), diagonal

    hv, gv, diagonal = found(*args)
    assert_like(hv, hessian @ flat(tree))
    assert_like(gv, gauss_newton @ flat(tree))
    if diagonal is not None:
        assert_like(diagonal, np.diag(gauss_newton))
    assert (name == "not convex") == (np.linalg.eigvalsh(gauss_newton)[0] < -1e-6)


def test_where_the_net_is_linear_gauss_newton_is_the_hessian():
    for name, linear in (("leaf", True), ("images", True), ("mixed", False)):
        _, _, hessian, gauss_newton, _ = matrices(name)
        assert np.allclose(hessian, gauss_newton, rtol=1e-10, atol=1e-12) == linear


def test_samples_of_the_diagonal_have_the_right_mean():
    """The mean over 2000 draws of each number, within five standard errors; also where eigenvalues are negative."""
    keys = jax.random.split(jax.random.key(0), 2000)
    for name in ("leaf", "not convex"):
        objective, args, _, gauss_newton, _ = matrices(name)
        sampled = hg.gauss_newton_diagonal(objective, samples=2)
        draws = jax.jit(jax.vmap(lambda key, f=sampled, args=args: ravel_pytree(f(*args[:4], key))[0]))(keys)
        draws = np.asarray(draws)
        error = draws.std(0) / 2000**0.5
        assert (abs(draws.mean(0) - np.diag(gauss_newton)) < 5 * error + 1e-12).all() and error.max() > 1e-6


def test_sharpness_is_the_end_of_the_spectrum():
    objective, args, hessian, *_ = matrices("one example")
    ends, vectors = np.linalg.eigh(hessian)
    both = jax.jit(lambda *args: (hg.sharpness(objective, 60)(*args), hg.sharpness(objective, 3, seed=5)(*args)))
    found, rough = both(*args)
    assert float(found.largest) == pytest.approx(ends[-1], rel=1e-10)
    assert float(found.smallest) == pytest.approx(ends[0], rel=1e-8)
    assert abs(flat(found.vector) @ vectors[:, -1]) == pytest.approx(1, abs=1e-8)
    assert found.residual < 1e-6
    assert abs(ends - float(rough.largest)).min() <= rough.residual * (1 + 1e-9)  # what the residual promises
    assert rough.largest < ends[-1] and rough.residual > 1e-6


ONE = hg.Objective(hg.Dense(1, use_bias=False), SQUARES)
TOP = hg.Objective(hg.Chain(hg.Dense(1, use_bias=False), hg.Lambda(lambda o: -(o**2))), SQUARES)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_sharpness_where_the_vectors_run_out(dtype):
    """A Hessian of rank one, whose Krylov space closes after two vectors, on either side of 0; and none at all."""
    x, weights = jnp.arange(1.0, 7.0, dtype=dtype)[None], {"kernel": jnp.zeros((6, 1), dtype)}
    rounding = 1e4 * float(jnp.finfo(dtype).eps)
    found = jax.jit(hg.sharpness(ONE))(weights, x, jnp.ones((1, 1), dtype))
    assert float(found.largest) == pytest.approx(2 * 91, rel=rounding) and found.residual < 182 * rounding
    assert abs(float(found.smallest)) < 182 * rounding and found.largest.dtype == dtype


def test_sharpness_of_a_hilltop_of_a_plane_and_of_nothing_finite():
    x, weights = jnp.arange(1.0, 7.0)[None], {"dense1": {"kernel": jnp.zeros((6, 1))}}
    top = jax.jit(hg.sharpness(TOP))  # (o² - 9)² at o = 0 is a hilltop of curvature -36 |x|²
    found = top(weights, x, jnp.full((1, 1), -9.0))
    assert float(found.smallest) == pytest.approx(-36 * 91, rel=1e-10) and abs(found.largest) < 1e-6
    plane = top(weights, x, jnp.zeros((1, 1)))
    assert (plane.largest, plane.smallest, plane.residual) == (0, 0, 0)
    broken = top(weights, x, jnp.full((1, 1), jnp.nan))
    assert np.isnan([broken.largest, broken.smallest, broken.residual]).all()


def test_bfloat16_keeps_its_type_and_is_near():
    objective, args, _, gauss_newton, _ = matrices("leaf")
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), args[:2])
    both = jax.jit(lambda *args: (hg.gauss_newton_diagonal(objective)(*args), hg.sharpness(objective)(*args)))
    diagonal, sharpest = both(*half, *args[2:])
    assert {leaf.dtype for leaf in jax.tree.leaves(diagonal)} == {jnp.dtype(jnp.bfloat16)}
    assert_like(jax.tree.map(lambda d: d.astype(float), diagonal), np.diag(gauss_newton), rtol=0.03)
    assert sharpest.largest.dtype == jnp.float32
    assert float(sharpest.largest) == pytest.approx(np.linalg.eigvalsh(gauss_newton)[-1], rel=0.05)


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
            tool(hg.Dense(1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="iterations must be at least 2, got 1"):
        hg.sharpness(objective, 1)
    with pytest.raises(ValueError, match="sharpness: the net must have parameters, got none"):
        hg.sharpness(hg.Objective(hg.Relu(), SQUARES))({}, jnp.ones((1, 2)), jnp.ones((1, 2)))


def test_a_net_without_parameters():
    objective, x = hg.Objective(hg.Chain(hg.Relu()), SQUARES, l2=0.1), jnp.ones((1, 2))
    for tool in (hg.hvp, hg.gauss_newton_product):
        assert jax.eval_shape(tool(objective), {}, x, x, (), None, {}) == {}
    for tool in (hg.gauss_newton_diagonal, hg.kfac_factors):
        assert jax.eval_shape(tool(objective), {}, x, x) == {}

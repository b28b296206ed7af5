"""Wiggles beside the true gradient's signs, and beside a plain loop."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import handgrad as hg

LOSS = hg.SoftmaxCrossEntropy()


def case(net, in_shape=(4,), dtype=jnp.float64):
    params, state = net.init(jax.random.key(0), in_shape, dtype)
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(1), p.shape, p.dtype), params)
    return (
        params,
        jax.random.normal(jax.random.key(2), (5, *in_shape), dtype),
        jnp.arange(5) % 3,
        state,
        jax.random.key(3),
    )


NETS = {
    "dense": hg.Chain(hg.Dense(4), hg.Tanh(), hg.Dense(3)),
    "residual with dropout": hg.Chain(hg.Residual(hg.Chain(hg.Dense(4), hg.Dropout(0.5))), hg.Dense(3)),
    "one layer": hg.Dense(3),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("at_once", [2, 64])
def test_in_float64_each_sign_is_the_gradients(name, at_once):
    objective, args = hg.Objective(NETS[name], LOSS, l2=0.01), case(NETS[name])
    signs = jax.jit(hg.wiggle_signs(objective, 1e-6, at_once=at_once))(*args)
    gradient = ravel_pytree(jax.grad(objective, has_aux=True)(*args)[0])[0]
    clear = np.abs(gradient) > 1e-5
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(ravel_pytree(signs)[0][clear], np.sign(gradient)[clear])


def test_a_sweep_is_the_lectures_loop():
    objective, args = hg.Objective(NETS["dense"], LOSS), case(NETS["dense"])
    params, x, y, state, key = args
    moved, losses = jax.jit(hg.wiggle(objective, 1e-6, step=0.01))(*args)
    flat, unravel = ravel_pytree(params)
    loss = jax.jit(lambda flat: objective(unravel(flat), x, y, state, key)[0])
    weights, seen = np.asarray(flat).copy(), []
    for i in range(len(weights)):
        wiggled = weights.copy()
        wiggled[i] += 1e-6
        seen.append(float(loss(jnp.asarray(weights))))
        weights[i] += 0.01 * np.sign(seen[-1] - float(loss(jnp.asarray(wiggled))))
    np.testing.assert_allclose(ravel_pytree(moved)[0], weights, rtol=1e-12)
    np.testing.assert_allclose(losses, seen, rtol=1e-12)
    assert losses[-1] < losses[0]
    lecture, _ = jax.jit(hg.wiggle(objective, 1e-3))(*args)  # moves by eps itself
    np.testing.assert_allclose(np.abs(ravel_pytree(lecture)[0] - flat), 1e-3, rtol=1e-9)


def test_where_the_loss_does_not_change_the_weight_stays():
    """A unit that nothing sees, and float32, where most losses swallow a wiggle of 1e-8."""
    net = hg.Chain(hg.Dense(4), hg.Relu(), hg.Dense(3))
    params, x, y, *_ = case(net)
    params["dense1"]["bias"] = params["dense1"]["bias"].at[1].set(-1e3)
    signs = hg.wiggle_signs(hg.Objective(net, LOSS))(params, x, y)
    assert (signs["dense1"]["kernel"][:, 1] == 0).all() and signs["dense1"]["bias"][1] == 0
    params, x, y, *_ = case(net, dtype=jnp.float32)
    still = hg.wiggle_signs(hg.Objective(net, LOSS), 1e-9)(params, x, y)
    assert all((leaf == 0).mean() > 0.9 for leaf in jax.tree.leaves(still))


@pytest.fixture
def optimized():
    """XLA as users have it; the suite compiles without most optimizations."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def test_a_wiggle_that_rounding_swallows_moves_nothing(optimized):
    """In float32 no weight feels 1e-12, so no loss changes; nor may the way XLA sums and divides make it seem so.

    LLVM contracts Σ/n - L to one operation where n is no power of two, which once gave every weight a sign.
    """
    net = hg.Chain(hg.Dense(9), hg.Relu(), hg.Dense(3))
    params, *_ = case(net, dtype=jnp.float32)
    params = jax.tree.map(lambda p: p + jnp.sign(p), params)
    x = jax.random.normal(jax.random.key(5), (3, 4), jnp.float32)
    y, objective = jnp.arange(3), hg.Objective(net, LOSS)
    signs = jax.jit(hg.wiggle_signs(objective, 1e-12))(params, x, y)
    moved, _ = jax.jit(hg.wiggle(objective, 1e-12, step=0.1))(params, x, y)
    assert not any(leaf.any() for leaf in jax.tree.leaves(signs))
    chex.assert_trees_all_equal(moved, params)


def test_a_loss_that_is_nan_is_seen():
    """Neither better nor worse, and not "no change" either: as with backprop, the weights become NaN."""
    params, x, y, *_ = case(NETS["one layer"])
    objective, broken = hg.Objective(NETS["one layer"], LOSS), x.at[0, 0].set(jnp.nan)
    moved, losses = hg.wiggle(objective)(params, broken, y)
    found = jax.tree.leaves((hg.wiggle_signs(objective)(params, broken, y), moved, losses))
    assert all(jnp.isnan(leaf).all() for leaf in found)
    cliff = hg.Chain(hg.Dense(1, use_bias=False), hg.Lambda(lambda h: jnp.sqrt(1e-3 - h)), hg.Flatten())
    at = {"dense1": {"kernel": jnp.array([[0.0], [0.0]])}}  # 1e-2 leads over the edge
    signs = hg.wiggle_signs(hg.Objective(cliff, hg.MeanSquaredError()), 1e-2)
    assert jnp.isnan(signs(at, jnp.array([[1.0, 0.0]]), jnp.zeros((1, 1)))["dense1"]["kernel"]).ravel().tolist() == [
        True,
        False,
    ]


def test_units_that_dropout_masks_stay():
    """Every loss has the batch's mask: with another, each would differ by far more than a wiggle makes it."""
    net = hg.Chain(hg.Dropout(0.5), hg.Dense(3, use_bias=False))
    params, x, y, state, key = case(net, (8,))
    seen = net.layers[0].apply_train({}, x[:1], (), jax.random.fold_in(key, 0))[0][0] != 0
    signs = jax.jit(hg.wiggle_signs(hg.Objective(net, LOSS)))(params, x[:1], y[:1], state, key)["dense1"]["kernel"]
    assert 0 < seen.sum() < 8
    np.testing.assert_array_equal((signs != 0).any(1), seen)


def test_in_float32_a_small_wiggle_says_nothing_and_a_large_one_nearly_all():
    """The lecture's 1e-6 is below the loss's last digit for most weights; differences below it are not made up."""
    net = hg.Chain(hg.Dense(32), hg.Relu(), hg.Dense(3))
    params, x, y, *_ = case(net, (16,), jnp.float32)
    objective = hg.Objective(net, LOSS)
    slopes = np.sign(ravel_pytree(jax.grad(objective, has_aux=True)(params, x, y)[0])[0])
    small, large = (
        np.asarray(ravel_pytree(hg.jit(hg.wiggle_signs(objective, eps))(params, x, y))[0])[slopes != 0]
        for eps in (1e-8, 1e-3)
    )
    assert (small == 0).mean() > 0.9
    assert (large == slopes[slopes != 0]).mean() > 0.9


def test_cost_counts_the_weights_and_takes_time():
    rows = hg.wiggle_cost((2, 3), batch=2, seconds=0)
    assert [row.parameters for row in rows] == [16 * 2 + 2 + 4 + 2 + 8 + 4, 16 * 3 + 3 + 9 + 3 + 12 + 4]
    assert all(row.wiggle > 0 and row.backprop > 0 for row in rows)


def test_errors():
    objective = hg.Objective(NETS["dense"], LOSS)
    for tool in (hg.wiggle, hg.wiggle_signs):
        with pytest.raises(ValueError, match=f"{tool.__name__}: eps must be above 0 and finite, got 0"):
            tool(objective, 0)
        with pytest.raises(TypeError, match=f"{tool.__name__}: wants an hg.Objective"):
            tool(NETS["dense"])
        with pytest.raises(ValueError, match="params have no numbers to wiggle"):
            tool(hg.Objective(hg.Relu(), LOSS))({}, jnp.ones((1, 3)), jnp.array([0]))
        for eps in (float("inf"), float("nan")):
            with pytest.raises(ValueError, match=f"{tool.__name__}: eps must be above 0 and finite, got {eps}"):
                tool(objective, eps)
        with pytest.raises(TypeError, match=f"{tool.__name__}: eps must be a number, got 'small'"):
            tool(objective, "small")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="wiggle: step must be finite, got nan"):
        hg.wiggle(objective, step=float("nan"))
    with pytest.raises(ValueError, match="at_once must be at least 2, got 0"):
        hg.wiggle_signs(objective, at_once=0)
    with pytest.raises(TypeError, match="at_once must be an int, got 2.5"):
        hg.wiggle_signs(objective, at_once=2.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="wiggle_cost: batch must be at least 1, got 0"):
        hg.wiggle_cost(batch=0)
    with pytest.raises(ValueError, match=r"widths must be at least 1, got \[\]"):
        hg.wiggle_cost(())

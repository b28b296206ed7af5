"""optimizers/ema.py against sums in closed form, through checkpoints, and what it says of bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.optimizers import OptState, adam, apply_updates, averaged, chain, ema, momentum, sgd

STEPS = 12


def path(optimizer, start, steps=STEPS):
    """Parameters and averages along the way, gradients being random."""
    params, state, found = start, optimizer.init(start), []
    for t in range(steps):
        grads = jax.tree.map(lambda p, t=t: jax.random.normal(jax.random.key(t), p.shape, p.dtype), params)
        updates, state = optimizer.update(grads, state, params)
        params = apply_updates(params, updates)
        found.append((params, averaged(state)))
    return found, state


def closed_form(thetas, start, d, debias):
    """The sums of the header, in NumPy."""
    t = len(thetas)
    total = sum((1 - d) * d ** (t - k) * np.asarray(theta) for k, theta in enumerate(thetas, start=1))
    return total / (1 - d**t) if debias else total + d**t * np.asarray(start)


@pytest.mark.parametrize("debias", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_closed_form(decay, debias):
    start = {"a": {"kernel": jnp.arange(6.0).reshape(2, 3) + 1}, "b": jnp.array(2.0)}
    found, _ = path(chain(momentum(0.1), ema(decay, debias)), start)
    for name in (("a", "kernel"), ("b",)):
        leaf = lambda tree, name=name: tree[name[0]] if len(name) == 1 else tree[name[0]][name[1]]  # noqa: E731
        thetas = [leaf(params) for params, _ in found]
        for t in range(1, STEPS + 1):
            expected = closed_form(thetas[:t], leaf(start), decay, debias)
            np.testing.assert_allclose(leaf(found[t - 1][1]), expected, rtol=1e-11)


def test_a_constant_path_has_itself_for_average_and_updates_pass_unchanged():
    optimizer, params = ema(0.9), jnp.array([1.0, -2.0])
    updates, state = optimizer.update(jnp.zeros(2), optimizer.init(params), params)
    np.testing.assert_array_equal(averaged(state), params)
    updates, _ = optimizer.update(jnp.array([3.0, 4.0]), state, params)
    np.testing.assert_array_equal(updates, [3.0, 4.0])


def test_the_start_counts_only_without_debias():
    params, update = jnp.array(100.0), jnp.array(-99.0)
    for debias, expected in ((True, 1.0), (False, 0.999 * 100 + 0.001)):
        optimizer = ema(0.999, debias)
        _, state = optimizer.update(update, optimizer.init(params), params)
        np.testing.assert_allclose(averaged(state), expected, rtol=1e-12)


def test_a_decay_near_1_keeps_its_digits_in_float32():
    """1 - d^t, computed as a difference, would have lost three of seven."""
    params, optimizer = jnp.float32(0), ema(0.99999)
    state, values = optimizer.init(params), np.random.default_rng(0).normal(size=8).astype("float32")
    for value in values:
        updates, state = optimizer.update(value - params, state, params)
        params = apply_updates(params, updates)
    np.testing.assert_allclose(averaged(state), closed_form(values.astype(float), 0, 0.99999, True), rtol=2e-6)


def test_a_traced_decay():
    def last(decay):
        return averaged(path(chain(sgd(0.1), ema(decay)), jnp.arange(3.0), 4)[1])

    decays = jnp.array([0.1, 0.9])
    np.testing.assert_allclose(jax.jit(jax.vmap(last))(decays), [last(0.1), last(0.9)], rtol=1e-12)


def test_the_average_is_float32_at_least_and_of_the_rounded_parameters():
    params = jnp.array([1.0, 2.0], jnp.bfloat16)
    found, _ = path(chain(sgd(0.1), ema(0.5)), params, 3)
    assert found[-1][1].dtype == jnp.float32
    thetas = [theta.astype(float) for theta, _ in found]
    np.testing.assert_allclose(found[-1][1], closed_form(thetas, params, 0.5, True), rtol=1e-6)


def test_the_state_shares_no_buffer_with_the_parameters():
    params = jnp.ones(3)
    state = ema(0.9).init(params)
    jax.jit(lambda p: p + 1, donate_argnums=0)(params)
    np.testing.assert_array_equal(averaged(state), np.ones(3))


NET = hg.Chain(hg.Flatten(), hg.Dense(4), hg.BatchNorm(), hg.Relu(), hg.Dense(3))
X = np.asarray(jax.random.normal(jax.random.key(1), (6, 2, 2, 1)))
Y = np.array([0, 1, 2, 0, 1, 2])


def test_training_resumes_exactly_and_the_average_is_evaluated(tmp_path):
    optimizer = chain(adam(0.05), ema(0.8))
    step = hg.make_train_step(hg.Objective(NET, hg.SoftmaxCrossEntropy()), optimizer)
    start = lambda: hg.init_train_state(NET, optimizer, jax.random.key(0), (2, 2, 1), jnp.float64)  # noqa: E731
    settings = {"batch_size": 3, "progress": False, "prefetch": 0}
    whole, _ = hg.fit(start(), step, X, Y, epochs=4, **settings)
    hg.fit(start(), step, X, Y, epochs=2, run_dir=tmp_path / "run", **settings)
    resumed, _ = hg.fit(start(), step, X, Y, epochs=4, run_dir=tmp_path / "run", resume=True, **settings)
    jax.tree.map(np.testing.assert_array_equal, averaged(whole.opt_state), averaged(resumed.opt_state))
    hg.checkpoint.save(tmp_path / "state.npz", whole)
    loaded = hg.checkpoint.load(tmp_path / "state.npz")  # without like
    jax.tree.map(np.testing.assert_array_equal, averaged(whole.opt_state), averaged(loaded.opt_state))
    assert jax.tree.structure(averaged(loaded.opt_state)) == jax.tree.structure(whole.params)
    assert np.isfinite(hg.predict(NET, averaged(whole.opt_state), whole.state, X)).all()


def test_batch_statistics_taken_anew_are_those_of_the_batch_under_these_parameters():
    """What docs/many_nets.md says to do: nothing of the old ones is left."""
    params, state = NET.init(jax.random.key(2), (2, 2, 1), jnp.float64)
    state = jax.tree.map(lambda leaf: leaf + 7, state)
    fresh = hg.map_layers(lambda layer: hg.BatchNorm(0.0, layer.eps) if isinstance(layer, hg.BatchNorm) else layer, NET)
    anew = fresh.apply_train(params, jnp.asarray(X), state)[1]
    hidden = X.reshape(6, 4) @ np.asarray(params["dense1"]["kernel"])
    np.testing.assert_allclose(anew["batchnorm1"]["mean"], hidden.mean(0), rtol=1e-12)
    np.testing.assert_allclose(anew["batchnorm1"]["var"], hidden.var(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ema(1.0), ValueError, r"ema: decay must be at least 0 and below 1, got 1.0"),
        (lambda: ema(-0.1), ValueError, r"ema: decay must be at least 0 and below 1, got -0.1"),
        (lambda: ema("0.9"), TypeError, r"ema: decay must be a number or a scalar array, got str '0.9'"),  # pyright: ignore[reportArgumentType]
        (lambda: ema(0.9).init({"n": jnp.arange(2)}), TypeError, r"ema: parameters must be floating point, got int"),
        (lambda: ema(0.9).update(jnp.ones(2), ema(0.9).init(jnp.ones(2))), ValueError, r"the average needs params"),
        (lambda: averaged(adam(0.1).init(jnp.ones(2))), ValueError, r"averaged: .* must have one ema, got 0"),
        (lambda: averaged(()), ValueError, r"averaged: .* must have one ema, got 0"),
        (lambda: averaged(chain(ema(0.9), ema(0.5)).init(jnp.ones(2))), ValueError, r"must have one ema, got 2"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_average_is_found_in_the_states_of_other_libraries():
    found = averaged({"inner": [OptState(jnp.int32(0), {"average": {"w": jnp.ones(1)}}), ()]})
    np.testing.assert_array_equal(found["w"], [1.0])

"""A step that is not finite: the layer that went first is named, the state before it is kept, and it may be skipped."""

import json
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import handgrad as hg
from handgrad import optimizers
from handgrad.data import batches
from handgrad.training import checkpoint, distributed, fit, init_train_state, log, make_train_step, tracer
from handgrad.training.guard import Guard

NET = hg.Chain(hg.Flatten(), hg.Dense(4), hg.BatchNorm(), hg.Relu(), hg.Dropout(0.2), hg.Dense(3))
OPTIMIZER = hg.momentum(0.05)
STEP = make_train_step(hg.Objective(NET, hg.SoftmaxCrossEntropy(), l2=1e-3), OPTIMIZER)
X = np.random.default_rng(0).normal(size=(26, 2, 2, 1))
Y = (X.sum((1, 2, 3)) > 0).astype(int) + (X[:, 0, 0, 0] > 1)
SETTINGS = {"batch_size": 8, "seed": 3, "progress": False}
START = init_train_state(NET, OPTIMIZER, jax.random.key(0), (2, 2, 1), jnp.float64)


def run(epochs=3, step: Callable = STEP, start=START, **settings):
    return fit(start, step, X, Y, epochs=epochs, **{**SETTINGS, **settings})


def bits(train_state):
    plain = train_state._replace(key=jax.random.key_data(train_state.key))
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(plain)]


def broken(*steps):
    """Augmentation that puts a NaN into the second example of some steps, counted from 1; a function of the key."""
    keys = {}
    fit(START, STEP, X, Y, epochs=3, augment=lambda key, x, y: (keys.setdefault(_text(key), len(keys) + 1), (x, y))[1],
        prefetch=0, **SETTINGS)  # fmt: skip
    bad = {key for key, step in keys.items() if step in steps}

    def augment(key, x, y):
        if _text(key) not in bad:
            return x, y
        x = np.array(x)
        x[1, 0, 1, 0] = np.nan
        return x, y

    return augment


def _text(key):
    return jax.random.key_data(key).tobytes()


def by_hand(skipped=(), until=9):
    """The plain loop, in which a skipped step is one that was counted and not taken."""
    train_state, i = jax.tree.map(jnp.copy, START), 0
    for epoch in range(3):
        for x, y in batches(X, Y, 8, seed=3, epoch=epoch):
            i += 1
            if i > until:
                return train_state
            train_state = (
                train_state._replace(step=train_state.step + 1) if i in skipped else STEP(train_state, x, y)[0]
            )
    return train_state


@pytest.fixture(params=[False, True], ids=["metrics at once", "metrics late"])
def late(request, monkeypatch):
    """Metrics are read as soon as they are there, or 16 steps later, when the host has long gone on."""
    monkeypatch.setattr(log, "_is_ready", lambda found: not request.param)


@pytest.mark.parametrize("at", [1, 5, 9])
def test_it_stops_with_the_state_before_that_step_saved(tmp_path, late, at):
    message = rf"fit: step {at} is not finite: flatten1 went first, forward, in x\[1, 0, 1, 0\]; the state before it is"
    with pytest.raises(FloatingPointError, match=message) as found:
        run(augment=broken(at), run_dir=tmp_path)
    newest = checkpoint.latest(tmp_path)
    assert newest is not None and str(newest) in str(found.value) and newest.name == f"step_{at - 1:08d}.npz"
    assert bits(checkpoint.load(newest, like=START)) == bits(by_hand(until=at - 1))
    steps = [line for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()) if "step" in line]
    assert [line["step"] for line in steps] == list(range(1, at + 1)) and steps[-1]["loss"] is None


def test_it_goes_on_from_there_where_the_step_is_mended_and_stops_again_where_not(tmp_path):
    for resume in (False, True):
        with pytest.raises(FloatingPointError, match="step 5 is not finite: flatten1 went first"):
            run(augment=broken(5), run_dir=tmp_path, resume=resume)
    train_state, history = run(augment=broken(), run_dir=tmp_path, resume=True)
    assert bits(train_state) == bits(by_hand()) and np.isfinite(history["loss"]).all()


def through(backward):
    """A layer that passes its input on, and whose backward is this function of (x, dy)."""
    rule = jax.custom_vjp(lambda x: x)
    rule.defvjp(lambda x: (x, x), lambda x, dy: (backward(x, dy),))
    return hg.Lambda(rule)


PLACES = {
    r": lambda1 went first, forward, in y\[\d, \d\]; skip_nonfinite=N": hg.Lambda(jnp.log),
    r": lambda1 went first, backward, in dx\[\d, \d\]; skip": through(lambda x, dy: jnp.where(x > 1, jnp.inf, dy)),
    ", though each number of hg.trace is: it came up in the gradient's length": through(lambda x, dy: dy * 1e200),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_layer_and_its_direction_are_named(place):
    net = hg.Chain(hg.Flatten(), hg.Dense(4), PLACES[place], hg.Dense(3))
    step = make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), OPTIMIZER)
    start = init_train_state(net, OPTIMIZER, jax.random.key(0), (2, 2, 1), jnp.float64)
    with pytest.raises(FloatingPointError, match=f"fit: step 1 is not finite{place}"):
        run(step=step, start=start, epochs=1)


def test_of_an_ensemble_the_member_is_named_too(tmp_path):
    net = hg.ensemble(hg.Chain(hg.Flatten(), hg.Dense(3)), 3)
    step = make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), OPTIMIZER)
    start = init_train_state(net, OPTIMIZER, jax.random.key(0), (2, 2, 1), jnp.float64)
    whole, _ = run(step=step, start=start, epochs=1)
    start.params["dense1"]["kernel"] = start.params["dense1"]["kernel"].at[1, 2, 0].set(jnp.inf)
    with pytest.raises(
        FloatingPointError, match=r"step 1 is not finite: member 1's dense1 went first, forward, in params"
    ):
        run(step=step, start=start)
    start.params["dense1"]["kernel"] = start.params["dense1"]["kernel"].at[1, 2, 0].set(0.0)
    skipped, history = run(step=step, start=start, augment=broken(2), skip_nonfinite=1, epochs=1)
    assert history["skipped"] == [1] and int(skipped.step) == int(whole.step) == 3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(skipped.params))


def test_a_trace_that_fails_does_not_hide_the_step(monkeypatch):
    def fails(*args):
        raise MemoryError("no room")

    monkeypatch.setattr(tracer, "_traced", fails)
    with pytest.raises(
        FloatingPointError, match=r"step 2 is not finite; hg.trace of it fails \(MemoryError: no room\)"
    ):
        run(augment=broken(2))


@pytest.mark.parametrize("bad", [(1,), (5,), (2, 3, 8), (9,)])
def test_skipped_steps_change_nothing_but_the_count(late, bad):
    train_state, history = run(augment=broken(*bad), skip_nonfinite=2)
    assert bits(train_state) == bits(by_hand(skipped=bad))
    assert [i for i, loss in enumerate(history["loss"], 1) if math.isnan(loss)] == list(bad)
    assert history["skipped"] == [sum(i in bad for i in epoch) for epoch in ((1, 2, 3), (4, 5, 6), (7, 8, 9))]
    taken = np.ma.masked_invalid(history["loss"]).reshape(3, 3).mean(1)
    np.testing.assert_allclose(history["train_loss"], taken, rtol=1e-12)
    assert np.isfinite(history["train_loss"]).all() and history["best_epoch"][-1] == np.argmin(taken) + 1


def test_one_more_in_a_row_than_may_be_skipped_stops(tmp_path, late):
    message = "step 6 is not finite, after 2 in a row that were skipped: flatten1 went first"
    with pytest.raises(FloatingPointError, match=message):
        run(augment=broken(2, 4, 5, 6), skip_nonfinite=2, run_dir=tmp_path)
    state = checkpoint.load(tmp_path / "checkpoints" / "step_00000005.npz", like=START)
    assert bits(state) == bits(by_hand(skipped=(2, 4, 5), until=5))
    with pytest.raises(FloatingPointError, match=message):  # the two are counted across the break
        run(augment=broken(2, 4, 5, 6), skip_nonfinite=2, run_dir=tmp_path, resume=True)
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoints" / "step_00000005.npz"
    train_state, history = run(augment=broken(2, 4, 5, 6), skip_nonfinite=3, run_dir=tmp_path, resume=True)
    assert bits(train_state) == bits(by_hand(skipped=(2, 4, 5, 6))) and len(history["loss"]) == 9


def test_an_epoch_of_which_nothing_was_taken():
    _, history = run(augment=broken(4, 5, 6), skip_nonfinite=3)
    assert history["skipped"] == [0, 3, 0] and math.isnan(history["train_loss"][1])
    assert history["best_epoch"][1] == 1


@pytest.mark.parametrize("kind", [AxisType.Explicit, pytest.param(AxisType.Auto, marks=pytest.mark.slow)])
def test_over_four_devices(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(log, "_is_ready", lambda found: False)
    step = distributed.data_parallel(STEP, jax.make_mesh((4,), ("data",), axis_types=(kind,)))
    with pytest.raises(
        FloatingPointError, match=r"step 5 is not finite, after 1 in .*: flatten1 went first, forward, in"
    ):
        run(step=step, augment=broken(2, 4, 5), skip_nonfinite=1, run_dir=tmp_path)
    newest = checkpoint.latest(tmp_path)
    assert newest is not None and newest.name == "step_00000004.npz"
    found, wanted = checkpoint.load(newest, like=START), by_hand(skipped=(2, 4), until=4)
    for a, b in zip(jax.tree.leaves(found[:4]), jax.tree.leaves(wanted[:4]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_the_guarded_step_is_the_step_to_the_bit_and_donates_as_it_does():
    one, other = (jax.tree.map(jnp.copy, START) for _ in range(2))
    guard, (x, y) = Guard(jnp.int32(0), jnp.int32(0)), (X[:8], Y[:8])
    given = other
    for _ in range(3):
        one, metrics = STEP(one, x, y)
        other, guard, others = STEP.guarded(other, guard, x, y)
        assert bits(one) == bits(other) and [float(m) for m in metrics] == [float(m) for m in others]
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given)) and int(guard.in_a_row) == 0
    kept = make_train_step(STEP.objective, OPTIMIZER, donate=False)
    kept.guarded(START, guard, x, y)
    assert not START.key.is_deleted()


def test_on_gpus_it_is_a_select_and_elsewhere_a_branch():
    """A branch on a GPU would wait for the host at each step."""
    cases = {}
    for platform in ("cpu", "cuda", "rocm", "tpu"):
        traced = STEP._compiled_guarded._inside.trace(START, Guard(jnp.int32(0), jnp.int32(0)), X[:8], Y[:8], None)
        cases[platform] = traced.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.case")
    assert cases["cpu"] == cases["tpu"] == cases["cuda"] + 1 == cases["rocm"] + 1


def test_a_weak_type_in_the_state_is_no_obstacle():
    weak = optimizers.Optimizer(lambda params: jnp.asarray(1.0), lambda grads, state, params=None: (grads, state * 2.0))
    scaled = optimizers.chain(weak, hg.sgd(0.1))
    start = init_train_state(NET, scaled, jax.random.key(0), (2, 2, 1), jnp.float64)
    assert start.opt_state[0].weak_type
    train_state, _ = run(step=make_train_step(STEP.objective, scaled), start=start, epochs=1)
    assert train_state.opt_state[0] == 8.0


def test_a_step_of_ones_own_stops_too_without_the_layer(tmp_path):
    def step(train_state, x, y):
        return STEP(train_state, x, y)

    with pytest.raises(FloatingPointError, match="step 5 is not finite; which layer went first is known only of") as e:
        run(step=step, augment=broken(5), run_dir=tmp_path)
    assert "the newest checkpoint is" in str(e.value)
    newest = checkpoint.latest(tmp_path)
    assert newest is not None and newest.name == "step_00000003.npz"  # not one of NaN
    with pytest.raises(TypeError, match="fit: skip_nonfinite needs a step from make_train_step, got function"):
        run(step=step, skip_nonfinite=1, run_dir=tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("wrong", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_skip_nonfinite_must_be_a_count(wrong, error):
    with pytest.raises(error, match="fit: skip_nonfinite must be"):
        run(skip_nonfinite=wrong)

"""Optimizers against optax over 25 steps in float64, the lecture's form against its formula, errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from handgrad import optimizers as ours
from handgrad import schedules
from handgrad.optimizers.transforms import global_norm

STEPS = 25
untyped: Any = ours  # optax annotates its own class, and some wrong types are meant


def cosine(step):
    return 0.1 * (1 + jnp.cos(0.2 * jnp.asarray(step, float)))


def frozen_body(inner):
    return optax.partition({True: inner, False: optax.set_to_zero()}, HEAD)


HEAD = {"body": {"kernel": False, "bias": False}, "head": True}
ORACLES: dict[str, tuple[Any, Any]] = {
    "sgd": (ours.sgd(0.1), optax.sgd(0.1)),
    "sgd-schedule": (ours.sgd(cosine), optax.sgd(cosine)),
    "momentum": (ours.momentum(0.1), optax.sgd(0.1, 0.9)),
    "momentum-0": (ours.momentum(0.1, 0.0), optax.sgd(0.1)),
    "momentum-schedule": (ours.momentum(cosine, 0.7), optax.sgd(cosine, 0.7)),
    "nesterov": (ours.momentum(0.1, 0.8, nesterov=True), optax.sgd(0.1, 0.8, nesterov=True)),
    "adam": (ours.adam(0.1), optax.adam(0.1)),
    "adam-settings": (ours.adam(cosine, 0.5, 0.7, 1e-2), optax.adam(cosine, 0.5, 0.7, 1e-2)),
    "adamw": (ours.adamw(0.1), optax.adamw(0.1, weight_decay=1e-2)),
    "adamw-settings": (
        ours.adamw(cosine, 0.5, 0.7, 1e-3, weight_decay=0.3),
        optax.adamw(cosine, 0.5, 0.7, 1e-3, weight_decay=0.3),
    ),
    "clip": (
        ours.chain(ours.clip_by_global_norm(0.7), ours.sgd(0.1)),
        optax.chain(optax.clip_by_global_norm(0.7), optax.sgd(0.1)),
    ),
    "clip-above": (ours.chain(ours.clip_by_global_norm(1e3), ours.sgd(0.1)), optax.sgd(0.1)),
    "decay": (
        ours.chain(ours.add_decayed_weights(0.2), ours.momentum(0.1)),
        optax.chain(optax.add_decayed_weights(0.2), optax.sgd(0.1, 0.9)),
    ),
    "masked": (ours.masked(ours.adam(0.1), HEAD), frozen_body(optax.adam(0.1))),
    "masked-prefix": (
        ours.masked(ours.adamw(0.1, weight_decay=0.3), {"body": False, "head": True}),
        frozen_body(optax.adamw(0.1, weight_decay=0.3)),
    ),
    "masked-callable": (
        ours.masked(ours.chain(ours.clip_by_global_norm(0.1), ours.sgd(0.1)), lambda p: dict.fromkeys(p) | HEAD),
        frozen_body(optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1))),
    ),
    "ours-in-optax": (
        optax.chain(optax.clip_by_global_norm(0.7), untyped.momentum(0.1)),
        optax.chain(optax.clip_by_global_norm(0.7), optax.sgd(0.1, 0.9)),
    ),
    "optax-in-ours": (
        ours.chain(ours.clip_by_global_norm(0.7), optax.adamw(0.1, weight_decay=1e-4)),
        optax.chain(optax.clip_by_global_norm(0.7), optax.adamw(0.1)),
    ),
    "ours-in-optax-masked": (
        optax.masked(untyped.adamw(0.1, weight_decay=1e-4), HEAD),
        optax.masked(optax.adamw(0.1), HEAD),
    ),
    "optax-in-our-masked": (ours.masked(optax.adam(0.1), HEAD), frozen_body(optax.adam(0.1))),
}
every_oracle = pytest.mark.parametrize("mine, oracle", ORACLES.values(), ids=ORACLES)
PLAIN = {  # the optimizers of one rate
    "sgd": ours.sgd,
    "momentum": ours.momentum,
    "nesterov": lambda lr: ours.momentum(lr, nesterov=True),
    "previous": lambda lr: ours.previous_gradient_momentum(lr, 0.9),
    "adam": ours.adam,
    "adamw": ours.adamw,
    "masked": lambda lr: ours.masked(ours.adam(lr), HEAD),
    "chain": lambda lr: ours.chain(ours.clip_by_global_norm(0.7), ours.add_decayed_weights(0.1), ours.adam(lr)),
}
every_plain = pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
quickly = ("nesterov", "adam", "masked", "chain")  # the others do what one of these does
mostly_slow = pytest.mark.parametrize(
    "make", [pytest.param(make, id=n, marks=() if n in quickly else pytest.mark.slow) for n, make in PLAIN.items()]
)


def tree(seed, dtype=jnp.float64):
    draws = np.random.default_rng(seed)
    body = {"kernel": draws.normal(size=(3, 2)), "bias": draws.normal(size=2)}
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), {"body": body, "head": draws.normal(size=(2, 4))})


GRADIENTS = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[tree(seed) for seed in range(STEPS)])


def run(optimizer, params, gradients):
    """The parameters after each step of a scan over the gradients."""

    def step(carry, grads):
        params, state = carry
        updates, state = optimizer.update(grads, state, params)
        params = ours.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[1]


def close(actual, expected, rtol=1e-12):
    def leaf(a, e):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(e, np.float64), rtol=rtol, atol=1e-14)

    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(leaf, actual, expected)


@every_oracle
def test_equals_optax_on_random_gradients(mine, oracle):
    with jax.numpy_dtype_promotion("standard"):  # optax's adam mixes types
        close(*jax.jit(lambda p, g: (run(mine, p, g), run(oracle, p, g)))(tree(99), GRADIENTS))


@pytest.mark.parametrize("name", ["sgd-schedule", "nesterov", "adam", "adamw-settings", "ours-in-optax"])
def test_equals_optax_on_a_quadratic(name):
    (mine, oracle), curvature = ORACLES[name], tree(5)

    def descend(optimizer):
        params, state = tree(6), optimizer.init(tree(6))

        def step(carry, _):
            params, state = carry
            grads = jax.tree.map(lambda c, p: jnp.abs(c) * p, curvature, params)
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (params, state), length=STEPS)[1]

    with jax.numpy_dtype_promotion("standard"):
        close(*jax.jit(lambda: (descend(mine), descend(oracle)))())


def test_previous_gradient_momentum_is_the_lectures_formula():
    lr, alpha = 0.1, 0.8
    params, path = jax.tree.map(np.asarray, tree(99)), []
    for t in range(STEPS):
        for part, leaf in (("body", "kernel"), ("body", "bias")):
            now = np.asarray(GRADIENTS[part][leaf][t])
            before = np.asarray(GRADIENTS[part][leaf][t - 1]) if t else np.zeros_like(now)
            params[part][leaf] = params[part][leaf] - lr * (alpha * before + now)
        path.append([params["body"]["kernel"], params["body"]["bias"]])
    result = jax.jit(lambda p, g: run(ours.previous_gradient_momentum(lr, alpha), p, g))(tree(99), GRADIENTS)
    close([result["body"]["kernel"], result["body"]["bias"]], [np.stack(leaf) for leaf in zip(*path, strict=True)])


def test_a_constant_gradient_moves_by_the_sums_in_the_header():
    g = jnp.ones(1)
    constant = jnp.ones((60, 1))
    names = ("momentum", "nesterov", "previous", "adam")
    steps = {name: -jnp.diff(run(PLAIN[name](1.0), g, constant), axis=0)[-1] for name in names}
    fade = 0.9**60
    np.testing.assert_allclose(steps["momentum"], 10 * (1 - fade), rtol=1e-12)
    np.testing.assert_allclose(steps["nesterov"], 1 + 0.9 * 10 * (1 - fade), rtol=1e-12)
    np.testing.assert_allclose(steps["previous"], 1.9, rtol=1e-12)
    np.testing.assert_allclose(steps["adam"], 1, rtol=1e-7)


@mostly_slow
def test_vmap_over_learning_rates(make):
    def final(optimizer):
        return jax.tree.map(lambda path: path[-1], run(optimizer, tree(99), GRADIENTS))

    rates = jnp.asarray([0.01, 0.1, 0.5])
    both = jax.jit(lambda rates: (jax.vmap(lambda lr: final(make(lr)))(rates), final(make(0.1))))
    swept, alone = both(rates)
    close(jax.tree.map(lambda leaf: leaf[1], swept), alone)
    assert not np.allclose(swept["head"][0], swept["head"][2])


def test_vmap_over_every_other_number():
    def final(a):
        chained = ours.chain(
            ours.clip_by_global_norm(a), ours.add_decayed_weights(a), ours.adamw(0.1, a, a, a, a), ours.momentum(1.0, a)
        )
        mixed = ours.chain(chained, ours.previous_gradient_momentum(1.0, a))
        return run(mixed, tree(99), GRADIENTS)

    swept = jax.jit(jax.vmap(final))(jnp.asarray([0.1, 0.6]))
    close(jax.tree.map(lambda leaf: leaf[1], swept), jax.jit(lambda: final(0.6))())


@pytest.mark.parametrize("make", [PLAIN[name] for name in ("sgd", "previous", "adam", "masked")])
def test_a_schedule_is_first_called_with_step_0(make):
    rates = jnp.asarray([0.0, 0.1, 0.0, 0.3, *[0.0] * (STEPS - 4)])
    path = run(make(lambda step: rates[step]), tree(99), GRADIENTS)["head"]
    moved = np.abs(np.diff(np.concatenate([tree(99)["head"][None], path]), axis=0)).max((1, 2)) > 0
    np.testing.assert_array_equal(moved, rates != 0)


@every_plain
@pytest.mark.parametrize(
    "dtype",
    [jnp.float32, jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)],
    ids=["float32", "bfloat16", "float16"],
)
def test_types_are_kept_and_memories_are_float32(make, dtype):
    for lr in (0.1, jnp.float64(0.1), schedules.cosine(0.1, 9)):
        optimizer, params = make(lr), tree(99, dtype)
        state = optimizer.init(params)
        updates, new_state = jax.eval_shape(optimizer.update, tree(1, dtype), state, params)
        assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
        assert {leaf.dtype for leaf in jax.tree.leaves(state)} <= {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, new_state)
    assert ours.apply_updates(params, updates := tree(2, jnp.float64))["head"].dtype == dtype != updates["head"].dtype


@pytest.mark.parametrize("make", [PLAIN[name] for name in ("sgd", "previous", "adamw", "chain")])
def test_half_precision_is_rounded_once(make):
    low, grads = tree(99, jnp.bfloat16), tree(1, jnp.bfloat16)
    high, high_grads = jax.tree.map(lambda a: a.astype(jnp.float32), (low, grads))
    update = jax.jit(make(0.1).update)
    expected, _ = update(high_grads, make(0.1).init(high), high)
    actual, _ = update(grads, make(0.1).init(low), low)
    close(actual, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), expected), rtol=0)


@mostly_slow
def test_donation_of_params_and_state(make):
    optimizer, params = make(0.1), jax.tree.map(jnp.copy, tree(99))
    state, grads = optimizer.init(params), jax.tree.map(jnp.copy, tree(1))
    expected = optimizer.update(grads, state, params)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((params, state, grads))]
    assert len(set(buffers)) == len(buffers)

    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return ours.apply_updates(params, updates), state

    donated = jax.jit(step, donate_argnums=(0, 1))
    first, state = donated(params, state, grads)
    close(state, expected[1])
    close(first, ours.apply_updates(tree(99), expected[0]))
    donated(first, state, grads)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("jitted", [False, True])
def test_the_previous_gradient_is_a_copy(jitted):
    optimizer, grads = ours.previous_gradient_momentum(0.1, 0.9), jnp.ones(3)
    state = optimizer.init(grads)
    _, state = (jax.jit(optimizer.update) if jitted else optimizer.update)(grads, state)
    jax.jit(lambda state: jax.tree.map(jnp.sin, state), donate_argnums=0)(state.memory)
    assert state.memory["previous"].is_deleted() and not grads.is_deleted()


def test_clipping():
    clip = ours.clip_by_global_norm
    mixed = {"a": jnp.asarray([3.0, 0.0], jnp.bfloat16), "b": jnp.asarray([4.0], jnp.float64)}
    clipped, _ = clip(1.0).update(mixed, ())
    assert clipped["a"].dtype == jnp.bfloat16
    np.testing.assert_allclose(clipped["b"], [0.8], rtol=1e-15)
    same, _ = clip(5.0).update(mixed, ())
    close(same, mixed)
    np.testing.assert_array_equal(clip(1.0).update(jnp.zeros(3), ())[0], np.zeros(3))
    assert np.isnan(clip(1.0).update({"a": jnp.asarray([jnp.nan]), "b": jnp.ones(2)}, ())[0]["b"]).all()
    assert clip(1.0).update({}, ()) == ({}, ())
    large, _ = clip(1.0).update(jnp.full(4, 1000.0, jnp.float16), ())  # the sum of squares overflows float16
    np.testing.assert_allclose(large, np.full(4, 0.5), rtol=1e-3)


def test_masked_leaves_are_frozen_whatever_their_gradient():
    params = tree(99)
    grads = tree(1) | {"body": jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), params["body"])}
    optimizer = ours.masked(ours.adamw(0.1), HEAD)
    state = optimizer.init(params)
    assert [leaf.shape for leaf in jax.tree.leaves(state.memory)] == [(2, 4), (2, 4)]
    updates, _ = optimizer.update(grads, state, params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates["body"]))
    assert (updates["head"] != 0).all()
    nothing, _ = (o := ours.masked(ours.adam(0.1), False)).update(grads, o.init(params), params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(nothing))
    all_of_it, _ = (o := ours.masked(ours.sgd(1.0), np.True_)).update(tree(1), o.init(params))
    close(all_of_it, jax.tree.map(jnp.negative, tree(1)))


def test_apply_updates_keeps_the_type_of_params():
    updated = ours.apply_updates(jnp.ones(2, jnp.float32), jnp.full(2, 0.25, jnp.float64))
    np.testing.assert_array_equal(updated, np.full(2, 1.25, np.float32), strict=True)


P = jnp.ones(2)
ERRORS = {  # call, class, message
    "sgd": (lambda: ours.sgd(-0.1), ValueError, "sgd: lr must be finite and at least 0, got -0.1"),
    "sgd-nan": (lambda: ours.sgd(float("nan")), ValueError, "sgd: lr must be finite and at least 0, got nan"),
    "sgd-numpy": (lambda: ours.sgd(np.float32(-1)), ValueError, "sgd: lr must be finite and at least 0"),
    "sgd-rates": (
        lambda: ours.sgd(jnp.ones(3)),
        ValueError,
        r"sgd: lr must be a scalar, got shape \(3,\); use jax.vmap",
    ),
    "sgd-none": (lambda: untyped.sgd(None), TypeError, "sgd: lr must be a number or a scalar array, got NoneType"),
    "sgd-ints": (
        lambda: ours.sgd(0.1).init({"a": {"n": jnp.arange(3)}}),
        TypeError,
        r"sgd: parameters must be floating point, got int64 at params\['a'\]\['n'\]",
    ),
    "adam-complex": (
        lambda: ours.adam(0.1).init(P.astype(complex)),
        TypeError,
        "adam: parameters must be floating point, got complex",
    ),
    "momentum": (
        lambda: ours.momentum(float("inf")),
        ValueError,
        "momentum: lr must be finite and at least 0, got inf",
    ),
    "beta": (lambda: ours.momentum(0.1, -0.9), ValueError, "momentum: beta must be at least 0 and below 1, got -0.9"),
    "beta-1": (lambda: ours.momentum(0.1, 1), ValueError, "momentum: beta must be at least 0 and below 1, got 1"),
    "beta-str": (lambda: untyped.momentum(0.1, "0.9"), TypeError, "momentum: beta must be a number .* got str '0.9'"),
    "beta-bool": (lambda: ours.momentum(0.1, True), TypeError, "momentum: beta must be a number .* got bool True"),
    "alpha": (
        lambda: ours.previous_gradient_momentum(0.1, -1),
        ValueError,
        "previous_gradient_momentum: alpha must be finite and at least 0, got -1",
    ),
    "beta1": (lambda: ours.adam(0.1, 1.0), ValueError, "adam: beta1 must be at least 0 and below 1, got 1.0"),
    "beta2": (lambda: ours.adam(0.1, beta2=-1.0), ValueError, "adam: beta2 must be at least 0 and below 1, got -1.0"),
    "eps": (lambda: ours.adam(0.1, eps=-1e-8), ValueError, "adam: eps must be finite and at least 0, got -1e-08"),
    "adamw-beta1": (lambda: ours.adamw(0.1, 2.0), ValueError, "adamw: beta1 must be at least 0 and below 1, got 2.0"),
    "adamw-decay": (lambda: ours.adamw(0.1, weight_decay=-1), ValueError, "adamw: weight_decay must be finite and at"),
    "adamw-params": (
        lambda: ours.adamw(0.1).update(P, ours.adamw(0.1).init(P)),
        ValueError,
        r"adamw: weight decay needs params, got None; call update\(grads, opt_state, params\)",
    ),
    "state-of-another": (
        lambda: ours.momentum(0.1).update(P, ours.adam(0.1).init(P)),
        ValueError,
        r"momentum: opt_state must hold \['velocity'\], got \['mean', 'square'\], of another optimizer; make the state",
    ),
    "decay": (lambda: ours.add_decayed_weights(-1.0), ValueError, "add_decayed_weights: weight_decay must be finite"),
    "decay-params": (
        lambda: ours.add_decayed_weights(1.0).update(P, ()),
        ValueError,
        "add_decayed_weights: weight decay needs params, got None",
    ),
    "clip": (lambda: ours.clip_by_global_norm(-1.0), ValueError, "clip_by_global_norm: max_norm must be .* got -1.0"),
    "clip-0": (
        lambda: ours.clip_by_global_norm(0.0),
        ValueError,
        "clip_by_global_norm: max_norm must be above 0, got 0",
    ),
    "chain-empty": (lambda: ours.chain(), ValueError, "chain: at least one optimizer must be given, got none"),
    "chain-function": (
        lambda: ours.chain(ours.adam),
        TypeError,
        r"chain: an optimizer must have init and update, got <function adam .*; write adam\(\.\.\.\)",
    ),
    "masked-float": (
        lambda: ours.masked(0.1, True),
        TypeError,
        "masked: an optimizer must have init and update, got 0.1$",
    ),
    "mask-int": (
        lambda: ours.masked(ours.sgd(0.1), {"a": 1}).init({"a": P}),
        TypeError,
        "masked: mask must hold True and False only, got int 1",
    ),
    "mask-prefix": (
        lambda: ours.masked(ours.sgd(0.1), {"a": True}).init({"a": P, "b": P}),
        ValueError,
        r"masked: mask must be a tree prefix of params, got {.*} for params of shapes {'a': \(2,\), 'b': \(2,\)}",
    ),
    "apply-shape": (
        lambda: ours.apply_updates({"a": P}, {"a": jnp.ones(1)}),
        ValueError,
        r"apply_updates: updates must have .* got shapes {'a': \(1,\)} for params {'a': \(2,\)}",
    ),
    "apply-tree": (lambda: ours.apply_updates({"a": P}, {"b": P}), ValueError, "apply_updates: updates must have"),
}


@pytest.mark.parametrize("call, error, message", ERRORS.values(), ids=ERRORS)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("shape", [(1 << 10, 1 << 9), (513, 1023), (7,), (0, 3)])
def test_global_norm_adds_up_large_arrays_in_parts_and_any_other_as_well(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    want = np.linalg.norm(x.astype(np.float64))
    np.testing.assert_allclose(global_norm({"large": jnp.asarray(x), "small": jnp.zeros(3)}), want, rtol=1e-6)

"""schedules.py against optax where it has the formula, against closed forms elsewhere; types and errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from handgrad import schedules

ORACLES = {  # ours, oracle step -> rate, steps to compare
    "constant": (schedules.constant(0.3), lambda step: 0.3, 5),
    "cosine": (schedules.cosine(0.3, 40), optax.cosine_decay_schedule(0.3, 40), 60),
    "cosine-warmup": (
        schedules.cosine(0.3, 40, warmup=7, end=0.01),
        optax.warmup_cosine_decay_schedule(0.0, 0.3, 7, 40, 0.01),
        60,
    ),
    "cosine-one-step": (schedules.cosine(0.3, 1), optax.cosine_decay_schedule(0.3, 1), 3),
    "piecewise": (
        schedules.piecewise({9: 0.1, 0: 0.4, 4: 0.2}),
        optax.piecewise_constant_schedule(0.4, {4: 0.5, 9: 0.5}),
        14,
    ),
    "piecewise-one": (schedules.piecewise({0: 0.4}), lambda step: 0.4, 3),
    "exponential": (schedules.exponential(0.3, 0.5, 10), optax.exponential_decay(0.3, 10, 0.5), 35),
    "exponential-growing": (schedules.exponential(1e-4, 2.0, 3), lambda step: 1e-4 * 2 ** (step / 3), 20),
    "one_cycle": (schedules.one_cycle(0.3, 50), optax.cosine_onecycle_schedule(50, 0.3), 60),
}
every_schedule = pytest.mark.parametrize("ours, oracle, steps", ORACLES.values(), ids=ORACLES)


@every_schedule
def test_equals_the_oracle_at_every_step(ours, oracle, steps):
    with jax.numpy_dtype_promotion("standard"):  # optax's one_cycle mixes types
        expected = [float(oracle(step)) for step in range(steps)]
    rates = jax.vmap(ours)(jnp.arange(steps, dtype=jnp.int32))
    np.testing.assert_allclose(rates, expected, rtol=1e-12, atol=1e-16)  # atol: a rate of 0 at the end of a cosine


@every_schedule
def test_python_and_traced_steps_agree_in_value_shape_and_type(ours, oracle, steps):
    plain, traced = ours(3), jax.jit(ours)(jnp.asarray(3, jnp.int32))
    np.testing.assert_allclose(plain, traced, rtol=1e-15)
    assert plain.shape == traced.shape == () and plain.dtype == traced.dtype == jnp.float64
    with jax.enable_x64(False):
        assert ours(3).dtype == jax.jit(ours)(jnp.asarray(3, jnp.int32)).dtype == jnp.float32


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10])
def test_one_cycle_of_few_steps(steps):
    schedule = schedules.one_cycle(0.5, steps)
    top = int(0.3 * steps)
    assert schedule(top) == 0.5 == max(schedule(step) for step in range(steps + 1))
    np.testing.assert_allclose([schedule(steps), schedule(steps + 5)], 0.5 / 250_000, rtol=1e-9)
    if top:
        np.testing.assert_allclose(schedule(0), 0.02, rtol=1e-12)


@pytest.mark.parametrize("schedule", [schedules.one_cycle(0.5, 2), schedules.cosine(0.5, 2)], ids=["cycle", "cosine"])
def test_the_part_that_is_not_there_makes_no_nan(schedule):
    with jax.debug_nans(True):
        assert schedule(0) == 0.5


@pytest.mark.parametrize("make", [
    lambda v: schedules.constant(v),
    lambda v: schedules.cosine(v, 10, 2, v / 5),
    lambda v: schedules.piecewise({0: v, 2: v / 2}),
    lambda v: schedules.exponential(v, v, 3),
    lambda v: schedules.one_cycle(v, 10),
])  # fmt: skip
def test_vmap_over_the_numbers_of_a_schedule(make):
    values = jnp.asarray([0.1, 0.5, 0.7])
    swept = jax.vmap(lambda v: make(v)(jnp.asarray(4)))(values)
    np.testing.assert_allclose(swept, [make(float(v))(4) for v in values], rtol=1e-12)


mistyped: Any = schedules  # the wrong types are meant
ERRORS = {  # call, class, message
    "constant-negative": (lambda: schedules.constant(-1.0), ValueError, "constant: v must be .* at least 0, got -1.0"),
    "constant-nan": (lambda: schedules.constant(float("nan")), ValueError, "constant: v must be a finite .* got nan"),
    "cosine-peak": (lambda: schedules.cosine(float("inf"), 10), ValueError, "cosine: peak must be .* got inf"),
    "cosine-end": (lambda: schedules.cosine(1.0, 10, end=-0.1), ValueError, "cosine: end must be .* got -0.1"),
    "cosine-steps": (lambda: schedules.cosine(1.0, 0), ValueError, "cosine: steps must be at least 1, got 0"),
    "cosine-float": (lambda: mistyped.cosine(1.0, 1e3), TypeError, "cosine: steps must be an int, got float 1000.0"),
    "cosine-bool": (lambda: schedules.cosine(1.0, 10, True), TypeError, "cosine: warmup must be an int, got bool"),
    "cosine-below": (lambda: schedules.cosine(1.0, 10, -1), ValueError, "cosine: warmup must be at least 0, got -1"),
    "cosine-warmup": (
        lambda: schedules.cosine(1.0, 10, 10),
        ValueError,
        "cosine: warmup must be less than steps, got warmup 10 of 10 steps",
    ),
    "piecewise-no-0": (
        lambda: schedules.piecewise({5: 0.1, 2: 0.2}),
        ValueError,
        r"piecewise: step 0 must be among the steps, got \[2, 5\]; add 0: the first rate",
    ),
    "piecewise-empty": (lambda: schedules.piecewise({}), ValueError, "step 0 must be among the steps"),
    "piecewise-list": (
        lambda: mistyped.piecewise([0.1]),
        TypeError,
        "piecewise: values must be a mapping {step: rate}, got list",
    ),
    "piecewise-step": (lambda: mistyped.piecewise({0: 1.0, 1.5: 0.1}), TypeError, "each step must be an int"),
    "piecewise-rate": (lambda: schedules.piecewise({0: 1.0, 3: -1.0}), ValueError, "the rate from step 3 must be"),
    "exponential-start": (lambda: schedules.exponential(-1.0, 0.5, 3), ValueError, "exponential: start must be"),
    "exponential-rate": (lambda: schedules.exponential(1.0, -0.5, 3), ValueError, "exponential: rate must be .* -0.5"),
    "exponential-zero": (lambda: schedules.exponential(1.0, 0.0, 3), ValueError, "rate must be above 0, got 0"),
    "exponential-every": (lambda: schedules.exponential(1.0, 0.5, 0), ValueError, "every must be at least 1, got 0"),
    "one_cycle-peak": (lambda: schedules.one_cycle(-1, 10), ValueError, "one_cycle: peak must be .* got -1"),
    "one_cycle-steps": (lambda: schedules.one_cycle(1.0, -3), ValueError, "one_cycle: steps must be at least 1"),
}


@pytest.mark.parametrize("call, error, message", ERRORS.values(), ids=ERRORS)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()

"""Learning-rate schedules: functions step -> rate, first called with step 0, the rate of the first update.

    constant       η(t) = v
    piecewise      η(t) = v_k for s_k ≤ t < s_{k+1}
    exponential    η(t) = start · rate^(t / every)
    cosine         η(t) = peak · t / w                                           for t < w, the warmup
                   η(t) = end + (peak - end)/2 · (1 + cos(π (t-w) / (T-w)))      for w ≤ t ≤ T, then end
    one_cycle      η(t) half a cosine wave from peak/25 up to peak at 0.3 T, then another down to peak/250000 at T

A step is a Python int or a (traced) integer array (); the rate is an array () of JAX's default float type, float32
or, under x64, float64. The numbers of a schedule may be arrays too, so that jax.vmap sweeps over them; steps are ints.
Only Python numbers are checked, for the value of a traced array cannot be read.
At 0: a warmup starts from 0, so the first update does nothing, as in optax, the oracle of the formulas it has.
Source: Loshchilov and Hutter, SGDR, arXiv:1608.03983, 2016 (cosine); Smith and Topin, Super-Convergence,
arXiv:1708.07120, 2017 (one_cycle, with the numbers of PyTorch's OneCycleLR).
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

__all__ = ["constant", "cosine", "exponential", "one_cycle", "piecewise"]

Schedule = Callable[[ArrayLike], jax.Array]


def constant(v: ArrayLike) -> Schedule:
    """The same rate at each step.

    Args:
        v: the rate.

    Returns:
        The schedule step -> rate.

    Raises:
        ValueError: a negative or non-finite rate.

    Example:
        >>> print(constant(0.5)(7))
        0.5
    """
    _check_rate("constant", "v", v)
    return lambda step: jnp.asarray(v, float)


def cosine(peak: ArrayLike, steps: int, warmup: int = 0, end: ArrayLike = 0.0) -> Schedule:
    """Up a line from 0 to peak in `warmup` steps, then down half a cosine wave to `end` at step `steps`, then flat.

    Args:
        peak: the largest rate, reached at step `warmup`.
        steps: the number of all steps, the warmup among them.
        warmup: the number of warmup steps; 0 starts at peak.
        end: the rate from step `steps` on.

    Returns:
        The schedule step -> rate.

    Raises:
        ValueError: a negative or non-finite rate, steps below 1, or a warmup outside 0 <= warmup < steps.
        TypeError: steps or warmup that are no ints.

    Example:
        >>> schedule = cosine(1.0, steps=12, warmup=2)
        >>> [round(float(schedule(step)), 3) for step in (0, 1, 2, 7, 12, 99)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    _check_rate("cosine", "peak", peak)
    _check_rate("cosine", "end", end)
    _check_steps("cosine", "steps", steps, 1)
    _check_steps("cosine", "warmup", warmup, 0)
    if warmup >= steps:
        raise ValueError(f"cosine: warmup must be less than steps, got warmup {warmup} of {steps} steps")

    def schedule(step: ArrayLike) -> jax.Array:
        t, top, bottom = _floats(step, peak, end)
        rise = top * t / max(warmup, 1)
        return jnp.where(t < warmup, rise, _half_wave(top, bottom, (t - warmup) / (steps - warmup)))

    return schedule


def piecewise(values: Mapping[int, ArrayLike]) -> Schedule:
    """Steps of a stair: each value holds from its step on, until the next one.

    Args:
        values: {step: rate}, in any order; step 0 must be there.

    Returns:
        The schedule step -> rate.

    Raises:
        ValueError: no step 0, a negative step, or a negative or non-finite rate.
        TypeError: values that are no mapping, or a step that is no int.

    Example:
        >>> schedule = piecewise({0: 1.0, 3: 0.25})
        >>> [float(schedule(step)) for step in range(5)]
        [1.0, 1.0, 1.0, 0.25, 0.25]
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"piecewise: values must be a mapping {{step: rate}}, got {type(values).__name__}")
    for start, rate in values.items():
        _check_steps("piecewise", "each step", start, 0)
        _check_rate("piecewise", f"the rate from step {start}", rate)
    if 0 not in values:
        raise ValueError(f"piecewise: step 0 must be among the steps, got {sorted(values)}; add 0: the first rate")

    def schedule(step: ArrayLike) -> jax.Array:
        t, rate = jnp.asarray(step), jnp.asarray(values[0], float)
        for start in sorted(values):
            rate = jnp.where(t >= start, jnp.asarray(values[start], float), rate)
        return rate

    return schedule


def exponential(start: ArrayLike, rate: ArrayLike, every: int) -> Schedule:
    """Falls by the factor `rate` in every `every` steps, smoothly: start · rate^(step / every).

    Args:
        start: the rate at step 0.
        rate: the factor, above 0; above 1 the rate grows.
        every: how many steps the factor takes.

    Returns:
        The schedule step -> rate.

    Raises:
        ValueError: a negative or non-finite start, a rate that is not above 0 and finite, or every below 1.
        TypeError: `every` that is no int.

    Example:
        >>> schedule = exponential(1.0, rate=0.25, every=10)
        >>> [float(schedule(step)) for step in (0, 5, 10, 20)]
        [1.0, 0.5, 0.25, 0.0625]
    """
    _check_rate("exponential", "start", start)
    _check_rate("exponential", "rate", rate)
    if isinstance(rate, int | float) and rate == 0:
        raise ValueError("exponential: rate must be above 0, got 0")
    _check_steps("exponential", "every", every, 1)

    def schedule(step: ArrayLike) -> jax.Array:
        t, first, factor = _floats(step, start, rate)
        return first * factor ** (t / every)

    return schedule


def one_cycle(peak: ArrayLike, steps: int) -> Schedule:
    """One cycle: from peak/25 up to peak in the first 30 % of the steps, then down to peak/250000, by half waves.

    Args:
        peak: the largest rate, reached at step int(0.3 * steps).
        steps: the number of all steps; the rate stays at its last value after them.

    Returns:
        The schedule step -> rate.

    Raises:
        ValueError: a negative or non-finite peak, or steps below 1.
        TypeError: steps that are no int.

    Example:
        >>> schedule = one_cycle(1.0, steps=100)
        >>> [round(float(schedule(step)), 6) for step in (0, 30, 65, 100)]
        [0.04, 1.0, 0.500002, 4e-06]
    """
    _check_rate("one_cycle", "peak", peak)
    _check_steps("one_cycle", "steps", steps, 1)
    top = int(0.3 * steps)

    def schedule(step: ArrayLike) -> jax.Array:
        t, largest = _floats(step, peak)
        rise = _half_wave(largest / 25, largest, t / max(top, 1))
        return jnp.where(t < top, rise, _half_wave(largest, largest / 250_000, (t - top) / (steps - top)))

    return schedule


def _half_wave(first: jax.Array, last: jax.Array, part: jax.Array) -> jax.Array:
    """From first at part 0 to last at part 1 by half a cosine wave; last beyond it."""
    return last + (first - last) / 2 * (1 + jnp.cos(math.pi * jnp.minimum(part, 1.0)))


def _floats(*numbers: ArrayLike) -> list[jax.Array]:
    """Each number as an array of JAX's default float type."""
    return [jnp.asarray(number, float) for number in numbers]


def _check_rate(name: str, argument: str, value: ArrayLike) -> None:
    if isinstance(value, int | float) and not 0 <= value < math.inf:
        raise ValueError(f"{name}: {argument} must be a finite number of at least 0, got {value!r}")


def _check_steps(name: str, argument: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: {argument} must be an int, got {type(value).__name__} {value!r}")
    if value < least:
        raise ValueError(f"{name}: {argument} must be at least {least}, got {value}")

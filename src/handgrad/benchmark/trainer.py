"""A training step together with what it trains, so that calling it does one whole step and waits for its end."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax

from handgrad.training.step import copied

Step = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(state, x, y) -> (state, loss or Metrics)."""


class Contender(Protocol):
    """Anything that trains by a step a call, and tells the loss of the batch before it."""

    loss: float

    def __call__(self) -> None:
        """One step, done when this returns."""
        ...


class Trainer:
    """A jitted step (state, x, y) -> (state, loss or Metrics) and the state that it trains, on one batch.

    Args:
        step: jitted; it may donate its state.
        state: a tree of arrays, which is copied: several trainers may start from one.
        x: the batch's inputs.
        y: its labels.
    """

    def __init__(self, step: Any, state: Any, x: Any, y: Any) -> None:
        self.step, self.state, self.x, self.y = step, copied(state), x, y
        self.loss = math.nan

    def __call__(self) -> None:
        """One step of training, waited for."""
        self.state, told = jax.block_until_ready(self.step(self.state, self.x, self.y))
        self.loss = getattr(told, "loss", told)

    def compile(self) -> tuple[float, Any]:
        """The seconds that it takes to trace and compile the step afresh, and what came out."""
        jax.clear_caches()
        start = time.perf_counter()
        compiled = self.step.lower(self.state, self.x, self.y).compile()
        return time.perf_counter() - start, compiled


def check_same_losses(contenders: Mapping[str, Contender], *, steps: int = 4, rtol: float = 1e-4) -> list[float]:
    """Train all for some steps and see that they compute the same thing.

    Rounding differs from one order of summation to the next; each step multiplies the difference, and more so in deep
    nets with batch norm. Hence few steps, and a tolerance that the case chooses.

    Args:
        contenders: trainers by name, from the same parameters; the first is what the others are held against.
        steps: how many.
        rtol: by how much of the first one's loss another may differ.

    Returns:
        The losses of the first one.

    Raises:
        ValueError: a contender that computes other losses, by name, or losses that are not finite.
    """
    curves = {name: losses(contender, steps) for name, contender in contenders.items()}
    first, wanted = next(iter(curves.items()))
    if not all(map(math.isfinite, wanted)):
        raise ValueError(f"benchmark: {first} diverges, its losses are {_text(wanted)}; take a smaller learning rate")
    for name, curve in curves.items():
        if not all(math.isclose(a, b, rel_tol=rtol) for a, b in zip(curve, wanted, strict=True)):
            raise ValueError(
                f"benchmark: {name} does not compute the losses of {first} to a relative {rtol:g}: "
                f"{_text(curve)} against {_text(wanted)}"
            )
    return wanted


def losses(contender: Contender, steps: int) -> list[float]:
    """The losses of the next steps."""
    curve = []
    for _ in range(steps):
        contender()
        curve.append(float(contender.loss))
    return curve


def check_finite(contenders: Mapping[str, Contender]) -> None:
    """Raise a ValueError for a contender whose training has diverged: other numbers may take other time."""
    for name, contender in contenders.items():
        if not math.isfinite(float(contender.loss)):
            raise ValueError(f"benchmark: {name} diverged while it was timed; take a smaller learning rate")


def compile_seconds(
    trainers: Mapping[str, Trainer], at_most: int = 3, budget: float = 60.0
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds to trace and compile each step, round by round, and the compiled steps.

    Args:
        trainers: by name.
        at_most: rounds.
        budget: no new round begins after so many seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    compiled, began = {}, time.perf_counter()
    for done in range(at_most):
        if done and time.perf_counter() - began > budget:
            break
        for name, trainer in trainers.items():
            taken, compiled[name] = trainer.compile()
            seconds[name].append(taken)
    return seconds, compiled


def _text(curve: Sequence[float]) -> str:
    return ", ".join(f"{loss:.6g}" for loss in curve)

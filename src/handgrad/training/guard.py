"""A step that is not finite is refused: the train state stays the one before it, and can be looked into.

    ok_t  =  L_t and |g_t| are finite            a_t = 0 if ok_t, else a_{t-1} + 1       how many in a row were not
    s_{t+1} = step(s_t)         if ok_t
              (t + 1, rest of s_t)   if not, and a_t <= limit: the batch is skipped
              s_t                    if a_t > limit: this step and all after it change nothing

All of it is decided on the device, within the compiled step, where it is a select in the update's own loop. So the host
may be some steps ahead: when it reads of a step that was not finite, the state is still the one before that step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Guard(NamedTuple):
    """What is carried from step to step beside the train state.

    Attributes:
        in_a_row: how many steps up to here were not finite, int32.
        limit: how many in a row are skipped, int32; above that every step is refused.
    """

    in_a_row: Any
    limit: Any


class NotFinite(FloatingPointError):
    """A step that was not finite, and was refused with all steps after it.

    Attributes:
        step: which one, counted from 1.
    """

    def __init__(self, step: int, message: str = "") -> None:
        super().__init__(message or f"step {step} is not finite")
        self.step = step


class Stepped(Protocol):
    """A step in two forms; `TrainStep` and `ParallelStep` are such."""

    def __call__(self, train_state: Any, x: Any, y: Any) -> tuple[Any, Any]: ...

    def guarded(self, train_state: Any, guard: Guard, x: Any, y: Any) -> tuple[Any, Guard, Any]: ...


def guarded(step: Callable) -> Callable:
    """A step (train_state, x, y, weights) -> (train_state, metrics) with a `Guard` after the train state, in and out.

    Example:
        >>> class Metrics(NamedTuple):
        ...     loss: jax.Array
        ...     grad_norm: jax.Array
        >>> class State(NamedTuple):
        ...     step: jax.Array
        ...     params: jax.Array
        >>> def step(s, x, y, weights):
        ...     return State(s.step + 1, s.params - x), Metrics(x, x)
        >>> state, guard = State(jnp.int32(0), jnp.float32(0)), Guard(jnp.int32(0), jnp.int32(1))
        >>> for x in (1.0, float("nan"), 2.0, float("nan"), float("inf"), 4.0):  # two bad ones in a row are too many
        ...     state, guard, _ = guarded(step)(state, guard, jnp.float32(x), None, None)
        >>> int(state.step), float(state.params), int(guard.in_a_row)
        (4, -3.0, 2)
    """

    def guarded_step(train_state: Any, guard: Guard, x: Any, y: Any, weights: Any) -> tuple[Any, Guard, Any]:
        new, metrics = step(train_state, x, y, weights)
        over = guard.in_a_row > guard.limit
        ok = jnp.isfinite(metrics.loss) & jnp.isfinite(metrics.grad_norm)
        in_a_row = jnp.where(over, guard.in_a_row, jnp.where(ok, 0, guard.in_a_row + 1).astype(jnp.int32))
        taken = ok & ~over
        kept = jax.tree.map(lambda a, b: a if a is b else lax.select(taken, a, b), new, train_state)
        counted = jnp.where(in_a_row > guard.limit, train_state.step, new.step)
        return kept._replace(step=counted), Guard(in_a_row, guard.limit), metrics

    return guarded_step


class Guarded:
    """A step for `fit`, (train_state, x, y) -> (train_state, metrics), which carries the guard from call to call.

    Args:
        step: from `make_train_step`, or any other function of that call, which nothing guards.
        skip: how many steps in a row may be skipped.
        history: of the steps before, by name.

    Raises:
        TypeError: a step that cannot skip, and is to.
    """

    def __init__(self, step: Callable | Stepped, skip: int | None, history: dict[str, list[Any]]) -> None:
        self.can = hasattr(step, "guarded")
        if skip is not None and not self.can:
            raise TypeError(f"fit: skip_nonfinite needs a step from make_train_step, got {type(step).__name__}")
        self._step: Any = step
        self._guard = Guard(np.int32(bad_in_a_row(history)), np.int32(skip or 0))

    def __call__(self, train_state: Any, x: Any, y: Any) -> tuple[Any, Any]:
        """A step."""
        if not self.can:
            return self._step(train_state, x, y)
        train_state, self._guard, metrics = self._step.guarded(train_state, self._guard, x, y)
        return train_state, metrics


def is_finite(line: dict[str, Any]) -> bool:
    """Whether a step with these numbers is one that the guard lets pass."""
    return bool(np.isfinite(line.get("loss", 0.0)) and np.isfinite(line.get("grad_norm", 0.0)))


def bad_in_a_row(history: dict[str, list[Any]]) -> int:
    """How many steps at the end of a history were not finite.

    Example:
        >>> bad_in_a_row({"loss": [1.0, float("nan"), 2.0, float("inf")], "grad_norm": [1.0, 1.0, 1.0, 1.0]})
        1
    """
    count = 0
    for loss, norm in zip(reversed(history.get("loss", [])), reversed(history.get("grad_norm", [])), strict=False):
        if is_finite({"loss": loss, "grad_norm": norm}):
            break
        count += 1
    return count


def explained(found: NotFinite, trace: Any, saved: Any, skip: int | None) -> NotFinite:
    """The error in full: which step, where its first NaN or infinity came up, and what to do.

    Args:
        found: as the metrics showed it.
        trace: of that step, on the state before it; None where the state is not the one before it.
        saved: the checkpoint of the state before it, or None.
        skip: how many steps in a row were skipped before it, at most.
    """
    if trace is None:
        where = "; which layer went first is known only of a step from make_train_step"
    elif trace.first_nonfinite is None:
        where = (
            "; all numbers of its trace are finite, so it was in the sum of the gradient's squares, in the penalty, "
            "or in a narrower dtype"
        )
    else:
        layer, direction, array, place = trace.first_nonfinite
        where = f": {layer} went first, {direction}, in {array}{list(place)}"
    rows = "" if skip is None else f", after {skip} in a row that were skipped"
    kept = "" if saved is None else f"; the state before it is in {saved}"
    return NotFinite(found.step, f"fit: step {found.step} is not finite{rows}{where}{kept}")

"""A step that is not finite is refused: the train state stays the one before it, and can be looked into.

    ok_t  =  L_t and |g_t| are finite            a_t = 0 if ok_t, else a_{t-1} + 1       how many in a row were not
    s_{t+1} = step(s_t)         if ok_t
              (t + 1, rest of s_t)   if not, and a_t <= limit: the batch is skipped
              s_t                    if a_t > limit: this step and all after it change nothing

All of it is decided on the device, within the compiled step. So the host may be some steps ahead: when it reads of a
step that was not finite, the state is still the one before that step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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


def guarded(train_state: Any, guard: Guard, metrics: Any, update: Callable[[], Any]) -> tuple[Any, Guard]:
    """The train state after a step that may be refused, and the guard.

    On CPU the update is a branch, which then overwrites the old state in place. A select of the new or the old state
    would need copies of both. On GPUs a branch would wait for the host, so there it is a select.

    Args:
        train_state: before the step; a named tuple with step and key.
        guard: before the step.
        metrics: of the step: loss and grad_norm say whether it is finite.
        update: gives the train state after the step.

    Example:
        >>> class State(NamedTuple):
        ...     step: jax.Array
        ...     params: jax.Array
        ...     key: jax.Array
        >>> class Metrics(NamedTuple):
        ...     loss: jax.Array
        ...     grad_norm: jax.Array
        >>> state, guard = State(jnp.int32(0), jnp.float32(0), jnp.int32(0)), Guard(jnp.int32(0), jnp.int32(1))
        >>> for g in map(jnp.float32, (1, jnp.nan, 2, jnp.nan, jnp.inf, 4)):  # two bad ones in a row are too many
        ...     update = lambda state=state, g=g: State(state.step + 1, state.params - g, state.key)
        ...     state, guard = guarded(state, guard, Metrics(g, g), update)
        >>> int(state.step), float(state.params), int(guard.in_a_row)
        (4, -3.0, 2)
    """
    over = guard.in_a_row > guard.limit
    ok = jnp.isfinite(metrics.loss) & jnp.isfinite(metrics.grad_norm)
    taken = ok & ~over
    in_a_row = jnp.where(over, guard.in_a_row, jnp.where(ok, 0, guard.in_a_row + 1).astype(jnp.int32))

    def after() -> Any:
        return jax.tree.map(_strong, update()._replace(key=()))

    def before() -> Any:
        return jax.tree.map(_strong, train_state._replace(key=()))

    def by_branch() -> Any:
        return lax.cond(taken, after, before)

    def by_select() -> Any:
        return jax.tree.map(lambda new, old: lax.select(taken, new, old), after(), before())

    new = lax.platform_dependent(cpu=by_branch, tpu=by_branch, default=by_select)
    counted = train_state.step + (in_a_row <= guard.limit).astype(train_state.step.dtype)
    return new._replace(step=counted, key=train_state.key), Guard(in_a_row, guard.limit)


def _strong(leaf: Any) -> Any:
    """Both branches must be of one type, also where a Python number made one of them weak."""
    return lax.convert_element_type(leaf, leaf.dtype)


class Guarded:
    """A step for `fit`, (train_state, x, y) -> (train_state, metrics), which carries the guard from call to call.

    Args:
        step: from `make_train_step`, or any other function of that call, which nothing guards.
        skip: how many steps in a row may be skipped.
        history: of the steps before, by name.
    """

    def __init__(self, step: Callable, skip: int | None, history: dict[str, list[Any]]) -> None:
        self.can = hasattr(step, "guarded")
        self._step: Any = step
        self._guard = Guard(np.int32(bad_in_a_row(history)), np.int32(skip or 0))

    def __call__(self, train_state: Any, x: Any, y: Any) -> tuple[Any, Any]:
        """A step."""
        if not self.can:
            return self._step(train_state, x, y)
        train_state, self._guard, metrics = self._step.guarded(train_state, self._guard, x, y)
        return train_state, metrics


def check_can_skip(step: Callable) -> None:
    """Raise unless the step is one that can be refused."""
    if not hasattr(step, "guarded"):
        raise TypeError(f"fit: skip_nonfinite needs a step from make_train_step, got {type(step).__name__}")


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


def explained(found: NotFinite, look: Callable[[], Any] | None, saved: Any, skip: int | None) -> NotFinite:
    """The error in full: which step, where its first NaN or infinity came up, and what to do.

    Args:
        found: as the metrics showed it.
        look: gives the `NonFinite` of that step on the state before it; None where that state is not there any more.
        saved: the newest checkpoint, or None.
        skip: how many steps in a row were skipped before it, at most.
    """
    before = "" if skip is None else f", after {skip} in a row that were skipped"
    kept = "" if saved is None else f"; {'the newest checkpoint' if look is None else 'the state before it'} is {saved}"
    hint = "; skip_nonfinite=N skips up to N such steps in a row" if skip is None else ""
    return NotFinite(found.step, f"fit: step {found.step} is not finite{before}{_where(look)}{kept}{hint}")


def _where(look: Callable[[], Any] | None) -> str:
    if look is None:
        return "; which layer went first is known only of a step from make_train_step"
    try:
        first = look()
    except Exception as error:  # what went wrong first must be told all the same
        return f"; hg.trace of it fails ({type(error).__name__}: {error})"
    if first is None:
        return (
            ", though each number of hg.trace is: it came up in the gradient's length, the penalty or a narrow dtype, "
            "or augment, which made the batch again, is no function of its key"
        )
    layer, direction, array, place = first
    return f": {layer} went first, {direction}, in {array}{list(place) if place else ''}"

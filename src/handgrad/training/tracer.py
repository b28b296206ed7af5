"""`hg.trace` of the step that `fit` is about to take, or has refused to."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from handgrad.compile import jit
from handgrad.gradient import Objective
from handgrad.insight.trace import Trace, trace
from handgrad.insight.trace_findings import NonFinite
from handgrad.training.ensemble import Ensemble, member_objective
from handgrad.training.step import TrainState


def tracer(step: Any) -> Callable:
    """(train_state, x, y) -> the Trace of the gradient that the step is about to take."""
    place_state, place_batch = (getattr(step, name, None) for name in ("place_state", "place_batch"))

    def traced(train_state: TrainState, x: Any, y: Any) -> Trace:
        if place_state is not None and place_batch is not None:
            train_state, (x, y) = place_state(train_state), place_batch(x, y)
        return _traced(step.objective, train_state, x, y)

    return traced


def breaker(step: Any) -> Callable[..., NonFinite | None]:
    """(train_state, x, y) -> where the step that is about to be taken has its first NaN or infinity."""
    traced, net = tracer(step), getattr(getattr(step, "objective", None), "net", None)

    def look(train_state: TrainState, x: Any, y: Any) -> NonFinite | None:
        if not isinstance(net, Ensemble):
            return traced(train_state, x, y).first_nonfinite
        objective = member_objective(step.objective)
        for m in range(net.members):
            found = _traced(objective, net.member(train_state, m), x, y).first_nonfinite
            if found is not None:
                return found._replace(layer=f"member {m}'s {found.layer}")
        return None

    return look


@functools.partial(jit, static_argnums=0)
def _traced(objective: Objective, train_state: TrainState, x: Any, y: Any) -> Trace:
    key = jax.random.fold_in(train_state.key, train_state.step)
    return trace(objective)(train_state.params, x, y, train_state.state, key)

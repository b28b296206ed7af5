"""`hg.trace` of the step that `fit` is about to take, or has refused to."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from handgrad.compile import jit
from handgrad.gradient import Objective
from handgrad.insight.trace import Trace, trace
from handgrad.training.step import TrainState


def tracer(step: Any) -> Callable:
    """(train_state, x, y) -> the Trace of the gradient that the step is about to take."""
    place_state, place_batch = (getattr(step, name, None) for name in ("place_state", "place_batch"))

    def traced(train_state: TrainState, x: Any, y: Any) -> Trace:
        if place_state is not None and place_batch is not None:
            train_state, (x, y) = place_state(train_state), place_batch(x, y)
        return _traced(step.objective, train_state, x, y)

    return traced


@functools.partial(jit, static_argnums=0)
def _traced(objective: Objective, train_state: TrainState, x: Any, y: Any) -> Trace:
    key = jax.random.fold_in(train_state.key, train_state.step)
    return trace(objective)(train_state.params, x, y, train_state.state, key)

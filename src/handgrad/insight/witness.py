"""In which layers do the passes by hand and the automatic ones part?

Each leaf layer is asked alone, with the inputs and cotangents that it has within the net: its backward against jax.vjp
of its own apply_train. What goes on to the layer below is the automatic dx, so one layer's error shows in that layer
only. Its forward is asked likewise.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.insight.leaves import Wrapped, wrap_leaves
from handgrad.layers.layer import Array, Layer, Params, Residuals, State

ROUNDING = 1e-6  # the norm below which a gradient may be rounding, such as a bias's before a batch norm


@dataclass(frozen=True, repr=False)
class Witness(Wrapped):
    """Notes in `seen`, while it is traced, how far each pass of its layer is from the automatic one."""

    seen: dict[str, Array] = field(compare=False)

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """apply_train, beside the layer's forward."""
        y, _, residuals = self.layer.forward(params, x, state, key)
        plain_y, plain_state = self.layer.apply_train(params, x, state, key)
        self.seen[f"{self.path} ({type(self.layer).__name__}.forward)"] = _distance(y, plain_y)
        return plain_y, plain_state, {"own": residuals, "x": x, "state": state, "key": key}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """The automatic dx and dparams, beside the layer's own."""
        own = self.layer.backward(params, residuals["own"], dy)
        automatic = Layer.backward(self, params, residuals, dy)
        self.seen[f"{self.path} ({type(self.layer).__name__})"] = _distance(own, automatic)
        return automatic


def parted_layers(
    net: Layer, params: Params, x: Array, state: State, key: Array | None, dlogits: Callable, tolerance: float
) -> tuple[str, ...]:
    """The layers in which a pass by hand differs from the automatic one, the nearest to the loss first.

    Args:
        net: the net.
        params: its parameters.
        x: its input.
        state: its state.
        key: for dropout.
        dlogits: logits -> their gradient by hand, and the automatic one.
        tolerance: the relative error from which on they differ.

    Returns:
        Paths with the class in brackets, "loss" for the loss.
    """

    def distances(params: Params, x: Array, state: State, key: Array | None) -> dict[str, Array]:
        seen: dict[str, Array] = {}
        witnessed = wrap_leaves(lambda layer, path: Witness(layer, path, seen), net)
        logits, _, residuals = witnessed.forward(params, x, state, key)
        by_hand, automatic = dlogits(logits)
        witnessed.backward(params, residuals, automatic)
        return {"loss": _distance(by_hand, automatic)} | seen

    order: list[str] = []

    def in_order(*args: Any) -> list[Array]:
        found = distances(*args)
        order[:] = found
        return list(found.values())

    found = jax.jit(in_order)(params, x, state, key)
    wrong = [name for name, distance in zip(order, found, strict=True) if not distance <= tolerance]
    forward = [name for name in wrong if name.endswith(".forward)")]
    return tuple([name for name in wrong if name not in forward] + forward[::-1])


def _distance(own: Any, automatic: Any) -> Array:
    """The largest relative error over the arrays of a tree."""
    errors = [
        jnp.linalg.norm(jnp.ravel(a - b)) / jnp.maximum(jnp.linalg.norm(jnp.ravel(b)), ROUNDING)
        for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(automatic), strict=True)
    ]
    return jnp.max(jnp.stack([jnp.zeros(()), *errors]))

"""The contract of a layer, checked by shapes alone: what comes back, and in which form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.insight.leaves import path_text
from handgrad.layers.layer import Array, Layer, Params, State


def check_contract(caller: str, layer: Layer, params: Params, x: Array, state: State, key: Array | None) -> None:
    """Raise a TypeError that says what is missing, unless forward and backward give what the contract says.

    Nothing is computed: shapes, dtypes and structures tell.
    """
    who = f"{caller}: {type(layer).__name__}"

    def apply_train(params: Params, x: Array, state: State, key: Array | None) -> Any:
        return _parts(layer.apply_train(params, x, state, key), f"{who}.apply_train", "y", "state")

    def forward(params: Params, x: Array, state: State, key: Array | None) -> Any:
        y, new_state, residuals = _parts(
            layer.forward(params, x, state, key), f"{who}.forward", "y", "state", "residuals"
        )
        _check_residuals(who, residuals)
        return y, new_state, residuals

    plain_y, plain_state = jax.eval_shape(apply_train, params, x, state, key)
    y, new_state, residuals = jax.eval_shape(forward, params, x, state, key)
    check_like(f"{who}.forward: y must be like apply_train's", y, plain_y)
    check_like(f"{who}.forward: the new state must be like apply_train's", new_state, plain_state)
    check_like(f"{who}.forward: the new state must be like the state given", new_state, state)

    def backward(params: Params, residuals: Any, dy: Array) -> Any:
        return _parts(layer.backward(params, residuals, dy), f"{who}.backward", "dx", "dparams")

    dx, dparams = jax.eval_shape(backward, params, residuals, y)
    check_like(f"{who}.backward: dx must be like x", dx, x)
    check_like(f"{who}.backward: dparams must be like params", dparams, params)


def check_like(what: str, tree: Any, wanted: Any) -> None:
    """Raise a TypeError that names the leaves in which two trees of arrays differ in name, shape or dtype."""
    got, want = _described(tree), _described(wanted)
    missing = [f"{name} is missing" for name in want if name not in got]
    extra = [f"{name} is not wanted" for name in got if name not in want]
    other = [f"{name} is {got[name]}, wanted {want[name]}" for name in want if name in got and got[name] != want[name]]
    if missing or extra or other:
        raise TypeError(f"{what}: {'; '.join(missing + extra + other)}")
    if jax.tree.structure(tree) != jax.tree.structure(wanted) and want:
        raise TypeError(f"{what}: got {jax.tree.structure(tree)}, wanted {jax.tree.structure(wanted)}")


def _parts(given: Any, who: str, *names: str) -> tuple:
    if not isinstance(given, tuple) or len(given) != len(names):
        what = f"{len(given)} things" if isinstance(given, tuple) else type(given).__name__
        raise TypeError(f"{who} must return ({', '.join(names)}), got {what}")
    return given


def _check_residuals(who: str, residuals: Any) -> None:
    for path, leaf in jax.tree.leaves_with_path(residuals):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            raise TypeError(
                f"{who}.forward: residuals must be arrays, got {leaf!r} at {path_text(path) or 'the top'}; "
                f"wrap static facts as hg.Static(...)"
            )


def _described(tree: Any) -> dict[str, str]:
    """'float64 (3, 2)' by the path of each leaf."""
    return {
        path_text(path) or "it": f"{getattr(leaf, 'dtype', type(leaf).__name__)} {jnp.shape(leaf)}"
        for path, leaf in jax.tree.leaves_with_path(tree)
    }

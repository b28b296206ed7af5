"""Checks of a data set before training or evaluation; each error says what must hold, what came, and what to do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.layers.layer import Layer, Params, State


def check_examples(op: str, x: Any, batch_size: int) -> None:
    """Raise unless x is an array of at least one example, floating point, and the batch size a positive int."""
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        raise TypeError(f"{op}: x must be an array, got {type(x).__name__}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{op}: x must be floating point, got {x.dtype}; "
            f"turn images into floats by data.normalise(x), other numbers by x.astype('float32')"
        )
    if x.ndim == 0 or x.shape[0] == 0:
        raise ValueError(f"{op}: x must hold at least one example, (n, ...), got shape {x.shape}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer):
        raise TypeError(f"{op}: batch_size must be an int, got {batch_size!r}")
    if batch_size < 1:
        raise ValueError(f"{op}: batch_size must be at least 1, got {batch_size}")


def check_labels(op: str, x: Any, y: Any, logits_shape: tuple[int, ...], ignore_index: int | None = None) -> None:
    """Raise unless there are as many labels as examples and int labels (n,) are classes of the logits (n, K)."""
    if not hasattr(y, "dtype") or not hasattr(y, "shape"):
        raise TypeError(f"{op}: y must be an array, got {type(y).__name__}")
    if y.shape[:1] != x.shape[:1]:
        raise ValueError(f"{op}: x and y must have as many examples, got x {x.shape} and y {y.shape}")
    if y.shape[1:] == (1,) and len(logits_shape) == 2 and logits_shape[1] > 1:
        raise ValueError(f"{op}: y must be ({len(y)},) for {logits_shape[1]} classes, got {y.shape}; use y[:, 0]")
    if y.ndim != 1 or len(logits_shape) != 2 or not jnp.issubdtype(y.dtype, jnp.integer):
        return
    values, classes = np.asarray(y), max(logits_shape[-1], 2)
    bad = (values < 0) | (values >= classes)
    if ignore_index is not None:
        bad &= values != ignore_index
    if bad.any():
        first = int(bad.argmax())
        raise ValueError(
            f"{op}: labels must be from 0 to {classes - 1}, for the net has {classes} classes, "
            f"got {values[first]} at index {first}"
        )


def logits_shape(net: Layer, params: Params, state: State, x: Any) -> tuple[int, ...]:
    """The shape of the net's output for one example, found without compute; errors name the layer that does not fit."""
    one = jax.ShapeDtypeStruct((1, *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype))
    return jax.eval_shape(net.apply, params, one, state).shape

"""Checks that ops make before any compute. Each error names the op, what must hold, and what came."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def floating(op: str, **arrays: ArrayLike | None) -> None:
    """Raise a TypeError unless all the arrays given are of one floating dtype; None is passed over."""
    dtypes = {
        name: jax.dtypes.canonicalize_dtype(jnp.result_type(array))
        for name, array in arrays.items()
        if array is not None
    }
    for name, dtype in dtypes.items():
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{op}: {name} must be floating, got {dtype}; convert with {name}.astype(jnp.float32)")
    if len(set(dtypes.values())) > 1:
        got = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"{op}: all arrays must have one dtype, got {got}; convert one with astype")

"""Checks that ops make before any compute. Each error names the op, what must hold, and what came."""

from collections.abc import Sequence
from math import prod

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
            images = ", images of bytes with data.normalise" if dtype == jnp.uint8 else ""
            raise TypeError(
                f"{op}: {name} must be floating, got {dtype}; convert with {name}.astype(jnp.float32){images}"
            )
    if len(set(dtypes.values())) > 1:
        got = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"{op}: all arrays must have one dtype, got {got}; convert one with astype")


def ties(op: str, ties: str) -> None:
    """Raise a ValueError unless `ties` is a known way to share a gradient among equal maxima."""
    if ties not in ("first", "split"):
        raise ValueError(f'{op}: ties must be "first" or "split", got {ties!r}')


def places(op: str, in_shape: Sequence[int]) -> int:
    """The number of places of an input of a pool that takes in all of it, or a ValueError where there are none."""
    count = prod(in_shape[1:-1])
    if len(in_shape) not in (3, 4, 5) or count == 0:
        raise ValueError(
            f"{op}: x must be (N, L, C), (N, H, W, C) or (N, D, H, W, C) with no empty spatial axis, "
            f"got shape {tuple(in_shape)}"
        )
    return count

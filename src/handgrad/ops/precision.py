"""Sums: in which precision they are kept, and in which form XLA adds them up fastest."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad.ops.platform import on_cpu


def wide(x: jax.Array) -> jax.Array:
    """`x` in float32 at least: bfloat16 and float16 are widened, float32 and float64 stay as they are."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def sum_rows(x: jax.Array) -> jax.Array:
    """Σ_i x[i, c] over all axes but the last, (C,) from (..., C), added in float32 at least.

    With two axes between the first and the last or more, in turn over all of those between but the last, over the
    first, and over the last between: rows of W C numbers that lie side by side, which XLA's own loop adds up to ten
    times as fast as rows of C. The first sum is a window over the whole axes, because XLA computes what x is made of
    inside the loop of a sum, one number at a time where that is the backward pass of a pool; it leaves a window alone.
    """
    if x.ndim < 4 or not on_cpu():
        return x.sum(tuple(range(x.ndim - 1)))
    count, *_, width, channels = x.shape
    return _sum_between(x).reshape(count, width * channels).sum(0).reshape(width, channels).sum(0).astype(x.dtype)


def sum_places(x: jax.Array) -> jax.Array:
    """Σ_p x[n, p, c] over all axes between the first and the last, (N, 1.., C) from (N, P.., C), as `sum_rows` adds."""
    if x.ndim < 4 or not on_cpu():
        return x.sum(tuple(range(1, x.ndim - 1)), keepdims=True)
    return _sum_between(x).sum(-2, keepdims=True).astype(x.dtype)


def _sum_between(x: jax.Array) -> jax.Array:
    """The sums over all axes between the first and the last two, (N, 1.., W, C), by windows over the whole axes."""
    window = (1, *x.shape[1:-2], 1, 1)
    return lax.reduce_window(wide(x), np.zeros((), wide(x).dtype), lax.add, window, window, "VALID")

"""The dtype in which the ops sum: float32 at least."""

import jax
import jax.numpy as jnp


def wide(x: jax.Array) -> jax.Array:
    """`x` in float32 at least: bfloat16 and float16 are widened, float32 and float64 stay as they are."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x

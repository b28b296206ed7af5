"""What the normalisations share: over each set of places x gets mean 0 and variance 1, then scale γ and bias β.

Forward     μ = mean x                  v = mean (x - μ)²
            x̂ = (x - μ) r               with r = 1/√(v + ε)
            y = γ x̂ + β                 γ and β by channel, the last axis
Backward    dβ = Σ dy                   dγ = Σ dy x̂                             over all places of a channel
            dx = r (dx̂ - mean dx̂ - x̂ mean(dx̂ x̂))                               with dx̂ = γ dy

The means run over one set of m numbers; which numbers make a set is all that tells the norms apart: a channel of the
batch (`batch_norm`), the channels of one place (`layer_norm`), a group of channels of one example (`group_norm`).
x reaches x̂ by three ways: itself, μ and r. ∂μ/∂x[i] = 1/m takes away the mean of dx̂; ∂r/∂x[i] = -x̂[i] r²/m takes away
its part along x̂. So dx is dx̂ without its components along 1 and x̂, times r; exact for any ε, since
r² x̂ (x - μ) = r x̂². With ε = 0 these two are orthogonal and it is a projection: Σ dx = 0 and Σ dx x̂ = 0 in each set.
The variance is the biased one (divided by m), by a second pass over x - μ: E[x²] - μ² would lose its digits.
A set without variance: x̂ = 0, so y = β and dx = r (dx̂ - mean dx̂); with ε = 0 it is 0 · inf, NaN.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.ops import check
from handgrad.ops.precision import wide

Residuals = tuple[jax.Array, jax.Array, jax.Array]


def statistics(x: jax.Array, mean: Callable[[jax.Array], jax.Array]) -> tuple[jax.Array, jax.Array]:
    """μ and v, in float32 at least; `mean` gives each set's mean in a shape that meets x."""
    x = wide(x)
    centre = mean(x)
    return centre, mean(jnp.square(x - centre))


def normalised(x: jax.Array, mean: jax.Array, var: jax.Array, eps: float) -> jax.Array:
    """x̂ in float32 at least, for statistics whose shape meets x."""
    return (wide(x) - mean) * lax.rsqrt(var + eps)


def affine(normalised: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """γ x̂ + β."""
    return normalised * along_last(scale, normalised) + along_last(bias, normalised)


def along_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """A vector (C,) with ones before its axis, so that it meets the last axis of x, in x's wide dtype."""
    return vector.astype(wide(x).dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def check_norm(op: str, x: jax.Array, eps: float, **vectors: jax.Array) -> None:
    """Raise unless x and the vectors are floating, each vector has one number a channel, and eps is not negative."""
    if isinstance(eps, (int, float)) and eps < 0:
        raise ValueError(f"{op}: eps must not be negative, got {eps}")
    check.floating(op, x=x)
    for name, vector in vectors.items():
        check.floating(op, **{name: vector})
        if vector.shape != x.shape[-1:]:
            raise ValueError(f"{op}: {name} must have shape {x.shape[-1:]} to match x {x.shape}, got {vector.shape}")

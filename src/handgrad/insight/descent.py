"""Going down a surface over the plane: what an optimizer does, where it can be seen.

On f = h x² / 2 every rule but Adam is linear, and its numbers follow from the roots λ of an equation. With s = η h:

    sgd                           λ = 1 - s                                     stable for s < 2
    momentum                      λ² - (1 + β - s) λ + β = 0                    s < 2 (1 + β)
    momentum, nesterov            λ² - (1 + β) (1 - s) λ + β (1 - s) = 0        s < 2 (1 + β) / (1 + 2 β)
    previous_gradient_momentum    λ² - (1 - s) λ + α s = 0                      s < min(1 / α, 2 / (1 - α))

Stable is |λ| < 1. The bounds are where a root comes to -1; 1 / α is where the product of two complex ones, α s, is 1.
At 0.9 that is 2, 3.8, 1.36 and 1.11: heavy ball bears steps nearly twice as long as no momentum, the form that adds the
previous gradient only half as long; with α = 1/3 it bears 3.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from handgrad.insight.surface import Surface
from handgrad.layers.layer import Array
from handgrad.optimizers.optimizer import check_optimizer
from handgrad.optimizers.transforms import apply_updates


class Path(NamedTuple):
    """Where a descent went; under vmap each array has a leading axis more.

    Attributes:
        points: (steps + 1, 2), the start first.
        values: f there, (steps + 1,).
        gradients: df/dp there, (steps + 1, 2).
    """

    points: Array
    values: Array
    gradients: Array

    def steps_to(self, goal: ArrayLike | tuple[float, float] = (0.0, 0.0), distance: float = 1e-3) -> Array:
        """After how many steps the path is within a distance of the goal for good, (...); inf if it never is."""
        to_goal = self.points - jnp.broadcast_to(jnp.asarray(goal, self.points.dtype), self.points.shape)
        away = ~(jnp.linalg.norm(to_goal, axis=-1) <= distance)  # NaN is away
        count = away.shape[-1] - jnp.argmax(away[..., ::-1], axis=-1)  # of points up to the last that is away
        steps = jnp.where(away.any(-1), count, 0)
        return jnp.where(away[..., -1], jnp.inf, steps.astype(self.values.dtype))


def descend_2d(surface: Surface, optimizer: Any, start: ArrayLike | tuple[float, float], steps: int) -> Path:
    """Follow an optimizer down a surface: p ← p + u(df/dp), step after step.

    It is a `lax.scan`, so it may be called inside jit and vmap: over starts, or over learning rates,
    `jax.vmap(lambda lr: descend_2d(surface, hg.sgd(lr), start, 100))(rates)`.

    Args:
        surface: one of `hg.surfaces`, or a `Surface` of your own.
        optimizer: an (init, update) pair, ours or optax's.
        start: the first point (2,).
        steps: how many steps.

    Returns:
        The `Path`. A descent that diverges is no error: its numbers become inf, then NaN.

    Raises:
        TypeError: a surface that is no `Surface`, or an optimizer without init and update.
        ValueError: a start of another shape, or steps below 1.

    Example:
        >>> import handgrad as hg
        >>> path = hg.descend_2d(hg.surfaces["bowl"], hg.sgd(0.5), (1.0, 2.0), 3)
        >>> path.points.tolist()
        [[1.0, 2.0], [0.5, 1.0], [0.25, 0.5], [0.125, 0.25]]
        >>> rates = jnp.array([0.5, 1.5, 2.5])
        >>> paths = jax.vmap(lambda lr: hg.descend_2d(hg.surfaces["bowl"], hg.sgd(lr), (1.0, 0.0), 50))(rates)
        >>> paths.steps_to().tolist()
        [10.0, 10.0, inf]
    """
    if not isinstance(surface, Surface):
        raise TypeError(f"descend_2d: surface must be an hg.Surface, such as hg.surfaces['bowl'], got {surface!r}")
    check_optimizer("descend_2d", optimizer)
    start = jnp.asarray(start)
    if start.shape != (2,):
        raise ValueError(f"descend_2d: start must be a point (2,), got shape {start.shape}; use jax.vmap for several")
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"descend_2d: steps must be a positive int, got {steps!r}")
    start = start if jnp.issubdtype(start.dtype, jnp.floating) else start.astype(float)

    def seen(p: Array) -> Path:
        return Path(p, surface.value(p), surface.slope(p))

    def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], Path]:
        p, opt_state = carry
        here = seen(p)
        updates, opt_state = optimizer.update(here.gradients, opt_state, p)
        return (apply_updates(p, updates), opt_state), here

    (end, _), path = jax.lax.scan(step, (start, optimizer.init(start)), length=steps)
    return jax.tree.map(lambda along, last: jnp.concatenate([along, last[None]]), path, seen(end))

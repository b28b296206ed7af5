"""Descent on surfaces over a plane, where one can see where each rule goes and why.

    bowl       f = (u² + v²)/2                          ∇f = (u, v)
    ravine     f = (u² + 100 v²)/2                      ∇f = (u, 100 v)              curvatures 1 and 100
    saddle     f = u² - v² + v⁴/4                       ∇f = (2u, -2v + v³)          minima at v = ±√2
    minima     f = (u² + v - 11)² + (u + v² - 7)²       four minima of 0 (Himmelblau)
    plateau    f = -exp(-(u² + v²)/2)                   ∇f = (u, v) exp(-(u² + v²)/2)  flat far from the middle

Each gradient is written by hand beside its formula.
Source: Himmelblau, Applied nonlinear programming, 1972; Goh, Why momentum really works, Distill 2017.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.layers.layer import Array
from handgrad.optimizers import apply_updates
from handgrad.optimizers.optimizer import check_optimizer


@dataclass(frozen=True)
class Surface:
    """A function of a point (2,) and its gradient by hand, and the part of the plane to look at.

    Args:
        name: what it is called.
        value: point -> a scalar.
        gradient: point -> (2,).
        low: the corner (u, v) at the lower left of the picture.
        high: that at the upper right.

    Example:
        >>> import handgrad as hg
        >>> slope = jnp.array([2.0, -2.0])
        >>> saddle = Surface("saddle", lambda p: p[0] ** 2 - p[1] ** 2, lambda p: slope * p, (-1, -1), (1, 1))
        >>> descend_2d(saddle, hg.sgd(0.5), (1.0, 0.25), steps=2).points.tolist()  # down in u, away in v
        [[1.0, 0.25], [0.0, 0.5], [0.0, 1.0]]
    """

    name: str
    value: Callable[[Array], Array]
    gradient: Callable[[Array], Array]
    low: tuple[float, float]
    high: tuple[float, float]


def _himmelblau(point: Array) -> Array:
    u, v = point
    return (u**2 + v - 11) ** 2 + (u + v**2 - 7) ** 2


def _himmelblau_gradient(point: Array) -> Array:
    u, v = point
    a, b = u**2 + v - 11, u + v**2 - 7
    return jnp.stack([4 * u * a + 2 * b, 2 * a + 4 * v * b])


def _plateau(point: Array) -> Array:
    return -jnp.exp(-(point @ point) / 2)


def _plateau_gradient(point: Array) -> Array:
    return point * jnp.exp(-(point @ point) / 2)


def _ravine_gradient(point: Array) -> Array:
    return jnp.stack([point[0], 100 * point[1]])


def _saddle_gradient(point: Array) -> Array:
    u, v = point
    return jnp.stack([2 * u, -2 * v + v**3])


SURFACES = {
    surface.name: surface
    for surface in (
        Surface("bowl", lambda p: (p @ p) / 2, lambda p: p, (-2.0, -2.0), (2.0, 2.0)),
        Surface("ravine", lambda p: (p[0] ** 2 + 100 * p[1] ** 2) / 2, _ravine_gradient, (-2.2, -0.6), (2.2, 0.6)),
        Surface("saddle", lambda p: p[0] ** 2 - p[1] ** 2 + p[1] ** 4 / 4, _saddle_gradient, (-2.0, -2.2), (2.0, 2.2)),
        Surface("minima", _himmelblau, _himmelblau_gradient, (-5.5, -5.5), (5.5, 5.5)),
        Surface("plateau", _plateau, _plateau_gradient, (-5.0, -5.0), (5.0, 5.0)),
    )
}


class Path(NamedTuple):
    """Where a descent went: `points` (steps + 1, 2) from the start on, and the `values` (steps + 1,) there.

    Attributes:
        points: (steps + 1, 2), from the start on.
        values: the surface's height there (steps + 1,).

    Example:
        >>> import handgrad as hg
        >>> path = descend_2d("bowl", hg.sgd(0.1), (3.0, -1.0), steps=40)
        >>> path.points.shape, bool(path.values[-1] < 1e-2 * path.values[0])
        ((41, 2), True)
    """

    points: Array
    values: Array


def descend_2d(surface: Surface | str, optimizer: Any, start: Any, steps: int = 100) -> Path:
    """Follow an optimizer down a surface.

    Args:
        surface: one of `SURFACES` by name, or your own.
        optimizer: an (init, update) pair, ours or optax's: sgd, the three momenta, adam; its rate may be traced, and
            the whole may be vmapped over rates and starts.
        start: the point (2,).
        steps: how many.

    Returns:
        The Path. Where it leaves all bounds its numbers become inf and NaN.

    Raises:
        TypeError: an optimizer that is none, or a surface that is none.
        ValueError: an unknown name, a start of another shape, steps below 1.

    Example:
        >>> import handgrad as hg
        >>> path = descend_2d("bowl", hg.sgd(0.5), (1.0, -2.0), steps=2)
        >>> path.points.tolist(), path.values.tolist()
        ([[1.0, -2.0], [0.5, -1.0], [0.25, -0.5]], [2.5, 0.625, 0.15625])
    """
    if isinstance(surface, str):
        if surface not in SURFACES:
            raise ValueError(f"descend_2d: surface must be one of {', '.join(SURFACES)}, got {surface!r}")
        surface = SURFACES[surface]
    if not isinstance(surface, Surface):
        raise TypeError(f"descend_2d: surface must be a Surface or the name of one, got {surface!r}")
    check_optimizer("descend_2d", optimizer)
    point = jnp.asarray(start, float)
    if point.shape != (2,) or steps < 1:
        raise ValueError(f"descend_2d: wants a start of two numbers and a step or more, got {point.shape} and {steps}")
    place = surface

    def one(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], Array]:
        point, opt_state = carry
        updates, opt_state = optimizer.update(place.gradient(point), opt_state, point)
        point = apply_updates(point, updates)
        return (point, opt_state), point

    _, later = lax.scan(one, (point, optimizer.init(point)), None, length=steps)
    points = jnp.concatenate([point[None], later])
    return Path(points, jax.vmap(place.value)(points))

"""Surfaces over the plane to go down on: each a formula of a point p = (x, y), with its gradient written by hand below.

    bowl          f = (x² + y²) / 2                          one minimum, the same curvature all around
    ravine        f = (x² + κ y²) / 2                        curvatures 1 and κ: steep walls, a floor that hardly falls
    saddle        f = x² - y²                                falls along y for ever; on y = 0 the gradient never says so
    two_minima    f = (x² - 1)² / 4 + x / 10 + y² / 2        a deep minimum at the left, a shallow one at the right
    himmelblau    f = (x² + y - 11)² + (x + y² - 7)²         four minima, all 0
    plateau       f = ((σ(y + x) - 1)² + σ(y - x)²) / 2      a sigmoid unit, weight x and bias y, with squared error

The minimum of the plateau lies at infinity: f falls to 0 as x grows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from handgrad.layers.layer import Array

Point = tuple[float, float]


@dataclass(frozen=True)
class Surface:
    """A function of two numbers, and how its gradient is found.

    Args:
        name: for titles.
        value: p (2,) -> f(p), a scalar, in jax.numpy.
        gradient: p (2,) -> df/dp (2,); None takes jax.grad of value.
        box: (least x, largest x), (least y, largest y), the part that is drawn.
        minima: the points where f is least or locally least, as far as there are any.

    Example:
        >>> ripple = Surface("ripple", lambda p: jnp.sum(jnp.cos(p)), lambda p: -jnp.sin(p))
        >>> ripple.slope(jnp.array([0.0, jnp.pi / 2])).tolist()
        [-0.0, -1.0]
    """

    name: str
    value: Callable[[Array], Array]
    gradient: Callable[[Array], Array] | None = None
    box: tuple[Point, Point] = ((-2.0, 2.0), (-2.0, 2.0))
    minima: tuple[Point, ...] = ()

    def slope(self, p: Array) -> Array:
        """df/dp (2,), by hand where a gradient is given."""
        return jax.grad(self.value)(p) if self.gradient is None else self.gradient(p)


def quadratic(curvature_x: float, curvature_y: float, name: str = "quadratic") -> Surface:
    """A surface f = (a x² + b y²) / 2, with gradient (a x, b y): what every surface is near a minimum.

    Descent with the rate η multiplies x by 1 - η a and y by 1 - η b at each step, so it needs η < 2 / max(a, b), and
    the best η = 2 / (a + b) leaves (κ - 1) / (κ + 1) of the distance, κ = b / a the ratio of the curvatures.

    Args:
        curvature_x: a.
        curvature_y: b.
        name: for titles.

    Source: Nocedal and Wright, Numerical Optimization, 2006, section 3.3.

    Example:
        >>> quadratic(1.0, 100.0).slope(jnp.array([2.0, 0.5])).tolist()
        [2.0, 50.0]
    """

    def value(p: Array) -> Array:
        x, y = p
        return (curvature_x * x**2 + curvature_y * y**2) / 2

    def gradient(p: Array) -> Array:
        x, y = p
        return jnp.stack([curvature_x * x, curvature_y * y])

    return Surface(name, value, gradient, minima=((0.0, 0.0),))


def _saddle(p: Array) -> Array:
    x, y = p
    return x**2 - y**2


def _saddle_gradient(p: Array) -> Array:
    x, y = p
    return jnp.stack([2 * x, -2 * y])


def _two_minima(p: Array) -> Array:
    x, y = p
    return (x**2 - 1) ** 2 / 4 + x / 10 + y**2 / 2


def _two_minima_gradient(p: Array) -> Array:
    """d/dx (x² - 1)² / 4 = (x² - 1) x."""
    x, y = p
    return jnp.stack([(x**2 - 1) * x + 1 / 10, y])


def _himmelblau(p: Array) -> Array:
    x, y = p
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def _himmelblau_gradient(p: Array) -> Array:
    """Each square a² gives 2 a da: with a = x² + y - 11 and b = x + y² - 7, da = (2x, 1) and db = (1, 2y)."""
    x, y = p
    a, b = x**2 + y - 11, x + y**2 - 7
    return jnp.stack([4 * x * a + 2 * b, 2 * a + 4 * y * b])


def _plateau(p: Array) -> Array:
    """The unit σ(w u + b), w = x and b = y, that is to say 1 at u = 1 and 0 at u = -1."""
    x, y = p
    return ((jax.nn.sigmoid(y + x) - 1) ** 2 + jax.nn.sigmoid(y - x) ** 2) / 2


def _plateau_gradient(p: Array) -> Array:
    """σ' = σ (1 - σ): nearly 0 wherever the unit is sure, also where it is wrong. That is the plateau."""
    x, y = p
    high, low = jax.nn.sigmoid(y + x), jax.nn.sigmoid(y - x)
    dhigh, dlow = (high - 1) * high * (1 - high), low * low * (1 - low)
    return jnp.stack([dhigh - dlow, dhigh + dlow])


surfaces: dict[str, Surface] = {
    "bowl": quadratic(1.0, 1.0, "bowl"),
    "ravine": quadratic(1.0, 100.0, "ravine"),
    "saddle": Surface("saddle", _saddle, _saddle_gradient),
    "two_minima": Surface(
        "two minima", _two_minima, _two_minima_gradient, minima=((-1.0466805, 0.0), (0.9456492, 0.0))
    ),
    "himmelblau": Surface(
        "Himmelblau's four minima",
        _himmelblau,
        _himmelblau_gradient,
        ((-5.0, 5.0), (-5.0, 5.0)),
        ((3.0, 2.0), (-2.805118, 3.131313), (-3.779310, -3.283186), (3.584428, -1.848127)),
    ),
    "plateau": Surface("plateau", _plateau, _plateau_gradient, ((-10.0, 10.0), (-6.0, 6.0))),
}
"""The surfaces by name; the ravine has κ = 100."""

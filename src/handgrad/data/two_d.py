"""Problems in the plane, small enough to see the whole of what a net does: two classes of points."""

from collections.abc import Callable

import numpy as np


def two_d_problem(name: str, n: int = 160, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points of two classes in the square from -1 to 1, half of them of each.

    circle   class 1 fills a disc, class 0 a ring around it: the boundary has to close
    spirals  two arms that wind around each other, one turn and a quarter each
    xor      one class in the quadrants whose signs agree, the other in those whose signs differ

    Args:
        name: "circle", "spirals" or "xor".
        n: how many points, even, at least 4.
        seed: of the random places.

    Returns:
        x (n, 2) float32, and the classes y (n,) int32, 0 or 1.

    Raises:
        ValueError: an unknown name, an n that is odd or below 4, or a seed below 0.

    Source: for the spirals, K. J. Lang and M. J. Witbrock, Learning to tell two spirals apart, 1988.

    Example:
        >>> x, y = two_d_problem("xor", 8)
        >>> x.shape, y.tolist(), bool(((x[:, 0] * x[:, 1] > 0) == (y == 0)).all())
        ((8, 2), [0, 0, 0, 0, 1, 1, 1, 1], True)
    """
    if name not in PROBLEMS:
        raise ValueError(f"two_d_problem: name must be one of {', '.join(PROBLEMS)}, got {name!r}")
    if isinstance(n, bool) or not isinstance(n, int) or n < 4 or n % 2:
        raise ValueError(f"two_d_problem: n must be an even number from 4 on, got {n!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"two_d_problem: seed must be a whole number from 0 on, got {seed!r}")
    y = np.repeat(np.arange(2, dtype=np.int32), n // 2)
    return PROBLEMS[name](y, np.random.default_rng(seed)).astype(np.float32), y


def _circle(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Even over the disc's and the ring's area."""
    inner, outer = np.where(y == 1, 0.0, 0.65), np.where(y == 1, 0.45, 1.0)
    radius = np.sqrt(rng.uniform(inner**2, outer**2))
    return _polar(radius, rng.uniform(0, 2 * np.pi, len(y)))


def _spirals(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Radius and angle grow together; the second arm is the first, turned half around."""
    along = np.tile(np.linspace(0.08, 1, len(y) // 2), 2)
    return 0.96 * _polar(along, 2.5 * np.pi * along + np.pi * y) + rng.normal(0, 0.015, (len(y), 2))


def _xor(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Away from the axes by at least 0.08."""
    right, size = rng.choice([-1, 1], len(y)), rng.uniform(0.08, 1, (len(y), 2))
    return size * np.stack([right, right * (1 - 2 * y)], 1)


def _polar(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


PROBLEMS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "circle": _circle,
    "spirals": _spirals,
    "xor": _xor,
}

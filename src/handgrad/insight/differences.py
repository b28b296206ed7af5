"""Finite differences of a function along a line, and where they can be believed.

Along a direction v, with φ(t) = f(θ + t v) and a step h:

    central      c(h) = (φ(h) - φ(-h)) / 2h        = φ' + h² φ'''/6 + …
    one-sided    s±(h) = ±(φ(±h) - φ(0)) / h        φ' from the right and from the left
    their gap    D(h) = s+(h) - s-(h)               = h φ'' + O(h³) where φ is smooth, so D(h) = 2 D(h/2)

Kinks: where the slope jumps by J at t = δ, |δ| < h, the one-sided slopes part by J (1 - |δ|/h), and D(h) = 2 D(h/2)
and c(h) = c(h/2) do not both hold; with δ = 0 they never meet. So a difference is believed where both hold, else it is
tried again with a smaller step, and set aside when the smallest fails too. This looks at f alone, at no gradient.

Rounding: with noise η in φ, c(h) is known to η/h only. η is measured: by how much f changes with the last bit of θ.

Taylor remainder: r(h) = |φ(h) - φ(0) - h <g, v>| falls as h² if g is the gradient, as h if not. A line through log r
over log h has that slope. Where r is rounding alone, f is linear along v as far as can be seen, and g is right by size.
Steps stop at the first kink, where the curvature (φ(h) - 2 φ(0) + φ(-h)) / h² leaves what smaller steps gave.
Source: Nocedal and Wright, Numerical Optimization, 2006, section 8.1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

STEPS = (1e-4, 1e-5, 1e-6)  # of the leaf's scale; each is tried where the one before straddles a kink
TAYLOR_STEPS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # upward, until the first kink
TOLERANCE = 1e-6  # a kink that changes a slope by less than this share is not looked for
LAST_BIT = 2.0**-52

Line = Callable[[float], float]  # φ


class Difference(NamedTuple):
    """The slope of f along a direction, and how far rounding leaves it unknown; NaN at a kink."""

    slope: float
    uncertainty: float

    @property
    def kink(self) -> bool:
        """Whether it was set aside."""
        return math.isnan(self.slope)


def difference(line: Line, at_zero: float, scale: float, noise: float) -> Difference:
    """The central difference of φ at 0, with the largest of the steps that straddles no kink.

    Args:
        line: φ.
        at_zero: φ(0).
        scale: the size of θ's entries, in which steps are measured.
        noise: η, the rounding in φ.

    Returns:
        The slope, with NaN for a kink.
    """
    for step in STEPS:
        h = step * scale
        central, gap = _central_and_gap(line, at_zero, h)
        half_central, half_gap = _central_and_gap(line, at_zero, h / 2)
        uncertainty = 20 * noise / h + TOLERANCE * abs(half_central)
        if max(abs(central - half_central), abs(gap - 2 * half_gap)) <= uncertainty:  # False for NaN
            return Difference((4 * half_central - central) / 3, uncertainty)
    return Difference(math.nan, math.nan)


def _central_and_gap(line: Line, at_zero: float, h: float) -> tuple[float, float]:
    """c(h) and D(h)."""
    above, below = line(h), line(-h)
    return (above - below) / (2 * h), (above - 2 * at_zero + below) / h


def taylor_slope(line: Line, at_zero: float, slope: float, scale: float, noise: float) -> float:
    """The slope of the Taylor remainder over h, in logarithms.

    Args:
        line: φ.
        at_zero: φ(0).
        slope: <g, v>, which is to be checked.
        scale: the size of θ's entries.
        noise: η.

    Returns:
        2 where <g, v> is right and 1 where it is not; inf where the remainder is rounding alone.
    """
    points, curvature, unknown = [], 0.0, math.inf
    for step in TAYLOR_STEPS:
        h = step * scale
        right, left = line(h) - at_zero, line(-h) - at_zero
        before, unknown_before = curvature, unknown
        curvature, unknown = (right + left) / h**2, 4 * noise / h**2
        if abs(curvature - before) > 0.5 * abs(before) + unknown_before + unknown:
            break
        remainder = math.hypot(right - h * slope, left + h * slope)
        if remainder > 20 * noise:
            points.append((math.log(h), math.log(remainder)))
    if len(points) < 3:
        return math.inf
    log_h, log_remainder = np.array(points).T
    return float(np.polyfit(log_h, log_remainder, 1)[0])


def rounding(f: Callable[[np.ndarray], float], theta: np.ndarray, random: np.random.Generator) -> float:
    """η: the largest change of f over some changes of θ in its last bit."""
    at_theta = f(theta)
    changes = [abs(f(theta * (1 + LAST_BIT * random.choice((-1.0, 1.0), theta.size))) - at_theta) for _ in range(6)]
    return max(*changes, LAST_BIT * abs(at_theta))

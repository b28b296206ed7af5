"""Finite differences along a line: kinks, rounding and the slope of the Taylor remainder."""

import math

import pytest

from handgrad.insight.differences import difference, taylor_slope


@pytest.mark.parametrize("place", [0.0, 1e-7, 1e-4 / 3, 5e-5, 9e-5, -4e-5, 2e-4])
def test_no_difference_is_believed_across_a_kink(place):
    """A jump of the slope from 1 to 3 somewhere near: either the slope at 0 comes out, or the kink is seen."""

    def line(t):
        return 0.3 * t * t + t + 2 * max(t - place, 0.0)

    found = difference(line, line(0.0), 1.0, 1e-16)
    assert found.kink == (abs(place) < 1e-6)  # nearer than the smallest step
    if not found.kink:
        assert found.slope == pytest.approx(1.0 if place > 0 else 3.0, abs=1e-6)


def test_smooth_lines():
    found = difference(math.exp, 1.0, 1.0, 1e-16)
    assert found.slope == pytest.approx(1, abs=1e-9) and abs(found.slope - 1) <= found.uncertainty
    assert taylor_slope(math.exp, 1.0, 1.0, 1.0, 1e-16) == pytest.approx(2, abs=0.02)
    assert taylor_slope(math.exp, 1.0, 1.1, 1.0, 1e-16) == pytest.approx(1, abs=0.02)
    kinked = [taylor_slope(lambda t: math.exp(t) + max(t - 1e-3, 0.0), 1.0, slope, 1.0, 1e-16) for slope in (1.0, 1.1)]
    assert kinked == pytest.approx([2, 1], abs=0.02)  # the steps beyond the kink do not count
    assert taylor_slope(lambda t: 3 * t, 0.0, 3.0, 1.0, 1e-16) == math.inf

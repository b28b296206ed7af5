"""Problems in the plane: who is where."""

from typing import Any

import numpy as np
import pytest

from handgrad.data import two_d_problem


@pytest.mark.parametrize("name", ["circle", "spirals", "xor"])
def test_two_classes_of_one_size_within_the_square_and_fixed_by_the_seed(name):
    x, y = two_d_problem(name, 100, 1)
    assert x.shape == (100, 2) and x.dtype == np.float32 and y.dtype == np.int32
    assert y.tolist() == [0] * 50 + [1] * 50 and np.abs(x).max() <= 1.05
    assert np.array_equal(x, two_d_problem(name, 100, 1)[0]) and not np.array_equal(x, two_d_problem(name, 100, 2)[0])


def test_who_is_where():
    x, y = two_d_problem("circle", 400)
    radius = np.hypot(*x.T)
    assert radius[y == 1].max() <= 0.451 and 0.649 <= radius[y == 0].min() <= radius[y == 0].max() <= 1.001
    x, y = two_d_problem("xor", 400)
    assert np.array_equal(y == 0, x[:, 0] * x[:, 1] > 0) and np.abs(x).min() >= 0.0799
    x, y = two_d_problem("spirals", 400)
    assert np.abs(x[y == 0] + x[y == 1]).max() < 0.15  # one arm is the other, turned half around


def test_errors():
    with pytest.raises(ValueError, match="name must be one of circle, spirals, xor, got 'moons'"):
        two_d_problem("moons")
    wrong: list[Any] = [3, 5, 2, True, 8.0]
    for n in wrong:
        with pytest.raises(ValueError, match="n must be an even number from 4 on"):
            two_d_problem("xor", n)
    with pytest.raises(ValueError, match="seed must be a whole number from 0 on, got -1"):
        two_d_problem("xor", seed=-1)

import math

import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg


def test_the_line_has_name_shape_and_the_largest_difference_relative_to_the_largest_entry():
    line = hg.compare("dk", np.array([[1.0, 4.0, 0.001]]), np.array([[1.0, 4.0, 0.0]]))
    assert str(line) == "dk            1x3       differs  largest relative difference 2.5e-04"
    assert not line.exact and line.error == pytest.approx(0.001 / 4)


def test_the_last_bit_is_seen():
    one = np.float64(1)
    assert hg.compare("a", one, one).exact
    assert not hg.compare("a", one, np.nextafter(one, 2)).exact
    assert hg.compare("a", jnp.float32(0.1), 0.1).error == pytest.approx(1.5e-8, rel=0.1)  # the widths differ


def test_nothing_that_is_not_finite_hides():
    assert hg.compare("a", [np.nan, 1.0], [np.nan, 1.0]).exact
    for ours, reference in (([np.nan], [1.0]), ([1.0], [np.nan]), ([np.inf], [1.0]), ([np.inf], [-np.inf])):
        line = hg.compare("a", np.array(ours), np.array(reference))
        assert not line.exact and line.error == math.inf
    part = hg.compare("a", np.array([np.inf, 1.5]), np.array([np.inf, 2.0]))
    assert part.error == 0.25
    assert hg.compare("a", np.array([1e-9]), np.array([0.0])).error == math.inf


def test_a_tree_has_a_line_for_each_leaf_and_says_the_worst():
    ours = {"dense1": {"kernel": np.ones((2, 3)), "bias": np.zeros(3)}, "relu1": {}}
    line = hg.compare("grads", ours, {"dense1": {"kernel": 2 * np.ones((2, 3)), "bias": np.zeros(3)}, "relu1": {}})
    assert [row.name for row in line.rows] == ["grads/dense1/bias", "grads/dense1/kernel"]
    assert [row.exact for row in line.rows] == [True, False]
    assert line.error == 0.5


def test_what_would_broadcast_or_hide_a_leaf_is_refused():
    with pytest.raises(ValueError, match=r"compare: 'db' has shape \(3, 1\), its reference \(3,\)"):
        hg.compare("db", np.ones((3, 1)), np.ones(3))
    with pytest.raises(TypeError, match="compare: 'g' is built like"):
        hg.compare("g", {"a": 1.0}, {"a": 1.0, "b": 2.0})

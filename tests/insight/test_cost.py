"""Counts by hand, and times that are there; how long anything takes is no test."""

import math

import pytest

import handgrad as hg


def test_three_equal_dense_layers_take_five_thirds_backward():
    found = hg.cost(hg.Chain(hg.Dense(8), hg.Tanh(), hg.Dense(8), hg.Dense(8)), (8,), batch=2, seconds=0)
    assert found.counted_ratio == pytest.approx(5 / 3)
    assert [row.multiply_adds for row in found.rows] == [128, 0, 128, 128]
    assert [row.backward_multiply_adds for row in found.rows] == [128, 0, 256, 256]
    assert all(row.forward > 0 and row.backward > 0 for row in found.rows) and found.forward > 0
    assert "counted in multiply-adds, backward is 1.67 times forward" in str(found)
    assert len(str(found).splitlines()) == 1 + 1 + 4 + 1 + 1


def test_every_kind_of_layer_is_timed():
    mine = hg.Lambda(lambda x: 2 * x)
    body = hg.Chain(hg.Conv(2, 3), hg.BatchNorm(), hg.Relu(), hg.Dropout(0.5))
    net = hg.Chain(hg.Residual(body), mine, hg.Flatten(), hg.Dense(3))
    found = hg.cost(net, (4, 3, 2), batch=1, seconds=0)
    assert [row.name for row in found.rows][:2] == ["residual1/body/conv1", "residual1/body/batchnorm1"]
    assert {row.name: row.backward_by for row in found.rows}["lambda1"] == "jax.vjp"


def test_without_products_there_is_no_count_and_one_layer_will_do():
    found = hg.cost(hg.Relu(), (3,), batch=1, seconds=0)
    assert math.isnan(found.counted_ratio) and [row.name for row in found.rows] == ["relu"]
    assert hg.viz.cost(found).get_title().endswith("times forward")


def test_errors():
    with pytest.raises(ValueError, match="cost: batch must be at least 1, got 0"):
        hg.cost(hg.Relu(), (3,), 0)
    with pytest.raises(TypeError, match="cost: wants a layer, got str"):
        hg.cost("relu", (3,))  # pyright: ignore[reportArgumentType]

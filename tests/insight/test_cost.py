"""Counts by hand, and times that are there; how long anything takes is no test."""

import math
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest

import handgrad as hg
from handgrad.insight.cost import wants_dx
from handgrad.insight.flow import case_of


def test_three_equal_dense_layers_take_five_thirds_backward():
    found = hg.cost(hg.Chain(hg.Flatten(), hg.Dense(8), hg.Dense(8), hg.Dense(8)), (8,), batch=2, seconds=0)
    assert found.counted_ratio == pytest.approx(5 / 3)
    assert [row.multiply_adds for row in found.rows] == [0, 128, 128, 128]
    assert [row.backward_multiply_adds for row in found.rows] == [0, 128, 256, 256]
    assert [row.counted_ratio for row in found.rows[1:]] == [1, 2, 2] and math.isnan(found.rows[0].counted_ratio)
    assert (found.multiply_adds, found.backward_multiply_adds, found.batch) == (384, 640, 2)
    assert found.rows[0].backward == 0 and found.rows[0].forward > 0  # nobody wants the gradient in the images
    assert all(row.forward > 0 and row.backward > 0 for row in found.rows[1:])
    assert min(found.forward, found.backward, found.gradient, found.call) > 0
    assert found.ratio == found.backward / found.forward
    lines = str(found).splitlines()
    assert lines[1].split()[:5] == ["layer", "kind", "rule", "multiply-adds", "in"]
    assert lines[2].split()[:6] == ["flatten1", "Flatten", "by", "hand", "-", "-"]
    assert lines[2].split()[-2:] == ["-", "-"]
    assert lines[4].split()[4:7] == ["128", "256", "2.00"]
    assert lines[6].split()[:6] == ["sum", "of", "layers", "384", "640", "1.67"]
    assert "in one program" in lines[8] and "does nothing" in lines[9] and max(map(len, lines)) <= 110


def test_every_kind_of_layer_is_timed():
    """Branches, batch norm, dropout, a user's layer, a batch of one, and a dtype that is not float32."""
    body = hg.Chain(hg.ConvTranspose(2, 3), hg.BatchNorm())
    net = hg.Chain(hg.Residual(body), hg.Lambda(lambda x: 2 * x), hg.Dropout(0.5))
    found = hg.cost(net, (4, 3, 2), 1, jnp.float64, seconds=0, seed=1)
    rows = {row.name: row for row in found.rows}
    assert list(rows) == ["residual1/body/convtranspose1", "residual1/body/batchnorm1", "lambda1", "dropout1"]
    assert rows["lambda1"].backward_by == "jax.vjp" and rows["lambda1"].backward > 0
    transposed = rows["residual1/body/convtranspose1"]
    assert transposed.multiply_adds == transposed.backward_multiply_adds == 4 * 3 * 2 * 9 * 2


@dataclass(frozen=True, repr=False)
class Slow(hg.Layer):
    """The identity, which takes 10 ms forward and 30 backward."""

    def apply(self, params, x, state=()):
        return x

    def forward(self, params, x, state=(), key=None):
        return waited(x, 0.01), state, ()

    def backward(self, params, residuals, dy):
        return waited(dy, 0.03), {}


def waited(x, seconds):
    def wait(x):
        time.sleep(seconds)
        return x

    return jax.pure_callback(wait, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def test_a_layer_that_waits_takes_as_long_as_it_waits():
    found = hg.cost(hg.Chain(hg.Dense(2), Slow()), (3,), batch=2, seconds=0)
    slow = found.rows[1]
    assert 10 <= slow.forward < 30 <= slow.backward and 2 < slow.ratio < 4
    assert found.forward >= 10 and found.backward >= 30 and found.gradient >= 40
    assert found.rows[0].forward + found.rows[0].backward < 10


def test_without_parameters_the_gradient_in_x_is_what_is_wanted():
    found = hg.cost(hg.Relu(), (3,), batch=1, seconds=0)
    (row,) = found.rows
    assert row.name == "relu" and row.backward > 0 and row.ratio > 0
    assert math.isnan(found.counted_ratio) and hg.viz.cost(found).get_title().endswith("times forward")


def test_who_wants_dx():
    """A layer whose input depends on parameters, through any container and through jit."""
    inner = hg.Parallel(hg.Chain(hg.Tanh(), hg.Conv(2, 1)), hg.Chain(hg.Relu(), hg.Sigmoid()))
    net = hg.Chain(hg.Elu(), hg.Residual(inner, hg.Conv(4, 1)), hg.Relu(), hg.Flatten(), hg.Dense(2))
    wanted = wants_dx(net, case_of("test", net, (4, 3, 2), 1, jnp.float32))
    assert {path for path, is_wanted in wanted.items() if is_wanted} == {"relu1", "flatten1", "dense1"}
    assert {path for path, is_wanted in wanted.items() if not is_wanted} == {
        "elu1", "residual1/body/chain1/tanh1", "residual1/body/chain1/conv1",
        "residual1/body/chain2/relu1", "residual1/body/chain2/sigmoid1", "residual1/shortcut",
    }  # fmt: skip


def test_the_counted_ratio_of_alexnet():
    """Twice, less the first convolution's share of forward: 105,415,200 of its multiply-adds."""
    net, shape = hg.models.alexnet(), (227, 227, 3)
    wanted = wants_dx(net, case_of("test", net, shape, 1, jnp.float32))
    rows = [(row.multiply_adds, 2 if wanted[row.name] else 1) for row in hg.summary(net, shape).rows]
    forward, backward = sum(count for count, _ in rows), sum(count * passes for count, passes in rows)
    assert round(backward / forward, 2) == 1.85 and 2 * forward - backward == 105_415_200


def test_errors():
    with pytest.raises(ValueError, match="cost: batch must be at least 1, got 0"):
        hg.cost(hg.Relu(), (3,), 0)
    with pytest.raises(TypeError, match="cost: wants a layer, got str"):
        hg.cost("relu", (3,))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="cost: seconds must be at least 0, got nan"):
        hg.cost(hg.Relu(), (3,), seconds=float("nan"))
    with pytest.raises(ValueError, match="Conv: in_shape must be"):
        hg.cost(hg.Chain(hg.Conv(2, 3)), (3,))

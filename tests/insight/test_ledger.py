"""Bytes counted by hand for small nets, and for whole nets from the arrays that really come out."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest

import handgrad as hg


@dataclass(frozen=True, repr=False)
class Square(hg.Layer):
    """No backward of its own."""

    def apply(self, params, x, state=()):
        return x * x


def by_name(found):
    return {row.name: row for row in found.rows}


def test_each_layers_bytes_by_hand():
    """Batch of 2: Conv its input in float32, ReLU and dropout a mask of bytes, max pool a number of a byte."""
    net = hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.MaxPool(2), hg.Dropout(0.5), hg.Flatten(), hg.Dense(3), Square())
    found = hg.ledger(net, (8, 6, 2), 2, temporary=False)
    rows = by_name(found)
    assert [rows[n].hand for n in ("conv1", "relu1", "maxpool1", "dropout1", "flatten1", "dense1")] == [
        2 * 8 * 6 * 2 * 4, 2 * 8 * 6 * 4, 2 * 4 * 3 * 4, 2 * 4 * 3 * 4, 0, 2 * 48 * 4,
    ]  # fmt: skip
    assert rows["conv1"].automatic == rows["conv1"].hand and rows["dense1"].automatic == rows["dense1"].hand
    assert rows["maxpool1"].automatic >= 2 * 8 * 6 * 4 * 4  # its whole input at least
    assert rows["square1"].hand == rows["square1"].automatic and rows["square1"].backward == "jax.vjp"
    inside = sum(row.hand for row in found.rows) - rows["conv1"].hand
    assert found.hand == inside and found.temporary is None  # the input is there anyway; no array is kept twice
    assert found.automatic > found.hand and "relu1" in str(found)


def test_an_array_that_two_layers_keep_counts_once_for_the_net():
    net = hg.Chain(hg.Identity(), Square(), Square(name="again"), hg.Tanh(), hg.Dense(3))
    found = hg.ledger(net, (5,), 4, temporary=False)
    rows = by_name(found)
    assert rows["tanh1"].hand == rows["dense1"].hand == 4 * 5 * 4
    assert found.hand == sum(row.hand for row in found.rows) - rows["dense1"].hand - rows["square1"].hand


def test_branches_batch_norm_and_a_key():
    body = hg.Chain(hg.Conv(2, 3), hg.BatchNorm(), hg.Relu())
    net = hg.Chain(hg.Residual(body), hg.Parallel(hg.Identity(), hg.Sigmoid(), join="multiply"), hg.Dropout(0.1))
    found = hg.ledger(net, (4, 4, 2), temporary=False)
    assert "residual1/body/batchnorm1" in by_name(found) and found.hand > 0


def test_temporary_memory_is_what_xla_plans():
    net = hg.Chain(hg.Dense(64), hg.Relu(), hg.Dense(64), hg.Relu(), hg.Dense(3))
    found = hg.ledger(net, (32,), 16)
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), (32,), jnp.float32)[0])

    def automatic(params, x):
        return jax.grad(lambda p: jnp.sum(jnp.square(net.apply_train(p, x)[0])) / 2)(params)

    x = jax.ShapeDtypeStruct((16, 32), jnp.float32)
    plan = hg.jit(automatic).lower(params, x).compile().memory_analysis().temp_size_in_bytes
    assert found.temporary is not None and abs(found.temporary[1] - plan) <= 64  # a key more
    assert "temporary memory" in str(found)


def test_one_layer_and_errors():
    assert [row.name for row in hg.ledger(hg.Relu(), (3,), temporary=False).rows] == ["relu"]
    with pytest.raises(ValueError, match="ledger: batch must be at least 1, got 0"):
        hg.ledger(hg.Relu(), (3,), 0)
    with pytest.raises(TypeError, match="ledger: wants a layer, got the class Relu"):
        hg.ledger(hg.Relu, (3,))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="in_shape must be"):
        hg.ledger(hg.Chain(hg.Conv(3, 3)), (5,), temporary=False)

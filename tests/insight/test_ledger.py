"""Bytes counted by hand for small nets, and for whole nets from the arrays that really come out."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest

import handgrad as hg
from handgrad.layers.container import Chain


@dataclass(frozen=True, repr=False)
class Square(hg.Layer):
    """No backward of its own."""

    def apply(self, params, x, state=()):
        return x * x


class Whole(Chain):
    """A chain that is differentiated whole."""

    def forward(self, params, x, state=(), key=None):
        return hg.Layer.forward(self, params, x, state, key)

    backward = hg.Layer.backward


class Hoarder(Chain):
    """A container that keeps more than its layers do: its parameters, its input, its input twice, and zeros."""

    def forward(self, params, x, state=(), key=None):
        y, state, residuals = super().forward(params, x, state, key)
        return y, state, residuals | {"more": (params, x, 2 * x, jnp.zeros_like(x))}


def every_container():
    body = hg.Chain(hg.Conv(2, 1), hg.BatchNorm(), hg.Tanh(), hg.Conv(2, 1), hg.Dropout(0.5))
    return hg.Chain(
        hg.Residual(body, hg.Chain(hg.Conv(2, 1), Square())),
        hg.Parallel(hg.Sigmoid(), hg.Conv(2, 1), join="multiply"),
        hg.Parallel(hg.MaxPool(3, 1, padding="SAME"), hg.Residual(hg.Relu())),
        Whole(hg.Conv(2, 1), hg.Tanh()),
    )  # fmt: skip


def by_name(found):
    return {row.name: row for row in found.rows}


def ledger(net, in_shape, batch=1, **settings):
    return hg.ledger(net, in_shape, batch, temporary=False, **settings)


def nbytes(trees, without=()):
    """Of the different arrays in trees, but for those in `without`."""
    others = {id(leaf) for leaf in jax.tree.leaves(without)}
    return sum({id(leaf): leaf.nbytes for leaf in jax.tree.leaves(trees) if id(leaf) not in others}.values())


def test_each_layers_bytes_by_hand():
    """Batch of 2: Conv its input in float32, ReLU and dropout a mask of bytes, max pool a number of a byte."""
    net = hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.MaxPool(2), hg.Dropout(0.5), hg.Flatten(), hg.Dense(3), Square())
    found = ledger(net, (8, 6, 2), 2)
    rows = by_name(found)
    image, maps, pooled, logits = 2 * 8 * 6 * 2 * 4, 2 * 8 * 6 * 4, 2 * 4 * 3 * 4, 2 * 3 * 4
    hand = {"conv1": image, "relu1": maps, "maxpool1": pooled, "dropout1": pooled, "flatten1": 0, "dense1": 4 * pooled}
    assert {name: rows[name].hand for name in hand} == hand
    assert {name: rows[name].automatic for name in hand} == hand | {"maxpool1": 4 * maps}
    assert {name: row.constants for name, row in rows.items() if row.constants} == {
        "relu1": 4 * maps, "dropout1": 4 * pooled,
    }  # fmt: skip
    assert rows["square1"].backward == "jax.vjp" and rows["conv1"].backward == "by hand"
    assert rows["square1"].hand == rows["square1"].automatic + 8 == logits + 8  # the layer's own key
    assert rows["maxpool1"].saved == 4 * maps - pooled == max(row.saved for row in found.rows)
    assert found.hand == sum(row.hand for row in found.rows)  # no array is kept twice
    assert found.saved == found.automatic - found.hand and found.temporary is None


@pytest.mark.parametrize(
    ("net", "kernels"),
    [
        (hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.MaxPool(2), hg.Flatten(), hg.Dense(3)), 9 * 2 * 4 + 24 * 3),
        (hg.Chain(hg.Residual(hg.Chain(hg.Conv(2, 3), hg.Sigmoid())), hg.Gelu()), 9 * 2 * 2),
    ],
)
def test_automatic_is_what_eval_shape_says_of_vjp(net, kernels):
    """All arrays of jax.vjp's function but the kernels, which it holds once each."""
    params, state = jax.eval_shape(lambda: net.init(jax.random.key(0), (6, 4, 2), jnp.float32))
    x = jax.ShapeDtypeStruct((5, 6, 4, 2), jnp.float32)
    back = jax.eval_shape(lambda p, x: jax.vjp(lambda p, x: net.apply_train(p, x, state)[0], p, x)[1], params, x)
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(back) if leaf.ndim)
    found = ledger(net, (6, 4, 2), 5)
    assert found.automatic + found.constants == held - 4 * kernels


def test_whole_nets_from_the_arrays_that_come_out():
    """Run op by op, arrays that are one have one identity: those of forward, and those that jax.vjp holds."""
    net = every_container()
    params, state = net.init(jax.random.key(0), (4, 3, 2), jnp.float32)
    x, key = jnp.ones((5, 4, 3, 2), jnp.float32), jax.random.key(1)
    found, given = ledger(net, (4, 3, 2), 5), (params, state, key)
    assert found.hand == nbytes(net.forward(params, x, state, key)[2], given)
    rows, product = by_name(found), 5 * 4 * 3 * 2 * 4
    assert rows["parallel1/sigmoid1"].hand == product  # its output, which the product of branches keeps as well
    assert rows["(containers)"].hand == product  # hence the other branch's output alone
    assert rows["chain1"].backward == "jax.vjp" and rows["chain1"].kind == "Whole"
    assert rows["residual1/body/dropout1"].hand == product // 4
    assert sum(row.automatic - row.twice_automatic for row in found.rows) == found.automatic


def test_an_array_that_two_layers_keep_counts_once_for_the_net():
    found = ledger(hg.Chain(hg.Dense(4), hg.Tanh(), hg.Dense(3)), (5,), 2)
    rows = by_name(found)
    assert rows["tanh1"].hand == rows["dense2"].hand == rows["dense2"].twice == 2 * 4 * 4
    assert (rows["tanh1"].twice, rows["dense1"].twice) == (0, 0)
    assert found.hand == 2 * 5 * 4 + 2 * 4 * 4
    assert "(kept twice)" in str(found) and "-32" in str(found)


def test_what_a_container_keeps_has_a_row_without_what_is_there_anyway():
    """The parameters are there; a dense layer keeps the input already; zeros are no news."""
    found = ledger(Hoarder(hg.Dense(3)), (5,), 2)
    assert [(row.name, row.hand, row.automatic) for row in found.rows] == [("dense1", 40, 40), ("(containers)", 40, 0)]
    assert (found.hand, found.automatic, found.saved) == (80, 40, -40) and "40 more" in str(found)


def test_temporary_memory_is_what_xla_plans():
    net = hg.Chain(hg.Dense(64), hg.Relu(), hg.Dense(64), hg.Tanh(), hg.Dense(3))
    found = hg.ledger(net, (32,), 16)
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), (32,), jnp.float32)[0])

    def automatic(params, x, dy):
        y, back = jax.vjp(lambda p: net.apply_train(p, x)[0], params)
        return y, back(dy)

    def by_hand(params, x, dy):
        y, _, residuals = net.forward(params, x)
        return y, net.backward(params, residuals, dy)[1]

    x, dy = (jax.ShapeDtypeStruct((16, size), jnp.float32) for size in (32, 3))
    plans = [hg.jit(f).lower(params, x, dy).compile().memory_analysis() for f in (by_hand, automatic)]
    assert found.temporary == pytest.approx([plan.temp_size_in_bytes for plan in plans], abs=64)  # a key more
    assert "XLA's peak" in str(found)


def test_table():
    text = str(ledger(hg.Chain(hg.Relu(), hg.MaxPool(2), Square()), (4, 4, 1), 100))
    assert text.splitlines() == [
        "bytes kept for backward, batch of 100",
        "layer     kind     backward  by hand  jax.grad",
        "relu1     Relu     by hand     1,600     1,600",
        "maxpool1  MaxPool  by hand       400     6,400  saves 94 %",
        "square1   Square   jax.vjp     1,608     1,600  8 more",
        "net                            3,608     9,600  saves 62 %",
        "jax.vjp holds 6,400 more of constants, which XLA makes anew",
    ]


def test_single_layers_dtypes_and_nothing_allocated():
    (row,) = ledger(hg.Relu(), (3,)).rows
    assert row == ("relu", "Relu", "by hand", 3, 3, 12, 0, 0)
    flat = ledger(hg.Flatten(), (3, 2))
    assert flat.hand == flat.automatic == 0 and "saves" not in str(flat)
    assert ledger(hg.Tanh(), (3,), dtype=jnp.bfloat16).hand == 6
    assert ledger(hg.Dense(1_000_000), (1_000_000,), 10**6).hand == 4 * 10**12


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((hg.Relu(), (3,), 0), ValueError, "ledger: batch must be at least 1, got 0"),
        ((hg.Relu(), (3,), 1.5), ValueError, "ledger: batch must be at least 1, got 1.5"),
        ((hg.Relu, (3,)), TypeError, "ledger: wants a layer, got the class Relu"),
        ((hg.Relu(), 3), ValueError, "ledger: in_shape must be positive ints without the batch axis, got 3"),
        ((hg.Relu(), (3, 0)), ValueError, r"ledger: in_shape must be positive ints .*, got \(3, 0\)"),
        ((hg.Chain(hg.Conv(3, 3)), (5,)), ValueError, "Conv: in_shape must be"),
        ((hg.Relu(), (3,), 1, jnp.int32), TypeError, "ledger: dtype must be floating, got int32"),
    ],
)
def test_errors(arguments, error, match):
    with pytest.raises(error, match=match):
        hg.ledger(*arguments)

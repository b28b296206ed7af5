"""The summary's numbers, each by hand."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest

from handgrad.insight import summary
from handgrad.layers import (
    BatchNorm,
    Chain,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    Lambda,
    Layer,
    MaxPool,
    Parallel,
    Relu,
    Residual,
)


def lenet_like():
    return Chain(
        Conv(32, 5), Relu(), MaxPool(2), Conv(64, 5), Relu(), MaxPool(2),
        Flatten(), Dense(256), Relu(), Dropout(0.5), Dense(10),
    )  # fmt: skip


def test_lenet_like():
    """Parameters, multiply-adds and shapes of the README's net."""
    found = summary(lenet_like(), (28, 28, 1))
    rows = {row.name: row for row in found.rows}
    assert list(rows)[:4] == ["conv1", "relu1", "maxpool1", "conv2"] and len(rows) == 11
    assert [row.parameters for row in found.rows if row.parameters] == [832, 51_264, 803_072, 2_570]
    assert found.parameters == 857_738
    assert rows["conv1"].multiply_adds == 28 * 28 * 32 * 25
    assert rows["conv2"].multiply_adds == 14 * 14 * 64 * 800
    assert rows["dense1"].multiply_adds == 3136 * 256
    assert found.multiply_adds == sum(rows[n].multiply_adds for n in ("conv1", "conv2", "dense1", "dense2"))
    assert rows["maxpool2"].out_shape == (7, 7, 64) and rows["maxpool2"].kind == "MaxPool"
    assert rows["flatten1"].out_shape == (3136,)


def test_a_transposed_convolution_is_counted_from_its_input():
    """Each number of the input goes to kernel_size · features / groups places, also where they are cropped."""
    (row,) = summary(ConvTranspose(6, (3, 2), strides=2, groups=2), (5, 4, 8), batch=2).rows
    assert row.out_shape == (10, 8, 6) and row.parameters == 3 * 2 * 8 * 3 + 6
    assert row.multiply_adds == 2 * (5 * 4 * 8) * (3 * 2) * 3


def test_kept_bytes_are_those_of_a_real_forward():
    """The bytes of float32 residuals for the batch, and they and the multiply-adds grow with it."""
    net = lenet_like()
    shapes = jax.eval_shape(lambda key: net.init(key, (8, 8, 1), jnp.float32), jax.random.key(0))
    params, state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    x = jnp.zeros((3, 8, 8, 1), jnp.float32)
    residuals = jax.jit(net.forward)(params, x, state, jax.random.key(1))[2]
    found = summary(net, (8, 8, 1), batch=3)
    assert found.bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(residuals))
    assert {row.name: row.bytes for row in found.rows}["conv1"] == 3 * 8 * 8 * 4
    assert found.multiply_adds == 3 * summary(net, (8, 8, 1)).multiply_adds


def test_nested_names_groups_and_containers_that_keep():
    """Slashed names; groups divide the products; the outputs that a product of branches keeps have a row."""
    net = Chain(
        Conv(4, 3),
        Residual(Chain(Conv(4, 3, groups=2), BatchNorm())),
        Parallel(Conv(4, 1), Lambda(jnp.sin), join="multiply"),
    )
    found = summary(net, (6, 6, 2), batch=2)
    names = [row.name for row in found.rows]
    assert names == [
        "conv1",
        "residual1/body/conv1",
        "residual1/body/batchnorm1",
        "parallel1/conv1",
        "parallel1/lambda1",
        "(containers)",
    ]
    assert found.rows[1].multiply_adds == 2 * 36 * 4 * 9 * 2
    assert found.rows[2].parameters == 8
    assert found.rows[-1].bytes == 2 * (2 * 36 * 4) * 4  # two outputs, float32


def test_the_same_layer_twice_has_two_rows():
    layer = Dense(4)
    found = summary(Chain(layer, layer), (4,))
    assert [(row.name, row.parameters) for row in found.rows] == [("dense1", 20), ("dense2", 20)]


def test_a_layer_of_its_own_and_a_single_layer():
    @dataclass(frozen=True)
    class Mine(Layer):
        kind: ClassVar[str] = "mine"

        def init(self, key, in_shape, dtype=jnp.float32):
            return {"kernel": jnp.ones(in_shape, dtype)}, {}

        def apply(self, params: Any, x, state=()):
            return x * params["kernel"][None]

    (row,) = summary(Mine(), (5, 2)).rows
    assert row[:5] == ("mine", "Mine", (5, 2), 10, 0)


def test_nothing_is_allocated():
    """A dense layer of 4 TB is summed up."""
    assert summary(Dense(1_000_000), (1_000_000,)).parameters == 10**12 + 10**6


def test_table():
    text = str(summary(lenet_like(), (28, 28, 1), batch=128))
    lines = text.splitlines()
    assert len(lines) == 13 and max(map(len, lines)) <= 110
    assert lines[4].split() == ["conv2", "Conv", "14x14x64", "51,264", "1,284,505,600", "3,211,264"]
    assert lines[-1].split()[:5] == ["total", "batch", "of", "128", "857,738"]
    numbers = [line[: line.rindex("  ")].rstrip() for line in lines if "Conv" in line]
    assert len({len(line) for line in numbers}) == 1  # columns are aligned


@pytest.mark.parametrize(
    ("net", "in_shape", "batch", "error", "match"),
    [
        (Relu, (4,), 1, TypeError, r"summary: wants a layer, got the class Relu; write Relu\(...\)"),
        (Relu(), (4,), 0, ValueError, "summary: batch must be at least 1, got 0"),
        (Chain(Conv(3, 3)), (4,), 1, ValueError, "Conv: in_shape must be"),
    ],
)
def test_errors(net, in_shape, batch, error, match):
    with pytest.raises(error, match=match):
        summary(net, in_shape, batch)

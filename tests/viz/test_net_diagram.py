"""A net's diagram: every layer's name, shape and parameters stand in it, and both arrows of every wire."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch

import handgrad as hg
from handgrad import models, viz
from handgrad.insight.leaves import leaf_layers
from handgrad.layers.container import Chain
from handgrad.viz import net_layout
from handgrad.viz.canvas import BLUE, ORANGE

BLOCK = hg.Chain(
    hg.Conv(4, 3), hg.BatchNorm(),
    hg.Residual(hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.Residual(hg.Conv(4, 3), hg.Conv(4, 1)))),
    hg.Parallel(
        hg.Conv(2, 1), hg.Chain(hg.Conv(2, 1), hg.Conv(3, 3)), hg.MaxPool(3, 1, padding="SAME"), name="inception"
    ),
    hg.squeeze_excite(9), hg.GlobalAvgPool(), hg.Dense(3),
)  # fmt: skip


class Whole(Chain):
    """A chain that is differentiated whole: one layer to look at."""

    def forward(self, params, x, state=(), key=None):
        return hg.Layer.forward(self, params, x, state, key)

    backward = hg.Layer.backward


class Scale(hg.Layer):
    """A layer of one's own."""

    def init(self, key, in_shape, dtype=jnp.float32):
        return {"scale": jnp.ones(in_shape[-1:], dtype)}, {}

    def apply(self, params, x, state=()):
        return x * jnp.broadcast_to(params["scale"], x.shape)


class Pass(hg.Container):
    """A container that is none of ours: its children one after the other."""

    def items(self):
        return (("first", hg.Dense(2)), ("second", hg.Relu()))

    def with_layers(self, layers):
        return Chain(*[layer for layer in layers])

    apply, apply_train, init = Chain.apply, Chain.apply_train, Chain.init
    forward, backward = Chain.forward, Chain.backward


CASES = {
    "lenet5": (models.lenet5(), (32, 32, 1)),
    "alexnet": (models.alexnet(), (227, 227, 3)),
    "resnet9": (models.resnet9(), (32, 32, 3)),
    "block": (BLOCK, (6, 5, 3)),
    "leaf": (hg.Dense(3), (4,)),
    "named leaf": (hg.Relu(name="top"), (4,)),
    "residual alone": (hg.Residual(hg.Chain(hg.Dense(3), hg.Relu())), (3,)),
    "whole": (hg.Chain(Whole(hg.Dense(3), hg.Relu()), Scale()), (4,)),
    "of its own": (hg.Chain(Pass(), hg.Dense(3)), (4,)),
    "one axis": (hg.Chain(hg.Conv(4, (3,)), hg.Relu(), hg.Flatten(), hg.Dense(2)), (9, 2)),
    "called input and loss": (hg.Chain(hg.Dense(3, name="input"), hg.Dense(3, name="loss")), (4,)),
}


def words(ax):
    return [text for text in ax.texts if text.get_text()]


def arrows(ax, colour):
    return [a for a in ax.patches if isinstance(a, FancyArrowPatch) and to_hex(a.get_edgecolor()) == colour]


@pytest.mark.parametrize("name", CASES)
def test_every_layer_stands_in_it_with_shape_and_parameters(name):
    net, in_shape = CASES[name]
    ax = viz.net(net, in_shape)
    texts = [text.get_text() for text in words(ax)]
    cards = [text.get_gid() for text in ax.texts if text.get_gid()]
    assert cards == ["input", *(path for path, _ in leaf_layers(net)), "loss"]
    for row in (row for row in hg.summary(net, in_shape).rows if row.kind):
        *above, last = row.name.split("/")
        assert last in texts and (not above or "/".join(above) + "/" in texts)
        assert "×".join(map(str, row.out_shape)) in texts
        assert not row.parameters or any(text.split(" · ")[0] == f"{row.parameters:,}" for text in texts)
    assert "×".join(map(str, in_shape)) in texts


WIRES = {
    "leaf": 2,  # to the layer, and on to the loss
    "named leaf": 2,
    "lenet5": 13,
    "alexnet": 24,
    "residual alone": 2 + 1 + 2 + 1,  # in and out, inside the body, to it and from it, the identity
    "whole": 3,
    "block": 8 + (2 + 3) + (2 + 2) + (1 + 2 * 3) + (5 + 2 * 2),  # residual, the one in it, inception, squeeze_excite
}


@pytest.mark.parametrize("name", WIRES)
def test_arrows_go_both_ways(name):
    ax = viz.net(*CASES[name])
    forward, backward = arrows(ax, BLUE), arrows(ax, ORANGE)
    assert len(forward) == len(backward) == WIRES[name]


def test_straight_arrows_forward_above_to_the_right_backward_below_to_the_left():
    ax = viz.net(hg.Chain(hg.Dense(3), hg.Relu()), (4,))
    for there, back in zip(arrows(ax, BLUE), arrows(ax, ORANGE), strict=True):
        start, end = vars(there)["_path_original"].vertices
        back_start, back_end = vars(back)["_path_original"].vertices
        assert start[0] < end[0] and start[1] == end[1]
        assert back_start[0] == end[0] and back_end[0] == start[0]
        assert start[1] < back_start[1]  # y goes down


def test_forks_and_joins_are_dual():
    """Backward's sum is orange, at the fork; what forward does is blue, at the join."""
    ax = viz.net(*CASES["block"])
    circles = [to_hex(patch.get_edgecolor()) for patch in ax.patches if type(patch) is Circle]
    assert sorted(circles) == sorted([ORANGE, BLUE] * 4)
    texts = [text.get_text() for text in words(ax)]
    assert texts.count("+") == 6 and texts.count("‖") == 1 and texts.count("×") == 1
    assert texts.count("identity") == 1 and {"residual1", "inception", "residual1/body/residual1"} <= set(texts)


@pytest.mark.parametrize("width", [2.0, 3.5, 7.2])
@pytest.mark.parametrize("name", ["lenet5", "alexnet", "block", "leaf", "called input and loss"])
def test_no_text_lies_on_another_nor_leaves_the_figure(name, width):
    ax = viz.net(*CASES[name], width=width)
    figure: Any = ax.figure
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in [*words(ax), ax.title]]
    for i, (one, box) in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, one
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, one
        for other, other_box in boxes[:i]:
            assert not box.overlaps(other_box.padded(-1)), (one, other)


def test_text_of_alexnet_can_be_read_and_the_page_is_filled():
    ax = viz.net(*CASES["alexnet"])
    assert (
        min(float(text.get_fontsize()) for text in words(ax)) >= 4.4
    )  # localresponsenorm1; all others are 5.5 or more
    assert sorted({round(float(text.get_fontsize()), 1) for text in words(ax)})[1] >= 5
    width, height = ax.figure.get_size_inches()  # pyright: ignore
    assert 6.5 < width <= 7.2 and height < 6


def test_cards_do_not_overlap():
    for net, in_shape in CASES.values():
        rows = {row.name: row for row in hg.summary(net, in_shape).rows}
        for limit in (2.0, 7.0):
            box = net_layout.flow(net_layout.parts_of(net, rows), limit)
            cells = np.array([mark.points[0] for mark in box.marks if mark.kind == "cell"])
            apart = abs(cells[:, None] - cells[None])
            apart[np.diag_indices(len(cells))] = 9
            high = 2 * net_layout.GLYPH + net_layout.PLAIN * net_layout.LINE
            assert ((apart[..., 0] > net_layout.CELL) | (apart[..., 1] > high)).all()


def test_lines_are_as_few_as_the_width_allows_and_even():
    def boxes(count):
        cell = net_layout.flow((net_layout.Leaf("a", (1,)),), 9)
        return [cell] * count

    assert [len(line) for line in net_layout._lines(boxes(9), 5.0)] == [5, 4]
    assert [len(line) for line in net_layout._lines(boxes(10), 0.1)] == [1] * 10
    assert [len(line) for line in net_layout._lines(boxes(7), 6.0)] == [4, 3]


TITLES = {
    "alexnet": "3 Dense layers hold 96.2 % of 60,965,224 parameters",
    "leaf": "dense holds all 15 parameters",
    "called input and loss": "2 Dense layers hold all 27 parameters",
    "named leaf": "1 layer, without a parameter to learn",
    "whole": "chain1 holds 83.3 % of 18 parameters",
}


@pytest.mark.parametrize("name", TITLES)
def test_the_title_says_where_the_parameters_are(name):
    assert viz.net(*CASES[name]).get_title().replace("\n", " ") == TITLES[name]


def test_a_net_of_nothing():
    ax = viz.net(hg.Chain(), (4,))
    assert ax.get_title().replace("\n", " ") == "0 layers, without a parameter to learn"
    assert len(arrows(ax, BLUE)) == len(arrows(ax, ORANGE)) == 1


def test_nothing_is_allocated(monkeypatch):
    """Twelve terabytes of weights, drawn: no array of a size comes to be."""
    before = {id(array) for array in jax.live_arrays()}
    ax = viz.net(hg.Chain(hg.Flatten(), hg.Dense(10**6)), (1000, 1000, 3))
    assert ax.get_title().split() == ["dense1", "holds", "all", "3,000,001,000,000", "parameters"]
    assert all(array.size < 10 for array in jax.live_arrays() if id(array) not in before)


def test_in_given_axes_the_text_is_in_proportion():
    sizes = []
    for inches in (4, 8):
        ax = Figure(figsize=(inches, inches)).add_subplot()
        net, in_shape = CASES["leaf"]
        assert viz.net(net, in_shape, ax) is ax
        sizes.append(float(words(ax)[0].get_fontsize()))
    assert sizes[1] == pytest.approx(2 * sizes[0])


def test_errors():
    with pytest.raises(TypeError, match="viz.net: wants a layer, got int"):
        viz.net(3, (4,))  # pyright: ignore[reportArgumentType]
    for width in (1.9, float("nan")):
        with pytest.raises(ValueError, match="viz.net: width must be at least 2 inches, got"):
            viz.net(hg.Dense(3), (4,), width=width)
    with pytest.raises(ValueError, match="window"):
        viz.net(hg.Chain(hg.Conv(3, 9, padding=0)), (4, 4, 1))

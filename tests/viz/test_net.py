"""Every layer stands in the diagram, with its shape and its two arrows."""

import matplotlib.text
import pytest

import handgrad as hg
from handgrad import viz
from handgrad.insight.leaves import leaf_layers


def words(ax):
    return [text.get_text() for text in ax.texts if not isinstance(text, matplotlib.text.Annotation)]


def arrows(ax):
    return [text for text in ax.texts if isinstance(text, matplotlib.text.Annotation)]


def test_each_layer_has_its_name_shape_and_parameters():
    ax = viz.net(hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.Flatten(), hg.Dense(10)), (8, 6, 1))
    assert words(ax) == [
        "conv1", "8x6x4", "40", "relu1", "8x6x4", "flatten1", "192", "dense1", "10", "1,930", "input\n8x6x1",
    ]  # fmt: skip
    assert len(arrows(ax)) == 2 * 3
    assert ax.get_title() == "1,970 parameters, 98 % of them in dense1"


def test_branches_meet_and_a_residual_has_its_shortcut():
    net = hg.Chain(hg.Residual(hg.Chain(hg.Conv(2, 3), hg.Relu())), hg.Parallel(hg.Conv(2, 1), hg.Relu()), hg.Flatten())
    ax = viz.net(net, (4, 4, 2))
    assert {name for name, _ in leaf_layers(net)} >= {text for text in words(ax) if text.startswith("flatten")}
    assert len(arrows(ax)) == 2 * (1 + 1 + 2 + 2)  # in the body, its shortcut, to two branches, from two branches


@pytest.mark.parametrize("name", ["lenet", "alexnet", "resnet20"])
def test_models_are_drawn_whole_without_a_text_on_another(name):
    net = hg.models.by_name(name)
    ax = viz.net(net, hg.models.IN_SHAPES[name])
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text()]
    assert len(words(ax)) >= 2 * len(leaf_layers(net)) + 1
    assert not any(a.overlaps(b.padded(-1)) for i, a in enumerate(boxes) for b in boxes[:i])


def test_where_the_parameters_are():
    assert viz.net(hg.models.by_name("alexnet"), (227, 227, 3)).get_title() == (
        "60,965,224 parameters, 96.2 % of them in 3 of 8 layers"
    )
    assert viz.net(hg.Relu(), (3,)).get_title() == "no parameters"
    assert (
        viz.net(hg.Chain(hg.Dense(2), hg.Dense(2)), (2,)).get_title() == "12 parameters, 100 % of them in 2 of 2 layers"
    )

"""Figures of what is broken, large, or of an odd shape: a word or a smaller picture, never a crash or a blank."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import viz
from handgrad.insight import Path, Surface


def inches(ax):
    figure: Any = ax.figure
    return tuple(figure.get_size_inches())


def limits(ax):
    return ax.images[0].norm.vmin, ax.images[0].norm.vmax


def test_kernels_that_are_not_finite_are_counted_and_leave_the_others_their_colours():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 1, 4))
    kernel[0, 0, 0, 0], kernel[1, 1, 0, 2] = np.nan, np.inf
    ax = viz.kernels(kernel)
    largest = abs(kernel[np.isfinite(kernel)]).max()
    assert limits(ax) == pytest.approx((-largest, largest))
    assert ax.get_title() == "kernel: 4 kernels of 3x3,\n2 weights not finite"
    assert (
        viz.kernels(np.full((3, 3, 3, 2), np.nan)).get_title() == "kernel: 2 kernels of 3x3x3,\n54 weights not finite"
    )


def test_activations_that_are_not_finite_are_counted():
    outputs = np.arange(32.0).reshape(1, 4, 4, 2)
    outputs[0, 0, 0, 0] = np.nan
    ax = viz.activations(outputs)
    assert ax.get_title() == "output: 2 channels of 4x4,\n0 of them silent,\n1 number not finite"
    assert [label.get_text() for label in ax.figure.axes[1].get_yticklabels()] == ["1", "31"]
    assert viz.activations(np.full((1, 2, 2, 1), np.inf)).get_title().endswith("4 numbers not finite")


def test_large_maps_and_many_classes_stay_within_a_page():
    wide, high = inches(viz.activations(np.zeros((1, 224, 224, 64))))
    assert wide <= 12 and high <= 12
    ax = viz.confusion(np.eye(200, dtype=int), [f"class {i}" for i in range(200)])
    assert max(inches(ax)) <= 12.5 and not ax.texts and len(ax.get_xticks()) <= 50
    assert ax.get_title() == "200 of 200 right"
    few = viz.confusion(np.eye(10, dtype=int), "0123456789")
    assert len(few.texts) == len(few.get_xticks()) == 10


@pytest.mark.parametrize("shape", [(40, 4, 1), (4, 40, 3), (8, 8, 1)])
def test_names_below_maps_stand_apart_whatever_the_images_shape(shape):
    ax = viz.saliency(np.ones(shape), {"gradient": np.ones(shape), "integrated": np.ones(shape)})
    figure: Any = ax.figure
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(one.overlaps(other) for one, other in zip(boxes, boxes[1:], strict=False))
    assert all(figure.bbox.containsy(box.y0) for box in boxes)


def test_a_surface_that_is_not_finite_everywhere_has_contours_where_it_is():
    surface = Surface("log", lambda p: jnp.log(p[0]) + p[1] ** 2, lambda p: p, (-1.0, -1.0), (2.0, 2.0))
    ax = viz.descend_2d({"path": Path(jnp.ones((3, 2)), jnp.ones(3))}, surface)
    assert sum(np.shape(path.vertices)[0] for path in ax.collections[0].get_paths()) > 100


def test_paths_that_all_break_are_told():
    broken = Path(jnp.full((3, 2), jnp.nan), jnp.full(3, jnp.nan))
    assert viz.descend_2d({"a": broken, "b": broken}, "bowl").get_title() == "bowl: after 2 steps no path is finite"


def test_images_of_booleans():
    ax = viz.images(np.eye(4, dtype=bool)[None, :, :, None], ["a"], title="a diagonal")
    assert np.array_equal(np.asarray(ax.images[0].get_array()), np.eye(4))


def test_wrong_names_a_class_that_is_none():
    for y, said in (([0, 7], [1, 1]), ([0, 1], [1, -3])):
        with pytest.raises(ValueError, match="wrong: labels and predictions must be from 0 to 1, got (7|-3)"):
            viz.wrong(np.ones((2, 4, 4, 1)), y, said, ["a", "b"])


@pytest.mark.slow
@pytest.mark.parametrize("deep", [True, False])
def test_a_deep_net_is_drawn_on_a_sheet_that_fits_a_screen(deep):
    """As wide as it takes: ResNet-50 at a page's width is five feet high. A width that is given holds."""
    block = hg.Residual(hg.Chain(*[hg.Dense(3) for _ in range(12)]))
    net = hg.Chain(*[block for _ in range(16 if deep else 1)])
    wide, high = inches(viz.net(net, (3,)))
    assert high <= 24 and (wide > 7.3 if deep else wide < 7.3)
    assert inches(viz.net(net, (3,), width=7.2))[0] < 7.3

"""What is on the figures of an image's maps and of a layer's channels."""

import numpy as np
import pytest

from handgrad import viz

IMAGE = np.arange(12.0).reshape(4, 3, 1)


def picture_of(ax, place=0):
    return np.ma.filled(ax.images[place].get_array(), np.nan)


def test_saliency_has_the_image_and_each_map_on_a_scale_symmetric_around_0():
    maps = {"gradient": np.stack([IMAGE[..., 0], -3 * IMAGE[..., 0]], -1), "coarse": np.array([[1.0, -2.0]])}
    ax = viz.saliency(IMAGE, maps, title="why")
    _, gradient, coarse = ax.images
    np.testing.assert_allclose(picture_of(ax), IMAGE[..., 0] / 11)
    np.testing.assert_array_equal(picture_of(ax, 1), -2 * IMAGE[..., 0])  # the sum over channels
    assert (gradient.norm.vmin, gradient.norm.vmax) == (-22, 22) and (coarse.norm.vmin, coarse.norm.vmax) == (-2, 2)
    assert coarse.get_extent()[:2] == [2.04, 2.96] and coarse.get_extent()[2:] == gradient.get_extent()[2:]
    assert [text.get_text() for text in ax.texts] == ["image", "gradient", "coarse"]
    assert viz.alt_text(ax) == "An image and 2 maps of it: gradient, coarse. why"
    assert viz.saliency(IMAGE, {"a": IMAGE}).get_title() == "1 map of an image"


def test_saliency_of_colours_of_nothing_and_of_nan():
    ax = viz.saliency(np.ones((2, 2, 3)), {"zero": np.zeros((2, 2)), "bad": np.array([[np.nan, 2.0], [0.0, np.inf]])})
    limits = [(image.norm.vmin, image.norm.vmax) for image in ax.images[1:]]
    assert limits == [(-1, 1), (-2, 2)] and picture_of(ax).shape == (2, 2, 3)


def test_saliency_errors():
    with pytest.raises(ValueError, match=r"saliency: image must be \(H, W, 1 or 3\), got shape \(4, 3\)"):
        viz.saliency(IMAGE[..., 0], {"a": IMAGE})
    with pytest.raises(ValueError, match="saliency: wants at least one map, got none"):
        viz.saliency(IMAGE, {})
    with pytest.raises(ValueError, match=r"map 'a' must be \(H, W, C\) or \(h, w\), got shape \(1, 4, 3, 1\)"):
        viz.saliency(IMAGE, {"a": IMAGE[None]})


def test_activations_has_each_channel_of_one_image_and_counts_the_silent():
    y = np.arange(2 * 3 * 2 * 4.0).reshape(2, 3, 2, 4)
    y[1, ..., 2] = 0
    ax = viz.activations({"flatten1": np.ones((2, 5)), "conv1": y}, example=1)
    picture = picture_of(ax)
    assert sorted(picture[np.isfinite(picture)]) == sorted(y[1].ravel())
    np.testing.assert_array_equal(picture[:3, :2], y[1, ..., 0])
    assert ax.get_title().replace("\n", " ") == "conv1: 4 channels of 3x2, 1 of them silent"
    many = viz.activations(np.ones((1, 2, 2, 70)), "wide").get_title()
    assert many.replace("\n", " ") == "wide: 70 channels of 2x2 (64 drawn), 0 of them silent"


def test_activations_errors():
    with pytest.raises(ValueError, match=r"layer must be one with an output \(N, H, W, C\), \['a'\], got 'b'"):
        viz.activations({"a": np.ones((1, 2, 2, 1)), "b": np.ones((1, 2))}, "b")
    with pytest.raises(ValueError, match="activations: example must be from 0 to 0, got 1"):
        viz.activations(np.ones((1, 2, 2, 1)), example=1)

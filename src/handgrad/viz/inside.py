"""What a net makes of an image: maps beside it, and the activations of its layers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from handgrad.viz.canvas import canvas, described, without_axis
from handgrad.viz.kernels import columns_for, grid, not_finite, scale_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 64  # channels of a layer that are drawn
WIDEST = 10.0  # inches
FLATTEST = 0.25  # height over width of an image and its maps as they are drawn; longer ones are pressed together


def saliency(image: Any, maps: Mapping[str, Any], ax: "Axes | None" = None, *, title: str | None = None) -> "Axes":
    """Draw an image, and beside it each of its maps: red speaks for the class, blue against it, white is 0.

    Each map has a scale of its own, symmetric around 0. A map of lower resolution, as Grad-CAM's, is stretched to the
    image's size; what is more than four times as long as wide is pressed together to that.

    Args:
        image: (H, W, 1 or 3).
        maps: by name, (H, W, C), summed over channels, or (h, w).
        ax: where to draw; None makes a Figure.
        title: what there is to see; None says how many maps there are.

    Returns:
        The Axes.

    Raises:
        ImportError: without matplotlib.
        ValueError: an image or a map of another shape, or no map.

    Example:
        >>> saliency(np.eye(4)[..., None], {"gradient": np.eye(4)[..., None]}, title="a diagonal").get_title()
        'a diagonal'
    """
    image = np.asarray(image, float)
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"saliency: image must be (H, W, 1 or 3), got shape {image.shape}")
    if not maps:
        raise ValueError("saliency: wants at least one map, got none")
    flat = {name: _summed(name, np.asarray(values, float)) for name, values in maps.items()}
    aspect = min(max(image.shape[0] / image.shape[1], FLATTEST), 1 / FLATTEST)
    ax = canvas(ax, 1.45 * (len(flat) + 1), 1.45 * aspect + 0.65)
    span = image.max() - image.min() or 1
    picture = (image - image.min()) / span
    ax.imshow(picture[..., 0] if picture.shape[-1] == 1 else picture, cmap="gray", extent=(0.04, 0.96, 1, 0))
    for place, values in enumerate(flat.values(), start=1):
        limit = np.abs(values[np.isfinite(values)]).max(initial=0) or 1.0
        extent = (place + 0.04, place + 0.96, 1, 0)
        ax.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=extent, interpolation="nearest")
    for place, name in enumerate(("image", *flat)):
        ax.text(place + 0.5, 1 + 0.05 / aspect, name, ha="center", va="top", fontsize=8, color=ax.title.get_color())
    ax.set(xlim=(0, len(flat) + 1), ylim=(1.05 + 0.25 / aspect, 0), aspect=aspect)
    without_axis(ax)
    ax.set_title(f"{len(flat)} map{'s' * (len(flat) > 1)} of an image" if title is None else title)
    return described(ax, f"An image and {len(flat)} maps of it: {', '.join(flat)}")


def activations(outputs: Any, layer: str | None = None, ax: "Axes | None" = None, *, example: int = 0) -> "Axes":
    r"""Draw what the channels of a layer make of one image, from each layer's darkest to its brightest.

    Args:
        outputs: what `hg.activations` gives, or one layer's output (N, H, W, C).
        layer: the path of a layer whose output has four axes; None takes the first one.
        ax: where to draw; None makes a Figure.
        example: which of the N.

    Returns:
        The Axes; its title says how many channels are 0 everywhere.

    Raises:
        ImportError: without matplotlib.
        ValueError: no such layer, or no such example.

    Example:
        >>> activations(np.ones((1, 4, 4, 3))).get_title()
        'output: 3 channels of 4x4,\n0 of them silent'
    """
    if not isinstance(outputs, Mapping):
        outputs = {layer or "output": outputs}
    maps = {name: np.asarray(y, float) for name, y in outputs.items() if np.ndim(y) == 4}
    layer = layer if layer is not None else next(iter(maps), None)
    if layer not in maps:
        raise ValueError(f"activations: layer must be one with an output (N, H, W, C), {list(maps)}, got {layer!r}")
    values = maps[layer]
    if not 0 <= example < len(values):
        raise ValueError(f"activations: example must be from 0 to {len(values) - 1}, got {example}")
    tiles = np.moveaxis(values[example], -1, 0)
    silent = int((tiles == 0).all((1, 2)).sum())
    channels, height, width = tiles.shape
    picture = grid(tiles[:MOST], columns_for(min(channels, MOST)))
    inches = min(max(5.4, picture.shape[1] * 0.045), WIDEST)
    tall = 0.82 * inches * picture.shape[0] / picture.shape[1]  # 0.82: the rest of the width is the bar's
    ax = canvas(ax, inches, min(max(1.0, tall), 5.0) + 0.6)
    image = ax.imshow(picture, cmap="magma", interpolation="nearest")
    without_axis(ax)
    finite = np.isfinite(tiles)
    ends = sorted({float(end) for end in (tiles[finite].min(), tiles[finite].max())}) if finite.any() else []
    scale_bar(ax, image, [(end, f"{end:.3g}") for end in ends], "activation")
    shown = f" ({MOST} drawn)" if channels > MOST else ""
    ax.set_title(
        f"{layer}: {channels} channel{'s' * (channels > 1)} of {height}x{width}{shown},\n"
        f"{silent} of them silent{not_finite(finite, 'number')}"
    )
    return described(ax, f"Activations of {layer} as small pictures")


def _summed(name: str, values: np.ndarray) -> np.ndarray:
    if values.ndim == 3:
        return values.sum(-1)
    if values.ndim != 2:
        raise ValueError(f"saliency: map {name!r} must be (H, W, C) or (h, w), got shape {values.shape}")
    return values

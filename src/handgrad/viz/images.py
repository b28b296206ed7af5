"""Pictures side by side, each with a word or two below it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from handgrad.viz.canvas import canvas, described, without_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def images(x: Any, captions: Sequence[str], ax: "Axes | None" = None, *, title: str = "") -> "Axes":
    """Draw pictures in rows, each from its darkest to its brightest, with a caption below each.

    Args:
        x: pictures (n, H, W, 1 or 3).
        captions: n texts; one of several lines makes room for all.
        ax: where to draw; None makes a Figure.
        title: what there is to see.

    Returns:
        The Axes.

    Raises:
        ImportError: without matplotlib.
        ValueError: x of another shape, or another number of captions.

    Example:
        >>> images(np.eye(4).reshape(1, 4, 4, 1), ["a line"], title="one picture").get_title()
        'one picture'
    """
    x = np.asarray(x)
    if x.ndim != 4 or x.shape[-1] not in (1, 3) or len(captions) != len(x):
        raise ValueError(f"images: x must be (n, H, W, 1 or 3) with n captions, got {x.shape} and {len(captions)}")
    long = any("\n" in caption or len(caption) > 9 for caption in captions)
    columns, gap, size = (6, 0.5, 1.1) if long else (8, 0.32, 0.85)
    rows = max(-(-len(x) // columns), 1)
    ax = canvas(ax, columns * size, rows * (1 + gap) * size + 0.5)
    for place, (picture, caption) in enumerate(zip(x, captions, strict=True)):
        row, left = divmod(place, columns)
        top = row * (1 + gap)
        extent = (left + 0.05, left + 0.95, top + 0.9, top)
        ax.imshow(_spread(picture), cmap="gray", extent=extent, interpolation="nearest")
        font, colour = 8 if long else 10, ax.title.get_color()
        ax.text(left + 0.5, top + 0.94, caption, ha="center", va="top", fontsize=font, color=colour)
    ax.set(xlim=(0, columns), ylim=(rows * (1 + gap), 0))
    without_axis(ax)
    ax.set_title(title)
    return described(ax, f"{len(x)} pictures with captions" if len(x) else "No images")


def _spread(picture: np.ndarray) -> np.ndarray:
    """From 0 to 1, without the axis of a single channel."""
    picture = picture.astype(float)
    low, high = picture.min(), picture.max()
    picture = (picture - low) / ((high - low) or 1)
    return picture[..., 0] if picture.shape[-1] == 1 else picture

"""The images that a net takes for something else."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from handgrad.viz.canvas import described
from handgrad.viz.images import images

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def wrong(x: Any, y: Any, predictions: Any, classes: Sequence[str], most: int = 24, ax: "Axes | None" = None) -> "Axes":
    """Draw the wrongly classified images, each with `predicted → true` below it.

    Args:
        x: images (n, H, W, 1) or (n, H, W, 3), of any scale: each is drawn from its darkest to its brightest value.
        y: their true classes, ints (n,).
        predictions: the predicted ones, ints (n,), or logits (n, K).
        classes: the K names.
        most: how many to draw, at most.
        ax: where to draw; None makes a Figure.

    Returns:
        The Axes.

    Raises:
        ImportError: without matplotlib.
        ValueError: shapes that do not fit, most below 1, or a class beyond the names.

    Example:
        >>> wrong(np.eye(4)[None, :, :, None], [1], [0], ["cat", "dog"]).get_title()
        '1 of 1 images is wrong: predicted → true'
    """
    x, y, predictions = np.asarray(x, np.float32), np.asarray(y), np.asarray(predictions)
    predictions = predictions.argmax(1) if predictions.ndim == 2 else predictions
    if x.ndim != 4 or x.shape[3] not in (1, 3) or not len(x) == len(y) == len(predictions):
        raise ValueError(
            f"wrong: x must be (n, H, W, 1 or 3) with n labels and predictions, got {x.shape}, {y.shape} and "
            f"{predictions.shape}"
        )
    if most < 1:
        raise ValueError(f"wrong: most must be at least 1, got {most}")
    for classes_of in (y, predictions):
        none = classes_of[(classes_of < 0) | (classes_of >= len(classes))]
        if len(none):
            raise ValueError(f"wrong: labels and predictions must be from 0 to {len(classes) - 1}, got {none[0]}")
    mistakes = np.flatnonzero(predictions != y)
    shown = mistakes[:most]
    captions = [_caption(classes[int(predictions[i])], classes[int(y[i])]) for i in shown]
    verb, part = "is" if len(mistakes) == 1 else "are", f", {len(shown)} of them here" * (len(shown) < len(mistakes))
    arrow = ": predicted → true" if len(shown) else ""
    title = f"{len(mistakes) or 'none'} of {len(x)} images {verb} wrong{part}{arrow}"
    ax = images(x[shown], captions, ax, title=title)
    return described(ax, "Wrongly classified images" if len(shown) else "No images")


def _caption(predicted: str, true: str) -> str:
    """On one line where both names are short, else on two."""
    return f"{predicted} → {true}" if len(predicted) + len(true) <= 6 else f"{predicted}\n→ {true}"

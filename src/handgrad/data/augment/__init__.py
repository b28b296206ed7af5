"""Random changes to a batch of images that leave what they show as it is, so that a net sees more than it was given.

Each function here takes settings and gives an augmentation, a jitted and pure function (key, x, y) -> (x, y), as
`fit(..., augment=...)` calls it:

    augment = compose(flip(), crop(4), cutout(8))
    x, y = augment(key, x, y)

Images are (N, H, W, C), floating point, and keep their dtype; each has a draw of its own. Labels pass through as they
are, except in `mixup`. The same key gives the same batch. Settings are read when an augmentation is made, images before
anything is computed.
"""

from handgrad.data.augment.augmentation import Augmentation, compose
from handgrad.data.augment.mixup import mixup
from handgrad.data.augment.moves import crop, flip, rotate, scale, shift
from handgrad.data.augment.pixels import brightness, contrast, cutout, erase

__all__ = [
    "Augmentation",
    "brightness",
    "compose",
    "contrast",
    "crop",
    "cutout",
    "erase",
    "flip",
    "mixup",
    "rotate",
    "scale",
    "shift",
]

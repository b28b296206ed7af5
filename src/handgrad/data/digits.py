"""The handwritten digits that travel inside the package: 1,797 images of 8x8, see LICENSE-digits.md."""

from importlib import resources

import numpy as np

from handgrad.data.dataset import Dataset


def load_digits() -> Dataset:
    """The UCI optical digits: 1,437 training and 360 test images (8, 8, 1) of ten classes.

    The split is fixed, in proportion to the classes, as hard as the whole set for a nearest neighbour, and stored with
    the images. The file's values 0 to 16 are scaled
    to 0 to 255, x · 255 / 16 rounded, so that `normalise` treats all data sets alike; x is found again as
    round(value · 16 / 255).

    Returns:
        The data set; its arrays are new at each call.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49, CC BY 4.0.

    Example:
        >>> digits = load_digits()
        >>> digits.train_x.shape, digits.test_x.shape, digits.train_x.dtype
        ((1437, 8, 8, 1), (360, 8, 8, 1), dtype('uint8'))
        >>> digits.train_y[:6], digits.classes[0]
        (array([0, 1, 2, 3, 5, 6], dtype=int32), '0')
    """
    file = resources.files("handgrad.data").joinpath("digits.npz")
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        images, labels, test = archive["images"], archive["labels"].astype(np.int32), archive["test"]
    scaled = ((images.astype(np.uint16) * 255 + 8) // 16).astype(np.uint8)[..., None]
    held_out = np.zeros(len(labels), bool)
    held_out[test] = True
    return Dataset(scaled[~held_out], labels[~held_out], scaled[held_out], labels[held_out], tuple("0123456789"))

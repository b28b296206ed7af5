"""What every loader gives."""

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Images and labels for training and testing.

    Attributes:
        train_x: training images (N, H, W, C), uint8, 0 to 255.
        train_y: their classes (N,), int32, 0 to len(classes) - 1.
        test_x: test images (M, H, W, C), uint8, 0 to 255.
        test_y: their classes (M,), int32.
        classes: the classes' names.

    Example:
        >>> from handgrad.data import load_digits
        >>> digits = load_digits()
        >>> digits.train_x.shape, digits.train_x.dtype, np.bincount(digits.test_y)[:3], digits.classes[:3]
        ((1437, 8, 8, 1), dtype('uint8'), array([36, 37, 35]), ('0', '1', '2'))
        >>> digits._replace(train_x=digits.train_x[:100], train_y=digits.train_y[:100]).train_x.shape  # a part of it
        (100, 8, 8, 1)
    """

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: tuple[str, ...]

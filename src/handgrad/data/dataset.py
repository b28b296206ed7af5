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
    """

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: tuple[str, ...]

"""A data set in one npz file, NumPy's own: a zip of arrays by name, deflated or not.

Nothing in it is unpickled. An array's header says how many bytes are to come, and no more are read than that and one
that must not be there, so a header that promises too much costs no memory; a zip that unpacks to more than it may is
refused before it does. The zip has a checksum (CRC-32) of each array, which is compared.
"""

import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from handgrad.data.dataset import Dataset
from handgrad.data.idx import at_most

NAMES = (("train_x", "train_y", "test_x", "test_y"), ("x_train", "y_train", "x_test", "y_test"))
LARGEST = 4 << 30  # bytes of all arrays
LARGEST_RANK = 64  # NumPy's
MOST_CLASSES = 65_536  # where their names are not given


def load_npz(path: str | os.PathLike[str], *, classes: Sequence[str] | None = None) -> Dataset:
    """A data set from an npz file with the arrays train_x, train_y, test_x, test_y, or x_train, ..., as Keras has them.

    Args:
        path: the file, as `numpy.savez` or `numpy.savez_compressed` writes it. Images are uint8 (N, H, W) or
            (N, H, W, C), labels integers (N,) or (N, 1); other arrays in it are left alone.
        classes: the classes' names; by default "0", "1", ... up to the largest label, which is below 65,536.

    Returns:
        The data set; images (N, H, W, C).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, no npz file, unpacks to more than 4 GB, lacks an array, or has arrays of
            another type or shape, or labels out of range; file and array are named.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "few.npz")
        >>> x, y = np.zeros((3, 5, 4), np.uint8), np.array([0, 1, 1])
        >>> np.savez(path, train_x=x, train_y=y, test_x=x[:1], test_y=y[:1])
        >>> few = load_npz(path, classes=("hen", "egg"))
        >>> few.train_x.shape, few.train_y, few.classes
        ((3, 5, 4, 1), array([0, 1, 1], dtype=int32), ('hen', 'egg'))
    """
    path = Path(path)
    with path.open("rb") as file:
        arrays = _arrays(path, file)
    train_x, train_y, test_x, test_y = arrays.values()
    if train_x.shape[1:] != test_x.shape[1:]:
        raise ValueError(f"load_npz: {path}: images must be of one shape, got {train_x.shape} and {test_x.shape}")
    if classes is None:
        classes = [str(i) for i in range(min(max(int(train_y.max()), int(test_y.max())) + 1, MOST_CLASSES))]
    for name, y in list(arrays.items())[1::2]:
        wrong = (y < 0) | (y >= len(classes))
        if wrong.any():
            at = int(np.argmax(wrong))
            raise ValueError(f"load_npz: {path}: {name} must be 0 to {len(classes) - 1}, got {y[at]} at position {at}")
    return Dataset(train_x, train_y.astype(np.int32), test_x, test_y.astype(np.int32), tuple(classes))


def _arrays(path: Path, file: BinaryIO) -> dict[str, np.ndarray]:
    """The four arrays by their names, in the order of a `Dataset`: images (N, H, W, C), labels (N,)."""
    try:
        with zipfile.ZipFile(file) as archive:
            names, left, arrays = _names(archive), LARGEST, {}
            for name in names:
                arrays[name] = _array(archive, name, left)
                left -= arrays[name].nbytes
            for x, y in (names[:2], names[2:]):
                arrays[x] = _images(x, arrays[x])
                arrays[y] = _labels(y, arrays[y], len(arrays[x]))
    except _Unfit as error:
        raise ValueError(f"load_npz: {path}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # whatever broken bytes do to zipfile and to NumPy
        raise ValueError(f"load_npz: {path} is no npz file, or a damaged one ({error}); use another copy") from error
    return arrays


def _names(archive: zipfile.ZipFile) -> tuple[str, str, str, str]:
    """Those of the four arrays."""
    there = [name.removesuffix(".npy") for name in archive.namelist()]
    for names in NAMES:
        if all(there.count(name) == 1 for name in names):
            return names
    raise _Unfit(f"it must hold {', '.join(NAMES[0])}, or {', '.join(NAMES[1])}, once each, got {there[:8]}")


def _images(name: str, x: np.ndarray) -> np.ndarray:
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        raise _Unfit(f"{name} must be uint8 images (n, h, w) or (n, h, w, c), got {x.dtype} {x.shape}")
    return x if x.ndim == 4 else x[..., None]


def _labels(name: str, y: np.ndarray, count: int) -> np.ndarray:
    if y.dtype.kind not in "iu" or y.shape not in ((count,), (count, 1)):
        raise _Unfit(f"{name} must be {count} integer labels, one an image, got {y.dtype} {y.shape}")
    return y.reshape(-1)


class _Unfit(Exception):
    pass


def _array(archive: zipfile.ZipFile, name: str, most: int) -> np.ndarray:
    """One array of the file, of no more than so many bytes."""
    kind = archive.getinfo(f"{name}.npy").compress_type
    if kind not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _Unfit(f"{name} must be stored or deflated, got the zip's kind {kind}")
    with archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(member)
        if dtype.kind not in "biufc":
            raise _Unfit(f"{name} must hold numbers, got {dtype}; nothing is unpickled")
        if len(shape) > LARGEST_RANK or min(shape, default=1) < 1:
            raise _Unfit(f"{name} must have up to {LARGEST_RANK} sizes of at least 1, got {str(shape)[:100]}")
        promised = dtype.itemsize * math.prod(shape)
        if promised > most:
            raise _Unfit(f"{name} would bring it to more than {LARGEST >> 30} GB")
        data = at_most(member, promised + 1)  # beyond the end, so that the checksum is compared
        if len(data) != promised:
            raise ValueError(f"{name} should have {promised} bytes")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")

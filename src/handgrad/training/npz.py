"""Arrays in an npz file: written so that a crash loses nothing, read without trusting the file.

An npz is a zip of .npy members; here they are stored without compression, each with the .npy header of version 1.0.
Reading takes no more memory than the file has bytes: members may not claim more than the file, nor be compressed.
"""

import contextlib
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

HEADER_LIMIT = 10_000  # bytes of a .npy header, at most


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name into one file, which takes the place of an older one once it is safe on disk."""
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, np.lib.format.header_data_from_array_1_0(array))
                member.write(bytes_of(array))


def bytes_of(array: np.ndarray) -> memoryview:
    """The bytes of an array in C order, not copied."""
    return array.reshape(-1).view(np.uint8).data


class Reader:
    """The members of an open npz file, with their sizes checked; any damage is a ValueError that names file and leaf.

    Args:
        file: opened for reading bytes.
        path: its name, for errors.
    """

    def __init__(self, file: BinaryIO, path: Any) -> None:
        self._path = path
        with blaming(path, "the file"):
            self._archive = zipfile.ZipFile(file)
            members = self._archive.infolist()
            size = os.fstat(file.fileno()).st_size
            if any(m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size for m in members):
                raise ValueError("members must be stored without compression")
            if sum(m.file_size for m in members) > size:
                raise ValueError(f"members claim more than the {size} bytes of the file")
            self.sizes = {m.filename.removesuffix(".npy"): m.file_size for m in members}
            if len(self.sizes) < len(members):
                raise ValueError("two members have one name")

    def read(self, name: str, dtype: np.dtype, shape: tuple[int, ...] | None) -> np.ndarray:
        """An array, which must be of this dtype and shape; any shape if None."""
        with blaming(self._path, f"leaf {name!r}"), self._archive.open(f"{name}.npy") as member:
            if np.lib.format.read_magic(member) != (1, 0):
                raise ValueError("unknown version of the .npy header")
            header_shape, fortran, header_dtype = np.lib.format.read_array_header_1_0(member, HEADER_LIMIT)
            shape = header_shape if shape is None else shape
            if fortran or (header_shape, header_dtype) != (shape, dtype):
                raise ValueError(f"its header says {header_dtype} {header_shape}, wanted {dtype} {shape}")
            wanted = dtype.itemsize * math.prod(shape)
            data = member.read(wanted + 1)
            if len(data) != wanted:
                raise ValueError(f"it should have {wanted} bytes")
            return np.frombuffer(data, dtype).reshape(shape)


@contextlib.contextmanager
def blaming(path: Any, part: str) -> Iterator[None]:
    """Turn whatever broken bytes do to zipfile, json and NumPy into one ValueError that names the file and its part."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: {part} is damaged ({type(error).__name__}: {error}); use another copy") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes path's place once it is written and on disk; after an error path is as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # `sweep` knows the name
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the new name is safe once the folder is on disk too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sweep(folder: Path) -> None:
    """Remove what `replacing` left in a folder when its process was killed in the middle of it."""
    for path in folder.iterdir():
        if re.fullmatch(r"\..+\.\d+\.tmp", path.name):
            path.unlink(missing_ok=True)

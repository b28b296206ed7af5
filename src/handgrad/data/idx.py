"""IDX files, the format of MNIST: a header of big-endian numbers, then the elements, row by row.

    byte 0, 1      0
    byte 2         type: 8 uint8, 9 int8, 11 int16, 12 int32, 13 float32, 14 float64
    byte 3         rank r
    4r bytes       the r sizes, uint32 each
    then           product of the sizes elements, and nothing after them

Every field is checked, and no more is read than the header promises, plus one byte that must not be there: a header
that promises too much costs no memory, and a gzip file cannot unpack to more than its header says.
Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits.
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
LARGEST_RANK = 64  # NumPy's
PIECE = 1 << 20


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an IDX file, gzipped or not: its first bytes tell, not its name.

    Args:
        path: the file.

    Returns:
        The array, of the shape and type in the header, in the machine's byte order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a wrong magic number, an unknown type, a rank of 0 or above 64, a size of 0, a truncated header,
            more or less data than the header says, a corrupted or truncated gzip file. The message names the file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "labels")
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        ...     print(read_idx(path))
        [7 2 1]
    """
    path = Path(path)
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not zipped:
            return _parse(path, file)
        try:
            with gzip.GzipFile(fileobj=file) as unzipped:
                return _parse(path, unzipped)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"read_idx: {path} is a corrupted or truncated gzip file ({error}); fetch it again"
            ) from error


def _parse(path: Path, stream: BinaryIO | gzip.GzipFile) -> np.ndarray:
    zeros, code, rank = struct.unpack(">HBB", _header(path, stream, 4))
    if zeros != 0:
        raise ValueError(
            f"read_idx: {path} must start with two zero bytes, got 0x{zeros:04x}; it is no IDX file, gzipped or not"
        )
    if code not in TYPES:
        raise ValueError(f"read_idx: {path} must have a type code of {sorted(TYPES)} in byte 2, got {code}")
    if not 1 <= rank <= LARGEST_RANK:
        raise ValueError(f"read_idx: {path} must have a rank of 1 to {LARGEST_RANK} in byte 3, got {rank}")
    sizes = struct.unpack(f">{rank}I", _header(path, stream, 4 * rank))
    if min(sizes) < 1:
        raise ValueError(f"read_idx: {path} must have sizes of at least 1 in its header, got {sizes}")
    dtype = np.dtype(TYPES[code])
    promised = math.prod(sizes) * dtype.itemsize
    data = at_most(stream, promised + 1)
    if len(data) != promised:
        came = f"{len(data)}: it is truncated" if len(data) < promised else "more: something follows the data"
        raise ValueError(
            f"read_idx: {path} must hold {promised} bytes of data for its header's {sizes} of {dtype.name}, got {came}"
        )
    return np.frombuffer(data, dtype).reshape(sizes).astype(dtype.newbyteorder("="), copy=False)


def _header(path: Path, stream: BinaryIO | gzip.GzipFile, size: int) -> bytes:
    """The next `size` bytes of the header."""
    header = stream.read(size)
    if len(header) < size:
        raise ValueError(f"read_idx: {path} ends within its header, after {len(header)} of {size} bytes")
    return header


def at_most(stream: IO[bytes] | gzip.GzipFile, limit: int) -> bytearray:
    """Up to `limit` bytes, piece by piece, so that memory grows with what is there and not with what is promised."""
    data = bytearray()
    while piece := stream.read(min(PIECE, limit - len(data))):
        data += piece
    return data

"""CIFAR-10 and CIFAR-100 from a folder, in the two forms they are published in, unpacked or as the tar.gz.

    binary    a record for each image: its label (CIFAR-100: the coarse one, then the fine one), 1,024 bytes of red,
              1,024 of green, 1,024 of blue, row by row; no header, so the number of records is known or nothing is
    python    a pickled dict, labels and an array (n, 3072) of such rows, read by `plain_pickle`, which runs nothing

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from handgrad.data.cifar_names import CIFAR10, CIFAR100, CIFAR100_COARSE
from handgrad.data.dataset import Dataset
from handgrad.data.download import Remote, fetch
from handgrad.data.idx import at_most
from handgrad.data.plain_pickle import Array, plain_pickle

PIXELS = 3 * 32 * 32
MOST_BYTES = 256 << 20  # of a file, and of an archive unpacked; the largest has 186 MB
RECORDS = {"train.bin": 50_000}  # of a binary file
RECORDS_ELSEWHERE = 10_000
SERVERS = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")  # the first leads to the second
REMOTE10 = Remote(
    "cifar-10-python.tar.gz", 170_498_071, "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
)
REMOTE100 = Remote(
    "cifar-100-python.tar.gz", 169_001_437, "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
)


Reader = Callable[[str, str, bytes, int], tuple[np.ndarray, np.ndarray]]
"""(file, its full name for errors, its bytes, number of classes) -> images and labels."""


class Layout(NamedTuple):
    """One published form: the folder in the archive, the archive, its files, and what reads one of them."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    read: Reader


def load_cifar10(folder: str | os.PathLike[str], *, download: bool = False) -> Dataset:
    """CIFAR-10, colour images of 32x32 in ten classes.

    Args:
        folder: holds `cifar-10-python.tar.gz` or `cifar-10-binary.tar.gz`, or what is in one of them.
        download: fetch cifar-10-python.tar.gz (170 MB) if nothing is there; needs pooch, the extra `data`.

    Returns:
        The data set: 50,000 training and 10,000 test images (32, 32, 3).

    Raises:
        FileNotFoundError: no folder, or files missing; the message says which and where they were looked for.
        ValueError: a damaged or hostile file, a binary file of another length than the published ones, labels out of
            range; the message names the file.
        ConnectionError: the download failed; the message says what to put where.

    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.

    Example:
        >>> load_cifar10("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: load_cifar10: there is no folder no/such/folder; name the one that holds the CIFAR files
    """
    batches = tuple(f"data_batch_{i}" for i in range(1, 6))
    python = Layout("cifar-10-batches-py", REMOTE10.name, batches, "test_batch", _python("labels"))
    files = tuple(f"{name}.bin" for name in batches)
    binary = Layout("cifar-10-batches-bin", "cifar-10-binary.tar.gz", files, "test_batch.bin", _binary(1, 0))
    return _load("load_cifar10", folder, (python, binary), CIFAR10, REMOTE10 if download else None)


def load_cifar100(folder: str | os.PathLike[str], *, coarse: bool = False, download: bool = False) -> Dataset:
    """CIFAR-100, colour images of 32x32 in a hundred classes, or in the twenty that these make up.

    Args:
        folder: holds `cifar-100-python.tar.gz` or `cifar-100-binary.tar.gz`, or what is in one of them.
        coarse: take the twenty coarse classes.
        download: fetch cifar-100-python.tar.gz (169 MB) if nothing is there; needs pooch, the extra `data`.

    Returns:
        The data set: 50,000 training and 10,000 test images (32, 32, 3).

    Raises:
        FileNotFoundError: as for `load_cifar10`.
        ValueError: as for `load_cifar10`.
        ConnectionError: as for `load_cifar10`.

    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.

    Example:
        >>> load_cifar100("no/folder")
        Traceback (most recent call last):
        FileNotFoundError: load_cifar100: there is no folder no/folder; name the one that holds the CIFAR files
    """
    key, column = ("coarse_labels", 0) if coarse else ("fine_labels", 1)
    python = Layout("cifar-100-python", REMOTE100.name, ("train",), "test", _python(key))
    binary = Layout("cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), "test.bin", _binary(2, column))
    names = CIFAR100_COARSE if coarse else CIFAR100
    return _load("load_cifar100", folder, (python, binary), names, REMOTE100 if download else None)


def _load(
    name: str,
    folder: str | os.PathLike[str],
    layouts: tuple[Layout, ...],
    classes: tuple[str, ...],
    remote: Remote | None,
) -> Dataset:
    folder = Path(folder)
    if not folder.is_dir() and remote is None:
        raise FileNotFoundError(f"{name}: there is no folder {folder}; name the one that holds the CIFAR files")
    found = _found(folder, layouts)
    if found is None and remote is not None:
        fetch(name, folder, (remote,), SERVERS)
        found = _found(folder, layouts)
    if found is None:
        wanted = " or ".join(f"{layout.archive}, or its folder {layout.folder}" for layout in layouts)
        parts = [text for layout in layouts for text in _parts(folder, layout)]
        raise FileNotFoundError(
            f"{name}: {folder} must hold {wanted}; {' and '.join(parts) or 'none of them is there'}; put one there, or "
            f"say download=True"
        )
    layout, contents = found
    pairs = [layout.read(file, *contents(file), len(classes)) for file in (*layout.train, layout.test)]
    train_x, train_y = (np.concatenate(arrays) for arrays in zip(*pairs[:-1], strict=True))
    return Dataset(train_x, train_y, *pairs[-1], classes)


def _found(folder: Path, layouts: tuple[Layout, ...]) -> tuple[Layout, Callable[[str], tuple[str, bytes]]] | None:
    """The first form that is there whole, and what gives a file's full name and its bytes."""
    for layout in layouts:
        for place in (folder / layout.folder, folder):
            if all((place / file).is_file() for file in (*layout.train, layout.test)):
                return layout, lambda file, place=place: (str(place / file), _bytes(place / file))
    for layout in layouts:
        archive = folder / layout.archive
        if archive.is_file():
            members = _unpacked(archive, layout)
            return layout, lambda file, archive=archive, members=members: (f"{archive}, {file}", members[file])
    return None


def _parts(folder: Path, layout: Layout) -> Iterator[str]:
    """What is there of a form, and what is not."""
    for place in (folder / layout.folder, folder):
        missing = [file for file in (*layout.train, layout.test) if not (place / file).is_file()]
        if len(missing) <= len(layout.train):
            yield f"{place} lacks {', '.join(missing)}"


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        data = at_most(file, MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path}: it has more than {MOST_BYTES >> 20} MB, which no CIFAR file has; use another copy")
    return bytes(data)


def _unpacked(archive: Path, layout: Layout) -> dict[str, bytes]:
    """The files of a form from its tar.gz, unpacked in memory and by hand: no path in it is ever written to."""
    try:
        with gzip.open(archive) as stream:
            data = at_most(stream, MOST_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{archive}: it is a corrupted or truncated gzip file ({error}); fetch it again") from error
    if len(data) > MOST_BYTES:
        raise ValueError(
            f"{archive}: it unpacks to more than {MOST_BYTES >> 20} MB, which CIFAR does not; fetch it again"
        )
    wanted, found = {f"{layout.folder}/{file}": file for file in (*layout.train, layout.test)}, {}
    for name, content in _members(archive, memoryview(data)):
        file = wanted.get(name.removeprefix("./"))
        if file in found:
            raise ValueError(f"{archive}: it holds {name} twice; fetch it again")
        if file is not None:
            found[file] = bytes(content)
    missing = [name for name, file in wanted.items() if file not in found]
    if missing:
        raise ValueError(f"{archive}: it lacks {', '.join(missing)}; fetch it again")
    return found


def _members(archive: Path, data: memoryview) -> Iterator[tuple[str, memoryview]]:
    """The plain files of a tar: a header of 512 bytes for each (name at 0, size in octal at 124, kind at 156)."""
    at = 0
    while at + 512 <= len(data) and data[at]:
        header = bytes(data[at : at + 512])
        size = re.fullmatch(rb"([0-7]{1,11})[ \0]*", header[124:136])
        start = at + 512
        if size is None or (end := start + int(size[1], 8)) > len(data):
            raise ValueError(f"{archive}: its tar is damaged at byte {at}; fetch it again")
        if header[156:157] in (b"0", b"\0"):
            yield header[:100].split(b"\0")[0].decode("ascii", "replace"), data[start:end]
        at = start + -(-(end - start) // 512) * 512


def _binary(label_bytes: int, column: int) -> Reader:
    """What reads a binary file with so many labels a record, of which one column is wanted."""

    def read(file: str, where: str, data: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
        size, count = label_bytes + PIXELS, RECORDS.get(file, RECORDS_ELSEWHERE)
        if len(data) != count * size:
            raise ValueError(f"{where}: it must have {count:,} records of {size:,} bytes, got {len(data):,} bytes")
        records = np.frombuffer(data, np.uint8).reshape(count, size)
        return _checked(where, records[:, label_bytes:], records[:, column].tolist(), classes)

    return read


def _python(key: str) -> Reader:
    """What reads a pickled dict with the labels under a key."""

    def read(file: str, where: str, data: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
        found = plain_pickle(where, data)
        if not isinstance(found, dict):
            raise ValueError(f"{where}: it must hold a dict, got {type(found).__name__}; use another copy")
        rows, labels = _entry(where, found, "data"), _entry(where, found, key)
        pixels = rows.value if isinstance(rows, Array) else None
        if (
            pixels is None
            or pixels.dtype != np.uint8
            or pixels.ndim != 2
            or pixels.shape[1] != PIXELS
            or not len(pixels)
        ):
            got = type(rows).__name__ if pixels is None else f"{pixels.dtype} {pixels.shape}"
            raise ValueError(f"{where}: 'data' must be uint8 (n, {PIXELS}), got {got}; use another copy")
        if not isinstance(labels, list) or len(labels) != len(pixels):
            got = f"{len(labels)} of them" if isinstance(labels, list) else type(labels).__name__
            raise ValueError(f"{where}: {key!r} must be a list of {len(pixels)} labels, got {got}; use another copy")
        return _checked(where, pixels, labels, classes)

    return read


def _entry(where: str, found: dict[Any, Any], key: str) -> Any:
    """What stands under a key, which Python 2 wrote as bytes."""
    for known in (key, key.encode()):
        if known in found:
            return found[known]
    raise ValueError(f"{where}: it has no {key!r}; use another copy")


def _checked(where: str, rows: np.ndarray, labels: list[Any], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) of rows (n, 3072), and labels that are classes."""
    for at, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < classes:
            got = label if type(label) is int and abs(label) < 2**63 else type(label).__name__
            raise ValueError(
                f"{where}: labels must be 0 to {classes - 1}, got {got} at position {at}; use another copy"
            )
    images = np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, np.asarray(labels, np.int32)

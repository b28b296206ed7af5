"""MNIST and Fashion-MNIST from a folder that the user names. Nothing is fetched unless `download=True` says so.

    train-images-idx3-ubyte    60,000 images of 28x28      t10k-images-idx3-ubyte    10,000 images
    train-labels-idx1-ubyte    their classes, 0 to 9       t10k-labels-idx1-ubyte    theirs

Each may be gzipped, with or without .gz in its name, and may have a dot before idx, as some copies do.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from handgrad.data.dataset import Dataset
from handgrad.data.download import Remote, fetch
from handgrad.data.idx import read_idx

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
ENDINGS = {"images": "idx3-ubyte", "labels": "idx1-ubyte"}


class Published(NamedTuple):
    """Where a data set is to be had: servers, and size and sha256 of each gzipped file."""

    servers: tuple[str, ...]
    files: dict[str, tuple[int, str]]


MNIST = Published(
    ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
    {
        "train-images": (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        "train-labels": (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        "t10k-images": (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        "t10k-labels": (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    },
)
FASHION = Published(
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    {
        "train-images": (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        "train-labels": (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        "t10k-images": (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        "t10k-labels": (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    },
)


def load_mnist(folder: str | os.PathLike[str], *, test_only: bool = False, download: bool = False) -> Dataset:
    """MNIST, handwritten digits of 28x28, from its IDX files in a folder.

    Args:
        folder: holds the four files, gzipped or not.
        test_only: use the two t10k files alone, where the training files are not at hand: the first four fifths,
            images 0 to 7999, are for training, the rest, 8000 to 9999, for testing. Accuracies are then not those of
            the published split.
        download: fetch the files that are not there (12 MB in all); needs pooch, the extra `data`.

    Returns:
        The data set: 60,000 training and 10,000 test images (28, 28, 1), or 8,000 and 2,000 with test_only.

    Raises:
        FileNotFoundError: no folder, or files missing; the message says which and where they were looked for.
        ValueError: a bad file (see `read_idx`), another image size or type, labels outside 0 to 9, or numbers of images
            and labels that differ; the message names the files.
        ConnectionError: the download failed; the message says what to put where.

    Source: Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits (CC BY-SA 3.0).

    Example:
        >>> load_mnist("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: load_mnist: there is no folder no/such/folder; name the one that holds the MNIST files
    """
    if download:
        _fetch("load_mnist", Path(folder), MNIST, ("t10k",) if test_only else ("train", "t10k"))
    folder = _folder("load_mnist", folder)
    if test_only:
        x, y = _load("load_mnist", folder, "t10k")
        n = len(x) * 4 // 5
        if n == 0:
            raise ValueError(f"load_mnist: test_only must have at least 2 images to split, got {len(x)} in {folder}")
        return Dataset(x[:n], y[:n], x[n:], y[n:], DIGITS)
    if _missing(folder, "train") and not _missing(folder, "t10k"):
        raise FileNotFoundError(
            f"load_mnist: {folder} holds the test files only, not {' and '.join(_missing(folder, 'train'))} (with or "
            f"without .gz); add them, or say test_only=True to train on four fifths of the test images"
        )
    return Dataset(*_load("load_mnist", folder, "train"), *_load("load_mnist", folder, "t10k"), DIGITS)


def load_fashion_mnist(folder: str | os.PathLike[str], *, download: bool = False) -> Dataset:
    """Fashion-MNIST, pictures of clothes of 28x28, from its IDX files in a folder.

    Args:
        folder: holds the four files, gzipped or not.
        download: fetch the files that are not there (31 MB in all); needs pooch, the extra `data`.

    Returns:
        The data set: 60,000 training and 10,000 test images (28, 28, 1).

    Raises:
        FileNotFoundError: as for `load_mnist`.
        ValueError: as for `load_mnist`.
        ConnectionError: as for `load_mnist`.

    Source: Xiao, Rasul and Vollgraf, Fashion-MNIST, arXiv:1708.07747, 2017 (Zalando SE, MIT licence).

    Example:
        >>> load_fashion_mnist("no/folder")
        Traceback (most recent call last):
        FileNotFoundError: load_fashion_mnist: there is no folder no/folder; name the one that holds the MNIST files
    """
    if download:
        _fetch("load_fashion_mnist", Path(folder), FASHION, ("train", "t10k"))
    folder = _folder("load_fashion_mnist", folder)
    train, test = _load("load_fashion_mnist", folder, "train"), _load("load_fashion_mnist", folder, "t10k")
    return Dataset(*train, *test, CLOTHES)


def _folder(name: str, folder: str | os.PathLike[str]) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: there is no folder {folder}; name the one that holds the MNIST files")
    return folder


def _fetch(name: str, folder: Path, published: Published, parts: tuple[str, ...]) -> None:
    """Bring the files that are not in the folder under any name."""
    wanted = [(part, kind) for part in parts for kind in ENDINGS if _find(folder, part, kind) is None]
    files = [Remote(f"{part}-{kind}-{ENDINGS[kind]}.gz", *published.files[f"{part}-{kind}"]) for part, kind in wanted]
    if files:
        fetch(name, folder, files, published.servers)


def _find(folder: Path, part: str, kind: str) -> Path | None:
    """The file of one part (train, t10k) and kind (images, labels), under any of its names."""
    names = [f"{part}-{kind}{mark}{ENDINGS[kind]}{ending}" for mark in "-." for ending in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _missing(folder: Path, part: str) -> list[str]:
    """The plain names of the part's files that are not there."""
    return [f"{part}-{kind}-{ending}" for kind, ending in ENDINGS.items() if _find(folder, part, kind) is None]


def _load(name: str, folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """The part's images (N, 28, 28, 1) uint8 and labels (N,) int32."""
    images, labels = (_find(folder, part, kind) for kind in ENDINGS)
    if images is None or labels is None:
        raise FileNotFoundError(
            f"{name}: {' and '.join(_missing(folder, part))} must be in {folder} (with or without .gz, or with a dot "
            f"before idx); put what is missing there, or say download=True"
        )
    x, y = read_idx(images), read_idx(labels)
    if x.dtype != np.uint8 or x.shape[1:] != (28, 28):
        raise ValueError(f"{name}: {images} must hold images (n, 28, 28) of uint8, got {x.shape} of {x.dtype}")
    if y.dtype != np.uint8 or y.ndim != 1:
        raise ValueError(f"{name}: {labels} must hold labels (n,) of uint8, got {y.shape} of {y.dtype}")
    if len(x) != len(y):
        raise ValueError(f"{name}: {images} holds {len(x)} images, but {labels} holds {len(y)} labels")
    if y.max() > 9:
        at = int(np.argmax(y > 9))
        raise ValueError(f"{name}: {labels} must hold labels 0 to 9, got {y[at]} at position {at}")
    return x[..., None], y.astype(np.int32)

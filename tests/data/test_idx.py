"""read_idx against an encoder and under damage of every kind; the MNIST loaders on made and on real files."""

import gzip
import hashlib
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from handgrad.data import load_fashion_mnist, load_mnist, read_idx

CODES = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}
ARRAY = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


def encode(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, CODES[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write(folder, content, name="file"):
    path = Path(folder, name)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (1, 1, 2, 1, 3)])
@pytest.mark.parametrize("dtype", CODES)
def test_reads_what_was_written(tmp_path, dtype, shape, zipped):
    array = (np.random.default_rng(0).normal(size=shape) * 50).astype(dtype)
    content = gzip.compress(encode(array)) if zipped else encode(array)
    for name in ("plain", "misnamed.gz"):
        read = read_idx(str(write(tmp_path, content, name)))
        np.testing.assert_array_equal(read, array, strict=True)
        assert read.dtype.isnative and read.flags.writeable


WHOLE = encode(ARRAY)
DAMAGE = {  # content, message
    "empty": (b"", "ends within its header, after 0 of 4 bytes"),
    "no sizes": (WHOLE[:9], "ends within its header, after 5 of 12 bytes"),
    "magic": (b"PK" + WHOLE[2:], "must start with two zero bytes, got 0x504b; it is no IDX file"),
    "type": (WHOLE[:2] + b"\x0a" + WHOLE[3:], r"must have a type code of \[8, 9, 11, 12, 13, 14\] in byte 2, got 10"),
    "rank 0": (bytes([0, 0, 8, 0, 1]), "must have a rank of 1 to 64 in byte 3, got 0"),
    "rank 65": (bytes([0, 0, 8, 65]) + bytes([0, 0, 0, 1] * 65) + b"\0", "rank of 1 to 64 in byte 3, got 65"),
    "size 0": (
        struct.pack(">HBB2I", 0, 8, 2, 0, 2**32 - 1),
        r"sizes of at least 1 in its header, got \(0, 4294967295\)",
    ),
    "truncated": (
        WHOLE[:-1],
        r"must hold 60 bytes of data for its header's \(3, 4, 5\) of uint8, got 59: it is truncated",
    ),
    "too long": (WHOLE + b"\0", r"must hold 60 bytes .* got more: something follows the data"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("content, message", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_with_the_file(tmp_path, content, message, zipped):
    path = write(tmp_path, gzip.compress(content) if zipped else content, "images-file")
    with pytest.raises(ValueError, match=f"read_idx: .*images-file.* {message}"):
        read_idx(path)


ZIPPED = gzip.compress(WHOLE, mtime=0)
GZIP_DAMAGE = {
    "checksum": ZIPPED[:-8] + bytes([ZIPPED[-8] ^ 1]) + ZIPPED[-7:],
    "length": ZIPPED[:-1] + b"\1",
    "truncated": ZIPPED[:-9],
    "no trailer": ZIPPED[:-4],
    "body": ZIPPED[:20] + b"\xff" * 20 + ZIPPED[40:],
    "trailing": ZIPPED + b"more",
    "two bytes": ZIPPED[:2],
    "method": ZIPPED[:2] + b"\7" + ZIPPED[3:],
}


@pytest.mark.parametrize("content", GZIP_DAMAGE.values(), ids=GZIP_DAMAGE)
def test_gzip_damage_is_named_with_the_file(tmp_path, content):
    with pytest.raises(ValueError, match="read_idx: .*labels-file is a corrupted or truncated gzip file"):
        read_idx(write(tmp_path, content, "labels-file"))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        read_idx(tmp_path / "nothing-here")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "sizes, data", [((2**32 - 1,) * 3, b"abc"), ((5,), b"\0" * (64 << 20))], ids=["promise", "bomb"]
)
def test_a_false_header_costs_no_memory(tmp_path, sizes, data, zipped):
    content = struct.pack(f">HBB{len(sizes)}I", 0, 8, len(sizes), *sizes) + data
    path = write(tmp_path, gzip.compress(content, 1) if zipped else content)
    del content
    tracemalloc.start()
    with pytest.raises(ValueError, match="must hold"):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def pictures(n, seed=0):
    draws = np.random.default_rng(seed)
    return draws.integers(0, 256, (n, 28, 28), np.uint8), draws.integers(0, 10, n, np.uint8)


def fill(folder, parts=(("train", 7), ("t10k", 5)), sep="-", zipped=False):
    for part, n in parts:
        for kind, array, ending in zip(("images", "labels"), pictures(n), ("idx3-ubyte", "idx1-ubyte"), strict=True):
            content = gzip.compress(encode(array)) if zipped else encode(array)
            write(folder, content, f"{part}-{kind}{sep}{ending}{'.gz' if zipped else ''}")
    return folder


@pytest.mark.parametrize("load", [load_mnist, load_fashion_mnist])
@pytest.mark.parametrize("sep", ["-", "."])
@pytest.mark.parametrize("zipped", [False, True])
def test_loads_under_every_name(tmp_path, load, sep, zipped):
    data = load(str(fill(tmp_path, sep=sep, zipped=zipped)))
    for x, y, n in ((data.train_x, data.train_y, 7), (data.test_x, data.test_y, 5)):
        images, labels = pictures(n)
        np.testing.assert_array_equal(x, images[..., None], strict=True)
        np.testing.assert_array_equal(y, labels.astype(np.int32), strict=True)
    assert len(data.classes) == 10 and data.classes[9] == ("9" if load is load_mnist else "Ankle boot")


def test_test_images_only(tmp_path):
    fill(tmp_path, [("t10k", 10)])
    with pytest.raises(
        FileNotFoundError, match=r"holds the test files only, not train-images-idx3-ubyte and train-.*only=True"
    ):
        load_mnist(tmp_path)
    data, (images, labels) = load_mnist(tmp_path, test_only=True), pictures(10)
    np.testing.assert_array_equal(np.concatenate([data.train_x, data.test_x])[..., 0], images)
    np.testing.assert_array_equal(np.concatenate([data.train_y, data.test_y]), labels)
    assert len(data.train_x) == 8
    with pytest.raises(ValueError, match="test_only must have at least 2 images to split, got 1"):
        load_mnist(fill(tmp_path, [("t10k", 1)]), test_only=True)


@pytest.mark.parametrize("load", [load_mnist, load_fashion_mnist])
def test_missing_files_are_listed(tmp_path, load):
    names = "train-images-idx3-ubyte and train-labels-idx1-ubyte"
    with pytest.raises(
        FileNotFoundError, match=f"{load.__name__}: {names} must be in .*{tmp_path.name} .*with or without"
    ):
        load(tmp_path)
    os.remove(fill(tmp_path) / "t10k-labels-idx1-ubyte")
    with pytest.raises(FileNotFoundError, match=f"{load.__name__}: t10k-labels-idx1-ubyte must be in"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{load.__name__}: there is no folder .*nowhere"):
        load(tmp_path / "nowhere")


images, labels = pictures(7)
TRAIN_X, TRAIN_Y = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
BAD_LABEL = np.array([3, 1, 10, 0, 0, 0, 0], np.uint8)
UNFIT = {  # file, its content, message
    "count": (TRAIN_Y, labels[:6], f"{TRAIN_X} holds 7 images, but .*{TRAIN_Y} holds 6 labels"),
    "size": (
        "t10k-images-idx3-ubyte",
        images[:, 1:],
        r"t10k-images.* images \(n, 28, 28\) of uint8, got \(7, 27, 28\)",
    ),
    "rank": (TRAIN_X, labels, rf"{TRAIN_X} must hold images .* got \(7,\) of uint8"),
    "image type": (TRAIN_X, images.astype(np.int32), rf"{TRAIN_X} must hold .* got \(7, 28, 28\) of int32"),
    "label type": (TRAIN_Y, labels.astype(np.int8), rf"{TRAIN_Y} must hold labels \(n,\) of uint8, got \(7,\) of int8"),
    "label rank": (TRAIN_Y, labels[:, None], rf"{TRAIN_Y} must hold labels \(n,\) of uint8, got \(7, 1\)"),
    "label": (TRAIN_Y, BAD_LABEL, f"{TRAIN_Y} must hold labels 0 to 9, got 10 at position 2"),
}


@pytest.mark.parametrize("name, array, message", UNFIT.values(), ids=UNFIT)
@pytest.mark.parametrize("load", [load_mnist, load_fashion_mnist])
def test_files_that_do_not_fit(tmp_path, load, name, array, message):
    write(fill(tmp_path), encode(array), name)
    with pytest.raises(ValueError, match=f"{load.__name__}: .*{message}"):
        load(tmp_path)


def test_a_truncated_file_is_named_by_the_loader(tmp_path):
    path = fill(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="train-images-idx3-ubyte must hold 5488 bytes .* got 5388: it is truncated"):
        load_mnist(tmp_path)


def digest(x):
    return hashlib.sha256(struct.pack(">HBB3I", 0, 8, 3, *x.shape[:3]) + x.tobytes()).hexdigest()


def test_real_fashion_mnist(data_dir):
    data = load_fashion_mnist(data_dir / "fashion_mnist")
    assert data.train_x.shape == (60000, 28, 28, 1) and data.test_x.shape == (10000, 28, 28, 1)
    assert digest(data.train_x) == "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    assert digest(data.test_x) == "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    assert (np.bincount(data.train_y) == 6000).all() and (np.bincount(data.test_y) == 1000).all()


def test_real_mnist_test_images(data_dir):
    data = load_mnist(data_dir / "mnist", test_only=True)
    assert data.train_x.shape == (8000, 28, 28, 1) and data.test_x.shape == (2000, 28, 28, 1)
    assert data.train_y[:5].tolist() == [7, 2, 1, 0, 4]
    counts = np.bincount(data.train_y) + np.bincount(data.test_y)
    assert counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]

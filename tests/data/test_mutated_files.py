"""Every reader of files under mutation: an error that names the file, or the right data; never a crash, never garbage.

What "right" is depends on the format. Where it holds checksums (gzip, zip, PNG, checkpoints, our safetensors) it is
what was written. Where it holds none (plain IDX, CIFAR), a changed pixel is a pixel: then it is what the mutated bytes
say to a reader that is not ours. `make test` tries 60 mutations of each file, `make test-slow` 1,000.
"""

import gzip
import io
import json
import pickle
import struct
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import handgrad as hg
from cifar_files import archive, binary, images, of_python_2, rows
from handgrad.data import cifar, load_cifar10, load_cifar100, load_npz, read_idx, read_images
from handgrad.data.dataset import Dataset
from handgrad.training import checkpoint

MEMORY = 64 << 20
SECONDS = 60
NUMBERS = [0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
TEN = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


class Reader(NamedTuple):
    """A reader: the file to mutate, what else lies in the folder, how to read it, and whether the result is right."""

    name: str
    content: bytes
    read: Callable[[Path], Any]
    right: Callable[[Any, bytes], bool]
    others: dict[str, bytes] = {}


def same(one, other):
    """Two trees, in structure, dtypes, shapes and bytes."""
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.asarray(a).dtype == np.asarray(b).dtype
        and np.shape(a) == np.shape(b)
        and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(leaves, others, strict=True)
    )


IDX_ARRAY = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


def idx(array):
    codes = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}
    header = struct.pack(f">HBB{array.ndim}I", 0, codes[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


class Trusting(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Python's own reader, with NumPy's own functions and no others; in C its memo may ask for gigabytes."""

    def find_class(self, module, name):
        assert (module, name) in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
        return super().find_class(module, name)


def as_pickle_reads_it(data, content):
    """Only bytes that ours accepted come here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of old names and of a flag that is no bool
        found = Trusting(io.BytesIO(content), encoding="bytes").load()
    found = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in found.items()}
    x, y = data.train_x[: -4 * 2], data.train_y[: -4 * 2]
    return same((x, y.tolist()), (images(found["data"]), found["labels"]))


def of_cifar100(data, content):
    records = np.frombuffer(content, np.uint8).reshape(2, 3074)
    return same((data.train_x, data.train_y), (images(records[:, 2:]), records[:, 1].astype(np.int32)))


def of_cifar10(data, _):
    expected = images(np.concatenate([rows(1, seed) for seed in range(6)]))
    return same(np.concatenate([data.train_x, data.test_x]), expected) and data.train_y.tolist() == [7] * 5


LABELS = np.array([0, 2], np.int32)
NPZ = (IDX_ARRAY[:2, ..., None], LABELS, IDX_ARRAY[1:, ..., None], LABELS)
TREE = {"dense1": {"kernel": jnp.arange(12.0).reshape(3, 4), "bias": jnp.arange(4.0)}, "step": jnp.int32(7)}
NET = hg.Chain(hg.Dense(2), hg.BatchNorm())
PARAMS = NET.init(jax.random.key(0), (3,))


def newest(folder):
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        path = checkpoint.latest(folder)
    assert path is not None  # the older one is whole
    return path.name, checkpoint.load(path)


def said_without_checksum(content):
    """Whether a safetensors file has lost the checksums that ours have, and is as any other library's."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    try:
        return not json.loads(header.get("__metadata__", {}).get("sha256", "{}"))
    except ValueError:
        return True


def tensors_right(result, content):
    params, state = PARAMS
    wanted = {f"params/dense1/{name}": leaf for name, leaf in params["dense1"].items()}
    wanted |= {f"params/batchnorm1/{name}": leaf for name, leaf in params["batchnorm1"].items()}
    wanted |= {f"state/batchnorm1/{name}": leaf for name, leaf in state["batchnorm1"].items()}
    return same(result, wanted) or said_without_checksum(content)


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """All of them, by a word."""
    folder = tmp_path_factory.mktemp("written")

    def bytes_of(write, name):
        write(folder / name)
        return (folder / name).read_bytes()

    tree = bytes_of(lambda path: checkpoint.save(path, TREE), "step_00000002.npz")
    older = bytes_of(lambda path: checkpoint.save(path, TREE | {"step": jnp.int32(6)}), "step_00000001.npz")
    tensors = bytes_of(lambda path: hg.models.save_safetensors(path, *PARAMS), "net.safetensors")
    arrays: dict[str, Any] = dict(zip(Dataset._fields, NPZ, strict=False))
    npz = bytes_of(lambda path: np.savez(path, **arrays), "few.npz")
    deflated = bytes_of(lambda path: np.savez_compressed(path, **arrays), "few.npz")
    picture = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    png = bytes_of(lambda path: Image.fromarray(picture).save(path), "x.png")
    jpeg = bytes_of(lambda path: Image.fromarray(picture).save(path), "x.jpg")
    python = {name: of_python_2(rows(2, seed), [7, 1]) for seed, name in enumerate(TEN)}
    one = {f"cifar-10-batches-py/{name}": of_python_2(rows(1, seed), [7]) for seed, name in enumerate(TEN)}
    hundred = binary(rows(2), [1, 2], [3, 99])
    return {
        "idx": Reader("labels", idx(IDX_ARRAY), lambda f: read_idx(f / "labels"), lambda x, c: idx(x) == c),
        "idx of float64": Reader("x", idx(IDX_ARRAY / 7), lambda f: read_idx(f / "x"), lambda x, c: idx(x) == c),
        "idx gzipped": Reader(
            "x.gz",
            gzip.compress(idx(IDX_ARRAY), mtime=0),
            lambda f: read_idx(f / "x.gz"),
            lambda x, _: same(x, IDX_ARRAY),
        ),
        "cifar binary": Reader(
            "train.bin", hundred, load_cifar100, of_cifar100, {"test.bin": binary(rows(1), [1], [2])}
        ),
        "cifar python": Reader("data_batch_1", python["data_batch_1"], load_cifar10, as_pickle_reads_it, python),
        "cifar tar.gz": Reader("cifar-10-python.tar.gz", archive(one), load_cifar10, of_cifar10),
        "npz": Reader("few.npz", npz, lambda f: load_npz(f / "few.npz"), lambda x, _: same(tuple(x[:4]), NPZ)),
        "npz deflated": Reader(
            "few.npz", deflated, lambda f: load_npz(f / "few.npz"), lambda x, _: same(tuple(x[:4]), NPZ)
        ),
        "checkpoint": Reader("a.npz", tree, lambda f: checkpoint.load(f / "a.npz"), lambda x, _: same(x, TREE)),
        "checkpoint like": Reader(
            "a.npz", tree, lambda f: checkpoint.load(f / "a.npz", TREE), lambda x, _: same(x, TREE)
        ),
        "latest checkpoint": Reader(
            "step_00000002.npz",
            tree,
            newest,
            lambda x, _: same(x[1], TREE | {"step": jnp.int32(7 if x[0] == "step_00000002.npz" else 6)}),
            {"step_00000001.npz": older},
        ),
        "safetensors": Reader("n", tensors, lambda f: hg.models.read_safetensors(f / "n"), tensors_right),
        "safetensors of a net": Reader(
            "n",
            tensors,
            lambda f: hg.models.load_safetensors(f / "n", NET, (3,)),
            lambda x, c: same(x, PARAMS) or said_without_checksum(c),
        ),
        "png": Reader("x.png", png, lambda f: read_images([f / "x.png"]), lambda x, _: same(x, picture[None])),
        "jpeg": Reader("x.jpg", jpeg, lambda f: read_images([f / "x.jpg"]), lambda x, _: x.dtype == np.uint8),
    }


def mutations(content):
    """Up to three edits, half of them near the beginning or the end, where headers and tables are."""
    n = len(content)
    place = st.one_of(st.integers(0, n - 1), st.integers(0, min(n, 200) - 1), st.integers(max(n - 200, 0), n - 1))
    length = st.integers(1, 300)
    number = st.tuples(st.sampled_from(NUMBERS), st.sampled_from([1, 2, 4, 8]), st.sampled_from(["little", "big"]))
    edit = st.one_of(
        st.tuples(st.just("set"), place, st.integers(0, 255)),
        st.tuples(st.just("set"), place, st.sampled_from(b'0123456789-"{}[],:.\n')),
        st.tuples(st.just("flip"), place, st.integers(0, 7)),
        st.tuples(st.just("cut"), place, st.none()),
        st.tuples(st.just("drop"), place, length),
        st.tuples(st.just("put"), place, st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("repeat"), place, length),
        st.tuples(st.just("number"), place, number),
    )
    return st.lists(edit, min_size=1, max_size=3).map(lambda edits: mutated(content, edits))


def mutated(content, edits):
    data = bytearray(content)
    for kind, at, what in edits:
        if kind == "set":
            data[at : at + 1] = bytes([what])
        elif kind == "flip":
            data[at : at + 1] = bytes(byte ^ 1 << what for byte in data[at : at + 1])
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + what]
        elif kind == "put":
            data[at:at] = what
        elif kind == "repeat":
            data[at:at] = data[at : at + what]
        else:
            value, width, order = what
            data[at : at + width] = (value % 256**width).to_bytes(width, order)
    return bytes(data)


NAMES = [
    *("idx", "idx of float64", "idx gzipped", "cifar binary", "cifar python", "cifar tar.gz", "npz", "npz deflated"),
    *("checkpoint", "checkpoint like", "latest checkpoint", "safetensors", "safetensors of a net", "png", "jpeg"),
]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(cifar, "RECORDS", {"train.bin": 2})
    monkeypatch.setattr(cifar, "RECORDS_ELSEWHERE", 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)


def test_all_are_in_the_table(readers):
    assert list(readers) == NAMES


@pytest.mark.parametrize("examples", [60, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_a_mutated_file_is_an_error_that_names_it_or_right(readers, tmp_path, name, examples):
    reader = readers[name]
    for other, content in reader.others.items():
        (tmp_path / other).write_bytes(content)
    path = tmp_path / reader.name
    path.write_bytes(reader.content)
    assert reader.right(reader.read(tmp_path), reader.content)  # and warm, so that memory below is the reader's

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
    )
    @given(mutations(reader.content))
    def check(content):
        path.write_bytes(content)
        tracemalloc.start()
        began, found, problem = time.monotonic(), None, None
        try:
            found = reader.read(tmp_path)
        except (ValueError, TypeError) as error:
            problem = str(error)
        finally:
            peak, seconds = tracemalloc.get_traced_memory()[1], time.monotonic() - began
            tracemalloc.stop()
        assert peak < MEMORY and seconds < SECONDS
        assert reader.right(found, content) if problem is None else str(path) in problem, problem

    check()

"""The CIFAR loaders on made files in every published form, and pickles that would do harm elsewhere."""

import argparse
import gzip
import io
import os
import pickle
import pickletools
import struct
import subprocess
import tarfile
import time
import tracemalloc

import numpy as np
import pytest

from cifar_files import archive, binary, images, of_python_2, pickled, rows
from handgrad.cli import main
from handgrad.cli.train import load
from handgrad.data import cifar, load_cifar10, load_cifar100
from handgrad.data import plain_pickle as plain_pickle_module
from handgrad.data.plain_pickle import Array

N = 3
LABELS = [3, 0, 9]
TEN = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


@pytest.fixture(autouse=True)
def few_records(monkeypatch):
    monkeypatch.setattr(cifar, "RECORDS", {"train.bin": 2 * N})
    monkeypatch.setattr(cifar, "RECORDS_ELSEWHERE", N)


def ten(form):
    """The six files of CIFAR-10 by name."""
    if form == "binary":
        return {f"{name}.bin": binary(rows(N, seed), LABELS) for seed, name in enumerate(TEN)}
    if form == "python 2":
        return {name: of_python_2(rows(N, seed), LABELS) for seed, name in enumerate(TEN)}
    return {name: pickled(rows(N, seed), int(form[-1]), labels=LABELS) for seed, name in enumerate(TEN)}


def hundred(form):
    fine, coarse = [99, 0, 5, 7, 1, 2], [19, 0, 1, 2, 3, 4]
    if form == "binary":
        return {
            "train.bin": binary(rows(2 * N), coarse, fine),
            "test.bin": binary(rows(N, 1), coarse[:N], fine[:N]),
        }
    return {
        "train": pickled(rows(2 * N), fine_labels=fine, coarse_labels=coarse),
        "test": pickled(rows(N, 1), fine_labels=fine[:N], coarse_labels=coarse[:N]),
    }


def put(folder, files):
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("form", ["binary", "python 2", "protocol 0", "protocol 2", "protocol 4"])
@pytest.mark.parametrize("place", ["folder", "below", "archive"])
def test_cifar10_in_every_form_and_place(tmp_path, form, place):
    below = "cifar-10-batches-bin" if form == "binary" else "cifar-10-batches-py"
    files = ten(form)
    if place == "archive":
        name = "cifar-10-binary.tar.gz" if form == "binary" else "cifar-10-python.tar.gz"
        others = {f"{below}/": b"", f"{below}/readme.html": b"<p>" * 300}
        put(tmp_path, {name: archive(others | {f"{below}/{file}": data for file, data in files.items()})})
    else:
        put(tmp_path / below if place == "below" else tmp_path, files)
    data = load_cifar10(str(tmp_path))
    expected = images(np.concatenate([rows(N, seed) for seed in range(5)]))
    np.testing.assert_array_equal(data.train_x, expected, strict=True)
    np.testing.assert_array_equal(data.test_x, images(rows(N, 5)), strict=True)
    np.testing.assert_array_equal(data.train_y, np.array(LABELS * 5, np.int32), strict=True)
    np.testing.assert_array_equal(data.test_y, np.array(LABELS, np.int32), strict=True)
    assert data.classes[:2] == ("airplane", "automobile") and len(data.classes) == 10
    assert data.train_x.flags.c_contiguous


@pytest.mark.parametrize("form", ["binary", "python"])
def test_cifar100_fine_and_coarse(tmp_path, form):
    put(tmp_path, hundred(form))
    fine, coarse = load_cifar100(tmp_path), load_cifar100(tmp_path, coarse=True)
    for data in (fine, coarse):
        np.testing.assert_array_equal(data.train_x, images(rows(2 * N)), strict=True)
        np.testing.assert_array_equal(data.test_x, images(rows(N, 1)), strict=True)
    assert fine.train_y.tolist() == [99, 0, 5, 7, 1, 2] and fine.test_y.tolist() == [99, 0, 5]
    assert coarse.train_y.tolist() == [19, 0, 1, 2, 3, 4]
    assert (fine.classes[0], fine.classes[99], len(fine.classes)) == ("apple", "worm", 100)
    assert (coarse.classes[0], coarse.classes[19], len(coarse.classes)) == ("aquatic_mammals", "vehicles_2", 20)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cifar10: .* must hold cifar-10-python.tar.gz, or .*; none of them"):
        load_cifar10(tmp_path)
    files = put(tmp_path, ten("python 2"))
    (files / "data_batch_4").unlink()
    with pytest.raises(FileNotFoundError, match="lacks data_batch_4; put one there, or say download=True"):
        load_cifar10(tmp_path)
    with pytest.raises(FileNotFoundError, match="load_cifar100: there is no folder .*nowhere"):
        load_cifar100(tmp_path / "nowhere")


DICT = {"data": rows(N), "labels": LABELS}
UNFIT = {  # what is pickled in the place of a batch, message
    "no dict": ([1, 2], "must hold a dict, got list"),
    "no data": ({"labels": LABELS}, "has no 'data'"),
    "no labels": ({"data": rows(N)}, "has no 'labels'"),
    "data is a list": (DICT | {"data": [1, 2]}, r"'data' must be uint8 \(n, 3072\), got list"),
    "data is wide": (DICT | {"data": rows(N).astype(np.int16)}, r"'data' must be uint8 \(n, 3072\), got int16"),
    "data is narrow": (DICT | {"data": rows(N)[:, 1:].copy()}, r"got uint8 \(3, 3071\)"),
    "data is flat": (DICT | {"data": rows(N).ravel()}, r"got uint8 \(9216,\)"),
    "no rows": ({"data": rows(0), "labels": []}, r"got uint8 \(0, 3072\)"),
    "fewer labels": (DICT | {"labels": [1, 2]}, "'labels' must be a list of 3 labels, got 2 of them"),
    "labels in an array": (DICT | {"labels": np.array(LABELS)}, "'labels' must be a list of 3 labels, got Array"),
    "label too high": (DICT | {"labels": [1, 10, 2]}, "labels must be 0 to 9, got 10 at position 1"),
    "label below 0": (DICT | {"labels": [-1, 1, 2]}, "labels must be 0 to 9, got -1 at position 0"),
    "label a bool": (DICT | {"labels": [1, 1, True]}, "labels must be 0 to 9, got bool at position 2"),
    "label a string": (DICT | {"labels": [1, 1, "2"]}, "labels must be 0 to 9, got str at position 2"),
    "label huge": (DICT | {"labels": [1, 1, 10**5000]}, "labels must be 0 to 9, got int at position 2"),
}


@pytest.mark.parametrize(("content", "message"), UNFIT.values(), ids=UNFIT)
def test_pickles_of_other_things_are_refused_by_name(tmp_path, content, message):
    put(tmp_path, ten("protocol 2") | {"data_batch_2": pickle.dumps(content, 4)})
    with pytest.raises(ValueError, match=f"data_batch_2: .*{message}.*; use another copy"):
        load_cifar10(tmp_path)


def test_a_binary_file_of_another_length_is_refused(tmp_path):
    files = put(tmp_path, ten("binary"))
    whole = (files / "test_batch.bin").read_bytes()
    for data in (whole[:-1], whole[:-3073], whole + bytes(3073), b""):
        (files / "test_batch.bin").write_bytes(data)
        with pytest.raises(
            ValueError, match=rf"test_batch.bin: it must have 3 records of 3,073 bytes, got {len(data):,}"
        ):
            load_cifar10(tmp_path)
    (files / "test_batch.bin").write_bytes(bytes([10]) + whole[1:])
    with pytest.raises(ValueError, match="test_batch.bin: labels must be 0 to 9, got 10 at position 0"):
        load_cifar10(tmp_path)


def test_the_published_lengths(tmp_path, monkeypatch):
    monkeypatch.undo()
    put(tmp_path, hundred("binary"))
    with pytest.raises(ValueError, match=r"train.bin: it must have 50,000 records of 3,074 bytes, got 18,444"):
        load_cifar100(tmp_path)
    put(tmp_path, ten("binary"))
    with pytest.raises(ValueError, match=r"data_batch_1.bin: it must have 10,000 records of 3,073 bytes, got 9,219"):
        load_cifar10(tmp_path)


def tar_of(**changes):
    """The archive with a file of it changed, or None to leave it out."""
    files = {f"cifar-10-batches-py/{name}": data for name, data in ten("protocol 2").items()}
    return {name: data for name, data in {**files, **changes}.items() if data is not None}


def bomb():
    """A tar whose unneeded member unpacks to 32 MB."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        info = tarfile.TarInfo("cifar-10-batches-py/zeros")
        info.size = 32 << 20
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


WHOLE = archive(tar_of())
PLAIN = gzip.decompress(WHOLE)
FIRST = 512 + -(-len(ten("protocol 2")["data_batch_1"]) // 512) * 512  # where the second file begins
ARCHIVES = {
    "truncated": (WHOLE[:-30], "is a corrupted or truncated gzip file"),
    "no gzip": (PLAIN, "is a corrupted or truncated gzip file"),
    "flipped": (WHOLE[:5000] + bytes([WHOLE[5000] ^ 1]) + WHOLE[5001:], "is a corrupted or truncated gzip file"),
    "lacks one": (archive(tar_of(**{"cifar-10-batches-py/test_batch": None})), "lacks cifar-10-batches-py/test_batch"),
    "elsewhere": (
        archive({f"x/{name}": data for name, data in ten("protocol 2").items()}),
        "lacks cifar-10-batches-py",
    ),
    "empty": (gzip.compress(b""), "lacks cifar-10-batches-py/data_batch_1"),
    "ends early": (gzip.compress(PLAIN[:9000]), "tar is damaged at byte 0"),
    "size below 0": (gzip.compress(PLAIN[:124] + b"\xff" * 12 + PLAIN[136:]), "tar is damaged at byte 0"),
    "size -1": (gzip.compress(PLAIN[:124] + b"-0000000001\0" + PLAIN[136:]), "tar is damaged at byte 0"),
    "twice": (gzip.compress(PLAIN[:FIRST] + PLAIN), "holds cifar-10-batches-py/data_batch_1 twice"),
}


@pytest.mark.parametrize(("content", "message"), ARCHIVES.values(), ids=ARCHIVES)
def test_bad_archives(tmp_path, content, message):
    put(tmp_path, {"cifar-10-python.tar.gz": content})
    with pytest.raises(ValueError, match=f"cifar-10-python.tar.gz.* {message}.*; fetch it again"):
        load_cifar10(tmp_path)


def test_an_archive_writes_nowhere_and_costs_no_more_memory_than_it_may(tmp_path, monkeypatch):
    outside = archive(tar_of() | {"../escaped": b"x", "/tmp/handgrad_escaped": b"x"})
    put(tmp_path / "data", {"cifar-10-python.tar.gz": outside})
    load_cifar10(tmp_path / "data")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cifar-10-python.tar.gz", "data"]
    assert not os.path.exists("/tmp/handgrad_escaped")
    monkeypatch.setattr(cifar, "MOST_BYTES", 4 << 20)
    put(tmp_path, {"cifar-10-python.tar.gz": bomb()})
    tracemalloc.start()
    with pytest.raises(ValueError, match="python.tar.gz: it unpacks to more than 4 MB, which CIFAR does not"):
        load_cifar10(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20
    put(tmp_path, ten("protocol 2") | {"test_batch": bytes(5 << 20)})
    with pytest.raises(ValueError, match="test_batch: it has more than 4 MB, which no CIFAR file has"):
        load_cifar10(tmp_path)


class Harmful:
    """Pickles itself as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Stateful:
    """Pickles itself as an object with a state."""

    def __init__(self):
        self.x = 1


def touch():
    open("harm", "w").close()


def reduced(name, arguments):
    """A call of a name with arguments, in instructions."""
    return b"\x80\x02c" + name + b"\n" + arguments + b"R."


ARRAY = reduced(b"numpy.core.multiarray\n_reconstruct", b"(cnumpy\nndarray\n(I0\ntS'b'\nt")[:-1]
DTYPE = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR"
HOSTILE = {
    "os.system": (pickle.dumps(Harmful(os.system, "touch harm")), "asks for 'posix system'|asks for 'nt system'"),
    "os.system at protocol 0": (b"cos\nsystem\n(S'touch harm'\ntR.", "asks for 'os system'"),
    "builtins.eval": (pickle.dumps(Harmful(eval, "open('harm', 'w')")), "asks for 'builtins eval'"),
    "builtins.exec": (b"c__builtin__\nexec\n(S'import os'\ntR.", "asks for '__builtin__ exec'"),
    "subprocess": (pickle.dumps(Harmful(subprocess.check_output, ["touch", "harm"])), "asks for 'subprocess"),
    "our own function": (pickle.dumps(Harmful(touch)), "asks for '.*test_cifar touch'"),
    "an object": (pickle.dumps(Stateful()), "asks for '.*test_cifar Stateful'"),
    "hidden in the dict": (pickle.dumps(DICT | {"filenames": Harmful(os.system, "touch harm")}, 2), "system'"),
    "in an array of objects": (
        pickle.dumps(np.array([Harmful(os.system, "touch harm")], object)),
        "array of type 'O8'",
    ),
    "by a name from the stack": (
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0atouch harm\x85R.",
        "asks for 'os system'",
    ),
    "a nested name": (b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93).", "asks for 'numpy ndarray.dumps'"),
    "a dotted module": (b"cnumpy.core.multiarray.os\nsystem\n.", "asks for 'numpy.core.multiarray.os system'"),
    "numpy.load": (reduced(b"numpy\nload", b"(S'harm'\nt"), "asks for 'numpy load'"),
    "ndarray is no function": (reduced(b"numpy\nndarray", b"(I100000000\nt"), "calls ndarray as no array needs it"),
    "encode to another codec": (reduced(b"_codecs\nencode", b"(X\x01\0\0\0xX\x03\0\0\0zipt"), "calls encode"),
    "INST": (b"(S'touch harm'\nios\nsystem\n.", "the instruction INST"),
    "OBJ": (b"(cnumpy\nndarray\nI1\no.", "the instruction OBJ"),
    "NEWOBJ": (b"\x80\x02cnumpy\ndtype\n)\x81.", "the instruction NEWOBJ"),
    "a persistent id": (b"Pharm\n.", "the instruction PERSID"),
    "an extension": (b"\x80\x02\x82\x01.", "the instruction EXT1"),
    "a call of a string": (b"S'os.system'\n(S'touch harm'\ntR.", "calls what is no function"),
    "an array of another class": (
        reduced(b"numpy.core.multiarray\n_reconstruct", b"(cnumpy\ndtype\n(I0\ntS'b'\nt"),
        "calls array as no array needs it",
    ),
    "an array that is not empty": (
        reduced(b"numpy.core.multiarray\n_reconstruct", b"(cnumpy\nndarray\n(I9999999999\ntS'b'\nt"),
        "calls array as no array needs it",
    ),
    "a dtype of other settings": (reduced(b"numpy\ndtype", b"(S'u1'\nI7\nI1\nt"), "calls dtype as no array needs it"),
    "a state for a dict": (b"}}b.", "sets the state of what is no array"),
    "a state of a dict for an array": (ARRAY + b"}b.", "sets the state of what is no array"),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles_run_nothing_and_are_named(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, ten("protocol 2") | {"data_batch_3": content})
    with pytest.raises(ValueError, match=rf"data_batch_3: .*({message})"):
        load_cifar10(tmp_path)
    assert not (tmp_path / "harm").exists()


def deep(times):
    """A key of nested pairs, each of twice the same thing: its hash takes 2^times steps."""
    return b"}K\x01" + b"q\x00h\x00\x86" * times + b"K\x01s."


def array_of(sizes, data=b"S''\n"):
    """An array of bytes, in instructions: the sizes are instructions, too."""
    return ARRAY + b"(I1\n(" + sizes + b"t" + DTYPE + b"I00\n" + data + b"tb."


ENCODE = b"c_codecs\nencode\nq\x01X\x06\0\0\0latin1q\x02"
BOMBS = {
    "a place far out in the memo": (b"K\x01r\xff\xff\xff\x7f0K\x01.", "has the instruction POP"),
    "a long string that is not there": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.", "expected 1152921504"),
    "a bytearray that is not there": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.", "expected 1099511627776"),
    "a frame that is not there": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"K\x01", "before seeing STOP"),
    "a key that hashes for ever": (deep(60), "a key that is no string"),
    "a number of many digits": (b"I" + b"9" * 100_000 + b"\n.", "Exceeds the limit"),
    "ever more lists": (b"(" + b"]" * 300_000 + b"l.", "more than 20,000 instructions"),
    "ever more marks": (b"(" * 300_000 + b".", "more than 20,000 instructions"),
    "an array without its bytes": (array_of(b"I9999999999\nI9999999999\n"), "an array of 0 bytes, its sizes say"),
    "an array of many axes": (array_of(b"I1\n" * 200, b"S'a'\n"), "the sizes of an array are not that"),
    "a product of huge sizes": (
        array_of(b"\x8a\xff" + b"\x7f" * 255 + b"q\x00" + b"h\x00" * 15_000),
        "the sizes of an array are not that",
    ),
    "a size too large for a product": (array_of(b"\x8a\x09" + b"\x7f" * 9), "the sizes of an array are not that"),
    "one text encoded again and again": (
        b"(X"
        + struct.pack("<I", 200_000)
        + b"a" * 200_000
        + b"q\x00"
        + ENCODE
        + b"h\x01h\x00h\x02\x86R" * 2_000
        + b"l.",
        "makes more bytes than it has",
    ),
    "a dict in itself": (b"}q\x00U\x01ah\x00s.", "has no 'data'"),
}


@pytest.mark.parametrize(("content", "message"), BOMBS.values(), ids=BOMBS)
def test_bombs_cost_neither_memory_nor_time(tmp_path, content, message, monkeypatch):
    monkeypatch.setattr(plain_pickle_module, "MOST_INSTRUCTIONS", 20_000)
    put(tmp_path, ten("protocol 2") | {"data_batch_1": content})
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(ValueError, match=f"data_batch_1: it .*{message}"):
        load_cifar10(tmp_path)
    peak, seconds = tracemalloc.get_traced_memory()[1], time.monotonic() - began
    tracemalloc.stop()
    assert peak < 4 * len(content) + (16 << 20) and seconds < 60


def test_a_list_in_itself_is_read_and_never_followed():
    found = plain_pickle_module.plain_pickle("file", b"]q\x00h\x00a.")
    assert found[0] is found


@pytest.mark.parametrize("protocol", range(5))
def test_plain_data_is_what_pickle_makes_of_it(protocol):
    values = {"a": [1, -2, 2**40, True, None], "b": (b"bytes\xff", "text é", {}, [], ()), "c": {"d": {"e": [[3]]}}}
    values["b"] = values["b"] if protocol > 2 else (*values["b"][1:],)
    assert plain_pickle_module.plain_pickle("file", pickle.dumps(values, protocol)) == values
    for array in (rows(2), np.asfortranarray(rows(2)), np.arange(6, dtype=">i4"), np.array(-5, np.int64)):
        found = plain_pickle_module.plain_pickle("file", pickle.dumps(array, protocol))
        assert isinstance(found, Array)
        np.testing.assert_array_equal(found.value, array)


def test_the_made_file_of_python_2_is_one():
    """The oracle of the maker: Python's own reader, for a file that is known to be harmless."""
    pickletools.dis(of_python_2(rows(2), [1, 300]), io.StringIO())
    found = pickle.loads(of_python_2(rows(2), [1, 300]), encoding="bytes")
    assert found[b"labels"] == [1, 300] and (found[b"data"] == rows(2)).all() and found[b"batch_label"] == b"one"


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_command_loads_it(tmp_path, name):
    put(tmp_path, ten("protocol 2") if name == "cifar10" else hundred("python"))
    options = argparse.Namespace(data=name, data_dir=str(tmp_path), download=False)
    assert len(load(options).classes) == int(name.removeprefix("cifar"))


@pytest.mark.slow
@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_the_command_trains_on_it(tmp_path, capsys, data):
    put(tmp_path, ten("protocol 2") if data == "cifar10" else hundred("python"))
    options = ["--model", "perceptron", "--epochs", "1", "--batch-size", "2", "--no-check", "--no-progress"]
    where = ["--data-dir", str(tmp_path), "--run-dir", str(tmp_path / "run"), "--no-figures"]
    assert main(["train", "--data", data, *where, *options, "--validation", "0"]) == 0
    out = capsys.readouterr().out
    assert f"data   {data}: {15 if data == 'cifar10' else 6} training and 3 test images of 32x32x3" in out
    assert main(["train", "--data", data]) == 2
    assert f"--data {data} needs --data-dir" in capsys.readouterr().err

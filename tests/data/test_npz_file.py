"""load_npz: what NumPy and Keras write, and everything that can be wrong in such a file."""

import io
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest

from handgrad.data import load_npz, npz_file

RNG = np.random.default_rng(0)
FEW: dict[str, Any] = {
    "train_x": RNG.integers(0, 256, (6, 5, 4, 3), np.uint8),
    "train_y": np.array([0, 2, 1, 1, 0, 2]),
    "test_x": RNG.integers(0, 256, (2, 5, 4, 3), np.uint8),
    "test_y": np.array([2, 0]),
}
OF_KERAS = {"_".join(name.split("_")[::-1]): array for name, array in FEW.items()}


def zipped(members, kind=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def npy(array, **changes):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(array) | changes)
    return out.getvalue() + array.tobytes()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("arrays", [FEW, OF_KERAS, FEW | {"more": np.ones(3)}], ids=["ours", "keras", "more"])
def test_what_numpy_writes(tmp_path, save, arrays):
    save(tmp_path / "a.npz", **arrays)
    data = load_npz(tmp_path / "a.npz")
    assert data.classes == ("0", "1", "2")
    for name, array in FEW.items():
        wanted = array if name.endswith("x") else array.astype(np.int32)
        np.testing.assert_array_equal(getattr(data, name), wanted, strict=True)
    assert load_npz(str(tmp_path / "a.npz"), classes=["a", "b", "c", "d"]).classes == ("a", "b", "c", "d")


def test_grey_images_columns_of_labels_and_every_order_of_bytes(tmp_path):
    changed = {"train_x": np.asfortranarray(FEW["train_x"][..., 0]), "test_x": FEW["test_x"][..., 0]}
    changed |= {"train_y": FEW["train_y"][:, None].astype(">i2"), "test_y": FEW["test_y"].astype(np.uint64)}
    np.savez(tmp_path / "a.npz", **changed)
    data = load_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.train_x, FEW["train_x"][..., :1], strict=True)
    np.testing.assert_array_equal(data.train_y, FEW["train_y"].astype(np.int32), strict=True)
    np.testing.assert_array_equal(data.test_y, FEW["test_y"].astype(np.int32), strict=True)
    with (tmp_path / "b.npz").open("wb") as file:  # the header's second version
        members = {}
        for name, array in FEW.items():
            out = io.BytesIO()
            np.lib.format.write_array(out, array, (2, 0))
            members[f"{name}.npy"] = out.getvalue()
        file.write(zipped(members))
    np.testing.assert_array_equal(load_npz(tmp_path / "b.npz").test_x, FEW["test_x"], strict=True)


UNFIT = {  # what is in the place of an array, message
    "floats": ({"train_x": FEW["train_x"] / 255}, r"train_x must be uint8 images .*, got float64 \(6, 5, 4, 3\)"),
    "flat": ({"test_x": FEW["test_x"].reshape(2, -1)}, r"test_x must be uint8 images .*, got uint8 \(2, 60\)"),
    "none": (
        {"test_x": FEW["test_x"][:0], "test_y": FEW["test_y"][:0]},
        r"test_x must have up to 64 sizes of at least 1, got \(0, 5, 4, 3\)",
    ),
    "another size": ({"test_x": FEW["test_x"][:, 1:]}, r"images must be of one shape, got .* and \(2, 4, 4, 3\)"),
    "soft": ({"test_y": np.eye(3)[:2]}, r"test_y must be 2 integer labels, one an image, got float64 \(2, 3\)"),
    "too few": ({"train_y": FEW["train_y"][1:]}, r"train_y must be 6 integer labels, .* got int64 \(5,\)"),
    "below 0": ({"test_y": np.array([0, -1])}, "test_y must be 0 to 2, got -1 at position 1"),
    "huge": ({"train_y": FEW["train_y"] + 2**40}, "train_y must be 0 to 65535, got 1099511627776 at position 0"),
    "huge and unsigned": ({"test_y": np.array([1, 2**64 - 1], np.uint64)}, "test_y must be .* at position 1"),
    "texts": ({"test_y": np.array(["a", "b"])}, "test_y must hold numbers, got <U1; nothing is unpickled"),
    "objects": ({"test_y": np.array([0, print], object)}, "test_y must hold numbers, got object; nothing is unpickled"),
}


@pytest.mark.parametrize(("changes", "message"), UNFIT.values(), ids=UNFIT)
def test_arrays_of_another_kind_are_refused_by_name(tmp_path, changes, message):
    np.savez(tmp_path / "a.npz", **FEW | changes)
    with pytest.raises(ValueError, match=f"load_npz: .*a.npz: {message}"):
        load_npz(tmp_path / "a.npz")


def test_fewer_classes_than_labels(tmp_path):
    np.savez(tmp_path / "a.npz", **FEW)
    with pytest.raises(ValueError, match="train_y must be 0 to 1, got 2 at position 1"):
        load_npz(tmp_path / "a.npz", classes=("a", "b"))


MEMBERS = {f"{name}.npy": npy(array) for name, array in FEW.items()}
X = FEW["train_x"]
DAMAGED = {
    "another zip": (zipped(MEMBERS, zipfile.ZIP_LZMA), "train_x must be stored or deflated, got the zip's kind 14"),
    "empty": (b"", "is no npz file, or a damaged one"),
    "no zip": (MEMBERS["train_x.npy"], "is no npz file, or a damaged one"),
    "lacks one": (zipped({name: data for name, data in MEMBERS.items() if name != "test_y.npy"}), "once each, got"),
    "short": (zipped(MEMBERS | {"train_x.npy": npy(X)[:-1]}), "train_x should have 360 bytes"),
    "long": (zipped(MEMBERS | {"train_x.npy": npy(X) + b"x"}), "train_x should have 360 bytes"),
    "promises much": (zipped(MEMBERS | {"train_x.npy": npy(X, shape=(9**9, 5, 4, 3))}), "to more than 4 GB"),
    "below 0": (
        zipped(MEMBERS | {"train_x.npy": npy(X, shape=(-6, 5, 4, 3))}),
        "train_x must have up to 64 sizes of at least 1",
    ),
    "many axes": (
        zipped(MEMBERS | {"train_x.npy": npy(X, shape=(1,) * 100)}),
        "train_x must have up to 64 sizes of at least 1",
    ),
    "another version": (
        zipped(MEMBERS | {"train_x.npy": b"\x93NUMPY\x09\x00" + bytes(90)}),
        "a damaged one",
    ),
    "no npy": (zipped(MEMBERS | {"train_x.npy": b"hello" * 9}), "is no npz file, or a damaged one"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files(tmp_path, content, message):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=f"load_npz: .*a.npz.*{message}"):
        load_npz(tmp_path / "a.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, data in [*MEMBERS.items(), *MEMBERS.items()]:
            archive.writestr(name, data)
    with pytest.raises(ValueError, match="once each, got"):
        load_npz(tmp_path / "a.npz")


def test_a_bomb_is_refused_before_it_unpacks(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_file, "LARGEST", 1 << 20)
    bomb = np.zeros((1 << 15, 32, 32), np.uint8)
    for name in ("train_x", "more"):
        (tmp_path / "a.npz").write_bytes(zipped(MEMBERS | {f"{name}.npy": npy(bomb)}))
        tracemalloc.start()
        if name == "more":  # never looked at
            load_npz(tmp_path / "a.npz")
        else:
            with pytest.raises(ValueError, match="train_x would bring it to more than"):
                load_npz(tmp_path / "a.npz")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 << 20


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.npz"):
        load_npz(tmp_path / "gone.npz")

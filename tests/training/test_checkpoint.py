"""training/checkpoint.py: what is saved comes back to the bit, and what is damaged is refused by name."""

import io
import json
import os
import zipfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.layers import BatchNorm, Chain, Dense
from handgrad.optimizers import adam
from handgrad.training import TrainState, checkpoint, init_train_state


class Pair(NamedTuple):
    one: object
    other: object


def train_state():
    return init_train_state(Chain(Dense(3), BatchNorm()), adam(0.1), jax.random.key(7), (2,), jnp.float64)


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert isinstance(a, jax.Array) and a.dtype == b.dtype and a.shape == b.shape
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


TREES = {
    "params": {"dense1": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.full(3, jnp.nan)}},
    "train state": train_state(),
    "empty parts": {"state": {}, "rest": (), "none": None, "x": jnp.zeros((0, 3))},
    "containers": [(jnp.float32(1.5), jnp.int32(-3)), [jnp.ones((), bool)], {"a": {"b": jnp.uint8(3)}}],
    "one array": jnp.arange(3),
    "integer keys": {1: jnp.zeros(2), 2: jnp.ones(2)},
    "odd names": {
        "a/b": jnp.zeros(1),
        "a": {"b": jnp.ones(1)},
        "ü %": jnp.ones(2),
        "file": jnp.ones(3),
        "x\n\\": jnp.ones(4),
    },
    "keys": {
        "typed": jax.random.split(jax.random.key(1), 3),
        "rbg": jax.random.key(2, impl="rbg"),
        "raw": jnp.zeros(2, "uint32"),
    },
}


@pytest.mark.parametrize("name", TREES)
def test_round_trip(tmp_path, name):
    path = tmp_path / "new folder" / "a.npz"
    checkpoint.save(path, TREES[name])
    same(checkpoint.load(path, like=TREES[name]), TREES[name])
    same(checkpoint.load(path), TREES[name])
    checkpoint.verify(path)
    assert os.listdir(path.parent) == ["a.npz"]


DTYPES = [
    "bfloat16",
    "float16",
    "float32",
    "float64",
    "float8_e4m3fn",
    "float8_e5m2",
    "int4",
    "int64",
    "complex64",
    "bool",
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_round_trips(tmp_path, dtype):
    tree = {"x": jnp.array([[0, 1, 3]], dtype), "scalar": jnp.ones((), dtype)}
    checkpoint.save(tmp_path / "a.npz", tree)
    same(checkpoint.load(tmp_path / "a.npz"), tree)


def test_without_like_our_named_tuples_come_back_and_others_as_dicts(tmp_path):
    saved = train_state()
    checkpoint.save(tmp_path / "a.npz", saved._replace(state=Pair(jnp.ones(1), None)))
    loaded = checkpoint.load(tmp_path / "a.npz")
    assert isinstance(loaded, TrainState)
    same(loaded.params, saved.params)
    same(loaded.state, {"one": jnp.ones(1), "other": None})
    same(loaded.opt_state, saved.opt_state)


def test_like_may_be_abstract(tmp_path):
    checkpoint.save(tmp_path / "a.npz", train_state())
    same(checkpoint.load(tmp_path / "a.npz", like=jax.eval_shape(train_state)), train_state())


def test_numpy_reads_it_by_the_names_of_the_leaves(tmp_path):
    checkpoint.save(tmp_path / "a.npz", train_state(), metadata={"net": "Chain()", "epoch": 3})
    file = np.load(tmp_path / "a.npz", allow_pickle=False)
    np.testing.assert_array_equal(file["params/dense1/kernel"], train_state().params["dense1"]["kernel"])
    manifest = json.loads(file["manifest"].tobytes())
    assert manifest["version"] == 1 and manifest["leaves"]["params/dense1/kernel"]["shape"] == [2, 3]
    assert checkpoint.metadata(tmp_path / "a.npz") == {"net": "Chain()", "epoch": 3}


def test_equal_trees_make_equal_files(tmp_path):
    for name in "ab":
        checkpoint.save(tmp_path / name, train_state())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_loaded_array_may_be_donated(tmp_path):
    checkpoint.save(tmp_path / "a.npz", {"x": jnp.arange(64.0)})
    loaded = checkpoint.load(tmp_path / "a.npz")["x"]
    np.testing.assert_array_equal(jax.jit(lambda x: x + 1, donate_argnums=0)(loaded), np.arange(64) + 1)


LIKE = {"conv1": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
UNLIKE = {
    r"a.npz: leaf 'conv1/scale' is missing": {"conv1": {**LIKE["conv1"], "scale": jnp.ones(2)}},
    r"a.npz: leaf 'conv1/bias' is left over": {"conv1": {"kernel": jnp.ones((3, 2))}},
    r"a.npz: leaf 'conv1/kernel' must be float64 \(2, 3\), the file has float64 \(3, 2\)": {
        "conv1": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(2)}
    },
    r"a.npz: leaf 'conv1/bias' must be float32 \(2,\), the file has float64 \(2,\)": {
        "conv1": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2, jnp.float32)}
    },
    r"a.npz: leaf 'conv1/bias' must be key<fry> \(2,\)": {
        "conv1": {"kernel": jnp.ones((3, 2)), "bias": jax.random.split(jax.random.key(0))}
    },
}


@pytest.mark.parametrize("message", UNLIKE)
def test_what_is_not_like_the_wanted_tree_is_named(tmp_path, message):
    checkpoint.save(tmp_path / "a.npz", LIKE)
    with pytest.raises(ValueError, match=message):
        checkpoint.load(tmp_path / "a.npz", like=UNLIKE[message])


def test_float64_without_x64_is_refused(tmp_path):
    checkpoint.save(tmp_path / "a.npz", LIKE)
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match="leaf 'conv1/.*' is float64, which JAX holds only under"),
    ):
        checkpoint.load(tmp_path / "a.npz")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "no.npz")


SAVED = {"dense1": {"kernel": jnp.arange(12.0).reshape(3, 4), "bias": jnp.arange(4.0)}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.npz"
    checkpoint.save(path, SAVED)
    return path.read_bytes()


def test_a_flipped_byte_of_a_leaf_names_it(whole, tmp_path):
    data = bytearray(whole)
    data[whole.index(np.asarray(SAVED["dense1"]["kernel"]).tobytes()) + 20] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(ValueError, match="a.npz: leaf 'dense1/kernel' is damaged"):
        checkpoint.load(tmp_path / "a.npz")


def rewritten(whole, path, change=None, drop=None, add=None, compression=zipfile.ZIP_STORED):
    """The file with its manifest or members changed, and every checksum of the zip right again."""
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "manifest.npy" and change is not None:
                manifest = json.loads(np.load(io.BytesIO(data)).tobytes())
                change(manifest)
                data = npy(np.frombuffer(json.dumps(manifest).encode(), np.uint8))
            if name != drop:
                new.writestr(name, (add or {}).get(name, data))
        for name in set(add or {}) - set(old.namelist()):
            new.writestr(name, (add or {})[name])


def npy(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0))
    return file.getvalue()


def kernel(manifest):
    return manifest["leaves"]["dense1/kernel"]


HUGE = [2**40, 2**20]
HOSTILE = {
    "its format has version 2, this handgrad reads version 1": {"change": lambda m: m.update(version=2)},
    "leaf 'dense1/kernel' of the manifest is missing": {"drop": "dense1/kernel.npy"},
    "leaf 'extra' is not in the manifest": {"add": {"extra.npy": npy(np.ones(2))}},
    "no checkpoint, for it has no manifest": {"drop": "manifest.npy"},
    "leaf 'dense1/kernel' is damaged: its sha256": {"add": {"dense1/kernel.npy": npy(np.ones((3, 4)))}},
    r"leaf 'dense1/kernel' is damaged .*its header says float64 \(4, 3\)": {
        "add": {"dense1/kernel.npy": npy(np.ones((4, 3)))}
    },
    "leaf 'dense1/kernel' should have 96 bytes, its member has": {"add": {"dense1/kernel.npy": b"x" * 96}},
    "leaf 'dense1/kernel' should have 9223372036854775808 bytes": {
        "change": lambda m: kernel(m).update(shape=HUGE, stored_shape=HUGE)
    },
    "the file is damaged .*members must be stored without compression": {"compression": zipfile.ZIP_DEFLATED},
    "the manifest is damaged .*stored as object": {"change": lambda m: kernel(m).update(stored_dtype="object")},
    "the manifest is damaged .*has no shape": {"change": lambda m: kernel(m).update(shape=[-3, 4])},
    "the manifest is damaged .*KeyError: 'structure'": {"change": lambda m: m.pop("structure")},
    "the structure is damaged .*KeyError": {"change": lambda m: m.update(structure={"leaf": "dense2"})},
    "leaf 'dense1/kernel' is damaged .*bfloat17": {"change": lambda m: kernel(m).update(dtype="bfloat17")},
}


@pytest.mark.parametrize("message", HOSTILE)
def test_hostile_files(whole, tmp_path, message):
    rewritten(whole, tmp_path / "a.npz", **HOSTILE[message])
    with pytest.raises(ValueError, match=f"a.npz: {message}"):
        checkpoint.load(tmp_path / "a.npz")


def test_pickles_are_never_read(whole, tmp_path):
    file = io.BytesIO()
    np.save(file, np.array([object()]), allow_pickle=True)
    rewritten(whole, tmp_path / "a.npz", add={"dense1/bias.npy": file.getvalue()})
    with pytest.raises(ValueError, match="leaf 'dense1/bias' is damaged"):
        checkpoint.load(tmp_path / "a.npz")


def test_what_cannot_be_saved_is_named_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.npz"
    checkpoint.save(path, SAVED)
    with pytest.raises(TypeError, match="checkpoint.save: leaf 'a/0' must be an array of numbers, got str"):
        checkpoint.save(path, {"a": ["text"]})
    with pytest.raises(ValueError, match="two leaves are named '1'"):
        checkpoint.save(path, TwoNames())
    with pytest.raises(ValueError, match="a leaf may not be named 'manifest'"):
        checkpoint.save(path, {"manifest": jnp.ones(1)})
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoint.save(path, SAVED, metadata={"net": object()})
    same(checkpoint.load(path), SAVED)


@jax.tree_util.register_pytree_with_keys_class
class TwoNames:
    def tree_flatten_with_keys(self):
        return [(jax.tree_util.DictKey(1), 1.0), (jax.tree_util.DictKey("1"), 2.0)], None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls()


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    checkpoint.save(path, SAVED)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, {"other": jnp.ones(3)})
    monkeypatch.undo()
    same(checkpoint.load(path), SAVED)
    assert os.listdir(tmp_path) == ["a.npz"]


def test_latest_is_the_newest_readable(tmp_path):
    assert checkpoint.latest(tmp_path / "none") is None
    for step in (5, 12, 100_000_000):
        checkpoint.save(tmp_path / f"step_{step:08d}.npz", SAVED)
    newest = tmp_path / "step_100000000.npz"
    assert checkpoint.latest(tmp_path) == newest
    newest.write_bytes(newest.read_bytes()[:-30])
    with pytest.warns(UserWarning, match="passed over .*step_100000000.npz: the file is damaged"):
        assert checkpoint.latest(tmp_path) == tmp_path / "step_00000012.npz"


def test_none_readable_is_an_error(tmp_path):
    (tmp_path / "step_00000001.npz").write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="none of the 1 checkpoints in .* is readable"):
        checkpoint.latest(tmp_path)

"""Checkpoints: a tree of arrays in one npz file that is either whole and right, or refused.

The file is a zip of .npy members, uncompressed. Each leaf has one, named by its path, such as
`params/conv1/kernel.npy`; `numpy.load` reads them too. One more, `manifest`, holds JSON as bytes:

    version     of this format
    structure   the tree: dicts, lists, tuples, named tuples, with a leaf's name at each end
    leaves      name -> dtype and shape of the leaf, dtype and shape in the file, sha256 of its bytes
    metadata    what the writer wishes to say, such as the net's repr

dtypes that NumPy does not know (bfloat16, float8) are stored as unsigned integers of their size, typed PRNG keys as
their uint32 words. Nothing is pickled.
Writing: into a temporary file in the same folder, flushed to disk, then renamed, so that a crash leaves the old file.
Reading: names and sizes of the members are held against the manifest before an array is read, so a hostile file makes
no more memory than its own size; then every leaf is held against its sha256.
"""

import contextlib
import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.mesh import is_key, words
from handgrad.training import npz
from handgrad.training.sharded import load_sharded, save_sharded
from handgrad.training.structure import described, leaf_names, rebuilt

__all__ = [
    "Snapshot",
    "best",
    "latest",
    "load",
    "load_sharded",
    "metadata",
    "save",
    "save_sharded",
    "snapshot",
    "verify",
]

VERSION = 1
MANIFEST = "manifest"


def save(path: str | os.PathLike, tree: Any, *, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a tree of arrays to one file; what was there before is replaced only once the new file is safe on disk.

    Args:
        path: the file, by custom ending in .npz; its folder is made if need be.
        tree: a train state, or params alone: dicts, lists, tuples and named tuples of arrays and numbers.
        metadata: anything JSON can hold, given back by `metadata`.

    Raises:
        TypeError: a leaf that is no array, or metadata that JSON cannot hold.
        ValueError: two leaves of one name.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "params.npz"
        >>> save(path, {"dense1": {"bias": jnp.zeros(3, jnp.bfloat16)}}, metadata={"net": "Chain(Dense(3))"})
        >>> load(path)["dense1"]["bias"].dtype, metadata(path)["net"], np.load(path).files
        (dtype(bfloat16), 'Chain(Dense(3))', ['manifest', 'dense1/bias'])
    """
    snapshot(tree, metadata=metadata, copy=False).write(path)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A tree as it was at one moment, in the host's memory, ready to be written by any thread. Made by `snapshot`.

    Attributes:
        arrays: the leaves by name, as they are stored.
        manifest: what the file says of them, but for the sha256.

    Example:
        >>> kept = snapshot({"kernel": jnp.zeros(3, jnp.bfloat16)})
        >>> kept.arrays["kernel"].dtype, kept.manifest["leaves"]["kernel"]["dtype"]  # NumPy has no bfloat16
        (dtype('uint16'), 'bfloat16')
    """

    arrays: dict[str, np.ndarray]
    manifest: dict[str, Any]

    def write(self, path: str | os.PathLike) -> None:
        """Write it to a file, as `save` does."""
        entries = {name: entry | {"sha256": _sha256(self.arrays[name])} for name, entry in self._entries()}
        text = json.dumps(self.manifest | {"leaves": entries}).encode()
        npz.write(Path(path), {MANIFEST: np.frombuffer(text, np.uint8), **self.arrays})

    def _entries(self) -> Any:
        return self.manifest["leaves"].items()


def snapshot(tree: Any, *, metadata: Mapping[str, Any] | None = None, copy: bool = True) -> Snapshot:
    """A copy of a tree on the host, to be written while the training goes on and overwrites the tree.

    Args:
        tree: as for `save`.
        metadata: as for `save`.
        copy: whether arrays that are on the host already are copied; if not, they must not change before the write.

    Raises:
        TypeError, ValueError: as `save`.

    Example:
        >>> import tempfile
        >>> kept, path = snapshot({"steps": jnp.arange(2)}), Path(tempfile.mkdtemp()) / "params.npz"
        >>> kept.write(path)
        >>> print(load(path)["steps"])
        [0 1]
    """
    leaves = leaf_names(tree)
    if MANIFEST in leaves:
        raise ValueError(f"checkpoint.save: a leaf may not be named {MANIFEST!r}; put the tree into a dict, as params")
    for leaf in leaves.values():
        if isinstance(leaf, jax.Array) and not is_key(leaf):
            leaf.copy_to_host_async()  # all on their way before the first is waited for
    stored = {name: _stored(name, leaf, copy) for name, leaf in leaves.items()}
    entries = {name: _entry(leaves[name], array) for name, array in stored.items()}
    about = {"structure": described(tree), "leaves": entries, "metadata": dict(metadata or {})}
    return Snapshot(stored, {"version": VERSION, **about})


def load(path: str | os.PathLike, like: Any = None) -> Any:
    """Read a tree of arrays, and check every byte of it.

    Args:
        path: a file that `save` wrote.
        like: a tree of the wanted structure, shapes and dtypes, such as a fresh train state: of arrays or of
            `jax.ShapeDtypeStruct`. Without it dicts, lists, tuples, `TrainState` and the states of our optimizers come
            back as they were, other libraries' named tuples as dicts by field.

    Returns:
        The tree, of jax arrays.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no checkpoint, or cut off, or changed, or of an unknown version; a leaf that is
            missing, left over, or not of the shape and dtype in `like`. The file and the leaf are named.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "params.npz"
        >>> save(path, {"kernel": jnp.ones((2, 3), jnp.float32)})
        >>> load(path, like={"kernel": jnp.zeros((2, 2), jnp.float32)})
        Traceback (most recent call last):
        ValueError: ...params.npz: leaf 'kernel' must be float32 (2, 2), the file has float32 (2, 3)
    """
    with _opened(path) as (reader, manifest):
        if like is not None:
            _check_like(path, manifest["leaves"], leaf_names(like))
        leaves = {name: _leaf(path, name, entry, reader) for name, entry in manifest["leaves"].items()}
    if like is not None:
        return jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in leaf_names(like)])
    with npz.blaming(path, "the structure"):
        return rebuilt(manifest["structure"], leaves)


def metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The metadata that `save` was given, and none of the arrays.

    Args:
        path: a file that `save` wrote.

    Returns:
        What was given as `metadata`, {} if nothing was.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no checkpoint, or cut off, or of an unknown version.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "params.npz"
        >>> save(path, {"kernel": jnp.ones(3)}, metadata={"net": "Chain(Dense(3))", "epoch": 7})
        >>> metadata(path)
        {'net': 'Chain(Dense(3))', 'epoch': 7}
    """
    with _opened(path) as (_, manifest):
        return manifest["metadata"]


def latest(folder: str | os.PathLike) -> Path | None:
    """The newest readable checkpoint among a run's `step_*.npz`.

    Args:
        folder: a run's folder, or its folder of checkpoints, which need not exist.

    Returns:
        The path with the highest step, or None where there is no checkpoint at all. One that cannot be read is passed
        over with a warning.

    Raises:
        ValueError: there are checkpoints, but none is readable.

    Example:
        >>> print(latest("no-such-folder"))
        None
    """
    paths = newest_first(folder)
    found = _first_readable("latest", paths)
    if paths and found is None:
        raise ValueError(f"checkpoint.latest: none of the {len(paths)} checkpoints in {folder} is readable")
    return found


def best(folder: str | os.PathLike) -> Path | None:
    """The checkpoint of a run's best epoch: that of the lowest validation loss, or of the lowest training loss.

    `fit` writes the loss of the epoch into each checkpoint, as `metadata(path)["score"]`, and never removes the best
    one. Of two equal losses the earlier one is better.

    Args:
        folder: a run's folder, or its folder of checkpoints.

    Returns:
        The path, or None where no checkpoint has a score. One that cannot be read is passed over with a warning.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for step, loss in ((1, 0.5), (2, 0.3), (3, 0.4)):
        ...     save(folder / f"step_{step}.npz", {}, metadata={"score": loss, "score_name": "validation_loss"})
        >>> best(folder).name
        'step_2.npz'
    """
    return _first_readable("best", best_first(folder))


def newest_first(folder: str | os.PathLike) -> list[Path]:
    """A run's checkpoints by step, whether readable or not."""
    folder = Path(folder)
    paths = [*folder.glob("step_*.npz"), *folder.glob("checkpoints/step_*.npz")]
    return sorted(paths, key=lambda path: (len(path.name), path.name), reverse=True)


def best_first(folder: str | os.PathLike) -> list[Path]:
    """The checkpoints that have a score of the newest one's kind, by score; the arrays are not looked at."""
    scored = []
    for path in newest_first(folder):
        with contextlib.suppress(ValueError):
            about = metadata(path)
            if isinstance(about.get("score"), float) and math.isfinite(about["score"]):
                scored.append((path, about["score"], about.get("score_name")))
    of_a_kind = [(score, path) for path, score, name in reversed(scored) if name == scored[0][2]]
    return [path for _, path in sorted(of_a_kind, key=lambda pair: pair[0])]


def _first_readable(op: str, paths: list[Path]) -> Path | None:
    for path in paths:
        try:
            verify(path)
        except ValueError as error:
            warnings.warn(f"checkpoint.{op}: passed over {error}", stacklevel=3)
        else:
            return path
    return None


def verify(path: str | os.PathLike) -> None:
    """Read a checkpoint whole, as `load` does, and give nothing back but the errors of `load`.

    Args:
        path: a file that `save` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as in `load`.

    Example:
        >>> import tempfile
        >>> path, one, two = Path(tempfile.mkdtemp()) / "params.npz", np.float32(1).tobytes(), np.float32(2).tobytes()
        >>> save(path, {"kernel": jnp.ones(3, jnp.float32)})
        >>> _ = path.write_bytes(path.read_bytes().replace(one, two))
        >>> verify(path)
        Traceback (most recent call last):
        ValueError: ...params.npz: leaf 'kernel' is damaged ...
    """
    with _opened(path) as (reader, manifest):
        for name, entry in manifest["leaves"].items():
            _checked_array(path, name, entry, reader)


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[npz.Reader, dict[str, Any]]]:
    """A reader and the manifest, once the names and sizes of all members are found to be those of the manifest."""
    with open(path, "rb") as file:
        reader = npz.Reader(file, path)
        if MANIFEST not in reader.sizes:
            raise ValueError(f"{path}: no checkpoint, for it has no manifest; give a file that checkpoint.save wrote")
        text = reader.read(MANIFEST, np.dtype(np.uint8), None).tobytes()
        with npz.blaming(path, "the manifest"):
            manifest = json.loads(text)
            version = manifest["version"]
        if version != VERSION:
            raise ValueError(
                f"{path}: its format has version {version!r}, this handgrad reads version {VERSION}; "
                f"read it with the handgrad that wrote it"
            )
        with npz.blaming(path, "the manifest"):
            _check_manifest(manifest)
        _check_members(path, reader.sizes, manifest["leaves"])
        yield reader, manifest


def _check_manifest(manifest: Any) -> None:
    """Types of all entries; sizes are then computed from them."""
    leaves, structure, about = manifest["leaves"], manifest["structure"], manifest["metadata"]
    if not all(isinstance(part, dict) for part in (leaves, structure, about, *leaves.values())):
        raise TypeError("its parts must be dicts")
    for name, entry in leaves.items():
        sizes = [*entry["shape"], *entry["stored_shape"]]
        if not all(isinstance(size, int) and size >= 0 for size in sizes) or len(sizes) > 128:
            raise ValueError(f"leaf {name!r} has no shape")
        if np.dtype(entry["stored_dtype"]).kind not in "biufc":
            raise ValueError(f"leaf {name!r} is stored as {entry['stored_dtype']}")


def _check_members(path: Any, sizes: dict[str, int], entries: dict[str, Any]) -> None:
    for name in entries:
        if name not in sizes:
            raise ValueError(f"{path}: leaf {name!r} of the manifest is missing")
    for name in sizes:
        if name != MANIFEST and name not in entries:
            raise ValueError(f"{path}: leaf {name!r} is not in the manifest")
    for name, entry in entries.items():
        wanted = np.dtype(entry["stored_dtype"]).itemsize * math.prod(entry["stored_shape"])
        if not wanted < sizes[name] <= wanted + npz.HEADER_LIMIT:
            raise ValueError(f"{path}: leaf {name!r} should have {wanted} bytes, its member has {sizes[name]}")


def _check_like(path: Any, entries: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The leaves in the file are those of `like`, in names, shapes and dtypes."""
    for name in wanted:
        if name not in entries:
            raise ValueError(f"{path}: leaf {name!r} is missing; the file is of another net or optimizer")
    for name in entries:
        if name not in wanted:
            raise ValueError(f"{path}: leaf {name!r} is left over; the file is of another net or optimizer")
    for name, leaf in wanted.items():
        ours = _dtype_name(leaf), tuple(np.shape(leaf))
        its = entries[name]["dtype"], tuple(entries[name]["shape"])
        if ours != its:
            raise ValueError(f"{path}: leaf {name!r} must be {ours[0]} {ours[1]}, the file has {its[0]} {its[1]}")


def _checked_array(path: Any, name: str, entry: dict[str, Any], reader: npz.Reader) -> np.ndarray:
    """A leaf as it was stored, its bytes held against their sha256."""
    array = reader.read(name, np.dtype(entry["stored_dtype"]), tuple(entry["stored_shape"]))
    if _sha256(array) != entry["sha256"]:
        raise ValueError(f"{path}: leaf {name!r} is damaged: its sha256 is not that of the manifest; use another copy")
    return array


def _leaf(path: Any, name: str, entry: dict[str, Any], reader: npz.Reader) -> jax.Array:
    """A leaf as it was saved."""
    array = _checked_array(path, name, entry, reader)
    if "key_impl" in entry:
        with npz.blaming(path, f"leaf {name!r}"):
            return jax.random.wrap_key_data(jnp.asarray(array), impl=entry["key_impl"])
    with npz.blaming(path, f"leaf {name!r}"):
        array = array.view(jnp.dtype(entry["dtype"])).reshape(entry["shape"])
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise ValueError(f"{path}: leaf {name!r} is {array.dtype}, which JAX holds only under jax.enable_x64")
    return jnp.array(array)


def _stored(name: str, leaf: Any, copy: bool) -> np.ndarray:
    """A leaf as an array of a dtype that NumPy itself knows."""
    array = np.asarray(words(leaf))
    array = array.astype(array.dtype.newbyteorder("="), order="C", copy=copy)
    if array.dtype.isbuiltin == 2:  # registered with NumPy by others: bfloat16 and its like
        array = array.view(f"uint{8 * array.dtype.itemsize}")
    if array.dtype.kind not in "biufc":
        raise TypeError(f"checkpoint.save: leaf {name!r} must be an array of numbers, got {type(leaf).__name__}")
    return array


def _entry(leaf: Any, stored: np.ndarray) -> dict[str, Any]:
    """What the manifest says of a leaf, but for the sha256 of its bytes."""
    entry = {
        "dtype": _dtype_name(leaf),
        "shape": list(np.shape(leaf)),
        "stored_dtype": stored.dtype.name,
        "stored_shape": list(stored.shape),
    }
    return entry | {"key_impl": str(jax.random.key_impl(leaf))} if is_key(leaf) else entry


def _dtype_name(leaf: Any) -> str:
    """Such as float32, bfloat16, key<fry>."""
    return str(leaf.dtype) if hasattr(leaf, "dtype") else np.asarray(leaf).dtype.name


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(npz.bytes_of(array)).hexdigest()

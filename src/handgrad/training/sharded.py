"""Checkpoints of arrays that lie in parts on many devices: each process writes its own parts, through Orbax.

An npz holds each array whole, so one process must have all of it in memory. Where that is too much, Orbax writes a
folder in which every array lies in the parts that its devices hold, and reads it into whatever sharding is wanted.
Leaves have the names that they have in an npz, `params/conv1/kernel`.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.mesh import from_words, words
from handgrad.training.structure import leaf_names

MISSING = "{op} needs Orbax, which is not installed: pip install 'handgrad[orbax]'"


def save_sharded(folder: str | os.PathLike, tree: Any) -> None:
    """Write a tree of arrays, each in the parts in which it lies on the devices. All processes must call it together.

    It returns when all is on disk; a folder of the name is there only once it is whole.

    Args:
        folder: of this one checkpoint, such as run/sharded/step_7, which must not exist; all processes must see it.
        tree: a train state, or params alone.

    Raises:
        ImportError: Orbax is not installed.
        ValueError: the folder exists. Orbax would remove it before it writes the new one.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "step_7"
        >>> save_sharded(folder, {"steps": jnp.arange(4)})
        >>> print(load_sharded(folder, like={"steps": jnp.zeros(4, int)})["steps"])
        [0 1 2 3]
    """
    path = Path(folder).absolute()
    with _checkpointer("checkpoint.save_sharded") as orbax:
        if path.exists():
            raise ValueError(f"checkpoint.save_sharded: {folder} exists already; give each checkpoint its own folder")
        orbax.save(path, {name: leaf for name, leaf in _plain(tree).items() if leaf.size})  # Orbax takes none of size 0


def load_sharded(folder: str | os.PathLike, like: Any) -> Any:
    """Read a tree of arrays, each onto the devices on which its like lies.

    Args:
        folder: what `save_sharded` wrote, from any number of devices.
        like: a tree of the wanted structure, shapes, dtypes and shardings, such as a fresh train state placed by
            `data_parallel(step, mesh).place_state`.

    Returns:
        The tree, of jax arrays.

    Raises:
        ImportError: Orbax is not installed.
        FileNotFoundError: no such folder.
        ValueError: a folder that is no whole checkpoint, or a leaf that is missing, left over, or of another shape or
            dtype than its like. Folder and leaf are named.

    Example:
        >>> import tempfile
        >>> spread = jax.NamedSharding(jax.make_mesh((2,), ("data",), devices=jax.devices()[:2]), jax.P("data"))
        >>> folder = Path(tempfile.mkdtemp()) / "step_7"
        >>> save_sharded(folder, {"steps": jnp.arange(4)})  # from one device
        >>> found = load_sharded(folder, like={"steps": jax.device_put(jnp.zeros(4, int), spread)})  # onto two
        >>> [shard.data.tolist() for shard in found["steps"].addressable_shards]
        [[0, 1], [2, 3]]
    """
    path = Path(folder).absolute()
    if not path.is_dir():
        raise FileNotFoundError(f"checkpoint.load_sharded: there is no folder {folder}")
    leaves = leaf_names(like)
    wanted = {name: leaf for name, leaf in _plain(like).items() if leaf.size}
    with _checkpointer("checkpoint.load_sharded") as orbax:
        with _blaming(folder):
            found = {name: (tuple(about.shape), np.dtype(about.dtype)) for name, about in _about(orbax, path).items()}
        _check(folder, found, wanted)
        with _blaming(folder):
            read = orbax.restore(path, {name: _abstract(leaf) for name, leaf in wanted.items()})
    whole = [from_words(read.get(name, words(like)), like) for name, like in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(like), whole)


@contextlib.contextmanager
def _checkpointer(op: str) -> Iterator[Any]:
    try:
        from orbax.checkpoint import StandardCheckpointer
    except ImportError as error:
        raise ImportError(MISSING.format(op=op)) from error
    with StandardCheckpointer() as orbax:  # at its end it waits for what is being written
        yield orbax


@contextlib.contextmanager
def _blaming(folder: Any) -> Iterator[None]:
    """Turn whatever broken files do to Orbax into one ValueError that names the folder."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{folder} is no whole checkpoint ({type(error).__name__}: {error}); use another") from error


def _about(orbax: Any, path: Path) -> dict[str, Any]:
    return orbax.metadata(path).item_metadata.tree


def _check(folder: Any, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, leaf in wanted.items():
        ours = tuple(leaf.shape), np.dtype(leaf.dtype)
        if name not in found:
            raise ValueError(f"{folder}: leaf {name!r} is missing; the checkpoint is of another net or optimizer")
        if ours != found[name]:
            shape, dtype = found[name]
            raise ValueError(f"{folder}: leaf {name!r} must be {ours[1]} {ours[0]}, the checkpoint has {dtype} {shape}")
    for name in found:
        if name not in wanted:
            raise ValueError(f"{folder}: leaf {name!r} is left over; the checkpoint is of another net or optimizer")


def _plain(tree: Any) -> dict[str, jax.Array]:
    """The leaves by name, typed keys as their words."""
    return {name: jnp.asarray(words(leaf)) for name, leaf in leaf_names(tree).items()}


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

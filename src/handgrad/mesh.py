"""A gradient by hand on a mesh of devices.

Two things that `jax.grad` does by itself, a function that calls no `jax.grad` must do for itself:

- On a mesh with Explicit axes (`jax.make_mesh`'s default) each product must name its output's sharding, for xᵀ dy sums
  over the axis that is spread. `on_mesh` runs the function with automatic axes, and names the shardings of its results.
- Inside `jax.shard_map` a parameter is one value for all devices and its gradient a sum over them: the copy's dual.
  `summed` adds it up over the axes in which the gradient varies and its parameter does not.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

Sharding = Any


def explicit_mesh(*trees: Any) -> Any:
    """The mesh with Explicit axes on which arrays of the trees lie, or None.

    Args:
        *trees: of arrays.

    Raises:
        ValueError: arrays of two such meshes.
    """
    meshes = {sharding.mesh for sharding in _shardings(trees) if _explicit_axes(sharding.mesh)}
    if len(meshes) > 1:
        raise ValueError(f"value_and_grad: all arrays must be on one mesh, got {' and '.join(map(str, meshes))}")
    return next(iter(meshes), None)


def on_mesh(f: Callable, mesh: Any, out_shardings: Any) -> Callable:
    """The function with the mesh's Explicit axes automatic inside, and results of the shardings given."""
    return jax.sharding.auto_axes(f, axes=_explicit_axes(mesh), out_sharding=out_shardings)


def shardings_of(tree: Any, mesh: Any) -> Any:
    """The sharding of each array of a tree on the mesh; of one that lies on no mesh, that of a copy everywhere."""

    def of(leaf: Any) -> Sharding:
        sharding = jax.typeof(leaf).sharding
        return sharding if sharding.mesh == mesh else replicated(mesh)

    return jax.tree.map(of, tree)


def along_batch(x: Any, mesh: Any) -> NamedSharding:
    """The sharding of something that has x's batch axis first and is whole in its other axes."""
    (sharding,) = jax.tree.leaves(shardings_of(x, mesh))
    return NamedSharding(mesh, PartitionSpec(*sharding.spec[:1]))


def replicated(mesh: Any) -> NamedSharding:
    """The sharding of a copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def spread(mesh: Any, axis: str | None = None) -> NamedSharding:
    """The sharding that spreads a batch over an axis of the mesh, its first one unless named."""
    return NamedSharding(mesh, PartitionSpec(axis or mesh.axis_names[0]))


def varying(tree: Any) -> tuple[frozenset, ...]:
    """Inside shard_map, the mesh axes over which each leaf of a tree differs from device to device; static facts."""
    return tuple(frozenset(jax.typeof(leaf).manual_axis_type.varying) for leaf in jax.tree.leaves(tree))


def summed(gradients: Any, of: Any) -> Any:
    """Inside shard_map, each gradient summed over the axes in which it varies and what it is the gradient of does not.

    Outside there are no such axes, and the gradients come back as they are.

    Args:
        gradients: a tree of arrays.
        of: the tree of that structure in which they are gradients, or its `varying`.
    """
    leaves, structure = jax.tree.flatten(gradients)
    of = of if isinstance(of, tuple) and all(isinstance(axes, frozenset) for axes in of) else varying(of)
    pairs = zip(leaves, varying(gradients), of, strict=True)
    return structure.unflatten([lax.psum(g, tuple(sorted(own - its))) if own - its else g for g, own, its in pairs])


def mesh_of(tree: Any) -> Any:
    """The mesh of more than one device on which the arrays of a tree lie, or None."""
    for leaf in jax.tree.leaves(tree):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1:
            return sharding.mesh
    return None


def _shardings(trees: Any) -> Iterator[Sharding]:
    return (jax.typeof(leaf).sharding for leaf in jax.tree.leaves(trees))


def _explicit_axes(mesh: Any) -> tuple[str, ...]:
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)


def on_host(tree: Any) -> Any:
    """The tree with each array whole in this process's memory; all processes must call it together.

    Args:
        tree: of arrays.

    Returns:
        The tree; an array that lies on devices of other processes too is a NumPy array, any other is as it was.

    Example:
        >>> on_host({"kernel": jnp.ones((2, 3), "float32")})["kernel"].shape
        (2, 3)
    """

    def fetched(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if is_key(leaf):
            return from_words(fetched(words(leaf)), leaf)
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(fetched, tree)


def is_key(leaf: Any) -> bool:
    """Whether it is an array of typed PRNG keys."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def words(leaf: Any) -> Any:
    """The uint32 words of typed PRNG keys; any other array as it is."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def from_words(array: Any, like: Any) -> Any:
    """`words` undone: keys of the kind of `like`, if that is keys; else the array as it is."""
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like)) if is_key(like) else array


def place(array: Any, sharding: NamedSharding) -> Any:
    """The array with this sharding; from a host's copy each device gets its part, without a word between processes."""
    if isinstance(array, jax.Array) and array.sharding == sharding:
        return array
    if sharding.is_fully_addressable or not getattr(array, "is_fully_addressable", True):
        return jax.device_put(array, sharding)
    if is_key(array):
        return from_words(place(words(array), sharding), array)
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

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
from jax import lax
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


def along_batch(x: Any, mesh: Any) -> Sharding:
    """The sharding of something that has x's batch axis first and is whole in its other axes."""
    (sharding,) = jax.tree.leaves(shardings_of(x, mesh))
    return NamedSharding(mesh, PartitionSpec(*sharding.spec[:1]))


def replicated(mesh: Any) -> Sharding:
    """The sharding of a copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


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


def _shardings(trees: Any) -> Iterator[Sharding]:
    return (jax.typeof(leaf).sharding for leaf in jax.tree.leaves(trees))


def _explicit_axes(mesh: Any) -> tuple[str, ...]:
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)

"""A net as the graph that JAX traces: which arrays are one and the same, and which of them depend on what.

Nothing is computed or allocated; shapes are all that goes in.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Var

from handgrad.layers.layer import Layer, Shape, check_is_layer


class Case(NamedTuple):
    """A net's parameters, a batch of inputs and its state, as shapes and dtypes, and a key."""

    params: Any
    x: jax.ShapeDtypeStruct
    state: Any
    key: jax.Array


def case_of(who: str, net: Layer, in_shape: Shape, batch: int, dtype: Any) -> Case:
    """The shapes of a net and its batch.

    Args:
        who: asks, for the errors.
        net: any layer.
        in_shape: the shape of an input, without the batch axis.
        batch: how many inputs.
        dtype: of parameters and inputs.

    Raises:
        TypeError: something that is no layer, or a dtype that is not floating.
        ValueError: a batch below 1, an in_shape that is none, or that does not fit the net.
    """
    check_is_layer(net, who)
    if not isinstance(batch, Integral) or batch < 1:
        raise ValueError(f"{who}: batch must be at least 1, got {batch!r}")
    if not isinstance(in_shape, tuple | list) or not all(isinstance(size, Integral) and size > 0 for size in in_shape):
        raise ValueError(f"{who}: in_shape must be positive ints without the batch axis, got {in_shape!r}")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{who}: dtype must be floating, got {jnp.dtype(dtype).name}")
    in_shape, key = tuple(map(int, in_shape)), jax.random.key(0)
    params, state = jax.eval_shape(lambda key: net.init(key, in_shape, dtype), key)
    return Case(params, jax.ShapeDtypeStruct((int(batch), *in_shape), dtype), state, key)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mark:
    """A leaf layer's residuals, marked with its path among what containers hand up."""

    arrays: Any
    path: str = field(metadata={"static": True})


def marks(tree: Any) -> tuple[list[Mark], list[Any]]:
    """The marks in a tree of residuals, and whatever else there is."""
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Mark))
    return [node for node in nodes if isinstance(node, Mark)], [node for node in nodes if not isinstance(node, Mark)]


class Graph(NamedTuple):
    """A traced function.

    Attributes:
        inputs: the tuple of its arguments, with a variable in the place of each array.
        outputs: its result likewise; arrays that are one have the same variable, a number in the code has none.
        jaxpr: the equations between them.
    """

    inputs: Any
    outputs: Any
    jaxpr: Jaxpr


def graph_of(f: Callable, *args: Any) -> Graph:
    """The graph of f at arguments that are arrays or their shapes."""
    closed, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
    jaxpr = closed.jaxpr
    inputs = jax.tree.unflatten(jax.tree.structure(args), jaxpr.invars)
    return Graph(inputs, jax.tree.unflatten(jax.tree.structure(shapes), jaxpr.outvars), jaxpr)


def variables(tree: Any) -> set[Var]:
    """The variables in a tree, each once."""
    return {leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, Var)}


def dependents(jaxpr: Jaxpr, start: Iterable[Var]) -> set[Var]:
    """All variables that depend on one of the given, these included; a jit inside is looked into."""
    found = set(start)
    for equation in jaxpr.eqns:
        given = [isinstance(var, Var) and var in found for var in equation.invars]
        if not any(given):
            continue
        if equation.primitive.name != "jit":
            found |= variables(equation.outvars)
            continue
        inner = equation.params["jaxpr"].jaxpr
        within = dependents(inner, [var for var, is_given in zip(inner.invars, given, strict=True) if is_given])
        results = zip(equation.outvars, inner.outvars, strict=True)
        found |= {outer for outer, var in results if isinstance(var, Var) and var in within}
    return found


def bytes_of(arrays: Iterable[Var]) -> int:
    """What they take together."""
    shapes: list[Any] = [array.aval for array in arrays]
    return sum(shape.size * shape.dtype.itemsize for shape in shapes)

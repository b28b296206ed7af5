"""Several arrays made one: side by side along an axis, by their sum, or by their product.

concatenate   y[…, e_i + k, …] = x_i[…, k, …]           dx_i = dy[…, e_i ≤ place < e_i + a_i, …]     residual: sizes
add           y = Σ_i x_i                               dx_i = dy, summed over the axes it met        residual: shapes
multiply      y = Π_i x_i                               dx_i = dy Π_{j≠i} x_j, summed likewise        residual: all x_i

Here a_i is the size of x_i along the axis and e_i = Σ_{j<i} a_j the place where it begins.
Duals: to join is to cut and to cut is to join, a sum is a copy and a copy is a sum. So an array that has size 1 on an
axis where another has more is copied along it, and its gradient is the sum over that axis.
y = Π x_i is linear in each factor, so its slope is the product of the others: taken as such, never as y / x_i, it is
right at 0 as well.
NaN: dy is selected, copied or multiplied, so a NaN in it stays where it belongs; a NaN in a factor spoils the gradient
of the others.
Shapes: x_i, dx_i (…, A_i, …) and y, dy (…, A_1 + … + A_m, …) for concatenate; for add and multiply x_i and dx_i have
y's shape or 1 in the place of an axis. Any number of arrays, one or more. Sums and products in float32 at least.
Source: Rumelhart, Hinton and Williams 1986 (sums, products); Szegedy et al. 2015 (concatenate); He et al. 2015 (add);
Hu, Shen and Sun 2018 (multiply).
"""

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp

from handgrad.ops import check
from handgrad.ops.precision import wide
from handgrad.ops.static import Static

Shape = tuple[int, ...]


def concatenate(*arrays: jax.Array, axis: int = -1) -> jax.Array:
    """The arrays one after the other along an axis.

    Args:
        *arrays: floating, of one dtype, and of one shape but for the axis.
        axis: the axis along which they follow one another.

    Returns:
        y, whose size along the axis is the sum of theirs.

    Raises:
        ValueError: no array, no such axis, or shapes that differ elsewhere.
        TypeError: an array that is not floating, or arrays of different dtypes.

    Example:
        >>> concatenate(jnp.zeros((1, 2)), jnp.ones((1, 1))).tolist()
        [[0.0, 0.0, 1.0]]
    """
    shapes = _shapes("concatenate", arrays)
    ndim = len(shapes[0])
    if not -ndim <= axis < ndim:
        raise ValueError(f"concatenate: axis must be an axis of the arrays, got axis {axis} for shape {shapes[0]}")
    if len({len(shape) for shape in shapes}) > 1 or len({_without(shape, axis) for shape in shapes}) > 1:
        raise ValueError(f"concatenate: the arrays must have one shape but for axis {axis}, got {_listed(shapes)}")
    return jnp.concatenate(arrays, axis)


def concatenate_forward(*arrays: jax.Array, axis: int = -1) -> tuple[jax.Array, Static]:
    """The output y, and the sizes of the arrays along the axis, which are no arrays and so `Static`.

    Example:
        >>> y, sizes = concatenate_forward(jnp.zeros((1, 2)), jnp.ones((1, 1)))
        >>> print(y, sizes.value)
        [[0. 0. 1.]] (2, 1)
    """
    return concatenate(*arrays, axis=axis), Static(tuple(array.shape[axis] for array in arrays))


def concatenate_backward(sizes: Static, dy: jax.Array, *, axis: int = -1) -> tuple[jax.Array, ...]:
    """The gradients of `concatenate`: dy cut where the arrays met.

    Args:
        sizes: the residual of `concatenate_forward`.
        dy: the gradient of the output.
        axis: as in forward.

    Returns:
        dx_i, one for each array, of its shape and dy's dtype.

    Example:
        >>> _, sizes = concatenate_forward(jnp.zeros(2), jnp.zeros(1))
        >>> [dx.tolist() for dx in concatenate_backward(sizes, jnp.array([1.0, 2.0, 3.0]))]
        [[1.0, 2.0], [3.0]]
    """
    ends = [sum(sizes.value[: i + 1]) for i in range(len(sizes.value) - 1)]
    return tuple(jnp.split(dy, ends, axis=axis))


def add(*arrays: jax.Array) -> jax.Array:
    """The sum of the arrays.

    Args:
        *arrays: floating, of one dtype and rank; of one shape, or with 1 in the place of an axis.

    Returns:
        y, of the shape that they give together.

    Raises:
        ValueError: no array, or shapes that do not fit.
        TypeError: an array that is not floating, or arrays of different dtypes.

    Example:
        >>> add(jnp.array([[1.0, 2.0]]), jnp.array([[10.0, 20.0]]), jnp.array([[100.0]])).tolist()
        [[111.0, 122.0]]
    """
    _check_shapes("add", arrays)
    arrays = tuple(map(jnp.asarray, arrays))
    return reduce(jnp.add, map(wide, arrays)).astype(arrays[0].dtype)


def add_forward(*arrays: jax.Array) -> tuple[jax.Array, Static]:
    """The output y, and the shapes of the arrays.

    Example:
        >>> y, shapes = add_forward(jnp.array([[1.0, 2.0]]), jnp.array([[10.0]]))
        >>> print(y, shapes.value)
        [[11. 12.]] ((1, 2), (1, 1))
    """
    return add(*arrays), Static(tuple(array.shape for array in arrays))


def add_backward(shapes: Static, dy: jax.Array) -> tuple[jax.Array, ...]:
    """The gradients of `add`: dy itself, summed over the axes along which an array was copied.

    Args:
        shapes: the residual of `add_forward`.
        dy: the gradient of the output.

    Returns:
        dx_i, one for each array, of its shape and dy's dtype.

    Example:
        >>> _, shapes = add_forward(jnp.zeros((1, 2)), jnp.zeros((1, 1)))
        >>> [dx.tolist() for dx in add_backward(shapes, jnp.array([[1.0, 2.0]]))]
        [[[1.0, 2.0]], [[3.0]]]
    """
    dy = jnp.asarray(dy)
    return tuple(_summed_to(wide(dy), shape).astype(dy.dtype) for shape in shapes.value)


def multiply(*arrays: jax.Array) -> jax.Array:
    """The product of the arrays, element by element.

    Args:
        *arrays: floating, of one dtype and rank; of one shape, or with 1 in the place of an axis.

    Returns:
        y, of the shape that they give together.

    Raises:
        ValueError: no array, or shapes that do not fit.
        TypeError: an array that is not floating, or arrays of different dtypes.

    Example:
        >>> multiply(jnp.array([[1.0, 2.0]]), jnp.array([[10.0]])).tolist()
        [[10.0, 20.0]]
    """
    _check_shapes("multiply", arrays)
    arrays = tuple(map(jnp.asarray, arrays))
    return reduce(jnp.multiply, map(wide, arrays)).astype(arrays[0].dtype)


def multiply_forward(*arrays: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The output y, and all the arrays: each one's slope is the product of the others.

    Example:
        >>> y, arrays = multiply_forward(jnp.array([[1.0, 2.0]]), jnp.array([[10.0]]))
        >>> print(y, *arrays)
        [[10. 20.]] [[1. 2.]] [[10.]]
    """
    return multiply(*arrays), tuple(map(jnp.asarray, arrays))


def multiply_backward(arrays: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, ...]:
    """The gradients of `multiply`: dy times the other arrays, summed over the axes along which an array was copied.

    Args:
        arrays: the residual of `multiply_forward`.
        dy: the gradient of the output.

    Returns:
        dx_i, one for each array, of its shape and dy's dtype.

    Example:
        >>> _, arrays = multiply_forward(jnp.array([[1.0, 2.0]]), jnp.array([[10.0]]))
        >>> [dx.tolist() for dx in multiply_backward(arrays, jnp.ones((1, 2)))]
        [[[10.0, 10.0]], [[3.0]]]
    """
    dy = jnp.asarray(dy)
    factors, gradients = list(map(wide, arrays)), []
    for i, array in enumerate(arrays):
        slope = reduce(jnp.multiply, factors[:i] + factors[i + 1 :], wide(dy))
        gradients.append(_summed_to(slope, array.shape).astype(dy.dtype))
    return tuple(gradients)


def _summed_to(dy: jax.Array, shape: Shape) -> jax.Array:
    """Dy summed over the axes on which `shape` has 1 and dy has not."""
    axes = tuple(axis for axis, (size, wanted) in enumerate(zip(dy.shape, shape, strict=True)) if size != wanted)
    return dy.sum(axes, keepdims=True) if axes else dy


def _shapes(op: str, arrays: Sequence[jax.Array]) -> list[Shape]:
    if not arrays:
        raise ValueError(f"{op}: wants at least one array, got none")
    check.floating(op, **{f"array {place}": array for place, array in enumerate(arrays, start=1)})
    return [array.shape for array in arrays]


def _check_shapes(op: str, arrays: Sequence[jax.Array]) -> None:
    """Raise a ValueError unless each array has the same shape as the others or 1 in the place of an axis."""
    shapes = _shapes(op, arrays)
    fits = len({len(shape) for shape in shapes}) == 1
    if not fits or any(len(set(sizes) - {1}) > 1 for sizes in zip(*shapes, strict=True)):
        raise ValueError(f"{op}: the arrays must have one shape, or 1 in the place of an axis, got {_listed(shapes)}")


def _without(shape: Shape, axis: int) -> Shape:
    return tuple(size for place, size in enumerate(shape) if place != axis % len(shape))


def _listed(shapes: Sequence[Shape]) -> str:
    return ", ".join(map(str, shapes))

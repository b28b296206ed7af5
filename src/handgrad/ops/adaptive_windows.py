"""The geometry of adaptive pools: P windows on an axis of A places, cut as evenly as whole places allow.

Windows     W[p] = {a: ⌊pA/P⌋ ≤ a < ⌈(p+1)A/P⌉}

These are all places that part p touches when the axis is cut into P equal parts. Windows differ in size by up to one
place and neighbours overlap by up to one; where P > A they share places.
Dual: a ∈ W[p] says pA/P < a + 1 and a < (p+1)A/P, that is ⌊aP/A⌋ ≤ p < ⌈(a+1)P/A⌉. So the windows that share place a
are an adaptive window themselves, one of A on an axis of P: what a pool gathers from A to P, its transpose gathers from
P to A, by the same functions with the sizes swapped. Nothing is scattered.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.ops import check
from handgrad.ops.spatial import MANY_TAPS, Sizes, per_axis


def adaptive_sizes(op: str, in_shape: Sequence[int], output_size: int | Sequence[int]) -> tuple[Sizes, Sizes]:
    """The sizes A and P of each spatial axis, or an error that names op and argument."""
    check.places(op, in_shape)
    return tuple(in_shape[1:-1]), per_axis(op, "output_size", output_size, len(in_shape) - 2)


def axis_windows(places: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of each of `count` windows, (P, K), and which are its own: a smaller window repeats its last one."""
    p = np.arange(count)
    start, stop = p * places // count, -(-(p + 1) * places // count)
    number = np.arange((stop - start).max())[None, :]
    return np.minimum(start[:, None] + number, stop[:, None] - 1), number < (stop - start)[:, None]


def largest(in_sizes: Sizes, out_sizes: Sizes) -> Sizes:
    """The places K of the largest window along each axis."""
    return tuple(axis_windows(a, p)[0].shape[1] for a, p in zip(in_sizes, out_sizes, strict=True))


def as_plain_pool(in_sizes: Sizes, out_sizes: Sizes) -> dict[str, Sizes]:
    """The window and strides of the plain pool with the same windows; empty where none has them, or it has many taps.

    Windows are equal and evenly apart where P divides A, and sometimes else: 6 on 13 places are 3 wide and 2 apart.
    """
    window, strides = [], []
    for places, count in zip(in_sizes, out_sizes, strict=True):
        index, own = axis_windows(places, count)
        step = int(index[1, 0]) if count > 1 else places
        if step == 0 or not own.all() or (index[:, 0] != np.arange(count) * step).any():
            return {}
        window.append(index.shape[1])
        strides.append(step)
    return {"window": tuple(window), "strides": tuple(strides)} if sum(window) <= MANY_TAPS else {}


def all_windows(x: jax.Array, out_sizes: Sizes) -> tuple[jax.Array, jax.Array]:
    """(N, P, K, Q, L, C) from (N, H, W, C): each window with its places, and which of those are its own."""
    own, ndim = np.ones(1, bool), len(out_sizes)
    for axis in reversed(range(ndim)):
        index, mine = axis_windows(x.shape[axis + 1], out_sizes[axis])
        x = jnp.take(x, index, axis + 1, mode="clip")
        own = own & on_axis(mine, 2 * axis + 1, 2 * ndim + 2)
    return x, jnp.asarray(own)


def over_windows(
    term: Callable[..., jax.Array], arrays: Sequence[jax.Array], axis: int, count: int, add: jnp.ufunc = jnp.add
) -> jax.Array:
    """The sum over each of `count` windows of an axis of term(own, *arrays at the place): (.., P, ..) from (.., A, ..).

    Tap by tap: dense arrays, added up one after the other; many taps go in groups, so that the program stays short.
    """
    index, own = axis_windows(arrays[0].shape[axis], count)
    group, sums = -(-index.shape[1] // MANY_TAPS), []
    for i in range(0, index.shape[1], group):
        taken = [jnp.take(array, index[:, i : i + group], axis, mode="clip") for array in arrays]
        part = term(jnp.asarray(on_axis(own[:, i : i + group], axis, taken[0].ndim)), *taken)
        sums.append(add.reduce(part, axis=axis + 1) if group > 1 else part.squeeze(axis + 1))
    return functools.reduce(add, sums)


def on_axis(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    """`values` from `axis` on, among `ndim` axes."""
    return values.reshape((1,) * axis + values.shape + (1,) * (ndim - axis - values.ndim))

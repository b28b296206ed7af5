"""Faster algorithms for the three maps of a convolution, and the rule that picks one.

Each computes a formula of ops/conv.py by other means; "direct" is the formula itself, given to XLA as one convolution.

product    a kernel of one place: y = x W at every stride-th place, dx = dy Wᵀ there, dW = xᵀ dy. One matrix product,
           where XLA's convolution gathers patches of one place first.
taps       one channel a group (depthwise): y = Σ_i x_i W_i over the taps x_i[n, p] = x[n, ps + id - l], number by
           number. Nothing is summed over channels, so there is no matrix product to gain from, only passes to save:
           dW sums several taps in one.
groups     each group a convolution for itself, the results side by side. XLA walks a grouped convolution channel by
           channel, a hundred times slower for dW. There, small groups go together and only their own blocks are kept:
           a block takes numbers of its own group alone, so none is contaminated.
phases     dx of stride s: place a + l = qs + r is reached by the taps i = r + sm alone, from window p = q - m. Each
           phase r is the dx of a convolution of stride 1 with the kernel W[r::s], and the phases interleave. So no
           product is spent on the s - 1 zeros that the formula puts between the places of dy.

An algorithm gets the two arrays of its map, the windows, the groups, and `solve`, which computes the same map of a
smaller convolution by the rule. Measurements behind the rule: docs/algorithms.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad.ops.batching import unrolled
from handgrad.ops.platform import on_cpu
from handgrad.ops.precision import wide
from handgrad.ops.spatial import Windows, interleaved, sum_by_phases, taps

Solve = Callable[..., jax.Array]  # (a, b, windows, groups)
Algorithm = Callable[[jax.Array, jax.Array, Windows, int, Solve], jax.Array]
MOST_TERMS = 64  # terms or convolutions that a loop over taps or phases may write into one program
MOST_GROUPS = 32  # convolutions that stand side by side in one program
LONG_PASS, SHORT_PASS, SHORT_ROW = 9, 5, 14  # taps that a depthwise kernel gradient sums at once; 5 in rows up to 14
BUNDLE = 32  # channels that groups of a kernel gradient share a convolution up to


@dataclass(frozen=True)
class Map:
    """One of the three maps of a convolution: its formula and its faster algorithms by name."""

    direct: Solve
    algorithms: dict[str, Algorithm]
    batch: int | None
    """The argument whose batch axis the result shares, if there is one."""

    def __call__(
        self, a: jax.Array, b: jax.Array, windows: Windows, groups: int, algorithm: str | None = None
    ) -> jax.Array:
        """The map by the algorithm of that name, where this map has it, or by the rule's choice.

        A vmap of it is as fast as a loop.
        """
        name = algorithm if algorithm in ("direct", *self.algorithms) else None
        fast = partial(self.solve, windows=windows, groups=groups, algorithm=name)
        return unrolled(fast, partial(self.direct, windows=windows, groups=groups), self.batch)(a, b)

    def solve(
        self, a: jax.Array, b: jax.Array, windows: Windows, groups: int, algorithm: str | None = None
    ) -> jax.Array:
        """The same, with the vmap that JAX makes of it."""
        channels = a.shape[-2] * groups if self.batch == 1 else a.shape[-1]  # a is the kernel for dx, else x
        name = algorithm or self.choose(windows, groups, channels)
        if name == "direct":
            return self.direct(a, b, windows, groups)
        return self.algorithms[name](a, b, windows, groups, self.solve)

    def choose(self, windows: Windows, groups: int, channels: int) -> str:
        """The rule: on CPU the first of the map's algorithms that can take it, elsewhere XLA's convolution."""
        if not on_cpu():
            return "direct"
        can = [name for name in self.algorithms if obstacle(name, windows, groups, channels) is None]
        if groups > MOST_GROUPS and self.batch is not None and "groups" in can:
            can.remove("groups")  # a kernel gradient puts groups together, the others make one program of each
        return can[0] if can else "direct"


def check_algorithm(
    op: str, algorithm: str | None, maps: Sequence[Map], windows: Windows, groups: int, channels: int
) -> None:
    """Raise a ValueError for a name that no map has, or an algorithm that cannot take this convolution."""
    if algorithm is None:
        return
    names = dict.fromkeys(name for map in maps for name in ("direct", *map.algorithms))
    if algorithm not in names:
        raise ValueError(f"{op}: algorithm must be one of {', '.join(names)}, got {algorithm!r}")
    why = obstacle(algorithm, windows, groups, channels)
    if why:
        raise ValueError(f"{op}: {algorithm!r} cannot compute this convolution: {why}; leave algorithm to the rule")


def obstacle(algorithm: str, windows: Windows, groups: int, channels: int) -> str | None:
    """Why the algorithm cannot take this convolution, or None where it can."""
    if algorithm == "product" and (prod(windows.window) > 1 or groups > 1 or any(map(any, windows.padding))):
        return (
            f"it wants a kernel of one place, no padding and one group, got kernel size {windows.window}, "
            f"padding {windows.padding} and {groups} groups"
        )
    if algorithm == "taps" and (groups == 1 or channels != groups):
        return f"it wants groups of one channel each, got {channels} channels in {groups} groups"
    if algorithm == "taps" and prod(windows.window) > MOST_TERMS:
        return f"it wants a kernel of at most {MOST_TERMS} places, got {windows.window}"
    if algorithm == "phases" and prod(windows.strides) > MOST_TERMS:
        return f"it wants strides with a product of at most {MOST_TERMS}, got {windows.strides}"
    if algorithm == "groups" and groups == 1:
        return "it wants more than one group"
    if algorithm == "phases" and (prod(windows.strides) == 1 or prod(windows.dilation) > 1):
        return f"it wants strides above 1 and no dilation, got {windows.strides} and {windows.dilation}"
    return None


def by_groups(a: jax.Array, b: jax.Array, windows: Windows, groups: int, solve: Solve) -> jax.Array:
    """The output, or dx: each group's, side by side. Both arrays of both maps hold their groups in the last axis."""
    pairs = zip(jnp.split(a, groups, -1), jnp.split(b, groups, -1), strict=True)
    return jnp.concatenate([solve(*pair, windows, 1) for pair in pairs], -1)


def output_by_product(x: jax.Array, kernel: jax.Array, windows: Windows, groups: int, solve: Solve) -> jax.Array:
    """X W at every stride-th place."""
    (x,) = taps(x, windows, 0)
    return jnp.dot(x, kernel.reshape(kernel.shape[-2:]))


def output_by_taps(x: jax.Array, kernel: jax.Array, windows: Windows, groups: int, solve: Solve) -> jax.Array:
    """Σ_i x_i W_i, for one channel a group."""
    weights = wide(kernel).reshape(prod(windows.window), kernel.shape[-1])
    found = _side_by_side(taps(x, windows, 0), kernel.shape[-1])
    first, *others = (tap * jnp.broadcast_to(w, tap.shape) for tap, w in zip(found, weights, strict=True))
    return sum(others, start=first).astype(x.dtype)


def input_gradient_by_product(
    kernel: jax.Array, dy: jax.Array, windows: Windows, groups: int, solve: Solve
) -> jax.Array:
    """Dy Wᵀ at every stride-th place, zeros between."""
    dx = jnp.dot(dy, kernel.reshape(kernel.shape[-2:]).T)
    sizes = zip(windows.in_sizes, windows.out_sizes, windows.strides, strict=True)
    return lax.pad(
        dx, jnp.zeros((), dx.dtype), [(0, 0, 0), *((0, a - (p - 1) * s - 1, s - 1) for a, p, s in sizes), (0, 0, 0)]
    )


def input_gradient_by_taps(kernel: jax.Array, dy: jax.Array, windows: Windows, groups: int, solve: Solve) -> jax.Array:
    """Σ_i dy W_i at the places of tap i, for one channel a group."""
    weights = wide(kernel).reshape(prod(windows.window), kernel.shape[-1])

    def term(number: int, dy: jax.Array) -> jax.Array:
        terms = wide(dy) * jnp.broadcast_to(weights[number], dy.shape)
        return terms.reshape(*dy.shape[:-1], groups, dy.shape[-1] // groups).sum(-1)

    return sum_by_phases(term, (dy,), windows).astype(dy.dtype)


def input_gradient_by_phases(
    kernel: jax.Array, dy: jax.Array, windows: Windows, groups: int, solve: Solve
) -> jax.Array:
    """The phases r of place a + l = qs + r: each the gradient of stride 1 with the kernel W[r::s]."""
    axes = list(zip(windows.in_sizes, windows.strides, windows.padding, strict=True))
    rows = tuple(-(-(a + low) // s) for a, s, (low, _) in axes)
    ones, phases = (1,) * len(axes), []
    for r in product(*map(range, windows.strides)):
        part = kernel[tuple(slice(first, None, s) for first, s in zip(r, windows.strides, strict=True))]
        sizes = part.shape[: len(axes)]
        of_phase = Windows(rows, sizes, ones, ones, ((0, 0),) * len(axes), windows.out_sizes)
        empty = jnp.zeros((len(dy), *rows, part.shape[-2] * groups), dy.dtype)
        phases.append(solve(part, dy, of_phase, groups) if prod(sizes) else empty)
    return interleaved(phases, windows)


def kernel_gradient_by_product(x: jax.Array, dy: jax.Array, windows: Windows, groups: int, solve: Solve) -> jax.Array:
    """xᵀ dy over every stride-th place."""
    (x,) = taps(x, windows, 0)
    rows = tuple(range(x.ndim - 1))
    return lax.dot_general(x, dy, ((rows, rows), ((), ()))).reshape(*windows.window, x.shape[-1], dy.shape[-1])


def kernel_gradient_by_taps(x: jax.Array, dy: jax.Array, windows: Windows, groups: int, solve: Solve) -> jax.Array:
    """dW_i = Σ_{n, p} x_i dy, for one channel a group: several i in one pass over x and dy.

    A pass is one reduction of several products, along rows; XLA computes a product inside the loop of its sum.
    """
    dy, found = wide(dy), _side_by_side(taps(x, windows, 0), dy.shape[-1])
    *_, row, features = dy.shape
    at_once = SHORT_PASS if row <= SHORT_ROW else LONG_PASS
    zero, sums = np.zeros((), dy.dtype), []
    for start in range(0, len(found), at_once):
        products = [tap * dy for tap in found[start : start + at_once]]
        sums += lax.reduce(products, [zero] * len(products), partial(jax.tree.map, lax.add), (dy.ndim - 2,))
    dkernel = jnp.stack([total.reshape(prod(dy.shape[:-2]), features).sum(0) for total in sums])
    return dkernel.reshape(*windows.window, 1, features).astype(x.dtype)


def kernel_gradient_by_groups(x: jax.Array, dy: jax.Array, windows: Windows, groups: int, solve: Solve) -> jax.Array:
    """The blocks of each group's own channels and features; groups of few channels share a convolution."""
    channels, features = x.shape[-1] // groups, dy.shape[-1] // groups
    together = max(b for b in range(1, groups + 1) if groups % b == 0 and (b == 1 or b * channels <= BUNDLE))
    bundles = []
    of_x, of_dy = (jnp.split(array, groups // together, -1) for array in (x, dy))
    for x_bundle, dy_bundle in zip(of_x, of_dy, strict=True):
        blocks = solve(x_bundle, dy_bundle, windows, 1).reshape(*windows.window, together, channels, together, features)
        bundles += [blocks[..., g, :, g, :] for g in range(together)]
    return jnp.concatenate(bundles, -1)


def _side_by_side(found: list[jax.Array], features: int) -> list[jax.Array]:
    """Taps (N, *P, C) as (N, *P, C M), the M features of a channel side by side; in float32 at least."""
    return [jnp.repeat(wide(tap), features // tap.shape[-1], -1) for tap in found]

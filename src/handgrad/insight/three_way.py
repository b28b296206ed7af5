"""The gradient by hand, the automatic one, and finite differences, compared leaf by leaf.

The three are vectors over θ: all parameters and x in one. By hand against automatic compares whole leaves. Finite
differences try directions within a leaf: some coordinates, some random lines, and, where the first two part, the line
along which they part most, v = (g - g') / ‖g - g'‖, and its largest coordinates: there differences tell who is right.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from handgrad.insight.differences import Difference, difference, rounding, taylor_slope
from handgrad.insight.leaves import leaf_layers, path_text
from handgrad.insight.report import Row
from handgrad.layers.layer import Array, Layer

RANDOM_LINES = 3
PARTED_COORDINATES = 4
SMALL = 1e-4, 1e-6  # a gradient below this share of the whole, or below this, is rounding: errors are relative to it
AUTOMATIC_TOLERANCE, DIFFERENCE_TOLERANCE = 1e-9, 1e-5
SMALLEST_SCALE = 0.1  # of a leaf's entries, for leaves of zeros

Point = dict[str, Any]  # θ as a tree, {"params": params, "x": x}
Vector = np.ndarray


class Leaf(NamedTuple):
    """A leaf of the point: where it lies in θ, and the three views of it."""

    name: str
    shape: tuple[int, ...]
    place: slice
    hand: Vector
    automatic: Vector


class Tried(NamedTuple):
    """One direction v: the difference, <g, v> of both gradients, and the slope of the Taylor remainder."""

    difference: Difference
    hand: float
    automatic: float
    taylor: float | None


class Function(NamedTuple):
    """The function at θ: itself, its value there and the rounding in it."""

    f: Callable[[Vector], float]
    theta: Vector
    value: float
    noise: float

    def line(self, place: slice, v: Vector) -> Callable[[float], float]:
        """φ(t) = f(θ + t v) for a v in one leaf."""

        def phi(t: float) -> float:
            moved = self.theta.copy()
            moved[place] += t * v
            return self.f(moved)

        return phi


def three_way(
    value: Callable[..., Array],
    by_hand: Callable[..., tuple[Array, Point]],
    point: Point,
    fixed: tuple,
    net: Layer,
    coordinates: int,
    seed: int,
) -> tuple[tuple[Row, ...], float, tuple[str, ...]]:
    """Compare three gradients of a function at a point.

    Args:
        value: (point, *fixed) -> scalar, which jax.grad and the differences take.
        by_hand: (point, *fixed) -> the same scalar, and its gradient by hand as a tree like the point.
        point: where, all in float64.
        fixed: further arguments, such as state and key.
        net: whose order the rows take.
        coordinates: how many of each leaf are tried.
        seed: draws them.

    Returns:
        The rows, the value at the point, and what else is wrong.
    """
    random = np.random.default_rng(seed)
    hand_value, hand = by_hand(point, *fixed)
    automatic_value, automatic = jax.jit(jax.value_and_grad(value))(point, *fixed)
    jitted = jax.jit(lambda theta, fixed: value(_tree(theta, point), *fixed))

    def f(theta: Vector) -> float:
        return float(jitted(theta, fixed))

    theta = _vector(point)
    function = Function(f, theta, f(theta), rounding(f, theta, random))
    leaves = _leaves(point, _vector(hand), _vector(automatic))
    small = _small(leaves)
    rows = [_row(leaf, function, small, coordinates, random) for leaf in _in_order(leaves, net)]
    return tuple(rows), function.value, _value_problems(float(hand_value), float(automatic_value))


def _vector(tree: Any) -> Vector:
    """All leaves of a tree in one vector, in NumPy: eager JAX would compile for each shape."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def _tree(theta: Array, like: Point) -> Point:
    """The vector's entries in the shapes of a tree."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves]).tolist()
    parts = [theta[end - leaf.size : end].reshape(leaf.shape) for leaf, end in zip(leaves, ends, strict=True)]
    return jax.tree.unflatten(structure, parts)


def _leaves(point: Point, hand: Vector, automatic: Vector) -> list[Leaf]:
    leaves, begin = [], 0
    for path, leaf in jax.tree.leaves_with_path(point):
        place = slice(begin, begin + leaf.size)
        name = "x" if path_text(path) == "x" else path_text(path[1:])
        leaves.append(Leaf(name, leaf.shape, place, hand[place], automatic[place]))
        begin += leaf.size
    return leaves


def _in_order(leaves: list[Leaf], net: Layer) -> list[Leaf]:
    """From the input to the loss: x, then the parameters by their layer's place in the net."""
    paths = [path for path, _ in leaf_layers(net)]

    def place(leaf: Leaf) -> int:
        below = (i for i, path in enumerate(paths) if leaf.name.startswith(f"{path}/"))
        return -1 if leaf.name == "x" else next(below, len(paths))

    return sorted(leaves, key=place)


def _small(leaves: list[Leaf]) -> float:
    norms = [np.linalg.norm(g) for leaf in leaves for g in (leaf.hand, leaf.automatic)]
    return max(SMALL[0] * float(max((norm for norm in norms if np.isfinite(norm)), default=0.0)), SMALL[1])


def _value_problems(hand: float, automatic: float) -> tuple[str, ...]:
    if not math.isfinite(automatic):
        return (f"the value is {automatic}",)
    if not abs(hand - automatic) <= AUTOMATIC_TOLERANCE * max(abs(automatic), 1e-3):
        return (f"the value is {hand:.10g} by the forward pass by hand, {automatic:.10g} by the plain formula",)
    return ()


def _row(leaf: Leaf, function: Function, small: float, coordinates: int, random: np.random.Generator) -> Row:
    """All about one leaf."""
    finite = [bool(np.isfinite(g).all()) for g in (leaf.hand, leaf.automatic)]
    if not (all(finite) and math.isfinite(function.value)):
        return Row(leaf.name, leaf.shape, math.inf, math.nan, math.nan, 0, 0, _odd(False, *finite))
    error = _relative(leaf.hand, leaf.automatic, small)
    parted = error > AUTOMATIC_TOLERANCE
    directions = _directions(leaf.hand - leaf.automatic, parted, coordinates, random)
    tried = [_try(leaf, function, v, is_line) for v, is_line in directions]
    used = [one for one in tried if not one.difference.kink]
    kinks = len(tried) - len(used)
    if not used:
        odd = "undecided" if parted else "-"
        return Row(leaf.name, leaf.shape, error, math.nan, math.nan, len(tried), kinks, odd)
    hand, automatic = np.array([one.hand for one in used]), np.array([one.automatic for one in used])
    central, uncertainty = np.array([one.difference for one in used]).T
    hand_error, automatic_error = _relative(hand, central, small), _relative(automatic, central, small)
    allowed = DIFFERENCE_TOLERANCE + float(np.linalg.norm(uncertainty) / max(np.linalg.norm(central), small))
    odd = _odd(not parted, hand_error <= allowed, automatic_error <= allowed)
    slopes = [one.taylor for one in used if one.taylor is not None]
    slope = slopes[-1] if slopes and parted else float(np.median(slopes or math.nan))
    return Row(leaf.name, leaf.shape, error, hand_error, slope, len(tried), kinks, odd)


def _try(leaf: Leaf, function: Function, v: Vector, is_line: bool) -> Tried:
    """The difference along one direction, and the slope of the Taylor remainder if it is a line across the leaf."""
    line, hand = function.line(leaf.place, v), float(leaf.hand @ v)
    scale = max(float(np.sqrt(np.mean(np.square(function.theta[leaf.place])))), SMALLEST_SCALE)
    along = difference(line, function.value, scale, function.noise)
    wanted = is_line and not along.kink
    taylor = taylor_slope(line, function.value, hand, scale, function.noise) if wanted else None
    return Tried(along, hand, float(leaf.automatic @ v), taylor)


def _directions(
    gap: Vector, parted: bool, coordinates: int, random: np.random.Generator
) -> Iterator[tuple[Vector, bool]]:
    """Unit vectors within a leaf, and whether they are lines across it; the last is where the gradients part."""
    chosen = random.choice(gap.size, min(gap.size, coordinates), replace=False).tolist()
    if parted:
        chosen += [i for i in np.argsort(-np.abs(gap))[:PARTED_COORDINATES].tolist() if i not in chosen]
    for i in chosen:
        yield np.eye(1, gap.size, i)[0], False
    for _ in range(RANDOM_LINES if gap.size else 0):
        v = random.normal(size=gap.size)
        yield v / np.linalg.norm(v), True
    if parted:
        yield gap / np.linalg.norm(gap), True


def _relative(a: Vector, b: Vector, small: float) -> float:
    """‖a - b‖ / max(‖a‖, ‖b‖, small)."""
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(a), np.linalg.norm(b), small))


def _odd(both_agree: bool, hand_right: bool, automatic_right: bool) -> str:
    """Which of the three disagrees with the other two."""
    if both_agree:
        return "-" if hand_right else "finite differences"
    if hand_right == automatic_right:
        return "undecided"
    return "automatic" if hand_right else "manual"

"""One line that sets an array by hand beside its reference: the check after each step of a derivation."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from handgrad.insight.leaves import path_text
from handgrad.insight.report import shortened, table


class ComparisonRow(NamedTuple):
    """One array beside its reference.

    Attributes:
        name: what it is, `dkernel`.
        shape: its shape.
        exact: whether all bits that matter are equal: values equal, NaN where the other has NaN.
        error: max |a - b| / max |b|; 0 where both are zero, inf where only one is finite or b alone is zero.

    Example:
        >>> row = compare("dx", np.array([1.0, 2.0]), np.array([1.0, 2.5])).rows[0]
        >>> row.name, row.shape, row.exact, row.error  # 0.5 / 2.5
        ('dx', (2,), False, 0.2)
    """

    name: str
    shape: tuple[int, ...]
    exact: bool
    error: float


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: as a string one line for each array.

    Attributes:
        rows: one for each array, in the order of the tree.

    Example:
        >>> ours, theirs = {"w": np.ones(3), "b": np.zeros(1)}, {"w": np.ones(3), "b": np.ones(1)}
        >>> found = compare("gradient", ours, theirs)
        >>> print(found)
        gradient/b    1         differs  largest relative difference 1.0e+00
        gradient/w    3         exact
        >>> found.exact, found.error
        (False, 1.0)
    """

    rows: tuple[ComparisonRow, ...]

    @property
    def exact(self) -> bool:
        """Whether every array equals its reference."""
        return all(row.exact for row in self.rows)

    @property
    def error(self) -> float:
        """The largest relative difference of all arrays."""
        return max((row.error for row in self.rows), default=0.0)

    def __str__(self) -> str:
        cells = [
            (
                f"{shortened(row.name):12}",
                f"{'x'.join(map(str, row.shape)) or 'scalar':8}",
                "exact" if row.exact else "differs",
                "" if row.exact else f"largest relative difference {row.error:.1e}",
            )
            for row in self.rows
        ]
        return "\n".join(table(cells, "<<<<"))

    __repr__ = __str__


def compare(name: str, ours: Any, reference: Any) -> Comparison:
    """Compare an array, or a tree of them, with a reference: name, shape, exact or not, largest relative difference.

    The difference is max |a - b| / max |b| over a whole array, in float64: entries that ought to be zero are measured
    by the size of the others. Two right derivations may differ in the last bits, for sums in another order round
    otherwise: about 1e-15 in float64 and 1e-7 in float32.

    Args:
        name: of the array, or of the tree, whose leaves' names are put after it.
        ours: what was derived by hand: an array, a number, or a tree of them.
        reference: what it should be, of the same structure and shapes; in any float width.

    Returns:
        A Comparison, whose string is the line; `.exact`, `.error` and `.rows` say the same to a program.

    Raises:
        TypeError: trees of different structure.
        ValueError: shapes that differ, which would broadcast silently.

    Example:
        >>> import jax
        >>> import handgrad as hg
        >>> o = jax.numpy.array([2.0, 1.0, 0.0])
        >>> p = jax.numpy.exp(o) / jax.numpy.exp(o).sum()
        >>> loss = lambda o: jax.nn.logsumexp(o) - o[1]
        >>> line = hg.compare("dL/do", p.at[1].add(-1), jax.grad(loss)(o))
        >>> line.error < 1e-6
        True
        >>> hg.compare("two ways", [1.0, 2.0], [1.0, 2.002])
        two ways/0    scalar    exact
        two ways/1    scalar    differs  largest relative difference 1.0e-03
    """
    ours_leaves, ours_tree = jax.tree.flatten_with_path(ours)
    leaves, tree = jax.tree.flatten(reference)
    if ours_tree != tree:
        raise TypeError(f"compare: {name!r} is built like {ours_tree}, its reference like {tree}")
    named = [("/".join(filter(None, (name, path_text(path)))), leaf) for path, leaf in ours_leaves]
    return Comparison(tuple(_row(who, a, b) for (who, a), b in zip(named, leaves, strict=True)))


def _row(name: str, ours: Any, reference: Any) -> ComparisonRow:
    a, b = np.asarray(ours), np.asarray(reference)
    if a.shape != b.shape:
        raise ValueError(f"compare: {name!r} has shape {a.shape}, its reference {b.shape}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    different = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not different.any():
        return ComparisonRow(name, a.shape, True, 0.0)
    scale, a, b = np.abs(b[np.isfinite(b)]).max(initial=0.0), a[different], b[different]
    if not scale or not np.isfinite(a).all() or not np.isfinite(b).all():
        return ComparisonRow(name, different.shape, False, math.inf)
    return ComparisonRow(name, different.shape, False, float(np.abs(a - b).max() / scale))

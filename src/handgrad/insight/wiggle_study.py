"""What wiggling is worth: how many of its signs are right, by the change, and what it costs beside backprop."""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.compile import jit
from handgrad.gradient import Objective, value_and_grad
from handgrad.insight.report import table
from handgrad.insight.wiggle import check_wiggle, weight_count, wiggle
from handgrad.layers import Chain, Dense, Tanh
from handgrad.layers.layer import Array
from handgrad.losses import SoftmaxCrossEntropy

BACKPROP_PASSES = 3  # forward, and backward with its two products, for x and for the weights, where forward has one


class SignRow(NamedTuple):
    """What wiggling found about the weights whose gradient is not 0.

    Attributes:
        eps: by how much they were changed.
        right: how many signs are the gradient's.
        wrong: how many are not.
        unchanged: of how many the loss did not change.
    """

    eps: float
    right: int
    wrong: int
    unchanged: int

    @property
    def shares(self) -> tuple[float, float, float]:
        """Right, wrong and unchanged as parts of 1; 0 where no weight has a gradient."""
        live = max(self.right + self.wrong + self.unchanged, 1)
        return self.right / live, self.wrong / live, self.unchanged / live


@dataclass(frozen=True)
class WiggleSigns:
    """A `SignRow` for each eps; as a string a table.

    Attributes:
        rows: one for each eps.
        dtype: of the parameters.
        dead: how many weights have the gradient 0 and are not counted.
    """

    rows: tuple[SignRow, ...]
    dtype: str
    dead: int

    def __str__(self) -> str:
        """The shares in percent."""
        header = (f"eps in {self.dtype}", "right", "wrong", "no change", "weights")
        body = [
            (f"{row.eps:.0e}", *(f"{100 * share:.1f} %" for share in row.shares), f"{sum(row[1:]):,}")
            for row in self.rows
        ]
        return "\n".join(table([header, *body], "<>>>>"))


def wiggle_signs(objective: Objective, eps: Sequence[float] = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)) -> Callable:
    """How many signs wiggling gets right, by eps, against those of the gradient by hand.

    Args:
        objective: whose loss.
        eps: the changes to try.

    Returns:
        A function of (params, x, y, state=(), key=None, weights=None) that gives `WiggleSigns`. It runs jitted inside,
        and gives plain numbers.

    Raises:
        TypeError: as for `wiggle`.
        ValueError: no eps, or one that is not positive; a net without parameters.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(3))
        >>> params, state = net.init(jax.random.key(0), (2,))
        >>> x = jax.random.normal(jax.random.key(1), (4, 2), "float32")
        >>> signs = hg.wiggle_signs(hg.Objective(net, hg.SoftmaxCrossEntropy()), (1e-9, 1e-3))
        >>> print(signs(params, x, jnp.array([0, 1, 2, 0]), state))
        eps in float32    right  wrong  no change  weights
        1e-09             ...
        1e-03           100.0 %  0.0 %      0.0 %        9
    """
    if len(eps) == 0:
        raise ValueError("wiggle_signs: eps must be a sequence of positive numbers, got none")
    for each in eps:
        check_wiggle("wiggle_signs", objective, True, eps=each)

    @jit
    def counted(small: Array, *batch: Any) -> Array:
        (_, _), signs = wiggle(objective, small)(*batch)
        (_, _), grads = value_and_grad(objective)(*batch)
        found, true = (jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(t)]) for t in (signs, grads))
        live, right, unchanged = true != 0, found == jnp.sign(true), found == 0
        counts = (live & right, live & ~right & ~unchanged, live & unchanged, ~live)
        return jnp.stack([mask.sum() for mask in counts])

    def signs_by_eps(*batch: Any) -> WiggleSigns:
        found = [[int(n) for n in np.asarray(counted(jnp.asarray(each, float), *batch))] for each in eps]
        rows = tuple(SignRow(float(each), *counts[:3]) for each, counts in zip(eps, found, strict=True))
        return WiggleSigns(rows, str(jax.tree.leaves(batch[0])[0].dtype), found[0][3])

    return signs_by_eps


class CostRow(NamedTuple):
    """A net's gradient both ways.

    Attributes:
        parameters: how many weights, N.
        losses: that one sweep of wiggling computes, N + 1, against about 3 of backprop.
        wiggle_ms: the time of a sweep, in milliseconds.
        backprop_ms: the time of loss and gradient by hand, in milliseconds.
    """

    parameters: int
    losses: int
    wiggle_ms: float
    backprop_ms: float

    @property
    def ratio(self) -> float:
        """How many times as long wiggling takes."""
        return self.wiggle_ms / self.backprop_ms


@dataclass(frozen=True)
class WiggleCost:
    """A `CostRow` for each size; as a string a table.

    Attributes:
        rows: from few parameters to many.
        batch: how many examples a loss is of.
    """

    rows: tuple[CostRow, ...]
    batch: int

    def __str__(self) -> str:
        """Counts, milliseconds, and how many times as long."""
        header = ("parameters", "losses", "of backprop", "wiggle, ms", "backprop, ms", "times as long")
        body = [
            (
                f"{row.parameters:,}",
                f"{row.losses:,}",
                f"about {BACKPROP_PASSES}",
                f"{row.wiggle_ms:.3f}",
                f"{row.backprop_ms:.3f}",
                f"{row.ratio:,.0f}",
            )
            for row in self.rows
        ]
        return "\n".join(table([header, *body], ">>>>>>"))


def wiggle_cost(
    sizes: Sequence[int] = (1, 2, 4, 8, 16, 32, 64), *, inputs: int = 64, classes: int = 10, batch: int = 64,
    rounds: int = 5,
) -> WiggleCost:  # fmt: skip
    """Measure a sweep of wiggling against one gradient by backprop, as a net grows.

    The net is dense, inputs - size - classes with tanh, with N = size (inputs + classes + 1) + classes weights. A sweep
    takes N + 1 losses of about N multiply-adds an example, so its time grows as N², that of backprop as 3 N.

    Args:
        sizes: hidden units, one net for each.
        inputs: how many numbers an example has.
        classes: how many classes.
        batch: how many examples a loss is of.
        rounds: how often each is timed, in turn; the median counts.

    Returns:
        A `WiggleCost`: `.rows`, and as a string a table. Times are of this machine and hour.

    Raises:
        ValueError: no size, or any of the numbers below 1.

    Example:
        >>> cost = wiggle_cost((1, 4), inputs=3, classes=2, batch=2, rounds=1)
        >>> [(row.parameters, row.losses) for row in cost.rows]
        [(8, 9), (26, 27)]
    """
    for name, least in (("sizes", min(sizes, default=0)), ("inputs", inputs), ("classes", classes),
                        ("batch", batch), ("rounds", rounds)):  # fmt: skip
        if least < 1:
            raise ValueError(f"wiggle_cost: {name} must be at least 1, got {sizes if name == 'sizes' else least!r}")
    x = jax.random.normal(jax.random.key(1), (batch, inputs), jnp.float32)
    y = jnp.arange(batch) % classes
    rows = []
    for size in sizes:
        net = Chain(Dense(size), Tanh(), Dense(classes))
        params, state = net.init(jax.random.key(0), (inputs,), jnp.float32)
        objective = Objective(net, SoftmaxCrossEntropy())
        calls = [functools.partial(jit(f(objective)), params, x, y, state) for f in (wiggle, value_and_grad)]
        parameters = weight_count("wiggle_cost", params)
        rows.append(CostRow(parameters, parameters + 1, *_milliseconds(calls, rounds)))
    return WiggleCost(tuple(rows), batch)


def _milliseconds(calls: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """The median time of each call, measured in turn; the first two calls, which compile, do not count."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        jax.block_until_ready(call())
    for _ in range(rounds):
        for call, taken in zip(calls, times, strict=True):
            jax.block_until_ready(call())
            start = time.perf_counter()
            jax.block_until_ready(call())
            taken.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(taken) for taken in times]

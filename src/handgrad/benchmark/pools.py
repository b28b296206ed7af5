"""Pools inside someone else's `jax.grad`: `hg.bridge` beside `reduce_window`, which Flax's and Haiku's pools are."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad import bridge
from handgrad.benchmark.steps import OURS, reshaped
from handgrad.layers import MaxPool

THEIRS = "reduce_window"
THEIRS_MEAN = "jnp.mean"
RESHAPED = "reshape and max"


@dataclass(frozen=True)
class PoolCase:
    """A pool over x (N, H, W, C): "max" or "avg" with window and strides, or "global" over all places."""

    kind: str
    shape: tuple[int, int, int, int]
    window: int = 0
    strides: int = 0

    @property
    def name(self) -> str:
        """Such as "max 3/2, 16x55x55x64"."""
        setting = "" if self.kind == "global" else f" {self.window}/{self.strides}"
        return f"{self.kind}{setting}, {'x'.join(map(str, self.shape))}"

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """x, and a cotangent of y."""
        random, (n, h, w, c) = np.random.default_rng(0), self.shape
        places = ((h - self.window) // self.strides + 1, (w - self.window) // self.strides + 1) if self.window else ()
        draw = random.standard_normal
        return draw(self.shape, np.float32), draw((n, *places, c), np.float32)


CASES = (
    PoolCase("max", (64, 28, 28, 32), 2, 2),
    PoolCase("max", (64, 32, 32, 64), 2, 2),
    PoolCase("max", (16, 55, 55, 64), 3, 2),
    PoolCase("max", (16, 27, 27, 192), 3, 2),
    PoolCase("max", (64, 113, 113, 64), 3, 2),
    PoolCase("avg", (16, 55, 55, 64), 3, 2),
    PoolCase("global", (64, 8, 8, 256)),
)
QUICK_CASES = (
    PoolCase("max", (4, 8, 8, 8), 2, 2),
    PoolCase("max", (4, 9, 9, 8), 3, 2),
    PoolCase("avg", (4, 9, 9, 8), 3, 2),
    PoolCase("global", (4, 4, 4, 8)),
)


def own_pool(case: PoolCase) -> Callable[[jax.Array], jax.Array]:
    """Our pool, with its backward by hand under `jax.grad`."""
    if case.kind == "global":
        return bridge.global_avg_pool
    op = bridge.max_pool if case.kind == "max" else bridge.avg_pool
    return lambda x: op(x, window=case.window, strides=case.strides)


def jax_pools(case: PoolCase) -> dict[str, Callable[[jax.Array], jax.Array]]:
    """The same pool in plain JAX, by name."""
    n, h, w, c = case.shape
    window, strides = ((h, w), (h, w)) if case.kind == "global" else ((case.window,) * 2, (case.strides,) * 2)
    sizes, steps = (1, *window, 1), (1, *strides, 1)

    def mean(x: jax.Array) -> jax.Array:
        return lax.reduce_window(x, 0.0, lax.add, sizes, steps, "VALID") / math.prod(window)

    if case.kind == "global":
        return {THEIRS: lambda x: mean(x).reshape(n, c), THEIRS_MEAN: lambda x: x.mean((1, 2))}
    if case.kind == "avg":
        return {THEIRS: mean}
    pools = {THEIRS: lambda x: lax.reduce_window(x, -jnp.inf, lax.max, sizes, steps, "VALID")}
    if case.window == case.strides:
        by_reshape = reshaped(MaxPool(case.window))
        pools[RESHAPED] = lambda x: by_reshape.apply({}, x)
    return pools


def own_pool_contenders(case: PoolCase) -> dict[str, Callable[[], Any]]:
    """Forward and backward of ours and of plain JAX's, each in a `jax.jit` with default options.

    Raises:
        ValueError: they do not compute the same.
    """
    x, dy = map(jnp.asarray, case.arrays())
    runs = {name: _runner(pool, x, dy) for name, pool in ({OURS: own_pool(case)} | jax_pools(case)).items()}
    wanted = runs[OURS]()
    for name, run in runs.items():
        check_close(f"{name}, {case.name}", run(), wanted, rtol=1e-5)
    return runs


def _runner(pool: Callable, x: jax.Array, dy: jax.Array) -> Callable[[], Any]:
    def forward_and_backward(x, dy):
        y, back = jax.vjp(pool, x)
        return y, back(dy)[0]

    jitted = jax.jit(forward_and_backward)
    return lambda: jax.block_until_ready(jitted(x, dy))


def check_close(name: str, got: Any, wanted: Any, rtol: float) -> None:
    """Raise a ValueError where arrays differ by more than a share of the largest number among them."""
    for place, (a, b) in enumerate(zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        error = float(np.abs(a - b).max() / np.abs(b).max()) if a.shape == b.shape else math.inf
        if not error <= rtol:
            raise ValueError(f"benchmark: {name} computes other numbers than handgrad, result {place} by {error:.1e}")

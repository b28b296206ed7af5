"""Per-example norms and clipped sums beside one ordinary gradient, and beside `jax.vmap` of `jax.grad`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import handgrad as hg
from benchmarks import bounds
from handgrad.benchmark.pools import check_close
from handgrad.benchmark.steps import Case, Start, takes_our_options
from handgrad.benchmark.table import Line, Table, bounded, compared, line_of
from handgrad.timing import interleaved

NORMS, CLIPPED = "hg.per_example_norms", "hg.clipped_grad"
GRADIENT = "one gradient of the batch, hg.value_and_grad"
VMAP, VMAP_OUR_OPTIONS = "vmap of jax.grad", "vmap of jax.grad, our CPU options"
MAX_NORM = 1.0


def run(quick: bool, say: Callable[[str], None]) -> list[Table]:
    """A table of the norms and one of the clipped sum."""
    norms, clipped = [], []
    for case in cases(quick):
        say(case.name)
        start, rounds = Start(case), {"seconds": 0.5, "at_least": 3} if quick else {"seconds": 30.0, "at_least": 9}
        times = interleaved(runners(case.objective(), start), **rounds)
        lines = {name: line_of(case.name, name.split(": ")[-1], timing) for name, timing in times.items()}
        norms += _ours_and_theirs(lines, "norms", NORMS)
        clipped += _ours_and_theirs(lines, "clipped", CLIPPED)
    return [
        Table("per_example_norms", "The length of each example's gradient", "ms", tuple(norms)),
        Table("clipped_grad", "The sum of the examples' gradients, clipped one by one", "ms", tuple(clipped)),
    ]


def cases(quick: bool) -> list[Case]:
    """The README's net and that of the digits, at two batch sizes."""
    nets = {"digits_cnn": (hg.models.digits_cnn(dropout=0), (8, 8, 1))}
    if not quick:
        nets = {"LeNet-like": (hg.models.lenet(dropout=0), (28, 28, 1))} | nets
    sizes = (4,) if quick else (64, 128)
    return [Case(f"{name}, batch {n}", net, shape, n) for name, (net, shape) in nets.items() for n in sizes]


def runners(objective: hg.Objective, start: Start) -> dict[str, Callable[[], Any]]:
    """Each contender by name; those of one quantity compute the same.

    Raises:
        ValueError: they do not.
    """
    args = start.train_state.params, start.x, start.y
    ours = {NORMS: hg.per_example_norms(objective), CLIPPED: hg.clipped_grad(objective, MAX_NORM)}
    theirs = {NORMS: lambda *args: lengths(each(objective, *args)), CLIPPED: lambda *args: summed(objective, *args)}
    found = {GRADIENT: _runner(hg.jit(lambda *args: hg.value_and_grad(objective)(*args)[1]), args)}
    for quantity, tool in (("norms", NORMS), ("clipped", CLIPPED)):
        same = {tool: hg.jit(ours[tool]), VMAP: jax.jit(theirs[tool])}
        same |= {VMAP_OUR_OPTIONS: hg.jit(theirs[tool])} if takes_our_options() else {}
        runs = {name: _runner(function, args) for name, function in same.items()}
        for name, run in runs.items():
            check_close(f"{name}, {quantity}, {start.case.name}", run(), runs[tool](), rtol=1e-4)
        found |= {f"{quantity}: {name}": run for name, run in runs.items()}
    return found


def each(objective: hg.Objective, params: Any, x: jax.Array, y: jax.Array) -> Any:
    """The gradients of the examples as JAX gives them."""
    return jax.vmap(lambda x, y: jax.grad(objective, has_aux=True)(params, x[None], y[None])[0])(x, y)


def lengths(grads: Any) -> jax.Array:
    """The length of each, (N,)."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(g.reshape(len(g), -1)), 1) for g in jax.tree.leaves(grads)))


def summed(objective: hg.Objective, params: Any, x: jax.Array, y: jax.Array) -> Any:
    """Their sum, each scaled down to MAX_NORM."""
    grads = each(objective, params, x, y)
    scale = jnp.minimum(1, MAX_NORM / lengths(grads))
    return jax.tree.map(lambda g: jnp.tensordot(scale, g, 1), grads)


def _runner(jitted: Callable, args: tuple) -> Callable[[], Any]:
    return lambda: jax.block_until_ready(jitted(*args))


def _ours_and_theirs(lines: dict[str, Line], quantity: str, ours: str) -> list[Line]:
    wanted = [line for name, line in lines.items() if name == GRADIENT or name.startswith(f"{quantity}: ")]
    return bounded(compared(wanted, ours), {GRADIENT: bounds.PER_EXAMPLE_NORMS} if ours == NORMS else {})

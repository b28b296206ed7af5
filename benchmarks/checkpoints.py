"""What a checkpoint costs: of AlexNet's 61 million parameters, and of its train state with as many momenta."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import handgrad as hg
from benchmarks.nets import alexnet
from handgrad.benchmark.table import Table, compared, line_of
from handgrad.timing import interleaved
from handgrad.training import checkpoint

BLOCKING, BEHIND, READING = "checkpoint.save", "background=True, until the next step begins", "checkpoint.load"
PLAIN = "numpy.savez, neither hashed nor flushed to the disk"
MOST = 2000.0  # ms that a checkpoint of 61 million parameters may block


def run(quick: bool, say: Callable[[str], None]) -> list[Table]:
    """The table of checkpoints."""
    net, shape = (hg.models.digits_cnn(), (8, 8, 1)) if quick else (alexnet(), (227, 227, 3))
    params = jax.jit(lambda key: net.init(key, shape)[0])(jax.random.key(0))
    size = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
    trees = {"parameters": params, "train state with momenta": (params, jax.tree.map(jnp.zeros_like, params))}
    lines, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, tree in trees.items():
            say(name)
            rounds = {"seconds": 0.5 if quick else 20.0, "at_least": 3, "at_most": 10}
            times = interleaved(contenders(Path(folder), tree), **rounds)
            case = f"{name}, {size:.1f} million parameters"
            lines += compared([line_of(case, contender, timing) for contender, timing in times.items()], BLOCKING)
            kept = [contender for contender in (BLOCKING, BEHIND) if times[contender].median < MOST]
            notes.append(f"{case}: under {MOST / 1000:.0f} s is {' and '.join(kept) or 'neither'}.")
    return [Table("checkpoints", "A checkpoint, how long it holds up the training", "ms", tuple(lines), tuple(notes))]


def contenders(folder: Path, tree: Any) -> dict[str, Callable[[], Any]]:
    """Functions that return when the training may go on."""
    checkpoint.save(folder / "read.npz", tree)

    def plain() -> None:
        np.savez(folder / "plain.npz", *map(np.asarray, jax.tree.leaves(tree)))

    return {
        BLOCKING: lambda: checkpoint.save(folder / "saved.npz", tree),
        BEHIND: lambda: checkpoint.snapshot(tree),
        PLAIN: plain,
        READING: lambda: jax.block_until_ready(checkpoint.load(folder / "read.npz")),
    }

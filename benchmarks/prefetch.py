"""Steps on batches that a thread makes ready, beside the same steps on batches that lie on the device already."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import handgrad as hg
from benchmarks import bounds
from handgrad.benchmark.steps import Case, own_step
from handgrad.benchmark.table import Line, Table, bounded, compared, line_of
from handgrad.data import batches, normalise, prefetch
from handgrad.timing import interleaved
from handgrad.training.step import copied

OURS, READY, WITHOUT = "prefetch", "on the device", "no prefetch"


def run(quick: bool, say: Callable[[str], None]) -> list[Table]:
    """The table: MNIST's size in bytes, normalised batch by batch, and the same with augmentation."""
    rounds = {"seconds": 0.5, "at_least": 3} if quick else {"seconds": 30.0, "at_least": 9}
    examples, steps, size = (64, 2, 16) if quick else (60_000, 8, 128)
    case = Case(f"lenet, {steps} steps of {size}", hg.models.lenet(dropout=0), (28, 28, 1), size, 0.005)
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (examples, 28, 28, 1), np.uint8)
    y = random.integers(0, 10, examples).astype(np.int32)
    lines = []
    for name, change in ((case.name, None), (f"{case.name}, shifted", hg.data.augment.shift(2))):
        say(name)
        lines += timed(name, case, Source(x, y, size, steps, change), rounds)
    return [
        Table("prefetch", "Steps on batches made ready in a thread, from 60,000 images in bytes", "ms", tuple(lines))
    ]


class Source:
    """The first batches of an epoch, with a key for the augmentation of each."""

    def __init__(self, x: np.ndarray, y: np.ndarray, size: int, steps: int, change: Any) -> None:
        self._data, self._steps, self.change = (x, y, size), steps, change
        self._keys = list(jax.random.split(jax.random.key(0), steps))

    def ahead(self, size: int) -> Any:
        """The batches, through `prefetch`."""
        some = zip(self._keys, batches(*self._data, seed=0, epoch=0), strict=False)
        return prefetch(some, size, transform=self._made)

    def _made(self, key: Any, batch: Any) -> Any:
        x, y = normalise(batch[0]), batch[1]
        return (x, y) if self.change is None else self.change(key, x, y)


def timed(name: str, case: Case, source: Source, rounds: dict[str, Any]) -> list[Line]:
    """The lines of one case; all contenders must come to the same parameters."""
    step, start = own_step(case, case.net), case.train_state()
    ready = list(source.ahead(0))

    def trained(made: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            state = copied(start)
            for batch in made():
                state, _ = step(state, *batch)
            return jax.block_until_ready(state.params)

        return run

    contenders = {
        OURS: trained(lambda: source.ahead(2)),
        READY: trained(lambda: ready),
        WITHOUT: trained(lambda: source.ahead(0)),
    }
    ends = [run() for run in contenders.values()]
    for end in ends[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(jnp.asarray(a), b), end, ends[0])
    times = interleaved(contenders, **rounds)
    lines = compared([line_of(name, contender, timing) for contender, timing in times.items()], OURS)
    return lines if source.change is not None else bounded(lines, {READY: bounds.PREFETCH})

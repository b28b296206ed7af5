"""Steps on batches that a thread makes ready, beside the same steps on batches that lie on the device already."""

import time
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
from handgrad.timing import Timing, interleaved, summarised
from handgrad.training.step import copied

OURS, READY, WITHOUT = "prefetch", "on the device", "no prefetch"


def run(quick: bool, say: Callable[[str], None]) -> list[Table]:
    """The table: MNIST's size in bytes, normalised batch by batch, and the same with augmentation."""
    rounds = {"seconds": 0.5, "at_least": 3} if quick else {"seconds": 150.0, "at_least": 9}
    examples, steps, size = (64, 2, 16) if quick else (60_000, 8, 128)
    case = Case(f"lenet, {steps} steps of {size}", hg.models.lenet(dropout=0), (28, 28, 1), size, 0.005)
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (examples, 28, 28, 1), np.uint8)
    y = random.integers(0, 10, examples).astype(np.int32)
    walls, processors = [], []
    for name, change in ((case.name, None), (f"{case.name}, shifted", hg.data.augment.shift(2))):
        say(name)
        contenders = contending(case, Source(x, y, size, steps, change))
        wanted = {READY: bounds.PREFETCH} if change is None else {}  # no thread hides augmentation on busy cores
        walls += bounded(lines_of(name, interleaved(contenders, **rounds)), wanted)
        processors += lines_of(name, busy_times(contenders, 3 if quick else 15))
    title = "Steps on batches made ready in a thread, from 60,000 images in bytes"
    return [
        Table("prefetch", title, "ms", tuple(walls)),
        Table("prefetch_processor", f"{title}: processor time", "ms of all cores", tuple(processors)),
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


def lines_of(name: str, timings: dict[str, Timing]) -> list[Line]:
    """The lines of one case, with the ratios of prefetch to the others."""
    return compared([line_of(name, contender, timing) for contender, timing in timings.items()], OURS)


def contending(case: Case, source: Source) -> dict[str, Callable[[], Any]]:
    """The contenders by name; all must come to the same parameters."""
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
    return contenders


def busy_times(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """The processor time of a call of each, in turns: what others do on the machine counts little there."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            began = time.process_time()
            run()
            times[name].append(1e3 * (time.process_time() - began))
    return {name: summarised(values) for name, values in times.items()}

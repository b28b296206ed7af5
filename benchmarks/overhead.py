"""What a call costs beside its arithmetic: the step of a tiny net, and `hg.fit` over the steps that it takes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

import handgrad as hg
from benchmarks import bounds
from benchmarks.steps import peer_trainers
from handgrad.benchmark.steps import AUTOMATIC, OURS, Case, Start, own_step, own_trainers, with_defaults
from handgrad.benchmark.table import Line, Table, bounded, compared, line_of
from handgrad.benchmark.trainer import Trainer, check_same_losses
from handgrad.data import batches
from handgrad.timing import interleaved
from handgrad.training.step import copied

STEPS = 200
BARE = "bare steps"


def run(quick: bool, say: Callable[[str], None]) -> list[Table]:
    """Both tables."""
    rounds = {"seconds": 0.5, "at_least": 3} if quick else {"seconds": 20.0, "at_least": 9}
    say(f"{STEPS} steps of a tiny net")
    tiny = dispatch_lines(Case("8x8x1 to 10 classes, batch 16", hg.models.perceptron(), (8, 8, 1), 16), rounds)
    say("fit and bare steps")
    fitted = fit_lines(1 if quick else 3, rounds)
    return [
        Table("dispatch", f"{STEPS} steps of a tiny net, waited for at the end", "ms", tuple(tiny)),
        Table("fit", "hg.fit beside the steps that it takes, on batches already on the device", "ms", tuple(fitted)),
    ]


def dispatch_lines(case: Case, rounds: dict) -> list[Line]:
    """Ours, the plain step under `jax.jit`, and the peers'."""
    start = Start(case)
    trainers = own_trainers(start) | peer_trainers(start, with_defaults)
    check_same_losses(trainers, rtol=case.rtol)
    times = interleaved({name: _many(trainer) for name, trainer in trainers.items()}, **rounds)
    lines = compared([line_of(case.name, name, timing) for name, timing in times.items()], OURS)
    return bounded(lines, dict.fromkeys((AUTOMATIC, "Flax"), bounds.DISPATCH))


def _many(trainer: Trainer) -> Callable[[], None]:
    def run() -> None:
        state, told = trainer.state, None
        for _ in range(STEPS):
            state, told = trainer.step(state, trainer.x, trainer.y)
        trainer.state, _ = jax.block_until_ready((state, told))

    return run


def fit_lines(epochs: int, rounds: dict) -> list[Line]:
    """`hg.fit` on the digits, and a loop over the same steps."""
    digits, size = hg.data.load_digits(), 64
    x, y = hg.data.normalise(digits.train_x), digits.train_y
    case = Case(
        f"digits_cnn, batch {size}, {epochs} x {len(x) // size} steps", hg.models.digits_cnn(dropout=0), (8, 8, 1), size
    )
    step, start = own_step(case, case.net), case.train_state()
    ready = [
        tuple(map(jnp.asarray, batch)) for epoch in range(epochs) for batch in batches(x, y, size, seed=0, epoch=epoch)
    ]

    def fit() -> None:
        jax.block_until_ready(hg.fit(start, step, x, y, batch_size=size, epochs=epochs, progress=False)[0])

    def bare() -> None:
        state = copied(start)
        for batch in ready:
            state, _ = step(state, *batch)
        jax.block_until_ready(state)

    times = interleaved({"hg.fit": fit, BARE: bare}, **rounds)
    lines = compared([line_of(case.name, name, timing) for name, timing in times.items()], "hg.fit")
    return bounded(lines, {BARE: bounds.FIT})

"""Several nets at once under `jax.vmap`: five LeNets, and a sweep of eight learning rates."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import handgrad as hg
from benchmarks import bounds
from handgrad.benchmark.pools import check_close
from handgrad.benchmark.steps import OURS, Case, own_step
from handgrad.benchmark.table import Line, Table, bounded, compared, line_of
from handgrad.benchmark.trainer import Trainer
from handgrad.timing import interleaved
from handgrad.training import init_train_state

SINGLE, AUTOMATIC = "single steps", "vmap of jax.grad"


class Each:
    """Trainers that step one after the other."""

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers = trainers

    def __call__(self) -> None:
        """One step of each."""
        for trainer in self.trainers:
            trainer()

    @property
    def loss(self) -> Any:
        """Their losses."""
        return jnp.stack([trainer.loss for trainer in self.trainers])


def run(quick: bool, say: Callable[[str], None]) -> list[Table]:
    """The table of ensembles."""
    batch, net, shape = (4, hg.models.digits_cnn(dropout=0), (8, 8, 1)) if quick else (32, LENET, (28, 28, 1))
    rounds = {"seconds": 0.5, "at_least": 3} if quick else {"seconds": 20.0, "at_least": 7}
    lines = []
    nets = "digits nets" if quick else "LeNets"
    for name, own_data in ((f"five {nets}, batch {batch}", False), (f"five {nets}, batch {batch} each", True)):
        say(name)
        lines += timed(name, members(Case(name, net, shape, batch, 0.005), 5, own_data), rounds, bounds.ENSEMBLE)
    batch = 4 if quick else 64
    case = Case(f"eight learning rates, 8x8x1, batch {batch}", hg.models.digits_cnn(dropout=0), (8, 8, 1), batch)
    say(case.name)
    lines += timed(case.name, sweep(case, 8), rounds, bounds.SWEEP)
    return [Table("ensembles", "Several nets in one step, under jax.vmap", "ms", tuple(lines))]


LENET = hg.models.lenet(dropout=0)


def timed(name: str, contenders: dict[str, Any], rounds: dict[str, Any], wanted: dict[str, Any]) -> list[Line]:
    """The lines of contenders that are checked to compute the same losses."""
    curves = {}
    for contender, trainer in contenders.items():
        curves[contender] = []
        for _ in range(3):
            trainer()
            curves[contender].append(np.asarray(trainer.loss))
    for contender, curve in curves.items():
        check_close(f"{contender}, {name}", np.stack(curve), np.stack(curves[SINGLE]), rtol=1e-4)
    times = interleaved(contenders, **rounds)
    return bounded(compared([line_of(name, contender, timing) for contender, timing in times.items()], OURS), wanted)


def members(case: Case, count: int, own_data: bool) -> dict[str, Any]:
    """Nets of several seeds on one batch, or each on its own."""
    optimizer = hg.momentum(case.learning_rate)
    keys = jax.random.split(jax.random.key(0), count)
    states = [jax.jit(lambda key: init_train_state(case.net, optimizer, key, case.in_shape))(key) for key in keys]
    batches = [Case(case.name, case.net, case.in_shape, case.batch, seed=seed).arrays() for seed in range(count)]
    batches = [tuple(map(jnp.asarray, batch)) for batch in (batches if own_data else batches[:1] * count)]
    step, automatic = own_step(case, case.net), own_step(case, case.net, jax.value_and_grad)
    axes = (0, 0, 0) if own_data else (0, None, None)
    data = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches) if own_data else batches[0]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return {
        OURS: Trainer(hg.jit(jax.vmap(step, in_axes=axes), donate_argnums=0), together, *data),
        SINGLE: Each([Trainer(step, state, *batch) for state, batch in zip(states, batches, strict=True)]),
        AUTOMATIC: Trainer(jax.jit(jax.vmap(automatic, in_axes=axes), donate_argnums=0), together, *data),
    }


def sweep(case: Case, count: int) -> dict[str, Any]:
    """One net trained with several learning rates; the rate is traced, and rides along with the train state."""
    x, y = map(jnp.asarray, case.arrays())
    rates = jnp.geomspace(1e-4, 1e-2, count)

    def stepper(value_and_grad: Callable) -> Callable:
        def step(carry, x, y):
            rate, state = carry
            made = hg.make_train_step(case.objective(), hg.momentum(rate), value_and_grad)
            state, metrics = made(state, x, y)
            return (rate, state), metrics

        return step

    state = case.train_state()
    together = (rates, jax.tree.map(lambda leaf: jnp.stack([leaf] * count), state))
    by_hand, automatic = (
        jax.vmap(stepper(of), in_axes=(0, None, None)) for of in (hg.value_and_grad, jax.value_and_grad)
    )
    single = hg.jit(stepper(hg.value_and_grad), donate_argnums=0)
    return {
        OURS: Trainer(hg.jit(by_hand, donate_argnums=0), together, x, y),
        SINGLE: Each([Trainer(single, (rate, state), x, y) for rate in rates]),
        AUTOMATIC: Trainer(jax.jit(automatic, donate_argnums=0), together, x, y),
    }

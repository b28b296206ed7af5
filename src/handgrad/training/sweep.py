"""One net trained under many settings: learning rates, momenta, l2, seeds, and whatever else a function is made of.

Numbers of a setting are traced, so that all runs of one shape share one compiled step; what decides shapes or the
program (widths, optimizers by name) is compiled for each value. All runs see the same batches, so two that differ in a
rate differ in nothing else. On CPU one run is trained after the other by that step, which is as fast as all at once
there and compiles in half the time; on other devices all of one shape are trained in one step, by vmap.
"""

import itertools
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from handgrad.compile import Jitted, jit
from handgrad.data import batches
from handgrad.gradient import Objective
from handgrad.optimizers.optimizer import check_optimizer
from handgrad.training.ensemble import each_member
from handgrad.training.evaluate import evaluate
from handgrad.training.inputs import check_examples, check_labels, logits_shape
from handgrad.training.step import TrainState, init_train_state, make_train_step
from handgrad.training.swept import Run, Sweep

Setting = dict[str, Any]
SEED = "seed"
BLOWN_UP = 10  # times the first loss


def sweep(
    grid: Mapping[str, Any] | Sequence[Setting],
    setup: Callable[..., tuple[Objective, Any]],
    x: Any,
    y: Any,
    *,
    batch_size: int,
    epochs: int,
    validation: tuple[Any, Any] | None = None,
    seed: int = 0,
    static: Sequence[str] = (),
    at_once: int | None = None,
    progress: bool = True,
) -> Sweep:
    """Train under every setting of a grid, and compare.

    Run by run it is `init_train_state(net, optimizer, jax.random.key(seed of the setting), x.shape[1:], x.dtype)` and
    the steps of `make_train_step(objective, optimizer)` on the batches of `fit(..., seed=seed)`.

    Args:
        grid: lists of values by name, of which every combination is run, the last name's values the fastest; or a list
            of settings, dicts of the same names. The name "seed" is that of the run's key, hence of its start and its
            masks; it is 0 where it is not named, and `setup` does not get it.
        setup: (**setting) -> (objective, optimizer). Names whose values are numbers, at least one of them with a
            decimal point, come as traced scalars; ints, bools, strings and the like come as they are, and each of their
            combinations is compiled.
        x: examples (n, ...), floating point; their dtype is that of the parameters.
        y: labels (n, ...), as the loss wants them.
        batch_size: examples a step.
        epochs: how often to go through the data.
        validation: (x, y) to evaluate on after each epoch; without it runs are compared by their training loss.
        seed: of the order of the examples, the same for all runs.
        static: names whose numbers are not to be traced, because `setup` looks at their values.
        at_once: how many runs a compiled step trains; None takes 1 on CPU, and elsewhere all of one shape.
        progress: whether to draw a bar.

    Returns:
        The `Sweep`: `runs`, one for each setting in the grid's order, with its history and trained state, `best`, and
        the table as its text; `hg.viz.sweep` draws it. A run that diverges is kept, marked with the step at which its
        loss or gradient was no longer finite, or, if its last epoch's loss is above 10 times that of its first step,
        with the first step above that.

    Raises:
        ValueError: an empty grid, settings of different names, an unknown name in static, data that do not fit.
        TypeError: values that are no list, a seed that is no int, a setup that gives no (objective, optimizer).

    Example:
        >>> import handgrad as hg
        >>> objective = hg.Objective(hg.Chain(hg.Dense(2)), hg.SoftmaxCrossEntropy())
        >>> def setup(learning_rate, momentum):
        ...     return objective, hg.momentum(learning_rate, momentum)
        >>> x, y = np.eye(2, dtype="float32"), np.array([0, 1])
        >>> grid = {"learning_rate": [0.01, 1.0], "momentum": [0.0, 0.5], "seed": range(2)}
        >>> found = sweep(grid, setup, x, y, batch_size=2, epochs=10, progress=False)
        >>> len(found.runs), found.best
        (8, {'learning_rate': 1.0, 'momentum': 0.5})
    """
    settings = expanded(grid)
    made = [_made(setup, setting) for setting in settings]
    check_examples("sweep", x, batch_size)
    _check_count("epochs", epochs)
    if at_once is not None:
        _check_count("at_once", at_once)
    names = traced_names(settings, static)
    states = [_start(*pair, setting, x) for pair, setting in zip(made, settings, strict=True)]
    for which, pair in {"": (x, y), ", validation": validation}.items():
        if pair is not None:
            _check_data(f"sweep{which}", made, states, *pair)
    first = batches(x, y, batch_size, seed=seed, epoch=0)  # raises for a seed or batch size out of range
    steps, done = sum(1 for _ in first), {}
    with tqdm(total=steps * epochs * len(settings), unit=" steps", disable=not progress) as bar:
        for program in _programs(settings, names):
            step = compiled(setup, settings[program[0]])
            for group in _chunks(program, at_once):
                trained = _Runs([settings[i] for i in group], [states[i] for i in group], names, step)
                for epoch in range(epochs):
                    for batch in batches(x, y, batch_size, seed=seed, epoch=epoch):
                        trained.step(*batch)
                        bar.update(len(group))
                    trained.end_epoch([made[i][0] for i in group], validation, max(batch_size, 256))
                done |= dict(zip(group, trained.results(), strict=True))
    return Sweep(tuple(done[i] for i in range(len(settings))))


class _Runs:
    """Some runs trained side by side, their train states stacked, and what they tell."""

    def __init__(self, settings: list[Setting], states: list[TrainState], names: list[str], step: Jitted) -> None:
        self._settings, self._step, self._metrics = settings, step, []
        self._states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        self._traced = {name: jnp.array([float(setting[name]) for setting in settings]) for name in names}
        self._histories: list[dict[str, list]] = [{} for _ in settings]
        self._losses, self._finite = [np.zeros((0, len(settings)))], [np.zeros((0, len(settings)), bool)]

    def step(self, x: Any, y: Any) -> None:
        """One step of each."""
        self._states, metrics = self._step(self._traced, self._states, x, y)
        self._metrics.append(metrics)

    def end_epoch(self, objectives: list[Objective], validation: tuple | None, batch_size: int) -> None:
        """Read the epoch's metrics, and validate."""
        loss, accuracy, norm = (np.stack(column) for column in zip(*self._metrics, strict=True))
        self._losses.append(loss)
        self._finite.append(np.isfinite(loss) & np.isfinite(norm))
        for i, history in enumerate(self._histories):
            line = {"train_loss": float(loss[:, i].mean()), "train_accuracy": float(accuracy[:, i].mean())}
            if validation is not None:
                net, own = objectives[i].net, self._state(i)
                told = evaluate(net, own.params, own.state, *validation, loss=objectives[i].loss, batch_size=batch_size)
                line |= {f"validation_{name}": value for name, value in told.items()}
            for name, value in line.items():
                history.setdefault(name, []).append(value)
        self._metrics.clear()

    def results(self) -> Iterator[Run]:
        """What came of each."""
        losses, finite = np.concatenate(self._losses), np.concatenate(self._finite)
        for i, (setting, history) in enumerate(zip(self._settings, self._histories, strict=True)):
            lost = diverged_at(losses[:, i], finite[:, i], history["train_loss"][-1])
            yield Run(setting, history, lost, self._state(i))

    def _state(self, i: int) -> TrainState:
        return jax.tree.map(lambda leaf: leaf[i], self._states)


def diverged_at(losses: np.ndarray, finite: np.ndarray, last: float) -> int | None:
    """The step, from 1 on, at which a run was lost, or None.

    Args:
        losses: of each step.
        finite: whether loss and gradient of each step were.
        last: the mean loss of the last epoch; a run that went high and came back is not lost.
    """
    high = losses > BLOWN_UP * losses[0]
    lost = ~finite | (high & (last > BLOWN_UP * losses[0] > 0))
    return int(lost.argmax()) + 1 if lost.any() else None


def compiled(setup: Callable, setting: Setting) -> Jitted:
    """The step of runs that differ in traced numbers alone, for any number of them side by side.

    Args:
        setup: as in `sweep`.
        setting: one of theirs; what is not traced is the same in all.

    Returns:
        (traced numbers by name (runs,), stacked train states, x, y) -> (stacked train states, stacked metrics).
    """

    def every(traced: Setting, train_states: TrainState, x: Any, y: Any) -> tuple[TrainState, Any]:
        def one(run: Any, traced: Setting, train_state: TrainState) -> tuple[TrainState, Any]:
            return make_train_step(*_made(setup, setting | traced))(train_state, x, y)

        runs = len(train_states.step)
        return each_member(one, runs, runs)(traced, train_states)

    return jit(every, donate_argnums=1)


def expanded(grid: Mapping[str, Any] | Sequence[Setting]) -> list[Setting]:
    """The settings of a grid, in order."""
    if isinstance(grid, Mapping):
        lists = {name: _values(name, values) for name, values in grid.items()}
        settings = [dict(zip(lists, chosen, strict=True)) for chosen in itertools.product(*lists.values())]
    elif isinstance(grid, Sequence) and all(isinstance(setting, Mapping) for setting in grid):
        settings = [dict(setting) for setting in grid]
    else:
        raise TypeError(f"sweep: grid must be lists of values by name, or a list of dicts, got {grid!r}")
    if not settings or not settings[0]:
        raise ValueError(f"sweep: the grid must have at least one setting, got {grid!r}")
    for setting in settings:
        if set(setting) != set(settings[0]):
            raise ValueError(f"sweep: settings must have the same names, got {list(settings[0])} and {list(setting)}")
        seed = setting.get(SEED, 0)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            raise TypeError(f"sweep: a seed must be an int, got {seed!r}")
    return settings


def _values(name: str, values: Any) -> list:
    """A list of values as Python has them."""
    if isinstance(values, np.ndarray | jax.Array):
        values = np.asarray(values).tolist()
    if not isinstance(values, list | tuple | range):
        raise TypeError(f"sweep: grid[{name!r}] must be a list of values, got {values!r}; write [{values!r}]")
    if not values:
        raise ValueError(f"sweep: grid[{name!r}] must have at least one value, got none")
    return list(values)


def traced_names(settings: list[Setting], static: Sequence[str]) -> list[str]:
    """The names whose values are all numbers, and some not ints, but for those that are to be static."""
    unknown = [name for name in static if name not in settings[0]]
    if unknown:
        raise ValueError(f"sweep: static names {unknown}, the grid has {list(settings[0])}")

    def is_traced(name: str) -> bool:
        values = [setting[name] for setting in settings]
        real = all(isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_) for value in values)
        return real and not all(isinstance(value, numbers.Integral) for value in values)

    return [name for name in settings[0] if name != SEED and name not in static and is_traced(name)]


def _programs(settings: list[Setting], traced: list[str]) -> list[list[int]]:
    """The numbers of the runs that share a program."""
    programs: dict[Any, list[int]] = {}
    for i, setting in enumerate(settings):
        values = tuple((type(value), value) for name, value in setting.items() if name not in (SEED, *traced))
        try:
            programs.setdefault(values, []).append(i)
        except TypeError as error:
            raise TypeError(f"sweep: each value must be a number or hashable, in {setting} one is not") from error
    return list(programs.values())


def _chunks(runs: list[int], at_once: int | None) -> list[list[int]]:
    """The runs, so many together."""
    size = at_once or (1 if jax.default_backend() == "cpu" else len(runs))
    return [runs[start : start + size] for start in range(0, len(runs), size)]


def _made(setup: Callable, setting: Setting) -> tuple[Objective, Any]:
    """What setup gives for a setting, checked."""
    try:
        pair = setup(**{name: value for name, value in setting.items() if name != SEED})
    except Exception as error:
        error.add_note(f"in sweep, setup of {setting}; static=[names] gives numbers as they are, not traced")
        raise
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], Objective):
        raise TypeError(f"sweep: setup must give (hg.Objective, optimizer), got {pair!r}")
    check_optimizer("sweep, setup", pair[1])
    return pair[0], pair[1]


def _start(objective: Objective, optimizer: Any, setting: Setting, x: Any) -> TrainState:
    key, dtype = jax.random.key(int(setting.get(SEED, 0))), jax.dtypes.canonicalize_dtype(x.dtype)
    return init_train_state(objective.net, optimizer, key, x.shape[1:], dtype)


def _check_data(op: str, made: list, states: list[TrainState], x: Any, y: Any) -> None:
    check_examples(op, x, 1)
    for (objective, _), own in zip(made, states, strict=True):
        shape = logits_shape(objective.net, own.params, own.state, x)
        check_labels(op, x, y, shape, getattr(objective.loss, "ignore_index", None))


def _check_count(argument: str, value: Any) -> None:
    """An int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"sweep: {argument} must be an int, got {value!r}")
    if value < 1:
        raise ValueError(f"sweep: {argument} must be at least 1, got {value}")

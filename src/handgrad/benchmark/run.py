"""The benchmarks that need no other library: our step beside `jax.grad`'s, our pools beside `reduce_window`."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from handgrad import models
from handgrad.benchmark import pools
from handgrad.benchmark.steps import OURS, Case, Start, own_trainers
from handgrad.benchmark.table import Line, Table, compared, line_of
from handgrad.benchmark.trainer import Trainer, check_finite, check_same_losses, compile_seconds
from handgrad.compile import temporary_bytes
from handgrad.timing import interleaved

Say = Callable[[str], None]


def bench(only: Sequence[str] = (), quick: bool = False, say: Say = lambda text: None) -> list[Table]:
    """Time what the library does by hand beside what JAX does automatically.

    Args:
        only: names of sections; all of `SECTIONS` where none is given.
        quick: small nets and few rounds, to see that it works.
        say: told what is going on.

    Returns:
        The tables.

    Raises:
        ValueError: a section that there is not, or contenders that do not compute the same.

    Example:
        >>> sorted(SECTIONS)
        ['pools', 'steps']
        >>> bench(["pool"])
        Traceback (most recent call last):
        ValueError: bench: there is no section 'pool'; take some of steps, pools
    """
    tables = []
    for name in checked_sections(only, SECTIONS):
        tables += SECTIONS[name](quick, say)
    return tables


def checked_sections(only: Sequence[str], known: Sequence[str] | dict[str, Any]) -> list[str]:
    """The sections to run, in their own order.

    Raises:
        ValueError: one that there is not.
    """
    for name in only:
        if name not in known:
            raise ValueError(f"bench: there is no section {name!r}; take some of {', '.join(known)}")
    return [name for name in known if not only or name in only]


def step_tables(quick: bool, say: Say) -> list[Table]:
    """Time, temporary memory and compile time of the step of the nets in `handgrad.models`."""
    batch, rounds = (8, QUICK) if quick else (128, FULL)
    cases = [
        Case(f"digits_cnn, batch {batch}", models.digits_cnn(dropout=0), (8, 8, 1), batch, 0.005),
        Case(f"lenet, batch {batch}", models.lenet(dropout=0), (28, 28, 1), batch, 0.005),
    ]
    times, memory, compiling = [], [], []
    for case in cases[:1] if quick else cases:
        say(case.name)
        trainers = own_trainers(Start(case))
        case_memory, case_compiling = compiled_lines(case.name, trainers, 1 if quick else 3)
        check_same_losses(trainers, rtol=case.rtol)
        found = interleaved(trainers, **rounds)
        check_finite(trainers)
        times += compared([line_of(case.name, name, timing) for name, timing in found.items()], OURS)
        memory += case_memory
        compiling += case_compiling
    return [
        Table("steps", "A training step", "ms", tuple(times)),
        Table("memory", "Temporary memory of the compiled step", "MB", tuple(memory)),
        Table("compile", "Tracing and compiling the step afresh", "s", tuple(compiling)),
    ]


def compiled_lines(name: str, trainers: Mapping[str, Trainer], repeats: int) -> tuple[list[Line], list[Line]]:
    """Temporary memory in MB, and the seconds to trace and compile, of each trainer's step."""
    seconds, compiled = compile_seconds(trainers, repeats)
    memory = [Line(name, contender, temporary_bytes(step) / 1e6) for contender, step in compiled.items()]
    compiling = [Line(name, contender, statistics.median(times)) for contender, times in seconds.items()]
    return compared(memory, OURS), compared(compiling, OURS)


def pool_tables(quick: bool, say: Say) -> list[Table]:
    """Pools, forward and backward."""
    lines = []
    for case in pools.QUICK_CASES if quick else pools.CASES:
        say(case.name)
        times = interleaved(pools.own_pool_contenders(case), **QUICK if quick else FULL)
        lines += compared([line_of(case.name, name, timing) for name, timing in times.items()], OURS)
    return [Table("pools", "Pools in hg.bridge, forward and backward", "ms", tuple(lines))]


QUICK: dict[str, Any] = {"seconds": 0.5, "at_least": 3}
FULL: dict[str, Any] = {"seconds": 10.0, "at_least": 7}
SECTIONS: dict[str, Callable[[bool, Say], list[Table]]] = {"steps": step_tables, "pools": pool_tables}

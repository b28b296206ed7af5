"""How the step's time grows with batch, depth, width and image size, beside Flax's: no jump where Flax has none."""

import gc
from collections.abc import Callable, Sequence

import handgrad as hg
from benchmarks.steps import peer_trainers
from handgrad.benchmark.steps import OURS, Case, Start, own_trainers, with_defaults
from handgrad.benchmark.table import Line, Table, compared, line_of
from handgrad.benchmark.trainer import check_same_losses
from handgrad.timing import interleaved

THEIRS = "Flax"
JUMP = 1.5  # a time per unit so many times its neighbour's

Ladder = Sequence[tuple[float, Case]]  # (units of work, case), growing


def run(quick: bool, say: Callable[[str], None]) -> list[Table]:
    """A table for each ladder."""
    tables = []
    for name, ladder in ladders(quick).items():
        lines = []
        for _, case in ladder:
            say(f"{name}: {case.name}")
            lines += case_lines(case, quick)
            gc.collect()
        notes = jumps([units for units, _ in ladder], _of(lines, OURS), _of(lines, THEIRS), [c.name for _, c in ladder])
        tables.append(Table(f"growth_{name}", f"A training step over {name}", "ms", tuple(lines), tuple(notes)))
    return tables


def ladders(quick: bool) -> dict[str, Ladder]:
    """The four ladders; work grows with the square of width and of image size."""
    keep = 2 if quick else None
    sizes = {
        "batch": [(n, _case(f"batch {n}", batch=n)) for n in (1, 4, 16, 64, 256, 1024)],
        "depth": [(n, _case(f"{n} layers", depth=n)) for n in (2, 4, 8, 16, 32)],
        "width": [(n * n, _case(f"{n} features", width=n)) for n in (8, 16, 32, 64, 128)],
        "image size": [(n * n, _case(f"{n}x{n}", size=n)) for n in (8, 16, 32, 64)],
    }
    return {name: ladder[:keep] for name, ladder in sizes.items()}


def _case(name: str, batch: int = 32, depth: int = 3, width: int = 16, size: int = 16) -> Case:
    """3x3 convolutions of one width with ReLU, a 2x2 pool after the first, the mean over all places, a dense layer."""
    layers: list[hg.Layer] = [hg.Conv(width, 3), hg.Relu(), hg.MaxPool(2)]
    for _ in range(depth - 1):
        layers += [hg.Conv(width, 3), hg.Relu()]
    return Case(name, hg.Chain(*layers, hg.GlobalAvgPool(), hg.Dense(10)), (size, size, 3), batch, 0.001)


def case_lines(case: Case, quick: bool) -> list[Line]:
    """Ours and Flax's."""
    start = Start(case)
    pair = {OURS: own_trainers(start)[OURS], THEIRS: peer_trainers(start, with_defaults, [THEIRS])[THEIRS]}
    check_same_losses(pair, rtol=case.rtol)
    times = interleaved(pair, seconds=0.3 if quick else 3.0, at_least=3 if quick else 5, at_most=40)
    return compared([line_of(case.name, name, timing) for name, timing in times.items()], OURS)


def jumps(units: Sequence[float], ours: Sequence[float], theirs: Sequence[float], names: Sequence[str]) -> list[str]:
    """A note for each rung at which our time per unit jumps and theirs does not.

    Args:
        units: of work, a rung.
        ours: our times.
        theirs: theirs.
        names: of the rungs.
    """
    notes = []
    for i in range(1, len(units)):
        more = units[i] / units[i - 1]
        grown, their_growth = (times[i] / times[i - 1] / more for times in (ours, theirs))
        if grown > JUMP >= their_growth:
            notes.append(
                f"JUMP from {names[i - 1]} to {names[i]}: time per unit {grown:.2f} times ours before, "
                f"{their_growth:.2f} times {THEIRS}'s"
            )
    return notes or [f"No time per unit of ours is over {JUMP} times its neighbour's where {THEIRS}'s is not."]


def _of(lines: Sequence[Line], contender: str) -> list[float]:
    return [line.value for line in lines if line.contender == contender]

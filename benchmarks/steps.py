"""Whole training steps: five nets, every contender, in time, memory, and seconds to trace and compile."""

import gc
from collections.abc import Callable, Iterable
from typing import Any

import jax

from benchmarks import bounds, peers
from benchmarks.nets import CASES, QUICK_CASES
from handgrad.benchmark.run import compiled_lines
from handgrad.benchmark.steps import (
    OURS,
    Case,
    Start,
    forward_and_gradient,
    other_options,
    own_trainers,
    takes_our_options,
    with_defaults,
    with_our_options,
)
from handgrad.benchmark.table import Line, Table, bounded, compared, line_of
from handgrad.benchmark.trainer import Trainer, check_finite, check_same_losses
from handgrad.timing import Timing, interleaved

Say = Callable[[str], None]
TITLES = {
    "steps": ("A training step, peers with XLA's default options", "ms"),
    "options": ("A training step, all under our CPU options", "ms"),
    "memory": ("Temporary memory of the compiled step", "MB"),
    "compile": ("Tracing and compiling the step afresh", "s"),
    "backward": ("Forward, and forward with backward, by hand; the ratio is backward over forward", "ms"),
}


def run(quick: bool, say: Say) -> list[Table]:
    """All tables of the training step.

    Args:
        quick: small nets and few rounds, to see that it works.
        say: told what is going on.
    """
    lines: dict[str, list[Line]] = {name: [] for name in TITLES}
    notes: list[str] = []
    for name, case in (QUICK_CASES if quick else CASES).items():
        for table, found in measured(name, case, quick, say, notes).items():
            lines[table] += found
        gc.collect()
    return [
        Table(name, *TITLES[name], tuple(lines[name]), tuple(dict.fromkeys(notes)) if name == "steps" else ())
        for name in TITLES
        if lines[name]
    ]


def measured(name: str, case: Case, quick: bool, say: Say, notes: list[str]) -> dict[str, list[Line]]:
    """The lines of one net, by table."""
    start, rounds = Start(case), {"seconds": 1.0, "at_least": 3} if quick else {"seconds": 25.0, "at_least": 7}
    rtol = case.rtol * (10 if jax.default_backend() == "gpu" else 1)  # products there round to fewer bits by default
    say(f"{case.name}: translating the net, compiling")
    trainers = own_trainers(start) | peer_trainers(start, with_defaults)
    memory, compiling = compiled_lines(case.name, trainers, 1 if quick else 3)
    found = {"memory": bounded(memory, bounds.MEMORY.get(name, {})), "compile": bounded(compiling, bounds.COMPILE)}
    running: dict[str, Any] = trainers | torch_trainers(start, say, notes)
    check_same_losses(running, rtol=rtol)
    say(f"{case.name}: timing {len(running)} contenders")
    times = interleaved(running, **rounds)
    check_finite(running)
    found["steps"] = step_lines(name, case, times)
    del running, trainers
    gc.collect()
    found["backward"] = backward_lines(case, interleaved(forward_and_gradient(start), **rounds))
    if takes_our_options():
        say(f"{case.name}: all under our CPU options")
        found["options"] = options_lines(case, start, rounds)
    return found


def peer_trainers(start: Start, jitted: Callable, names: Iterable[str] = tuple(peers.MODULES)) -> dict[str, Trainer]:
    """Flax, Equinox and Haiku, or those named, each with its step jitted in that way."""
    trainers = {}
    for name in names:
        step, state, x, y = peers.load(peers.MODULES[name]).step_and_state(start)
        trainers[name] = Trainer(jitted(step), state, x, y)
    return trainers


def torch_trainers(start: Start, say: Say, notes: list[str]) -> dict[str, Any]:
    """PyTorch eager in both layouts, and compiled in the one that is faster eagerly."""
    torch = peers.load(peers.TORCH_MODULE)
    absent = torch.reason_absent()
    if absent is not None:
        notes.append(absent)
        return {}
    eager = {f"{bounds.TORCH}, {layout}": torch.TorchTrainer(start, layout) for layout in torch.LAYOUTS}
    times = interleaved({name: torch.TorchTrainer(start, name.split(", ")[1]) for name in eager}, at_least=3, at_most=3)
    better = min(times, key=lambda name: times[name].median).split(", ")[1]
    reason = torch.cannot_compile()
    if reason is None:
        say(f"{start.case.name}: torch.compile, {better}")
        compiled = torch.TorchTrainer(start, better, compiled=True)
        try:
            torch.TorchTrainer(start, better, compiled=True)()
            return eager | {bounds.TORCH_COMPILE: compiled}
        except Exception as error:  # whatever its compiler raises: the figure is left out, and the reason told
            reason = f"torch.compile failed: {type(error).__name__}: {str(error).splitlines()[0]}"
    say(reason)
    notes.append(reason)
    return eager


def step_lines(name: str, case: Case, times: dict[str, Timing]) -> list[Line]:
    """Times with ratios and bounds; of torch's two layouts the better one has the bound."""
    lines = compared([line_of(case.name, contender, timing) for contender, timing in times.items()], OURS)
    wanted = dict(bounds.STEPS[name])
    wanted[bounds.better_torch(lines)] = wanted.pop(bounds.TORCH)
    return bounded(lines, wanted)


def backward_lines(case: Case, times: dict[str, Timing]) -> list[Line]:
    """Forward, both, and the time of backward over that of forward."""
    forward, both = times["forward"], times["forward and backward"]
    ratio = (both.median - forward.median) / forward.median
    return [line_of(case.name, "forward", forward), line_of(case.name, "forward and backward", both, ratio=ratio)]


def options_lines(case: Case, start: Start, rounds: dict[str, Any]) -> list[Line]:
    """The second table: peers under the options that we give our own step, and ours without them."""
    trainers = other_options(start) | peer_trainers(start, with_our_options)
    check_same_losses(trainers, rtol=case.rtol)
    times = interleaved(trainers, **rounds)
    check_finite(trainers)
    return compared([line_of(case.name, contender, timing) for contender, timing in times.items()], OURS)

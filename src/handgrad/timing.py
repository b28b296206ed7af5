"""Times of contenders side by side, in one interleaved run.

A machine's speed wanders, so contenders are not timed one after the other but in rounds, each of them once a round:
what slows one round slows all of them. Before each timed call stands an untimed one of the same contender, which brings
its data back into the caches and lets the threads of the contender before come to rest. The median of the rounds is the
figure, and the quartiles say how far to trust it.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Quartiles of the times of a call, in milliseconds, and how many times there were.

    Attributes:
        low: a quarter of the times are below it, in milliseconds.
        median: half of them.
        high: three quarters of them.
        count: of how many times.

    Example:
        >>> timing = interleaved({"sum": lambda: sum(range(1000))}, at_most=5)["sum"]
        >>> 0 < timing.low <= timing.median <= timing.high, timing.count
        (True, 5)
    """

    low: float
    median: float
    high: float
    count: int


def interleaved(
    contenders: Mapping[str, Callable[[], Any]],
    *,
    seconds: float = 20.0,
    at_least: int = 5,
    at_most: int = 50,
) -> dict[str, Timing]:
    """The time of a call of each contender, all measured in one interleaved run.

    Args:
        contenders: functions by name that return when their work is done, not when it is on its way.
        seconds: no new round begins after so many.
        at_least: rounds, however long they take; 2 or more.
        at_most: rounds, however short they are.

    Returns:
        A `Timing` by name. What the first two calls do, such as compiling, is not in it.

    Raises:
        ValueError: fewer rounds than quartiles need.

    Example:
        >>> times = interleaved({"short": lambda: sum(range(10)), "long": lambda: sum(range(100_000))}, at_most=5)
        >>> times["short"].median < times["long"].median, times["long"].count
        (True, 5)
    """
    if at_least < 2 or at_most < at_least:
        raise ValueError(f"interleaved: at_least must be 2 or more and at most at_most, got {at_least} and {at_most}")
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    began, rounds = time.perf_counter(), 0
    while rounds < at_least or (rounds < at_most and time.perf_counter() - began < seconds):
        for name, run in contenders.items():
            run()
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
        rounds += 1
    return {name: summarised(values) for name, values in times.items()}


def summarised(milliseconds: list[float]) -> Timing:
    """The quartiles of at least two times."""
    low, median, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return Timing(low, median, high, len(milliseconds))

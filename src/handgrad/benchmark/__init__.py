"""Timing contenders side by side, and the benchmarks that need no other library. `handgrad bench` runs them."""

from handgrad.benchmark.machine import machine
from handgrad.benchmark.run import SECTIONS, bench
from handgrad.benchmark.table import Bound, Line, Table, as_markdown, as_records, as_text
from handgrad.timing import Timing, interleaved

__all__ = [
    "SECTIONS",
    "Bound",
    "Line",
    "Table",
    "Timing",
    "as_markdown",
    "as_records",
    "as_text",
    "bench",
    "interleaved",
    "machine",
]

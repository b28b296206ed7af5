"""`handgrad bench`: how fast the step by hand is on this machine, beside `jax.grad`'s."""

import argparse
import json
import sys
from pathlib import Path

from handgrad.benchmark import SECTIONS, as_records, as_text, machine
from handgrad.benchmark import bench as run_bench
from handgrad.benchmark.run import checked_sections


def bench(options: argparse.Namespace) -> int:
    """Print the tables, and write them as JSON where asked; the exit code."""
    only = [name for name in (options.only or "").split(",") if name]
    checked_sections(only, SECTIONS)
    if options.json is not None:
        Path(options.json).parent.mkdir(parents=True, exist_ok=True)
    where = machine()
    print(", ".join(f"{name} {value}" for name, value in where.items()))
    tables = run_bench(only, options.quick, lambda text: print(text, file=sys.stderr, flush=True))
    for table in tables:
        print(f"\n{as_text(table)}")
    if options.json is not None:
        record = {"machine": where, "tables": as_records(tables)}
        Path(options.json).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0

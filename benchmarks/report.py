"""The command: run sections, print their tables, and keep figures, tables and charts in docs/."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import (
    charts,
    checkpoints,
    convolutions,
    ensembles,
    growth,
    overhead,
    per_example,
    pools,
    prefetch,
    scaling,
    steps,
)
from handgrad.benchmark.machine import machine
from handgrad.benchmark.run import checked_sections
from handgrad.benchmark.table import Bound, Line, Table, as_markdown, as_records, as_text

DOCS = Path(__file__).parents[1] / "docs"
SECTIONS: dict[str, Callable[[bool, Callable[[str], None]], list[Table]]] = {
    "steps": steps.run,
    "pools": pools.run,
    "convolutions": convolutions.run,
    "ensembles": ensembles.run,
    "overhead": overhead.run,
    "per_example": per_example.run,
    "scaling": scaling.run,
    "growth": growth.run,
    "checkpoints": checkpoints.run,
    "prefetch": prefetch.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code, 2 where something given is wrong, a peer is missing or computes otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time handgrad beside its peers.")
    parser.add_argument("--only", default="", metavar="SECTIONS", help=f"some of {','.join(SECTIONS)} (all)")
    parser.add_argument("--quick", action="store_true", help="small and short, to see that it works; writes no docs")
    parser.add_argument("--docs", type=Path, help="folder for benchmarks.json, the table and the charts (docs/)")
    options = parser.parse_args(arguments)
    docs = options.docs or (None if options.quick else DOCS)
    try:
        names = checked_sections([name for name in options.only.split(",") if name], SECTIONS)
        run_all(names, options.quick, docs)
    except (ValueError, TypeError, ImportError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


def run_all(names: Sequence[str], quick: bool, docs: Path | None) -> None:
    """Run sections one after the other, each written down as soon as it is done."""
    began, where, record = time.perf_counter(), machine(), {}
    print(", ".join(f"{name} {value}" for name, value in where.items()), flush=True)
    for name in names:

        def say(text: str, name: str = name) -> None:
            print(f"[{time.perf_counter() - began:6.0f} s] {name}: {text}", file=sys.stderr, flush=True)

        tables = SECTIONS[name](quick, say)
        if quick:  # the bounds are for the nets and sizes of the whole run
            tables = [
                replace(table, lines=tuple(replace(line, bound=None) for line in table.lines)) for table in tables
            ]
        for table in tables:
            print(f"\n{as_text(table)}", flush=True)
        record[name] = {"machine": where, "tables": as_records(tables)}
        if docs is not None:
            write(docs, name, record[name], tables)
    if not quick:
        print(f"\n{as_text(wanted(record))}", flush=True)


def write(docs: Path, name: str, section: dict[str, Any], tables: Sequence[Table]) -> None:
    """Put a section into benchmarks.json in the place of its last run, and draw all anew from there."""
    (docs / "images").mkdir(parents=True, exist_ok=True)
    path = docs / "benchmarks.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = kept | {name: section}
    record = {known: found[known] for known in SECTIONS if known in found}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (docs / "benchmarks_table.md").write_text(markdown(record), encoding="utf-8")
    charts.draw(tables, docs / "images")


def markdown(record: dict[str, Any]) -> str:
    """All sections as Markdown, each under the machine that it ran on."""
    parts = ["# The benchmarks' figures", f"## Bounds\n\n{as_markdown(wanted(record))}"]
    for name, section in record.items():
        where = ", ".join(f"{key} {value}" for key, value in section["machine"].items())
        title = name.capitalize().replace("_", " ")
        parts += [f"## {title}\n\n{where}", *(as_markdown(table_of(table)) for table in section["tables"])]
    return "\n\n".join(parts) + "\n"


def wanted(record: dict[str, Any]) -> Table:
    """Every line that has a bound, in one table: the ratios that matter."""
    lines = []
    for section in record.values():
        for table in map(table_of, section["tables"]):
            lines += [replace(line, case=f"{line.case}: {table.unit}") for line in table.lines if line.verdict]
    kept = sum(line.verdict != "missed" for line in lines)
    title = f"{kept} of {len(lines)} ratios are within their bounds"
    return Table("bounds", title, "theirs", tuple(lines))


def table_of(record: dict[str, Any]) -> Table:
    """A table back from what JSON keeps of it."""
    lines = []
    for line in record["lines"]:
        bound = Bound(**line["bound"]) if line["bound"] else None
        lines.append(
            Line(**{key: value for key, value in line.items() if key not in ("verdict", "bound")}, bound=bound)
        )
    return Table(record["name"], record["title"], record["unit"], tuple(lines), tuple(record["notes"]))

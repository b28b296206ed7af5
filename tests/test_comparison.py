"""docs/comparison.md: its programs run and are counted right, its times are those of the table of benchmarks."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import handgrad as hg

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "comparison.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"^### (.*?)\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
WANTS = {"Haiku": "haiku", "PyTorch": "torch", "Equinox": "equinox", "Flax (Linen)": "flax", "Flax (NNX)": "flax"}


def cells(row):
    return [cell.strip() for cell in row.strip("|\n").split("|")]


def test_the_lines_are_counted_right():
    head, counts = re.findall(r"^(\| handgrad \| Flax \(Linen\).*?\n)\|-.*?\n(\|.*?\n)", PAGE, re.MULTILINE)[0]
    counted = {
        name: sum(bool(line.strip()) and not line.startswith(("import", "from")) for line in code.splitlines())
        for name, code in PROGRAMS.items()
    }
    assert dict(zip(cells(head), map(int, cells(counts)), strict=True)) == counted


def measured():
    """The median times of the table of benchmarks, as they are written there: by net, then by contender."""
    table = (DOCS / "benchmarks_table.md").read_text(encoding="utf-8")
    section = table.split("### A training step, peers with XLA's default options")[1].split("\n### ")[0]
    found: dict[str, dict[str, str]] = {}
    for case, contender, ms in re.findall(r"^\| (.*?) \| (.*?) \| ([\d.,]+) \|", section, re.MULTILINE):
        found.setdefault(case, {})[contender] = ms
    for own in found.values():  # PyTorch in its better layout
        layouts = [own[who] for who in own if who.startswith("torch eager")]
        own["torch eager"] = min(layouts, key=lambda ms: float(ms.replace(",", "")))
    return found


def test_each_time_is_in_the_table_of_benchmarks():
    nets = measured()
    rows = [cells(row) for row in re.findall(r"^\| .*, batch \d+ \|.*$", PAGE, re.MULTILINE)]
    assert len(rows) == len(nets) == 5
    contenders = ["handgrad", "Flax", "Equinox", "Haiku", "torch eager", "torch.compile"]
    for case, *times in rows:
        assert times == [nets[case][who] for who in contenders]


def test_the_times_in_the_readme_are_those_of_the_table_too():
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    head, rows = re.findall(r"^(\| net \| handgrad .*)\n\|-.*\n((?:\|.*\n)+)", readme, re.MULTILINE)[0]
    assert cells(head) == [
        "net",
        "handgrad",
        "`jax.grad`",
        *["Flax", "Equinox", "Haiku"],
        "PyTorch eager",
        "`torch.compile`",
    ]
    contenders = ["handgrad", "jax.grad", "Flax", "Equinox", "Haiku", "torch eager", "torch.compile"]
    times = [[each.strip("*") for each in cells(row)[1:]] for row in rows.splitlines()]
    assert times == [[own[who] for who in contenders] for own in measured().values()]


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_learns(name):
    if name in WANTS and importlib.util.find_spec(WANTS[name]) is None:
        pytest.skip(f"{WANTS[name]} is not installed")
    digits = hg.data.load_digits()
    images = digits.train_x.repeat(3, 1).repeat(3, 2).astype(np.float32) / 255
    images = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    batches = [(images[i : i + 32], digits.train_y[i : i + 32]) for i in range(0, 960, 32)]
    names: dict[str, Any] = {"batches": 2 * batches}
    allowed = jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard")  # as JAX comes
    with jax.enable_x64(False), allowed[0], allowed[1]:
        exec(compile(PROGRAMS[name], name, "exec"), names)
    assert names["loss"].item() < 1.2  # 2.3 at the start

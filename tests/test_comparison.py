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


def test_each_time_is_in_the_table_of_benchmarks():
    table = (DOCS / "benchmarks_table.md").read_text(encoding="utf-8")
    section = table.split("### A training step, peers with XLA's default options")[1].split("\n### ")[0]
    measured: dict[str, dict[str, str]] = {}
    for case, contender, ms in re.findall(r"^\| (.*?) \| (.*?) \| ([\d.,]+) \|", section, re.MULTILINE):
        measured.setdefault(case, {})[contender] = ms
    rows = [cells(row) for row in re.findall(r"^\| .*, batch \d+ \|.*$", PAGE, re.MULTILINE)]
    assert len(rows) == len(measured) == 5
    for case, *times in rows:
        own = measured[case]
        eager = min(
            (own[who] for who in own if who.startswith("torch eager")), key=lambda ms: float(ms.replace(",", ""))
        )
        assert times == [own[who] for who in ("handgrad", "Flax", "Equinox", "Haiku")] + [eager, own["torch.compile"]]


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

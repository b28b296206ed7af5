"""docs/reliability.md names a test for each promise; here those are found."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and " kept by " not in line and "tests/" in line]


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_the_named_test_is_there(path, name):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_promise_has_a_test():
    table = TEXT.split("| promise | kept by |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(table) == len(ROWS) > 25 and len(NAMED) > 30
    assert all(re.search(r"`tests/[\w/]+\.py::test_\w+` \|$", row) for row in table)

"""Imports run one way: a file may import only from its own room and from rooms before it. An unlisted room fails."""

import ast
from pathlib import Path

import pytest

import handgrad

pytestmark = pytest.mark.core
BOTTOM = [
    "initializers",
    "optimizers",
    "schedules",
    "metrics",
    "data",
    "compile",
    "memory",
    "mesh",
    "timing",
]  # these import nothing of ours
ORDER = [
    *["ops", *BOTTOM, "layers", "losses", "gradient", "bridge", "insight", "training", "models", "benchmark"],
    *["viz", "cli"],
    "__main__",
]
ROOT = Path(handgrad.__file__).parent
FILES = [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write absolute imports"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imported(ast.parse(path.read_text())):
        if name.startswith("handgrad."):
            target = name.split(".")[1]
            assert target == room or ORDER.index(target) < ORDER.index(room), f"{room} may not import {target}"
            assert target == room or room not in ["ops", *BOTTOM], f"{room} imports nothing of ours, here {target}"


def test_the_core_imports_no_extra():
    extras = {"matplotlib", "optax", "flax", "chex", "torch", "sklearn", "orbax", "pytest"}
    for path in FILES:
        top_level = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in top_level:
            for name in imported(ast.Module([node], [])):
                assert name.split(".")[0] not in extras, f"{path.name}: import {name} where it is used"


def test_no_file_is_long():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 420, f"{path.name} is too long to see whole; split it"


def test_public_names_are_documented():
    for name in handgrad.__all__:
        assert (getattr(handgrad, name).__doc__ or "").strip(), f"hg.{name} has no docstring"

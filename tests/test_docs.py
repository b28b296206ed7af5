"""The documentation names all that is public, and says of itself only what is so."""

import doctest
import importlib
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

import handgrad as hg
from handgrad import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGES = ["ops", "layers", "losses", "optimizers", "training", "insight", "data", "data.augment", "models", "viz"]


def documented():
    """The full name of what each autodoc directive documents, and the modules whose members are."""
    objects, modules = set(), set()
    for path in [*DOCS.glob("reference/*.md"), *DOCS.glob("derivations/*.md")]:
        text = path.read_text(encoding="utf-8")
        objects |= set(re.findall(r"\.\. auto(?:function|class|data):: (\S+)", text))
        modules |= set(re.findall(r"\.\. automodule:: (\S+)\n +:members:", text))
    return objects, modules


@pytest.mark.parametrize("name", ["", *PACKAGES])
def test_every_public_name_is_in_the_reference(name):
    objects, modules = documented()
    found = {id(_find(target)) for target in objects}
    found |= {id(value) for module in map(importlib.import_module, modules) for value in vars(module).values()}
    package = importlib.import_module(f"handgrad.{name}".rstrip("."))
    public = {each: getattr(package, each) for each in package.__all__}
    lacking = [each for each, value in public.items() if callable(value) and id(value) not in found]
    assert not lacking


def _find(target):
    value = hg
    for part in target.split(".")[1:]:
        value = getattr(value, part) if hasattr(value, part) else importlib.import_module(f"{value.__name__}.{part}")
    return value


def test_the_page_of_the_command_has_every_command(capsys):
    assert cli.main([]) == 0
    (listed,) = re.findall(r"COMMAND\n(.*)", capsys.readouterr().out, re.DOTALL)
    commands = re.findall(r"^    (\w+)", listed, re.MULTILINE)
    rows = re.findall(r"^\| \[?`(\w+)`", (DOCS / "reference" / "command.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == commands


def test_docstrings_are_read_as_they_are_shown():
    spec = importlib.util.spec_from_file_location("docstrings", DOCS / "docstrings.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
    assert module.as_rst(["See |x|.", "", "    literal *", "", "after *"])[2:4] == [".. code-block:: text", ""]


def test_the_badges_say_what_the_project_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (jax,) = [need.partition(">=")[2] for need in project["dependencies"] if need.startswith("jax>=")]
    said = {path.stem: path.read_text(encoding="utf-8") for path in (DOCS / "images" / "badges").glob("*.svg")}
    assert f"python: {project['requires-python'].removeprefix('>=')}+" in said["python"]
    assert f"jax: {jax}+" in said["jax"]
    assert f"licence: {project['license']}" in said["licence"]
    assert "Typing :: Typed" in project["classifiers"] and (ROOT / "src/handgrad/py.typed").exists() and "typed" in said


def test_every_row_of_the_lecture_leads_to_what_shows_it():
    text = (DOCS / "lecture.md").read_text(encoding="utf-8")
    rows = [row.split(" | ") for row in text.splitlines() if row.startswith("| ")][1:]
    assert len(rows) == 23
    for _, _, shown in rows:
        targets = re.findall(r"\]\((\.\./[^)#]+|[^)#]+)", shown)
        assert any(target.startswith("../notebooks/") for target in targets), shown
        assert all((DOCS / target).exists() for target in targets), shown

"""What the files of the notebooks hold: outputs, pictures with words, exercises, links that lead somewhere."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 700_000  # bytes, that a code host shows it at once
pytestmark = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem[:2])


def cells(path, kind=None, tag=None):
    """The cells of a kind, or with a tag."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        cell
        for cell in found
        if kind in (None, cell["cell_type"]) and (tag is None or tag in cell["metadata"].get("tags", ()))
    ]


def source(cell):
    return "".join(cell["source"])


def test_its_outputs_are_stored_small_and_without_errors(path):
    assert path.stat().st_size < LARGEST
    run = cells(path, "code")
    assert [cell["execution_count"] for cell in run] == list(range(1, len(run) + 1))
    kinds = {output["output_type"] for cell in run for output in cell["outputs"]}
    assert "error" not in kinds
    assert not any(output.get("name") == "stderr" for cell in run for output in cell["outputs"])


def test_it_says_what_the_reader_will_be_able_to_do_and_asks_for_predictions(path):
    texts = [source(cell) for cell in cells(path, "markdown")]
    assert texts[0].startswith("# ")
    assert any("you will be able to" in text.lower() for text in texts[:2])
    guesses = re.findall(r"^(guess\w*) *= *None", "\n".join(map(source, cells(path, "code"))), re.MULTILINE)
    assert len(guesses) >= 3


def test_it_ends_with_three_exercises_and_their_checks(path):
    for tag in ("exercise", "check", "answer"):
        assert len(cells(path, tag=tag)) == 3, tag
    for number, cell in enumerate(cells(path, tag="check"), 1):
        printed = "".join("".join(output.get("text", "")) for output in cell["outputs"])
        assert printed.startswith(f"exercise {number}: not answered yet")
    assert all("<details>" in source(cell) and "```python" in source(cell) for cell in cells(path, tag="answer"))


def test_its_pictures_have_words(path):
    pictures = [cell for cell in cells(path, "code") if any("image/png" in o.get("data", {}) for o in cell["outputs"])]
    assert len(pictures) >= 3
    assert len(cells(path, tag="cover")) == 1
    for cell in pictures:
        assert len(cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")) > 20, source(cell)[:80]


def test_its_links_lead_somewhere(path):
    texts = [source(cell) for cell in cells(path, "markdown")]
    headings = [title for text in texts for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    anchors = {re.sub(r"[`*]", "", title).strip().replace(" ", "-") for title in headings}
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(texts)):
        file, _, anchor = target.partition("#")
        if file:
            assert (FOLDER / file).exists(), target
        else:
            assert unquote(anchor) in anchors, target

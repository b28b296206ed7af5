"""Each how-to and explanation page does what it shows: its blocks run in order, and print what stands below them.

A page is a script. Its python blocks share one namespace, in a fresh process and an empty folder; a text block right
below a block is what that prints, or the last lines of the traceback that ends it. A bash block is run only where a
text block follows. `python tests/test_howto.py --write docs/howto/own_layer.md` runs a page and
writes the text blocks anew.
"""

import ast
import contextlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "docs" / "start.md",
    *sorted(page for folder in ("howto", "explanation") for page in (ROOT / "docs" / folder).glob("*.md")),
]
NOT_WANTED = {"haiku"}  # a block that imports it is run where it is there
FENCE = re.compile(r"^```(python|bash)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?(?![\w.])")


def outputs_of(page: Path, **options: str) -> list[str | None]:
    """What each block prints, run in a process of its own as a user's script is, but for some environment variables."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    env |= {"JAX_PLATFORMS": "cpu", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"}
    env |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *filter(None, [env.get("PYTHONPATH")])]),
        "PYTHONWARNINGS": "error",
        "JAX_TRACEBACK_FILTERING": "off",
    } | options
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "examples").symlink_to(ROOT / "examples")
        command = [sys.executable, __file__, "--run", str(page), "outputs.json"]
        run = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=1200)
        assert run.returncode == 0, run.stderr
        return json.loads((Path(folder) / "outputs.json").read_text(encoding="utf-8"))


def run_blocks(page: Path) -> list[str | None]:
    """The same in this process; None of a block that wants a library which the tests do without."""
    names: dict[str, Any] = {"__name__": "__main__"}
    found: list[str | None] = []
    if "import torchvision" in page.read_text(encoding="utf-8"):
        importlib.import_module("torchvision_models")  # which helps a torchvision beside a torch of another build
    for block in FENCE.finditer(page.read_text(encoding="utf-8")):
        language, code, shown = block.groups()
        printed = io.StringIO()
        if language == "bash":
            if shown is not None:
                run = subprocess.run(["bash", "-c", code], stdout=-1, stderr=subprocess.STDOUT, text=True)
                printed.write(run.stdout)
        else:
            with contextlib.redirect_stdout(printed):
                try:
                    exec(compile(ast.parse(code), page.name, "exec"), names)
                except ModuleNotFoundError as error:
                    if error.name not in NOT_WANTED:
                        raise
                    found.append(None)
                    continue
                except Exception as error:
                    if shown is None:
                        raise
                    printed.write("".join(traceback.format_exception_only(error)))
        found.append("\n".join(line.rstrip() for line in printed.getvalue().splitlines()))
    return found


def same(got: str, shown: str) -> bool:
    """Whether both texts are the same words, with numbers that are near: 0.2 %, or 100 times where they are tiny."""

    def words(text: str) -> list[str]:
        return NUMBER.sub("#", re.sub("0x[0-9a-f]{6,}", "0x", text)).split()

    def numbers(text: str) -> list[float]:
        return [float(number.replace(",", "")) for number in NUMBER.findall(re.sub("0x[0-9a-f]{6,}", "0x", text))]

    pairs = zip(numbers(got), numbers(shown), strict=False)
    near = all(abs(a - b) <= 2e-3 * abs(b) or (abs(b) < 1e-5 and abs(a) < max(100 * abs(b), 1e-14)) for a, b in pairs)
    return words(got) == words(shown) and near


def written(page: Path) -> str:
    """The page with the text that its blocks print now."""
    outputs = iter(outputs_of(page))

    def anew(found: re.Match) -> str:
        output = next(outputs)
        if output is None:
            return found[0]
        block = f"```{found[1]}\n{found[2]}```\n"
        return block + (f"\n```text\n{output}\n```\n" if output or found[3] is not None else "")

    return FENCE.sub(anew, page.read_text(encoding="utf-8"))


@pytest.mark.slow  # each page is a process of its own that compiles anew
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_prints_what_it_shows(page):
    quick = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiling takes most of the time
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    for (_, code, shown), got in zip(blocks, outputs_of(page, JAX_DISABLE_MOST_OPTIMIZATIONS=quick), strict=True):
        assert got is None or same(got, shown), f"{code}\nprints\n{got}\nand the page shows\n{shown}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_links_exist(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_other_words_and_far_numbers_are_told():
    assert same("loss 1.2345 in 3e-16", "loss 1.2346  in 9e-17")
    assert not same("loss 1.25", "loss 1.2346")
    assert not same("error 1e-12", "error 9e-17")
    assert not same("conv1 dies", "conv2 dies")


if __name__ == "__main__":
    if sys.argv[1] == "--run":
        Path(sys.argv[3]).write_text(json.dumps(run_blocks(Path(sys.argv[2]))), encoding="utf-8")
    else:
        for name in sys.argv[2:]:
            Path(name).write_text(written(Path(name).resolve()), encoding="utf-8")

"""Run notebooks afresh, from a clean kernel of this very Python, check their answers, and say how long each took.

    python notebooks/run.py                  all of them; fails if a cell raises or an answer is wrong; changes no file
    python notebooks/run.py 03 --write       those whose name begins with 03, and store their new outputs
    python notebooks/run.py --cached         only those not yet run with this source; the docs show these runs

No kernel need be registered: the one that is started is the Python that runs this script.

An exercise is a code cell tagged `exercise`, a code cell tagged `check` which prints how it went, and a text cell
tagged `answer`. The check first runs on what the reader finds, and must say `not answered yet`. Then the code of the
answer is run in the place of the exercise, and the check must say `right`.
"""

import argparse
import base64
import hashlib
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent
COVERS = FOLDER.parent / "docs" / "images" / "notebooks"
CELL_TIMEOUT = 300  # seconds, for a machine that is very busy
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


class OwnKernel(AsyncKernelManager):
    """Starts this Python, whatever kernels the user has registered under the name python3."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """The kernel of this environment's ipykernel."""
        return KernelSpec(**get_kernel_dict(["--log-level=ERROR"]))


def cache_folder() -> Path:
    """Where the runs with this source of the library are kept: another source, another folder."""
    digest = hashlib.sha256()
    for path in sorted((FOLDER.parent / "src").rglob("*.py")):
        digest.update(path.read_bytes())
    return FOLDER.parent / "build" / "notebooks" / digest.hexdigest()[:16]


def run(path: Path, notebook: NotebookNode) -> str | None:
    """Execute one notebook, its outputs into it, and then its answers; what went wrong, or None."""
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        startup_timeout=CELL_TIMEOUT,
        kernel_name="python3",
        kernel_manager_class=OwnKernel,
        resources={"metadata": {"path": str(FOLDER)}},
        record_timing=False,
    )
    try:
        with client.setup_kernel():
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
            return next(wrong_exercises(client, notebook), None)
    except CellExecutionError as error:
        return str(error)
    except (CellTimeoutError, DeadKernelError) as error:
        return f"{type(error).__name__}: {error}"


def wrong_exercises(client: NotebookClient, notebook: NotebookNode) -> Iterator[str]:
    """Each check that does not say `not answered yet` as it stands, or `right` after the answer's code."""
    checks, answers = tagged(notebook, "check"), tagged(notebook, "answer")
    if len(checks) != len(answers):
        yield f"{len(checks)} cells are tagged check and {len(answers)} answer"
    cells = notebook.cells
    for number, (check, answer) in enumerate(zip(checks, answers, strict=False), 1):
        if not text_of(check).startswith(f"exercise {number}: not answered yet"):
            yield f"exercise {number}: unanswered, its check says {text_of(check)!r}"
        code = re.findall(r"^```python\n(.*?)^```", answer.source, re.MULTILINE | re.DOTALL)
        tried = [nbformat.v4.new_code_cell(source) for source in ("\n".join(code), check.source)]
        notebook.cells = [*cells, *tried]
        for index, cell in enumerate(tried, len(cells)):
            client.execute_cell(cell, index)
        notebook.cells = cells
        if not text_of(tried[1]).startswith(f"exercise {number}: right"):
            yield f"exercise {number}: with its answer, its check says {text_of(tried[1])!r}"


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    """The cells with a tag, in order."""
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def text_of(cell: NotebookNode) -> str:
    """What a cell printed."""
    return "".join(output.get("text", "") for output in cell.outputs)


def keep(cache: JupyterCacheAbstract, path: Path, notebook: NotebookNode) -> None:
    """Keep a run for the documentation."""
    cache.cache_notebook_bundle(CacheBundleIn(notebook, str(path)), check_validity=False, overwrite=True)


def store(path: Path, notebook: NotebookNode) -> None:
    """Write the outputs into the file, and the picture of the cell tagged `cover` beside those of the docs."""
    nbformat.validate(notebook)
    nbformat.write(notebook, path)
    for cell in tagged(notebook, "cover"):
        pictures = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
        COVERS.mkdir(parents=True, exist_ok=True)
        (COVERS / f"{path.name[:2]}.png").write_bytes(base64.b64decode(pictures[0]))


def is_kept(cache: JupyterCacheAbstract, notebook: NotebookNode) -> bool:
    """Whether these cells have been run with this source."""
    try:
        cache.match_cache_notebook(notebook)
    except KeyError:
        return False
    return True


def main() -> int:
    """Run what was asked for; the exit code is 1 if any notebook failed."""
    parser = argparse.ArgumentParser(description="Run the notebooks afresh.")
    parser.add_argument("names", nargs="*", help="beginnings of file names; all notebooks if none is given")
    parser.add_argument("--write", action="store_true", help="store the new outputs in the files")
    parser.add_argument("--cached", action="store_true", help="leave out those already run with this source")
    arguments = parser.parse_args()
    paths = sorted(FOLDER.glob("*.ipynb"))
    if arguments.names:
        unknown = [name for name in arguments.names if not any(path.name.startswith(name) for path in paths)]
        if unknown:
            parser.error(f"no notebook begins with {unknown[0]!r}; there are {', '.join(path.name for path in paths)}")
        paths = [path for path in paths if path.name.startswith(tuple(arguments.names))]
    cache, failed = get_cache(cache_folder()), []
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
        if arguments.cached and is_kept(cache, notebook):
            continue
        began = time.perf_counter()
        problem = run(path, notebook)
        print(f"{path.name:40} {time.perf_counter() - began:6.1f} s  {'FAILED' if problem else 'ok'}", flush=True)
        if problem:
            failed.append(path.name)
            print(problem, file=sys.stderr)
            continue
        keep(cache, path, notebook)
        if arguments.write:
            store(path, notebook)
    if failed:
        print(f"{len(failed)} of {len(paths)} notebooks failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

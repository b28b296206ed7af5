"""Run notebooks afresh, from a clean kernel of this very Python, and say how long each took.

    python notebooks/run.py                  all of them; fails if a cell raises; changes no file
    python notebooks/run.py 03 --write       those whose name begins with 03, and store their new outputs

No kernel need be registered: the one that is started is the Python that runs this script.
"""

import argparse
import sys
import time
from pathlib import Path

import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

FOLDER = Path(__file__).parent
CELL_TIMEOUT = 300  # seconds, for a machine that is very busy
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


class OwnKernel(AsyncKernelManager):
    """Starts this Python, whatever kernels the user has registered under the name python3."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """The kernel of this environment's ipykernel."""
        return KernelSpec(**get_kernel_dict(["--log-level=ERROR"]))


def run(path: Path, write: bool) -> str | None:
    """Execute one notebook; what went wrong, or None."""
    notebook = nbformat.read(path, as_version=4)
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
        client.execute()
    except CellExecutionError as error:
        return str(error)
    except (CellTimeoutError, DeadKernelError) as error:
        return f"{type(error).__name__}: {error}"
    if write:
        notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
        nbformat.validate(notebook)
        nbformat.write(notebook, path)
    return None


def main() -> int:
    """Run what was asked for; the exit code is 1 if any notebook failed."""
    parser = argparse.ArgumentParser(description="Run the notebooks afresh.")
    parser.add_argument("names", nargs="*", help="beginnings of file names; all notebooks if none is given")
    parser.add_argument("--write", action="store_true", help="store the new outputs in the files")
    arguments = parser.parse_args()
    paths = sorted(FOLDER.glob("*.ipynb"))
    if arguments.names:
        unknown = [name for name in arguments.names if not any(path.name.startswith(name) for path in paths)]
        if unknown:
            parser.error(f"no notebook begins with {unknown[0]!r}; there are {', '.join(path.name for path in paths)}")
        paths = [path for path in paths if path.name.startswith(tuple(arguments.names))]
    failed = []
    for path in paths:
        began = time.perf_counter()
        problem = run(path, arguments.write)
        print(f"{path.name:40} {time.perf_counter() - began:6.1f} s  {'FAILED' if problem else 'ok'}", flush=True)
        if problem:
            failed.append(path.name)
            print(problem, file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(paths)} notebooks failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""The scripts of examples/ as a user runs them: in a process of their own, without this suite's settings of JAX."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_example(name: str, *options: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run examples/name with warnings as errors; it must end well."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_"))}
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [env.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name), *options],
        env=env | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "PYTHONIOENCODING": "utf-8"},
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run

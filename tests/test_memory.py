"""Whether freed memory stays with the process: seen from outside, by what the system says the process holds."""

import subprocess
import sys

import pytest

import handgrad as hg

HELD_AFTER_FREEING = """
import sys
from pathlib import Path
import numpy as np
import handgrad as hg

if "keep" in sys.argv:
    assert hg.keep_memory()
array = np.ones(256 << 20, np.uint8)
del array
resident = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
print(int(resident.split()[1]) >> 10)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_stays_where_it_is_kept_and_goes_where_not():
    if not _in_a_process("hg.keep_memory()"):
        pytest.skip("glibc alone can be told")
    kept, given_back = _held("keep"), _held()
    assert kept - given_back > 200  # of 256 MB


@pytest.mark.parametrize("error", [OSError, TypeError])
def test_without_a_c_library_to_ask_nothing_happens(monkeypatch, error):
    def refuse(name):
        raise error("no such library")

    monkeypatch.setattr("ctypes.CDLL", refuse)
    assert hg.keep_memory() is False


def test_a_c_library_other_than_glibc_is_left_alone(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert hg.keep_memory() is False


def _held(*words: str) -> int:
    """Megabytes that the process still holds once it has freed its array."""
    return int(_run(HELD_AFTER_FREEING, *words))


def _in_a_process(expression: str) -> bool:
    """A boolean of the library, in a process of its own: keeping memory is for good."""
    return _run(f"import handgrad as hg; print({expression})") == "True"


def _run(code: str, *words: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()

"""What the README shows is what the code does."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from handgrad.ops import dense_backward

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_the_sixty_seconds_run_and_both_gradients_agree():
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKS[0]], env=env, capture_output=True, text=True, check=True
    )
    ((automatic, by_hand),) = re.findall(r"loss (\S+) and (\S+)", run.stdout)
    assert float(automatic) == pytest.approx(float(by_hand), rel=1e-5)
    assert float(run.stdout.split()[-1]) < 1e-5


def test_the_op_it_quotes_is_the_op():
    source = inspect.getsource(dense_backward)
    assert all(line in source for line in BLOCKS[1].splitlines()[1:])


def test_its_pictures_and_links_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (Path(__file__).parents[1] / target).exists(), target

"""The lecture's optimisation demo as one page: a small net learns a problem in the plane, step by step under a slider.

A frame holds the net's weights and the gradient there; the page computes the boundary from the weights. So 54 runs of
60 frames are half a megabyte, where pictures of the boundary would be ten times that.
"""

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handgrad.data import two_d_problem
from handgrad.viz.demo_runs import ACTIVATIONS, Run, checked_numbers, demo_runs
from handgrad.viz.page import as_json, fill, part_of, write

SCRIPTS = "demo_model.js", "demo_draw.js", "demo.js"


def demo_2d(
    out: str | os.PathLike[str] = "demo.html",
    problems: Sequence[str] = ("circle", "spirals", "xor"),
    *,
    hidden: Sequence[int] = (2, 3, 8),
    learning_rates: Sequence[float] = (0.1, 1, 10),
    momenta: Sequence[float] = (0, 0.9),
    activation: str = "tanh",
    steps: int = 3000,
    frames: int = 60,
    n: int = 160,
    seed: int = 0,
) -> Path:
    """Train small nets on problems in the plane, and write a page that plays their training: no network, no server.

    A net of one hidden layer of H units says o = c + Σ_j v_j f(w_j · x + b_j), and is asked for the sign of o. It
    learns by gradient descent with heavy ball on all n points, m ← β m + g, θ ← θ - η m, by hand-derived gradients g
    of the binary cross-entropy. Every combination of problem, H, η and β is trained, all from the seed; those of one
    net start alike. The page shows boundary, net, weights, gradients and loss at each frame; one chooses, drags, plays.

    Args:
        out: the file to write; its folder is made if need be.
        problems: some of "circle", "spirals" and "xor", or one of them; see `hg.data.two_d_problem`.
        hidden: numbers of hidden units H.
        learning_rates: rates η, all above 0.
        momenta: factors β, 0 <= β < 1.
        activation: f, "tanh" or "relu".
        steps: how many steps each run has, at least frames - 1.
        frames: how many of them the page shows, at least 2; close in the beginning, wide apart in the end.
        n: points of each problem, even.
        seed: of points and first weights.

    Returns:
        The path. With the defaults the file has about 0.5 MB.

    Raises:
        ValueError: an unknown problem or activation, no or wrong numbers.

    Example:
        >>> import tempfile
        >>> page = Path(tempfile.mkdtemp()) / "demo.html"
        >>> demo_2d(page, "xor", hidden=[2], learning_rates=[1.0], momenta=[0.9], frames=5, steps=50).name
        'demo.html'
    """
    problems = (problems,) if isinstance(problems, str) else tuple(problems)
    points = {problem: two_d_problem(problem, n, seed)[0] for problem in problems}
    if not points:
        raise ValueError("demo_2d: problems must name at least one, got none")
    sizes = _checked_sizes(hidden)
    rates, betas = checked_numbers("learning_rates", learning_rates), checked_numbers("momenta", momenta, below=1)
    _check(activation, rates, steps, frames)
    runs = {
        (problem, size): demo_runs(
            problem, size, rates, betas, activation=activation, steps=steps, frames=frames, n=n, seed=seed
        )
        for problem in problems
        for size in sizes
    }
    at = next(iter(runs.values()))[0].steps.tolist()
    data = {
        "activation": activation,
        "n": n,
        "steps": at,
        "problems": {name: _text(x, "<f4") for name, x in points.items()},
        "first": _first(problems, sizes, rates, betas),
        "runs": [_record(problem, run) for (problem, _), found in runs.items() for run in found],
    }
    page = fill(
        "demo.html",
        style=part_of("page.css") + part_of("demo.css"),
        script='"use strict";\n' + "\n".join(map(part_of, SCRIPTS)),
        activation=activation,
        n=str(n),
        made=f"Made by handgrad: {len(data['runs'])} runs of {steps:,} steps, seed {seed}.",
        data=as_json(data),
    )
    return write(out, page)


def _record(problem: str, run: Run) -> dict[str, Any]:
    """A run for the page. Gradients are for bars, half precision shows them well enough."""
    limit = float(np.finfo(np.float16).max)
    return {
        "problem": problem,
        "hidden": run.hidden,
        "rate": run.learning_rate,
        "momentum": run.momentum,
        "params": _text(run.params, "<f4"),
        "grads": _text(np.clip(run.grads, -limit, limit), "<f2"),
        "loss": _text(run.loss, "<f4"),
    }


def _text(array: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode()


def _first(problems: Sequence[str], hidden: Sequence[int], rates: Sequence[float], betas: Sequence[float]) -> dict:
    """What the page opens with: the middle of the choices, with the most momentum."""
    middle = hidden[len(hidden) // 2], rates[len(rates) // 2]
    return dict(zip(("problem", "hidden", "rate", "momentum"), (problems[0], *middle, betas[-1]), strict=True))


def _checked_sizes(hidden: Any) -> tuple[int, ...]:
    sizes = (hidden,) if isinstance(hidden, int) else tuple(hidden)
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"demo_2d: hidden must be whole numbers from 1 on, got {size!r}")
    if not sizes:
        raise ValueError("demo_2d: hidden must name at least one, got none")
    return sizes


def _check(activation: str, rates: Sequence[float], steps: int, frames: int) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"demo_2d: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if 0 in rates:
        raise ValueError("demo_2d: learning_rates must be above 0, got 0")
    if not isinstance(frames, int) or frames < 2:
        raise ValueError(f"demo_2d: frames must be at least 2, got {frames!r}")
    if not isinstance(steps, int) or steps < frames - 1:
        raise ValueError(f"demo_2d: steps must be at least frames - 1, here {frames - 1}, got {steps!r}")

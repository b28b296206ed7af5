"""What a run was, beside its numbers: `run.json` with facts by name, and `test.npz` with what the net said of the test.

`fit` writes the facts that it knows; whoever knows more (the data's name, the gradient check, the test) adds it. All of
it is for readers, as the report is one; nothing of it is needed to resume.
"""

import contextlib
import datetime
import importlib.metadata
import json
import math
import os
import platform
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from handgrad.training import checkpoint, npz
from handgrad.training.run_folder import History, read_history

FACTS, TEST = "run.json", "test.npz"
KEPT_IMAGES = 64  # of the wrong ones


class Answers(NamedTuple):
    """What the net said of n test examples.

    Attributes:
        y: the true classes, ints (n,).
        logits: (n, K).
        wrong: which examples are wrong and kept as images, ints (m,), m <= 64, in order.
        images: those, (m, H, W, C).
    """

    y: np.ndarray
    logits: np.ndarray
    wrong: np.ndarray
    images: np.ndarray


class RunRecord(NamedTuple):
    """All that a run's folder holds; what is not there is empty or None.

    Attributes:
        folder: where.
        facts: of run.json.
        history: of metrics.jsonl, as `fit` returns it.
        params: of the newest checkpoint.
        test: of test.npz.
    """

    folder: Path
    facts: dict[str, Any]
    history: History
    params: Any
    test: Answers | None


def note_run(run_dir: str | os.PathLike[str], **facts: Any) -> None:
    """Add facts to a run's run.json, over older ones of the same names.

    Args:
        run_dir: the run's folder; it is made if need be.
        facts: anything JSON can hold, or an object with a `record()` that it can, such as a gradient check's Report or
            a Summary. The report knows `command`, `data`, `classes`, `optimizer`, `check` and `layers`, beside what
            `fit` notes; it lists all others by name.

    Raises:
        TypeError: what JSON cannot hold.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> note_run(folder, data="digits")
        >>> note_run(folder, classes=list("0123456789"))
        >>> sorted(read_run(folder).facts)
        ['classes', 'data']
    """
    path = Path(run_dir) / FACTS
    text = json.dumps(read_facts(run_dir) | {name: _plain(value) for name, value in facts.items()}, indent=1)
    with npz.replacing(path) as file:
        file.write(text.encode() + b"\n")


def note_test(run_dir: str | os.PathLike[str], x: Any, y: Any, logits: Any) -> None:
    """Keep what a net said of its test images in the run's test.npz: all answers, and the first wrong images.

    Args:
        run_dir: the run's folder.
        x: images (n, H, W, C).
        y: their classes, ints (n,).
        logits: what the net said, (n, K).

    Raises:
        ValueError: other shapes.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> note_test(folder, np.zeros((3, 8, 8, 1)), [0, 1, 1], [[2.0, 1.0], [0.0, 3.0], [5.0, 4.0]])
        >>> test = read_run(folder).test
        >>> test.wrong.tolist(), test.images.shape
        ([2], (1, 8, 8, 1))
    """
    x, y, logits = np.asarray(x), np.asarray(y), np.asarray(logits, np.float32)
    if x.ndim != 4 or y.ndim != 1 or logits.ndim != 2 or not len(x) == len(y) == len(logits):
        raise ValueError(
            f"note_test: wants x (n, H, W, C), y (n,) and logits (n, K), got {x.shape}, {y.shape} and {logits.shape}"
        )
    wrong = np.flatnonzero(logits.argmax(1) != y)[:KEPT_IMAGES]
    test = Answers(y.astype(np.int32), logits, wrong.astype(np.int32), x[wrong].astype(np.float32))
    npz.write(Path(run_dir) / TEST, test._asdict())


def read_run(run_dir: str | os.PathLike[str]) -> RunRecord:
    """Read all that a run's folder holds.

    Args:
        run_dir: the run's folder, as `fit` wrote it.

    Returns:
        A record of `folder`, `facts`, `history`, `params` and `test`; what the folder does not have is empty or None.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a file of it that cannot be read.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> note_run(folder, data="digits", learning_rate=0.1)
        >>> run = read_run(folder)
        >>> run.facts, run.history, run.test
        ({'data': 'digits', 'learning_rate': 0.1}, {}, None)
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"report: {folder} is no folder; give the run_dir of hg.fit or of handgrad train")
    history = read_history(folder) if (folder / "metrics.jsonl").exists() else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an older checkpoint does as well
        newest = checkpoint.latest(folder / "checkpoints")
    params = None if newest is None else getattr(checkpoint.load(newest), "params", None)
    return RunRecord(folder, read_facts(folder), history, params, _test(folder / TEST))


def read_facts(run_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """The facts of a run's run.json alone; none where there is no such file.

    Raises:
        ValueError: a damaged file.
    """
    path = Path(run_dir) / FACTS
    if not path.exists():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must hold JSON, but it is damaged ({error}); remove it or use another copy") from None
    if not isinstance(facts, dict):
        raise ValueError(f"{path} must hold facts by name, got {type(facts).__name__}")
    return facts


def circumstances() -> dict[str, str]:
    """When and with what: the minute, the versions, the device.

    Example:
        >>> sorted(circumstances())[:3]
        ['date', 'device', 'handgrad']
    """
    device = jax.devices()[0]
    name = device.device_kind if device.device_kind != device.platform else ""
    version = "from its source"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("handgrad")
    return {
        "date": datetime.datetime.now().isoformat(" ", "minutes"),
        "device": " ".join(filter(None, (device.platform, name))),
        "handgrad": version,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def training_facts(step: Any, params: Any, x: np.ndarray, **settings: Any) -> dict[str, Any]:
    """What `fit` knows of a run: net, loss, sizes, settings and circumstances."""
    objective = getattr(step, "objective", None)
    of_objective = {}
    if objective is not None:
        of_objective = {"net": str(objective.net), "loss": str(objective.loss), "l2": float(objective.l2)}
    parameters = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))
    sizes = {"parameters": parameters, "examples": len(x), "in_shape": x.shape[1:]}
    return circumstances() | of_objective | sizes | settings


def _plain(value: Any) -> Any:
    """A value as strict JSON has it; numbers that are not finite are null."""
    if hasattr(value, "record"):
        value = value.record()
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _test(path: Path) -> Answers | None:
    if not path.exists():
        return None
    with open(path, "rb") as file, npz.blaming(path, "the test"), np.load(file, allow_pickle=False) as archive:
        return Answers(**{name: archive[name] for name in Answers._fields})

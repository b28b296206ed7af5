"""Where a run goes, and what there is to say of it in the end."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from handgrad import viz
from handgrad.insight import ledger, summary
from handgrad.layers.layer import Layer
from handgrad.metrics import accuracy, confusion_matrix
from handgrad.training import TrainState, checkpoint, distributed, note_run, note_test, predict


def holds_run(folder: str | os.PathLike[str]) -> bool:
    """Whether `fit` has written to the folder."""
    return (Path(folder) / "metrics.jsonl").exists() or any(Path(folder).glob("checkpoints/*.npz"))


def fresh_run_dir(folder: str | os.PathLike[str]) -> Path:
    """The folder if it holds no run yet, else the first of folder-2, folder-3, ... that holds none.

    Args:
        folder: where a run should go.

    Example:
        >>> import tempfile
        >>> first = fresh_run_dir(Path(tempfile.mkdtemp()) / "digits")
        >>> first.mkdir()
        >>> (first / "metrics.jsonl").touch()
        >>> first.name, fresh_run_dir(first).name
        ('digits', 'digits-2')
    """
    folder = fresh = Path(folder)
    number = 1
    while holds_run(fresh):
        number += 1
        fresh = folder.with_name(f"{folder.name}-{number}")
    return fresh


def print_results(
    net: Layer,
    train_state: TrainState,
    x: Any,
    y: Any,
    classes: Sequence[str],
    run_dir: str | os.PathLike[str],
    *,
    figures: bool = True,
) -> float:
    r"""Test a net, draw its run, and print confusion matrix, where all is, and last the line `test accuracy 98.9 %`.

    What the net says of the test goes to the run's folder too, with tables of its layers, for `handgrad report`.

    Args:
        net: what was trained.
        train_state: what training gave.
        x: test images (n, H, W, C), as the net wants them.
        y: their classes, ints (n,).
        classes: the classes' names.
        run_dir: the run's folder, as `fit` wrote it.
        figures: whether to draw; without matplotlib a line says how to get it.

    Returns:
        The test accuracy, from 0 to 1.

    Example:
        >>> import tempfile, jax, handgrad as hg
        >>> net, x = hg.Chain(hg.Flatten(), hg.Dense(2)), np.eye(2, dtype="float32").reshape(2, 2, 1, 1)
        >>> train_state = hg.init_train_state(net, hg.sgd(0.1), jax.random.key(0), (2, 1, 1))
        >>> params = {"dense1": {"kernel": jnp.eye(2, dtype="float32"), "bias": jnp.zeros(2, "float32")}}
        >>> folder, classes = tempfile.mkdtemp(), ["cat", "dog"]
        >>> _ = print_results(net, train_state._replace(params=params), x, [0, 1], classes, folder, figures=False)
        true \ predicted  cat  dog    right
        cat                 1    ·  100.0 %
        dog                 ·    1  100.0 %
        <BLANKLINE>
        checkpoint  None
        metrics     .../metrics.jsonl
        report      handgrad report ...: all of it on one page
        test accuracy 100.0 %
    """
    run_dir, logits = Path(run_dir), predict(net, train_state.params, train_state.state, x)
    right = float(accuracy(jnp.asarray(logits), y))
    params = distributed.on_host(train_state.params)
    if not distributed.is_main():
        return right
    note_test(run_dir, x, y, logits)
    layers, kept = summary(net, x.shape[1:]), ledger(net, x.shape[1:], temporary=False)
    note_run(run_dir, classes=list(classes), layers=layers, ledger=kept)
    counts = np.asarray(confusion_matrix(jnp.asarray(logits), y, len(classes)))
    print(f"{viz.confusion_text(counts, classes)}\n")
    print(f"checkpoint  {checkpoint.latest(run_dir / 'checkpoints')}")
    print(f"metrics     {run_dir / 'metrics.jsonl'}")
    if figures:
        try:
            paths = viz.draw_run(run_dir, params, x, y, logits, classes, net)
            print(f"figures     {run_dir / 'figures'}: {', '.join(path.name for path in paths)}")
        except ImportError as error:
            print(f"figures     none; {error}")
    print(f"report      handgrad report {run_dir}: all of it on one page")
    print(f"test accuracy {100 * right:.1f} %")
    return right

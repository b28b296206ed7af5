"""All the figures of a run, in its folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from handgrad.layers.layer import Layer
from handgrad.metrics import confusion_matrix
from handgrad.viz.canvas import save
from handgrad.viz.confusion import confusion
from handgrad.viz.kernels import kernels
from handgrad.viz.learning import learning_curve
from handgrad.viz.net import net as diagram
from handgrad.viz.wrong import wrong


def draw_run(
    run_dir: str | os.PathLike[str],
    params: Any,
    x: Any,
    y: Any,
    logits: Any,
    classes: Sequence[str],
    net: Layer | None = None,
) -> list[Path]:
    """Draw a run that `fit` has written: learning curve, kernels, wrong images, confusion matrix, and the net.

    Args:
        run_dir: the run's folder, with its metrics.jsonl; figures go to its subfolder `figures`.
        params: what was trained.
        x: test images (n, H, W, 1 or 3).
        y: their classes, ints (n,).
        logits: what the net says of them, (n, K).
        classes: the K names.
        net: what was trained, for its diagram; None draws none.

    Returns:
        The paths of the PNG files, of the diagram an SVG; without convolutions in the net there are no kernels.

    Raises:
        ImportError: without matplotlib.
        OSError: no metrics.jsonl in run_dir.
        ValueError: shapes that do not fit.

    Example:
        >>> import json, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> epoch = {"epoch": 1, "step": 1, "train_loss": 0.7, "train_accuracy": 0.5}
        >>> _ = (folder / "metrics.jsonl").write_text(json.dumps(epoch))
        >>> x, y, logits = np.zeros((2, 4, 4, 1)), [0, 1], [[1.0, 0.0], [1.0, 0.0]]
        >>> [path.name for path in draw_run(folder, {}, x, y, logits, ["cat", "dog"])]
        ['learning_curve.png', 'wrong.png', 'confusion.png']
    """
    run_dir, y, predictions = Path(run_dir), np.asarray(y), np.asarray(logits).argmax(1)
    curve = learning_curve(run_dir / "metrics.jsonl")
    epochs = curve.get_title().partition(" after ")[2]
    curve.set_title(f"test accuracy {100 * np.mean(predictions == y):.1f} % after {epochs}")
    figures = {"learning_curve": curve}
    if any(np.ndim(leaf) == 4 for leaf in jax.tree.leaves(params)):
        figures["kernels"] = kernels(params)
    figures["wrong"] = wrong(x, y, predictions, classes)
    figures["confusion"] = confusion(confusion_matrix(predictions, y, len(classes)), classes)
    paths = [save(ax, run_dir / "figures" / f"{name}.png") for name, ax in figures.items()]
    if net is not None:
        paths.append(save(diagram(net, np.shape(x)[1:]), run_dir / "figures" / "net.svg"))
    return paths

"""A small run with all that a step depends on, as the killed processes of test_survival.py go through it."""

import sys
from pathlib import Path

import jax
import numpy as np

import handgrad as hg

FLAGS = ("jax_enable_x64", "jax_disable_most_optimizations")
NET = hg.Chain(hg.Flatten(), hg.Dense(8), hg.BatchNorm(), hg.Relu(), hg.Dropout(0.2), hg.Dense(3))
OPTIMIZER = hg.momentum(0.05)
STEP = hg.make_train_step(hg.Objective(NET, hg.SoftmaxCrossEntropy(), l2=1e-3), OPTIMIZER)


def run(folder, epochs, background=False):
    """Start, or resume where there is something to resume."""
    x = np.random.default_rng(0).normal(size=(26, 4, 4, 1)).astype("float32")
    y = (x.sum((1, 2, 3)) > 0).astype(int) + (x[:, 0, 0, 0] > 1)
    start = hg.init_train_state(NET, OPTIMIZER, jax.random.key(0), x.shape[1:])
    validation, augment = (x[20:], y[20:]), hg.data.augment.flip()
    return hg.fit(
        start, STEP, x[:20], y[:20], batch_size=6, epochs=epochs, seed=3, validation=validation, augment=augment,
        run_dir=folder, resume=Path(folder).exists(), progress=False, background=background,
    )  # fmt: skip


if __name__ == "__main__":
    folder, epochs, background, *flags = sys.argv[1:]
    for name, value in zip(FLAGS, flags, strict=True):
        jax.config.update(name, value == "True")
    run(folder, int(epochs), background == "background")

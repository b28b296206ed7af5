"""One of two processes of a run, two CPU devices each: python one_of_two.py ADDRESS ID RUN_DIR MODE [STEP].

Modes: whole trains; disagree comes with another seed in process 1 first; kill and term send process 1 that signal
before the given step; nan has a NaN in an example.
"""

import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np

import handgrad as hg
from handgrad.training import checkpoint, distributed

PATIENCE = 6.0


def settings():
    """The run, alone or in two processes: net, step, start and data."""
    net = hg.Chain(
        hg.Conv(4, 3), hg.BatchNorm(), hg.Relu(), hg.MaxPool(2), hg.Flatten(), hg.Dropout(0.5), hg.Dense(3)
    )  # fmt: skip
    step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy(), l2=0.1), hg.momentum(0.1))
    start = hg.init_train_state(net, step.optimizer, jax.random.key(0), (6, 6, 2))
    x = np.random.default_rng(0).normal(size=(40, 6, 6, 2)).astype("float32")
    return step, start, x, (np.arange(40) % 3).astype("int32")


def trained(step, start, x, y, **kwargs):
    """20 steps: 4 epochs of 5."""
    options = {"batch_size": 8, "epochs": 4, "validation": (x[:10], y[:10]), "trace_every": 7, "progress": False}
    return hg.fit(start, step, x, y, **(options | kwargs))


def main(address, number, run_dir, mode, at="0"):
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    number, at, run_dir = int(number), int(at), Path(run_dir)
    distributed.initialize(address, 2, number, patience=PATIENCE)
    step, start, x, y = settings()
    x[33, 0, 0, 0] = np.nan if mode == "nan" else x[33, 0, 0, 0]
    if mode == "disagree":
        try:
            trained(distributed.data_parallel(step, jax.make_mesh((4,), ("data",))), start, x, y, seed=number)
        except ValueError as error:
            print(error)
    parallel = distributed.data_parallel(step, jax.make_mesh((4,), ("data",)))
    calls = iter(range(10**6))

    def augment(key, x, y):
        if mode in ("kill", "term") and number == 1 and next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL if mode == "kill" else signal.SIGTERM)
        if mode == "term":
            time.sleep(0.05)  # the word of the signal reaches the other process while there are steps left
        return x, y

    folder = run_dir if number == 0 else run_dir / "not_written_by_process_1"
    end, history = trained(parallel, start, x, y, run_dir=folder, resume=mode != "disagree", augment=augment)
    checkpoint.save(run_dir / f"end_{number}.npz", distributed.on_host(end))
    print(history["loss"])


if __name__ == "__main__":
    main(*sys.argv[1:])

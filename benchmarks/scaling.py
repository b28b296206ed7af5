"""What a batch in parts saves in memory, and what a step over two pretend devices costs on the cores of one."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import handgrad as hg
from benchmarks import bounds
from handgrad.benchmark.table import Line, Table, bounded, compared, line_of
from handgrad.compile import temporary_bytes
from handgrad.timing import interleaved
from handgrad.training import distributed

PARTS = 8
WHOLE, IN_PARTS = "the batch at once", f"hg.gradient_accumulation({PARTS})"
ONE, TWO = "one device", "two pretend devices"
NETS = {"LeNet-like": hg.models.lenet, "fashion_cnn": hg.models.fashion_cnn}
SHAPE = (28, 28, 1)


def run(quick: bool, say: Callable[[str], None]) -> list[Table]:
    """A table of memory and one of times."""
    size = 64 if quick else 512
    memory = []
    for name, make in NETS.items():
        say(f"{name}: memory")
        found = {WHOLE: temporary(make(), size, hg.value_and_grad)}
        found[IN_PARTS] = temporary(make(), size, hg.gradient_accumulation(PARTS))
        lines = [Line(f"{name}, batch {size}", contender, megabytes) for contender, megabytes in found.items()]
        memory += bounded(compared(lines, IN_PARTS), {WHOLE: bounds.ACCUMULATION})
    say("devices")
    return [
        Table(
            "accumulation",
            f"Peak temporary memory of a step whose batch is taken in {PARTS} parts",
            "MB",
            tuple(memory),
        ),
        Table("devices", "A step over two pretend devices on the cores of one", "ms", tuple(over_devices(quick))),
    ]


def temporary(net: hg.Layer, batch: int, value_and_grad: Callable) -> float:
    """The megabytes that XLA reports for the compiled step."""
    optimizer = hg.momentum(0.01)
    step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), optimizer, value_and_grad)
    train_state = jax.eval_shape(lambda: hg.init_train_state(net, optimizer, jax.random.key(0), SHAPE))
    batch_of: Any = jax.ShapeDtypeStruct((batch, *SHAPE), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32)
    return temporary_bytes(step.lower(train_state, *batch_of).compile()) / 1e6


def over_devices(quick: bool) -> list[Line]:
    """Times of a process of its own, whose CPU counts as two devices."""
    command = [sys.executable, "-m", "benchmarks.scaling", *(["quick"] if quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    if done.returncode:
        raise ValueError(f"the step over two devices failed: {done.stderr.strip()[-300:]}")
    return compared([Line(**line) for line in json.loads(done.stdout.splitlines()[-1])], TWO)


def child(quick: bool) -> None:
    """Time the step on one of two devices and over both, and print the lines."""
    jax.config.update("jax_num_cpu_devices", 2)
    batch = 16 if quick else 128
    net, optimizer = hg.models.lenet(), hg.momentum(0.01)
    step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), optimizer, donate=False)
    train_state = hg.init_train_state(net, optimizer, jax.random.key(0), SHAPE)
    x = np.random.default_rng(0).normal(size=(batch, *SHAPE)).astype(np.float32)
    y = (np.arange(batch) % 10).astype(np.int32)
    parallel = distributed.data_parallel(step, jax.make_mesh((2,), ("data",), devices=jax.devices("cpu")))
    placed = parallel.place_state(train_state), *parallel.place_batch(x, y)
    alone = train_state, jnp.asarray(x), jnp.asarray(y)
    runs = {ONE: lambda: jax.block_until_ready(step(*alone)), TWO: lambda: jax.block_until_ready(parallel(*placed))}
    times = interleaved(runs, seconds=0.5 if quick else 20.0, at_least=3)
    lines = [line_of(f"LeNet-like, batch {batch}", name, timing) for name, timing in times.items()]
    print(
        json.dumps(
            [{name: getattr(line, name) for name in ("case", "contender", "value", "low", "high")} for line in lines]
        )
    )


if __name__ == "__main__":
    child("quick" in sys.argv)

"""The hand-written training step beside jax.grad's, on the same net, data and optimizer, in one interleaved run.

    python benchmarks/step.py [--batch-size 128] [--repeats 20] [--json FILE]

The net is the LeNet-like one of the README without dropout. Contenders: our step; the same step with
`jax.value_and_grad`; and that with max pools written as a reshape and a max, which JAX differentiates much faster than
`reduce_window`. Each is timed with the library's CPU options and with XLA's defaults. All losses must agree before
anything is timed; each timed step follows an untimed one of the same contender.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import handgrad as hg

KEY = jax.random.key(0)


def pool_by_reshape(x: jax.Array) -> jax.Array:
    """A 2x2 max pool that is a reshape and a max; its derivative shares the gradient among ties."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def contenders() -> dict[str, tuple[hg.TrainState, Any]]:
    """Train state and step by name."""
    net = hg.models.lenet(dropout=0)
    reshaped = hg.map_layers(lambda layer: hg.Lambda(pool_by_reshape) if isinstance(layer, hg.MaxPool) else layer, net)
    made = {}
    for name, this_net, value_and_grad in [
        ("by hand", net, hg.value_and_grad),
        ("jax.grad", net, jax.value_and_grad),
        ("jax.grad, pools by reshape", reshaped, jax.value_and_grad),
    ]:
        optimizer = hg.momentum(0.05)
        step = hg.make_train_step(hg.Objective(this_net, hg.SoftmaxCrossEntropy()), optimizer, value_and_grad)
        plain = jax.jit(lambda *args, step=step: step(*args), donate_argnums=0)  # inside a jit ours adds no options
        for options, run in (("our CPU options", step), ("XLA's defaults", plain)):
            made[f"{name}, {options}"] = (hg.init_train_state(this_net, optimizer, KEY, (28, 28, 1)), run)
    return made


def measure(batch_size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds a step, temporary memory and compile time of each contender."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(batch_size, 28, 28, 1)), jnp.float32)
    y = jnp.asarray(random.integers(0, 10, batch_size))
    running, results, losses = {}, {}, {}
    for name, (state, step) in contenders().items():
        start = time.perf_counter()
        compiled = step.lower(state, x, y).compile()
        seconds = time.perf_counter() - start
        results[name] = {"compile_s": seconds, "temporary_MB": compiled.memory_analysis().temp_size_in_bytes / 1e6}
        losses[name] = []
        for _ in range(4):
            state, metrics = step(state, x, y)
            losses[name].append(float(metrics.loss))
        running[name] = (state, step)
    first = next(iter(losses.values()))
    for name, curve in losses.items():
        np.testing.assert_allclose(curve, first, rtol=1e-4, err_msg=f"{name} does not compute the same losses")
    times = {name: [] for name in running}
    for _ in range(repeats):
        for name, (state, step) in running.items():
            state, _ = jax.block_until_ready(step(state, x, y))
            start = time.perf_counter()
            running[name] = (jax.block_until_ready(step(state, x, y))[0], step)
            times[name].append(1e3 * (time.perf_counter() - start))
    for name, values in times.items():
        low, _, high = statistics.quantiles(values, n=4)
        results[name] |= {"step_ms": statistics.median(values), "low_ms": low, "high_ms": high}
    return results


def main() -> None:
    """Print the table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description="The hand-written training step beside jax.grad's.")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {jax.devices()[0].device_kind}, jax {jax.__version__}"
    print(f"LeNet-like step, batch {arguments.batch_size}, float32; {machine}")
    results = measure(arguments.batch_size, arguments.repeats)
    print(f"{'':46} {'ms a step':>9} {'quartiles':>13} {'by hand is':>11} {'temporary MB':>13} {'compile s':>10}")
    for name, r in results.items():
        ours = results[f"by hand, {name.rsplit(', ', 1)[1]}"]["step_ms"]
        quartiles = f"{r['low_ms']:.1f}-{r['high_ms']:.1f}"
        faster = f"{r['step_ms'] / ours:.2f} x"
        print(
            f"{name:46} {r['step_ms']:9.1f} {quartiles:>13} {faster:>11} "
            f"{r['temporary_MB']:13.1f} {r['compile_s']:10.2f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()

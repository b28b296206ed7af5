"""K-FAC beside momentum: fewer steps for the same loss, each of them dearer.

One sees the training loss of a dense net on the digits by step and by time, each at a rate that suits it: momentum,
K-FAC that looks at the curvature in every step (K-FAC/1), and one that looks every ten steps (K-FAC/10).
"""

import argparse
import time

import jax
import numpy as np
from matplotlib.figure import Figure

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw K-FAC beside momentum.")
parser.add_argument("--out", default="runs/kfac.png", help="the picture (%(default)s)")
digits = hg.data.load_digits()
x, y = hg.data.normalise(digits.train_x), digits.train_y
net = hg.Chain(hg.Flatten(), hg.Dense(64), hg.Tanh(), hg.Dense(32), hg.Tanh(), hg.Dense(10))
objective, ways = hg.Objective(net, hg.SoftmaxCrossEntropy()), {"momentum": hg.momentum(0.2)}
for n in (1, 10):
    ways[f"K-FAC/{n}"] = hg.optimizers.chain(hg.kfac(objective, every=n), hg.momentum(0.02))
losses, times = {}, {}
for name, optimizer in ways.items():
    step, took = hg.make_train_step(objective, optimizer), []
    for _ in range(5):  # one run five times over: of each step's times the least, for the first also compiles
        state = hg.init_train_state(net, optimizer, jax.random.key(0), x.shape[1:])
        losses[name], clock = [], [time.perf_counter()]
        for batch in (b for epoch in range(5) for b in hg.data.batches(x, y, 128, seed=0, epoch=epoch)):
            state, metrics = step(state, *batch)
            losses[name].append(float(metrics.loss))
            clock.append(time.perf_counter())
        took.append(np.diff(clock))
    times[name] = 1e3 * np.cumsum(np.min(took, 0))
    print(f"{name:8} loss {losses[name][-1]:.4f} after {len(losses[name])} steps, {times[name][-1]:.0f} ms")
by_step, by_time = Figure(figsize=(6.4, 6.4), dpi=80, layout="constrained").subplots(2)
hg.viz.compare_losses(losses, by_step)
hg.viz.compare_losses(losses, by_time, times=times)
print("drawn to", hg.viz.save(by_step, parser.parse_args().out))

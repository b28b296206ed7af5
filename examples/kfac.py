"""K-FAC beside momentum: fewer steps for the same loss, each of them dearer.

One sees the training loss by step, and by time, of a dense net on the digits, each method at a rate that suits it.
"""

import argparse
import time

import jax
from matplotlib.figure import Figure

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw K-FAC beside momentum.")
parser.add_argument("--out", default="runs/kfac.png", help="the picture (%(default)s)")
digits = hg.data.load_digits()
x, y = hg.data.normalise(digits.train_x), digits.train_y
net = hg.Chain(hg.Flatten(), hg.Dense(64), hg.Tanh(), hg.Dense(32), hg.Tanh(), hg.Dense(10))
objective = hg.Objective(net, hg.SoftmaxCrossEntropy())
left, right = Figure(figsize=(8, 3.2), dpi=110, layout="constrained").subplots(1, 2, sharey=True)
ways = {
    "momentum 0.1": (hg.momentum(0.1), hg.value_and_grad),
    "K-FAC": (hg.optimizers.chain(hg.kfac(net, damping=0.01), hg.momentum(0.02)), hg.kfac_value_and_grad(1)),
}
for name, (optimizer, gradient) in ways.items():
    step = hg.make_train_step(objective, optimizer, value_and_grad=gradient)
    for epochs in (1, 5):  # the first time to compile
        state, losses, times = hg.init_train_state(net, optimizer, jax.random.key(0), x.shape[1:]), [], []
        start = time.perf_counter()
        for batch in (b for epoch in range(epochs) for b in hg.data.batches(x, y, 128, seed=0, epoch=epoch)):
            state, metrics = step(state, *batch)
            losses, times = [*losses, float(metrics.loss)], [*times, 1e3 * (time.perf_counter() - start)]
    left.plot(losses, label=name)
    right.plot(times, losses, label=name)
    print(f"{name}: loss {losses[-1]:.4f} after {len(losses)} steps, {times[-1] / len(losses):.1f} ms each")
left.set(xlabel="step", ylabel="training loss (nats)", yscale="log", title="By step")
right.set(xlabel="time (ms)", title="By time")
left.legend(frameon=False)
print("drawn to", hg.viz.save(left, parser.parse_args().out))

"""The lecture's trainer without derivatives: how many of its signs are right, what it costs, and how it learns."""

import argparse
import functools

import jax
from matplotlib.figure import Figure

import handgrad as hg

parser = argparse.ArgumentParser(description="Wiggle the weights of a small net.")
parser.add_argument("--out", default="runs/wiggle.png", help="the picture (%(default)s)")
options = parser.parse_args()

digits = hg.data.load_digits()
x, y = hg.data.normalise(digits.train_x[:256]).reshape(-1, 64), digits.train_y[:256]
net, optimizer = hg.Chain(hg.Dense(16), hg.Tanh(), hg.Dense(10)), hg.sgd(0.01)
objective = hg.Objective(net, hg.SoftmaxCrossEntropy())
start = hg.init_train_state(net, optimizer, jax.random.key(0), (64,))

signs = hg.wiggle_signs(objective)(start.params, x, y)
print(signs)
cost = hg.wiggle_cost()
print(cost)

for name, eps in (("1e-3, all at once", 1e-3), ("1e-6, all at once", 1e-6)):
    step = hg.make_train_step(objective, optimizer, functools.partial(hg.wiggle, eps=eps), donate=False)
    train_state = start
    for _ in range(40):
        train_state, metrics = step(train_state, x, y)
    print(f"eps {name}: loss {metrics.loss:.3f}, accuracy {100 * metrics.accuracy:.1f} % after 40 sweeps")

figure = Figure(figsize=(6.4, 6.6), layout="constrained")
axes = figure.subplots(2)
hg.viz.wiggle_signs(signs, axes[0])
hg.viz.wiggle_cost(cost, axes[1])
print("drawn to", hg.viz.save(figure, options.out))

"""Gradient descent at the edge of stability: the sharpness rises until the learning rate only just bears it.

Full-batch descent on digits. With the rate r, directions whose curvature is above 2/r grow; training pushes the largest
eigenvalue of the Hessian up to about that, and it stays. One sees it by step for two rates, beside 2/r.
"""

import argparse

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw the sharpness of a net while it learns.")
parser.add_argument("--out", default="runs/curvature.png", help="the picture (%(default)s)")
digits = hg.data.load_digits()
x, y = hg.data.normalise(digits.train_x)[:300], jnp.eye(10, dtype="float32")[digits.train_y[:300]]
net = hg.Chain(hg.Flatten(), hg.Dense(64), hg.Tanh(), hg.Dense(64), hg.Tanh(), hg.Dense(10))
objective = hg.Objective(net, hg.MeanSquaredError())
look = hg.jit(hg.sharpness(objective, iterations=20))
ax = Figure(figsize=(6, 3.4), dpi=110, layout="constrained").add_subplot()
for rate, colour in ((0.4, hg.viz.BLUE), (0.8, hg.viz.ORANGE)):
    step, found = hg.make_train_step(objective, hg.sgd(rate)), []
    state = hg.init_train_state(net, step.optimizer, jax.random.key(0), x.shape[1:])
    state = state._replace(params=jax.tree.map(lambda p: 0.4 * p, state.params))  # small weights: a flat start
    for t in range(2001):
        if t % 50 == 0:
            found.append(float(look(state.params, x, y).largest))
        state, _ = step(state, x, y)
    ax.plot(range(0, 2001, 50), found, color=colour, label=f"rate {rate}")
    ax.axhline(2 / rate, color=colour, linestyle=":", label=f"2 / {rate}")
    low, high = min(found[-10:]), max(found[-10:])
    print(f"rate {rate}: 2/r is {2 / rate}; sharpness {found[0]:.2f} at first, {low:.2f} to {high:.2f} in the end")
ax.set(xlabel="step", ylabel="largest eigenvalue of the Hessian", title="The sharpness rises to 2 / rate and stays")
ax.legend(frameon=False, fontsize=9)
print("drawn to", hg.viz.save(ax, parser.parse_args().out))

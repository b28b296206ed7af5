"""Gradient descent at the edge of stability: the sharpness rises until the learning rate only just bears it.

Full-batch descent on digits. With the rate r, directions whose curvature is above 2/r grow; training pushes the largest
eigenvalue of the Hessian up to about that, and it stays. One sees it by step for two rates, beside 2/r.
"""

import argparse

import jax
import jax.numpy as jnp

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw the sharpness of a net while it learns.")
parser.add_argument("--out", default="runs/curvature.png", help="the picture (%(default)s)")
options = parser.parse_args()

digits = hg.data.load_digits()
x, y = jnp.asarray(hg.data.normalise(digits.train_x)[:300]), jnp.eye(10, dtype="float32")[digits.train_y[:300]]
net = hg.Chain(hg.Flatten(), hg.Dense(64), hg.Tanh(), hg.Dense(64), hg.Tanh(), hg.Dense(10))
objective = hg.Objective(net, hg.MeanSquaredError())
look, steps, runs = hg.jit(hg.sharpness(objective, iterations=20)), range(0, 2001, 50), {}
for rate in (0.4, 0.8):
    step, found = hg.make_train_step(objective, hg.sgd(rate)), []
    state = hg.init_train_state(net, step.optimizer, jax.random.key(0), x.shape[1:])
    state = state._replace(params=jax.tree.map(lambda p: 0.4 * p, state.params))  # small weights: a flat start
    for t in range(steps[-1] + 1):
        if t in steps:
            found.append(look(state.params, x, y))
        state, _ = step(state, x, y)
    runs[rate] = steps, [float(each.largest) for each in found]
    loss = objective(state.params, x, y)[0]
    print(f"rate {rate}: 2/rate {2 / rate:.2f}, loss {loss:.4f} in the end; step, sharpness, error of it:")
    print(*(f"  {t:4}  {found[t // 50].largest:5.2f}  {found[t // 50].residual:.0e}" for t in steps[::8]), sep="\n")
print("drawn to", hg.viz.save(hg.viz.sharpness(runs), options.out))

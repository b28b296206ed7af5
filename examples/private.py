"""What privacy costs: a net learns the digits by clipped and noisy gradients (DP-SGD), with more and more noise.

Each example moves the weights by at most max_norm, and noise hides whether it was there. One sees the test accuracy.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw how a net learns by clipped gradients with noise.")
parser.add_argument("--out", default="runs/private.png", help="the picture (%(default)s)")
options, digits = parser.parse_args(), hg.data.load_digits()
x, test_x = hg.data.normalise(digits.train_x), jnp.asarray(hg.data.normalise(digits.test_x))
net = hg.Chain(hg.Conv(16, 3), hg.Tanh(), hg.AvgPool(2), hg.Flatten(), hg.Dense(32), hg.Tanh(), hg.Dense(10))
objective, noises = hg.Objective(net, hg.SoftmaxCrossEntropy()), jnp.array([0.0, 4.0, 8.0, 16.0], "float32")
side_by_side = partial(jax.vmap, in_axes=(0, 0, None, None, None, None))
clipped = jax.jit(side_by_side(lambda noise, *batch: hg.clipped_grad(objective, max_norm=1.0, noise=noise)(*batch)))
accuracy = jax.jit(jax.vmap(lambda p: 100 * hg.accuracy(net.apply(p, test_x), digits.test_y)))
params, _ = jax.vmap(lambda _: net.init(jax.random.key(0), x.shape[1:]))(noises)
found, keys = [accuracy(params)], iter(jax.random.split(jax.random.key(1), 1000))
for epoch in range(30):
    for batch, labels in hg.data.batches(x, digits.train_y, 128, seed=0, epoch=epoch):
        sums = clipped(noises, params, batch, labels, (), next(keys))
        params = jax.tree.map(lambda p, g: p - 0.5 / 128 * g, params, sums)
    found.append(accuracy(params))
ax = Figure(figsize=(6, 3.4), dpi=110, layout="constrained").subplots()
ax.set(xlabel="epoch", ylabel="test accuracy (%)", title="Noise for privacy costs accuracy")
for noise, line in zip(noises, jnp.stack(found, 1), strict=True):
    ax.plot(line, label=f"noise {noise:g}")
    print(f"noise {noise:2g}: test accuracy {line[-1]:.1f} %")
ax.legend(frameon=False)
print("drawn to", hg.viz.save(ax, options.out))

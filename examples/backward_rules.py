"""A net of hard thresholds has the gradient 0, and learns once its backward rule is another: a line for each rule.

One sees the test accuracy of five nets by epoch: by its own gradient only the last layer learns, by the others all do.
"""

import argparse

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw how a net of thresholds learns by other backward rules.")
parser.add_argument("--out", default="runs/backward_rules.png", help="the picture (%(default)s)")
options, digits = parser.parse_args(), hg.data.load_digits()
x, test_x = hg.data.normalise(digits.train_x), jnp.asarray(hg.data.normalise(digits.test_x))
threshold = hg.Lambda(lambda x: jnp.where(x > 0, 1, -1).astype(x.dtype))
net = hg.Chain(hg.Flatten(), hg.Dense(64), threshold, hg.Dense(64), threshold, hg.Dense(10))
nets = {
    "straight through": hg.rules.straight_through(net, hg.Lambda),
    "near 0 alone": hg.rules.swap_backward(net, lambda layer, p, r, dy: (dy * (abs(r["x"]) < 1), {}), hg.Lambda),
    "its own gradient, 0": net,
}
ax = Figure(figsize=(6, 3.4), dpi=110, layout="constrained").subplots()
accuracy = jax.jit(jax.vmap(lambda p: 100 * hg.accuracy(net.apply(p, test_x), digits.test_y)))
for name, swapped in nets.items():
    gradient = jax.jit(jax.vmap(hg.grad(hg.Objective(swapped, hg.SoftmaxCrossEntropy())), (0, None, None)))
    params, _ = jax.vmap(lambda key: net.init(key, x.shape[1:]))(jax.random.split(jax.random.key(0), 5))
    found = [accuracy(params)]
    for epoch in range(12):
        for batch in hg.data.batches(x, digits.train_y, 32, seed=0, epoch=epoch):
            params = jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient(params, *batch)[0])
        found.append(accuracy(params))
    mean, spread = jnp.mean(jnp.stack(found), 1), jnp.std(jnp.stack(found), 1)
    ax.errorbar(range(13), mean, spread, label=name, capsize=2)
    print(f"{name}: {mean[-1]:.1f} ± {spread[-1]:.1f} %")
ax.set(xlabel="epoch", ylabel="test accuracy (%)", title="Thresholds learn straight through")
ax.legend(frameon=False)
print("drawn to", hg.viz.save(ax, options.out))

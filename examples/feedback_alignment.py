"""A net learns although its errors go back through random kernels, for its gradient turns to the true one.

One sees test accuracy, and the angle between both gradients of the first layer's kernel: 90° is nothing in common.
"""

import argparse

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw how nets learn with random feedback: five of them, mean and spread.")
parser.add_argument("--out", default="runs/feedback_alignment.png", help="the picture (%(default)s)")
options, digits, epochs = parser.parse_args(), hg.data.load_digits(), range(21)
x, y, test_x = hg.data.normalise(digits.train_x), digits.train_y, jnp.asarray(hg.data.normalise(digits.test_x))
net = hg.Chain(hg.Flatten(), hg.Dense(64), hg.Tanh(), hg.Dense(32), hg.Tanh(), hg.Dense(10))
nets = {"backprop": net, "random feedback": hg.rules.feedback_alignment(net)}
loss, over_nets = hg.SoftmaxCrossEntropy(), (0, None, None)
gradients = {name: jax.jit(jax.vmap(hg.grad(hg.Objective(net, loss)), over_nets)) for name, net in nets.items()}
accuracy = jax.jit(jax.vmap(lambda p: 100 * hg.accuracy(net.apply(p, test_x), digits.test_y)))
left, right = Figure(figsize=(8, 3.2), dpi=110, layout="constrained").subplots(1, 2)
for name, gradient in gradients.items():
    params, found = jax.vmap(lambda key: net.init(key, x.shape[1:])[0])(jax.random.split(jax.random.key(0), 5)), []
    for epoch in epochs:
        pair = [g(params, x, y)[0]["dense1"]["kernel"].reshape(5, -1) for g in (gradient, gradients["backprop"])]
        a, b = (g / jnp.linalg.norm(g, axis=1, keepdims=True) for g in pair)
        found.append((accuracy(params), jnp.degrees(jnp.arccos(jnp.minimum((a * b).sum(1), 1)))))
        for batch in hg.data.batches(x, y, 32, seed=0, epoch=epoch):
            params = jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient(params, *batch)[0])
    for epoch in (0, 5, 10, 20):
        shares, angles = found[epoch]
        print(f"{name}, epoch {epoch:2}: accuracy {shares.mean():.1f} %, angle {angles.mean():.0f}°")
    for ax, rows in zip((left, right), map(jnp.stack, zip(*found, strict=True)), strict=True):
        ax.errorbar(epochs, rows.mean(1), rows.std(1), label=name, capsize=2)
left.set(xlabel="epoch", ylabel="test accuracy (%)", title="Random feedback teaches too")
right.set(xlabel="epoch", ylabel="angle to the gradient (degrees)", title="The gradient turns to the true one")
left.legend(frameon=False)
print("drawn to", hg.viz.save(left, options.out))

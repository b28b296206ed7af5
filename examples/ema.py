"""The average of the parameters along the way is better than the last ones, and steadier from epoch to epoch.

A net with batch norm learns the digits at a constant rate; one sees the test accuracy of both after each epoch, and of
the average with batch statistics taken anew (`--seeds 5` for the means over five).
"""

import argparse

import jax
import numpy as np
from matplotlib.figure import Figure

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw the accuracy of the last and of the averaged parameters.")
parser.add_argument("--seeds", type=int, default=1, help="how many times (%(default)s)")
parser.add_argument("--out", default="runs/ema.png", help="the picture (%(default)s)")
options, digits, found = parser.parse_args(), hg.data.load_digits(), []
x, test = hg.data.normalise(digits.train_x), (hg.data.normalise(digits.test_x), digits.test_y)
head = hg.Relu(), hg.MaxPool(2), hg.Flatten(), hg.Dense(32), hg.Relu(), hg.Dense(10)
net, fresh = (hg.Chain(hg.Conv(8, 3), hg.BatchNorm(momentum), *head) for momentum in (0.9, 0.0))
optimizer = hg.optimizers.chain(hg.momentum(0.1), hg.optimizers.ema(0.98))
step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), optimizer)
statistics = hg.jit(lambda params, state: fresh.apply_train(params, jax.numpy.asarray(x), state)[1])
for seed in range(options.seeds):
    own = hg.init_train_state(net, optimizer, jax.random.key(seed), (8, 8, 1))
    for epoch in range(8):
        for batch in hg.data.batches(x, digits.train_y, 32, seed=seed, epoch=epoch):
            own, _ = step(own, *batch)
        average = hg.optimizers.averaged(own.opt_state)
        nets = (own.params, own.state), (average, own.state), (average, statistics(average, own.state))
        found.append([100 * hg.evaluate(net, *pair, *test)["accuracy"] for pair in nets])
curves, names = np.reshape(found, (-1, 8, 3)), ("last parameters", "averaged", "averaged, statistics anew")
ax = Figure(figsize=(6, 3.4), dpi=110, layout="constrained").add_subplot()
for i, (name, style) in enumerate(zip(names, ("o-", "s-", "x:"), strict=True)):
    print(f"{name}: {' '.join(f'{mean:.1f}' for mean in curves[..., i].mean(0))} % by epoch")
    ax.plot(range(1, 9), curves[..., i].mean(0), style, color=(hg.viz.BLUE, hg.viz.ORANGE)[i > 0], label=name)
ax.set(xlabel="epoch", ylabel="test images right (%)", title="The average is steadier than the last parameters")
ax.legend(frameon=False, fontsize=9)
print("drawn to", hg.viz.save(ax, options.out))

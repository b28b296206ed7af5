"""Five nets for the digits, trained in one step from five starts: their vote is right more often than one of them.

One sees how many test images each net, their vote and their mean probability get right, for each seed (`--seeds 5`).
"""

import argparse

import jax
from matplotlib.figure import Figure

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw the accuracy of five nets, their vote and their mean probability.")
parser.add_argument("--seeds", type=int, default=1, help="how many times (%(default)s)")
parser.add_argument("--out", default="runs/ensemble.png", help="the picture (%(default)s)")
options, digits, gain = parser.parse_args(), hg.data.load_digits(), 0
x, test = hg.data.normalise(digits.train_x), (hg.data.normalise(digits.test_x), digits.test_y)
head = hg.Flatten(), hg.Dropout(0.2), hg.Dense(32), hg.Relu(), hg.Dense(10)
net = hg.Chain(hg.Conv(8, 3), hg.Relu(), hg.MaxPool(2), *head)
members, vote, optimizer = hg.ensemble(net, 5), hg.ensemble(net, 5, by="vote"), hg.momentum(0.05)
step = hg.make_train_step(hg.Objective(members, hg.SoftmaxCrossEntropy()), optimizer)
ax = Figure(figsize=(6, 3.4), dpi=110, layout="constrained").add_subplot()
for seed in range(options.seeds):
    start = hg.init_train_state(members, optimizer, jax.random.key(seed), (8, 8, 1))
    trained, _ = hg.fit(start, step, x, digits.train_y, batch_size=64, epochs=6, seed=seed, progress=False)
    nets = [(net, members.member(trained, m)) for m in range(5)] + [(vote, trained), (members, trained)]
    right = [100 * hg.evaluate(a, own.params, own.state, *test)["accuracy"] for a, own in nets]
    each, mean, (voted, meant) = right[:5], sum(right[:5]) / 5, right[5:]
    print(f"seed {seed}: nets {' '.join(f'{a:.1f}' for a in each)}, mean {mean:.1f}; ", end="")
    print(f"vote {voted:.1f}, mean probability {meant:.1f} %")
    gain += (voted - mean) / options.seeds
    ax.plot([seed] * 5, each, "o", color=hg.viz.BLUE, markersize=4, label=None if seed else "one net")
    ax.plot(seed, mean, "_", color=hg.viz.BLUE, markersize=20, label=None if seed else "mean of the nets")
    ax.plot(seed + 0.1, voted, "D", color=hg.viz.ORANGE, label=None if seed else "vote")
    ax.plot(seed + 0.2, meant, "x", color=hg.viz.ORANGE, label=None if seed else "mean probability")
ax.set(
    xlabel="seed", ylabel="test images right (%)", title=f"The vote of five nets is {gain:.1f} points above their mean"
)
ax.set(xlim=(-0.5, 1.6 * options.seeds - 0.3), xticks=range(options.seeds))
ax.legend(frameon=False, fontsize=9, loc="center right")
print("drawn to", hg.viz.save(ax, options.out))

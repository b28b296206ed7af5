"""A net that dies of a large learning rate, found by the trace of its training, and the same net with a smaller one.

One sees the share of dead units of each ReLU at every tenth step, as a heat map for each of the two runs.
"""

import argparse

import jax
from matplotlib.figure import Figure

import handgrad as hg


def main():
    """Train twice with fit(..., trace_every=10), print what is found, draw both."""
    parser = argparse.ArgumentParser(description="Draw the trace of a net that dies, and of one that does not.")
    parser.add_argument("--out", default="runs/trace.png", help="the picture (%(default)s)")
    out = parser.parse_args().out
    digits = hg.data.load_digits()
    x = hg.data.normalise(digits.train_x)
    layers = [layer for width in (64, 32, 32) for layer in (hg.Dense(width), hg.Relu())]
    net = hg.Chain(hg.Flatten(), *layers, hg.Dense(10))
    axes = Figure(figsize=(7, 5), dpi=110, layout="constrained").subplots(2)
    for ax, rate in zip(axes, (2.0, 0.2), strict=True):
        step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), hg.sgd(rate))
        start = hg.init_train_state(net, step.optimizer, jax.random.key(0), x.shape[1:])
        _, history = hg.fit(start, step, x, digits.train_y, batch_size=64, epochs=15, progress=False, trace_every=10)
        findings = history["trace"][-1]["findings"] or ["nothing is wrong"]
        print(f"learning rate {rate}: accuracy {history['train_accuracy'][-1]:.2f}; {'; '.join(findings)}")
        hg.viz.trace(history, "dead", ax=ax)
        ax.set_title(f"learning rate {rate}: {ax.get_title()}", fontsize=10)
    print("drawn to", hg.viz.save(axes[0].figure, out))


if __name__ == "__main__":
    main()

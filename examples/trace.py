"""A net that dies of a large learning rate, found by the trace of its training, and the same net with a smaller one.

One sees the table of the last step traced, with what is wrong, for each of the two runs, and of the one that dies the
share of dead units of each ReLU at every tenth step, as a heat map.
"""

import argparse

import jax

import handgrad as hg
from handgrad.insight import Trace


def train(rate):
    """The history of a run with a trace of every tenth step."""
    digits = hg.data.load_digits()
    x = hg.data.normalise(digits.train_x)
    net = hg.models.mlp(hidden=(64, 32, 32))
    step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), hg.sgd(rate))
    start = hg.init_train_state(net, step.optimizer, jax.random.key(0), x.shape[1:])
    return hg.fit(start, step, x, digits.train_y, batch_size=64, epochs=15, progress=False, trace_every=10)[1]


def main():
    """Train twice, print what is found, draw the run that dies."""
    parser = argparse.ArgumentParser(description="Draw the trace of a net that dies.")
    parser.add_argument("--out", default="runs/trace.png", help="the picture (%(default)s)")
    out, rates = parser.parse_args().out, (2.0, 0.2)
    histories = [train(rate) for rate in rates]
    for rate, history in zip(rates, histories, strict=True):
        print(f"learning rate {rate}: training accuracy {100 * history['train_accuracy'][-1]:.1f} %")
        print(f"step {history['trace_step'][-1]}: {Trace.from_record(history['trace'][-1])}\n")
    print("drawn to", hg.viz.save(hg.viz.trace(histories[0], "dead"), out))


if __name__ == "__main__":
    main()

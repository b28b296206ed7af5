"""Learning rate and momentum for the digits: 48 runs by one compiled step, with three seeds each.

One sees the table, and the figure: with momentum the best rate is lower, and the highest rates do not come through.
"""

import argparse

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw the validation loss by learning rate and momentum.")
parser.add_argument("--out", default="runs/sweep.png", help="the picture (%(default)s)")
digits = hg.data.load_digits()
x, validation = hg.data.split(hg.data.normalise(digits.train_x), digits.train_y, 0.8)
net = hg.Chain(hg.Flatten(), hg.Dense(32), hg.Relu(), hg.Dense(10))


def setup(learning_rate, momentum):
    """What is trained: the numbers may be traced."""
    return hg.Objective(net, hg.SoftmaxCrossEntropy(), l2=1e-4), hg.momentum(learning_rate, momentum)


grid = {"learning_rate": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0], "momentum": [0.0, 0.9], "seed": range(3)}
found = hg.sweep(grid, setup, *x, batch_size=64, epochs=5, validation=validation, progress=False)
print(found)
print("drawn to", hg.viz.save(hg.viz.sweep(found), parser.parse_args().out))

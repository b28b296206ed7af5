"""What a net has learnt and what it still mixes up: its first kernels, and its confusion matrix after one epoch.

One sees kernels that look for edges and spots, and which digits the net takes for which.
"""

import argparse

import jax
from matplotlib.figure import Figure

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw the kernels and the mistakes of a net.")
parser.add_argument("--out", default="runs/kernels.png", help="the picture (%(default)s)")
parser.add_argument("--epochs", type=int, default=1, help="how long it learns (%(default)s)")
options, digits, net = parser.parse_args(), hg.data.load_digits(), hg.models.digits_cnn(dropout=0)
x, test_x = hg.data.normalise(digits.train_x), hg.data.normalise(digits.test_x)
step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), hg.momentum(0.01))
start = hg.init_train_state(net, step.optimizer, jax.random.key(0), x.shape[1:])
params = hg.fit(start, step, x, digits.train_y, batch_size=32, epochs=options.epochs, progress=False)[0].params

logits = hg.predict(net, params, (), test_x)
matrix = hg.confusion_matrix(logits, digits.test_y, classes=10)
print(hg.viz.confusion_text(matrix, digits.classes))
left, right = Figure(figsize=(11, 4.6), dpi=110, layout="constrained").subplots(1, 2)
hg.viz.kernels(params, "conv1", ax=left)
hg.viz.confusion(matrix, digits.classes, ax=right)
print("drawn to", hg.viz.save(left.figure, options.out))

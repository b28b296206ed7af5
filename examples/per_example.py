"""Twenty digits get a wrong label, and the lengths of their gradients give them away.

A net learns them for four epochs. An image whose label contradicts its likes keeps a long gradient.
"""

import argparse

import jax
import numpy as np

import handgrad as hg

parser = argparse.ArgumentParser(description="Find mislabelled digits by their gradients.")
parser.add_argument("--out", default="runs/per_example.png", help="the picture (%(default)s)")
options = parser.parse_args()

digits, random = hg.data.load_digits(), np.random.default_rng(0)
x, y = hg.data.normalise(digits.train_x), digits.train_y.copy()
planted = random.choice(len(y), 20, replace=False)
y[planted] = (y[planted] + random.integers(1, 10, 20)) % 10

net = hg.models.digits_cnn(dropout=0)
objective = hg.Objective(net, hg.SoftmaxCrossEntropy())
step = hg.make_train_step(objective, hg.momentum(0.05))
start = hg.init_train_state(net, step.optimizer, jax.random.key(0), x.shape[1:])
end, _ = hg.fit(start, step, x, y, batch_size=32, epochs=4, progress=False)

norms = np.asarray(hg.jit(hg.per_example_norms(objective))(end.params, x, y))
longest = np.argsort(-norms)[:40]
found = np.isin(longest, planted)
print(f"{found.sum()} of 20 wrong labels are among the 40 longest gradients, {found[:20].sum()} among the 20 longest")
print(f"median length {np.median(norms[planted]):.1f} with a wrong label, {np.median(norms):.3f} over all {len(x):,}")

given, true = y[longest], digits.train_y[longest]
captions = [f"{label} (is {right})" if label != right else str(label) for label, right in zip(given, true, strict=True)]
title = f"{found.sum()} of 20 wrong labels are among the 40 longest gradients"
print("drawn to", hg.viz.save(hg.viz.images(x[longest], captions, title=title), options.out))

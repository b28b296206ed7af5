"""Twenty digits get a wrong label; the lengths of their gradients give them away.

A net learns them for a few epochs. One whose label contradicts the others keeps a long gradient, so the forty longest
of `hg.per_example_norms` hold the wrong labels. One sees those forty, with the labels they had.
"""

import argparse

import jax
import numpy as np

import handgrad as hg


def main():
    """Plant, train, rank, draw."""
    parser = argparse.ArgumentParser(description="Find mislabelled digits by their gradients.")
    parser.add_argument("--out", default="runs/per_example.png", help="the picture (%(default)s)")
    out = parser.parse_args().out
    digits, random = hg.data.load_digits(), np.random.default_rng(0)
    x, y = hg.data.normalise(digits.train_x), digits.train_y.copy()
    planted = random.choice(len(y), 20, replace=False)
    y[planted] = (y[planted] + random.integers(1, 10, 20)) % 10
    net = hg.models.digits_cnn(dropout=0)
    objective = hg.Objective(net, hg.SoftmaxCrossEntropy())
    step = hg.make_train_step(objective, hg.momentum(0.05))
    start = hg.init_train_state(net, step.optimizer, jax.random.key(0), x.shape[1:])
    train_state, _ = hg.fit(start, step, x, y, batch_size=32, epochs=4, progress=False)
    norms = np.asarray(hg.jit(hg.per_example_norms(objective))(train_state.params, x, y))
    longest = np.argsort(-norms)[:40]
    found = np.isin(longest, planted)
    print(f"planted labels: {found[:20].sum()} among the 20 longest gradients, {found.sum()} among the 40 longest")
    print(f"median length {np.median(norms[planted]):.1f} with a planted label, {np.median(norms):.3f} of all")
    captions = [f"{y[i]}{'!' if i in planted else ''}" for i in longest]
    ax = hg.viz.images(
        x[longest], captions, title=f"{found.sum()} of 20 wrong labels (!) among the 40 longest gradients"
    )
    print("drawn to", hg.viz.save(ax, out))


if __name__ == "__main__":
    main()

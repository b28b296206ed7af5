"""One net trained twice from one start: by the gradient written by hand, and by jax.value_and_grad.

Both runs see the same batches and the same dropout masks, and differ in one argument of make_train_step. One sees both
losses side by side, the largest difference between them and between the trained weights (float32 rounding, which
training slowly makes larger), and the time of a step of each: medians of turns taken in one run.
"""

import statistics
import time

import jax
import jax.numpy as jnp

import handgrad as hg

EPOCHS, BATCH_SIZE, TURNS = 3, 64, 25
GRADIENTS = {"by hand": hg.value_and_grad, "automatic": jax.value_and_grad}


def train(step, train_state, x, y):
    """The loss of every step, and the last train state."""
    losses = []
    for epoch in range(EPOCHS):
        for batch in hg.data.batches(x, y, BATCH_SIZE, seed=0, epoch=epoch):
            train_state, metrics = step(train_state, *batch)
            losses.append(metrics.loss)
    return jnp.stack(losses), train_state


def seconds(step, train_state, x, y):
    """How long one step takes, compiled before."""
    begin = time.perf_counter()
    jax.block_until_ready(step(train_state, x, y))
    return time.perf_counter() - begin


def main():
    """Train twice, compare, then time."""
    digits = hg.data.load_digits()
    x, y = hg.data.normalise(digits.train_x), digits.train_y
    net, optimizer = hg.models.digits_cnn(), hg.momentum(0.02)
    objective = hg.Objective(net, hg.SoftmaxCrossEntropy(), l2=1e-4)
    start = hg.init_train_state(net, optimizer, jax.random.key(0), x.shape[1:])
    steps = {
        name: hg.make_train_step(objective, optimizer, value_and_grad=gradient, donate=False)
        for name, gradient in GRADIENTS.items()
    }

    losses, ends = zip(*(train(step, start, x, y) for step in steps.values()), strict=True)
    print("step   loss by hand   loss automatic   difference")
    for i in sorted({0, 1, 2, 5, 10, 20, 40, len(losses[0]) - 1}):
        by_hand, automatic = float(losses[0][i]), float(losses[1][i])
        print(f"{i + 1:4d} {by_hand:14.6f} {automatic:16.6f} {abs(by_hand - automatic):12.1e}")
    apart = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), ends[0].params, ends[1].params)
    print(f"largest difference of the losses   {float(jnp.abs(losses[0] - losses[1]).max()):.1e}")
    print(f"largest difference of the weights  {max(jax.tree.leaves(apart)):.1e}")

    batch = x[:BATCH_SIZE], y[:BATCH_SIZE]
    turns = [[seconds(step, start, *batch) for step in steps.values()] for _ in range(TURNS)]
    by_hand, automatic = (1e3 * statistics.median(column) for column in zip(*turns, strict=True))
    print(f"a step by hand {by_hand:.2f} ms, automatic {automatic:.2f} ms: {automatic / by_hand:.2f} times as long")


if __name__ == "__main__":
    main()

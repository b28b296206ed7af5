"""A net that learns although its errors go back through random kernels, and how its gradient turns to the true one.

One sees the training accuracy by epoch with true and with random feedback, and the angle between the two gradients of
the hidden layers: 90° says they have nothing in common, below it a step along the one also goes down the other.
"""

import argparse

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

import handgrad as hg


def main():
    """Train both, measure the angle after each epoch, draw."""
    parser = argparse.ArgumentParser(description="Draw learning with random feedback.")
    parser.add_argument("--out", default="runs/feedback_alignment.png", help="the picture (%(default)s)")
    digits, loss = hg.data.load_digits(), hg.SoftmaxCrossEntropy()
    x, y = hg.data.normalise(digits.train_x), digits.train_y
    net = hg.Chain(hg.Flatten(), hg.Dense(64), hg.Tanh(), hg.Dense(32), hg.Tanh(), hg.Dense(10))
    true, random = hg.Objective(net, loss), hg.Objective(hg.rules.feedback_alignment(net), loss)
    left, right = Figure(figsize=(8, 3), dpi=110, layout="constrained").subplots(1, 2)
    for name, objective in (("backprop", true), ("random feedback", random)):
        step, angles = hg.make_train_step(objective, hg.sgd(0.1)), []
        state, history = hg.init_train_state(net, step.optimizer, jax.random.key(0), x.shape[1:]), {}
        for epoch in range(1, 13):
            state, history = hg.fit(state, step, x, y, batch_size=32, epochs=1, seed=epoch, progress=False)
            ours, theirs = (hg.grad(o)(state.params, x, y)[0] for o in (true, objective))
            a, b = (jnp.concatenate([g[f"dense{i}"]["kernel"].ravel() for i in (1, 2)]) for g in (ours, theirs))
            cosine = jnp.clip(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b), -1, 1)
            angles.append((history["train_accuracy"][0], float(jnp.degrees(jnp.arccos(cosine)))))
        left.plot(range(1, 13), [100 * accuracy for accuracy, _ in angles], label=name)
        right.plot(range(1, 13), [angle for _, angle in angles], label=name)
        first, (accuracy, last) = angles[0][1], angles[-1]
        print(f"{name}: accuracy {100 * accuracy:.1f} %, angle {first:.0f}° at first, {last:.0f}° last")
    left.set(xlabel="epoch", ylabel="training accuracy (%)", title="It learns with random feedback too")
    right.set(xlabel="epoch", ylabel="angle to the gradient (degrees)", ylim=(-3, 95), title="The gradients align")
    left.legend(frameon=False)
    print("drawn to", hg.viz.save(left, parser.parse_args().out))


if __name__ == "__main__":
    main()

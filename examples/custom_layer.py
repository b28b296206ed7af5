"""A layer of your own with its own backward: checked, then with a mistake, which the check finds, then trained.

Swish with a learnt sharpness β, one a channel:

    y  = x s,   s = σ(βx)
    dx = dy (s + βx s (1 - s))              the product rule: both factors depend on x
    dβ = Σ_n dy x² s (1 - s)                β is copied to every example, so its gradient is a sum over them

One sees the report of hg.check_layer for the right layer (all three agree) and for one that forgets the second half of
the product rule (its row for x is wrong, its row for β is not), and then the layer learning inside a net.
Source: Ramachandran, Zoph and Le, Searching for activation functions, 2017.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import handgrad as hg


@dataclass(frozen=True, repr=False)
class Swish(hg.Layer):
    """x σ(βx) on (N, C) or images (N, H, W, C), with a β for each channel."""

    start: float = 1.0

    def init(self, key, in_shape, dtype=jnp.float32):
        """β (C,), all alike."""
        return {"beta": jnp.full(in_shape[-1:], self.start, dtype)}, {}

    def apply(self, params: Any, x, state=()):
        """The formula: what jax.grad differentiates, and what backward is checked against."""
        return x * hg.ops.sigmoid(jnp.broadcast_to(params["beta"], x.shape) * x)

    def forward(self, params: Any, x, state=(), key=None):
        """The same values, keeping x and the gate s."""
        s = hg.ops.sigmoid(jnp.broadcast_to(params["beta"], x.shape) * x)
        return x * s, state, {"x": x, "s": s}

    def backward(self, params: Any, residuals, dy):
        """The two gradients of the header."""
        x, s = residuals["x"], residuals["s"]
        beta = jnp.broadcast_to(params["beta"], x.shape)
        dx = dy * (s + beta * x * s * (1 - s))
        dbeta = dy * x**2 * s * (1 - s)
        return dx, {"beta": dbeta.sum(range(x.ndim - 1))}


class HalfSwish(Swish):
    """A mistake that looks right: the gate s is treated as a constant."""

    def backward(self, params: Any, residuals, dy):
        """Without the second half of the product rule."""
        _, dparams = super().backward(params, residuals, dy)
        return dy * residuals["s"], dparams


def main():
    """Check, catch, train."""
    for layer in (Swish(0.7), HalfSwish(0.7)):
        print(layer, "on images of 5x4 with 3 channels")
        print(f"{hg.check_layer(layer, (5, 4, 3))}\n")

    digits = hg.data.load_digits()
    x, test_x = hg.data.normalise(digits.train_x), hg.data.normalise(digits.test_x)
    net = hg.Chain(hg.Conv(16, 3), Swish(), hg.MaxPool(2), hg.Flatten(), hg.Dense(32), Swish(), hg.Dense(10))
    optimizer = hg.momentum(0.1)
    step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), optimizer)
    train_state = hg.init_train_state(net, optimizer, jax.random.key(0), x.shape[1:])
    test = test_x, digits.test_y
    train_state, history = hg.fit(
        train_state, step, x, digits.train_y, batch_size=64, epochs=4, validation=test, progress=False
    )
    for epoch, (loss, accuracy) in enumerate(zip(history["train_loss"], history["validation_accuracy"], strict=True)):
        print(f"epoch {epoch + 1}   loss {loss:.3f}   test accuracy {100 * accuracy:.1f} %")
    for name in ("swish1", "swish2"):
        beta = train_state.params[name]["beta"]
        print(f"β of {name}, 1 at the start: {beta.min():.2f} to {beta.max():.2f}")


if __name__ == "__main__":
    main()

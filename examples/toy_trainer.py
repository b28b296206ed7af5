"""The lecture's toy trainer: a dense net of nr_layers learns the digits, every step of the chain rule in sight.

The names are the lecture's: h[i] is what layer i gives (h[0] the images), jac[i] the slope of its ReLU, dh[i] the
gradient that arrives at layer i, Wgrad[i] and bgrad[i] the gradients of its weights. The lecture's columns are
examples; here rows are, so Wgrad[i] = h[i-1]ᵀ dh[i] is the transpose of the lecture's.

One sees the loss fall and the test accuracy rise, epoch by epoch.
"""

import jax
import jax.numpy as jnp

import handgrad as hg

SIZES = 64, 64, 32, 10
nr_layers, lr, batch_size, epochs = len(SIZES) - 1, 0.2, 32, 10


def f_prop(W, b, x):
    """All h, and jac of each ReLU; the last layer has none."""
    h, jac = {0: x}, {}
    for i in range(1, nr_layers + 1):
        h[i], _ = hg.ops.dense_forward(h[i - 1], W[i], b[i])
        if i < nr_layers:
            h[i], jac[i] = hg.ops.relu_forward(h[i])
    return h, jac


@jax.jit
def step(W, b, x, y):
    """One mini-batch: f-prop, loss, b-prop, update."""
    h, jac = f_prop(W, b, x)
    prediction, target = hg.ops.softmax(h[nr_layers]), jax.nn.one_hot(y, SIZES[-1], dtype=x.dtype)
    loss = -jnp.sum(target * hg.ops.log_softmax(h[nr_layers])) / batch_size
    dh, Wgrad, bgrad = {nr_layers: prediction - target}, {}, {}
    for i in range(nr_layers, 0, -1):
        dh[i - 1], Wgrad[i], bgrad[i] = hg.ops.dense_backward(h[i - 1], W[i], dh[i])
        if i > 1:
            dh[i - 1] = hg.ops.relu_backward(jac[i - 1], dh[i - 1])
    W = {i: W[i] - lr / batch_size * Wgrad[i] for i in W}
    b = {i: b[i] - lr / batch_size * bgrad[i] for i in b}
    return W, b, loss


def main():
    """Train on the digits."""
    digits = hg.data.load_digits()
    train_x, test_x = (hg.data.normalise(x).reshape(len(x), -1) for x in (digits.train_x, digits.test_x))
    keys = jax.random.split(jax.random.key(0), nr_layers)
    W = {i: hg.initializers.he_normal(keys[i - 1], (SIZES[i - 1], SIZES[i])) for i in range(1, nr_layers + 1)}
    b = {i: jnp.zeros(SIZES[i], jnp.float32) for i in W}
    for epoch in range(epochs):
        losses = []
        for x, y in hg.data.batches(train_x, digits.train_y, batch_size, seed=0, epoch=epoch):
            W, b, loss = step(W, b, x, y)
            losses.append(loss)
        accuracy = (f_prop(W, b, jnp.asarray(test_x))[0][nr_layers].argmax(1) == digits.test_y).mean()
        print(f"epoch {epoch + 1:2d}   loss {sum(losses) / len(losses):.4f}   test accuracy {100 * accuracy:.1f} %")


if __name__ == "__main__":
    main()

"""The runs of the demo: small nets that learn a problem in the plane, looked at on the way.

All rates and momenta of one net are trained at once, by vmap; what happens between two frames is a loop on the device.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.data import two_d_problem
from handgrad.gradient import Objective, value_and_grad
from handgrad.layers.activation import Relu, Tanh
from handgrad.layers.affine import Dense
from handgrad.layers.container import Chain
from handgrad.losses import BinaryCrossEntropy
from handgrad.optimizers import apply_updates, momentum

ACTIVATIONS = {"relu": Relu, "tanh": Tanh}


class Run(NamedTuple):
    """One net's way through training, at F frames.

    Attributes:
        hidden: H, its hidden units.
        learning_rate: η.
        momentum: β, of the heavy ball.
        steps: how many steps were taken before each frame, ints (F,).
        params: what is learnt, (F, 4 H + 1) float32: x₁'s weights (H), x₂'s (H), the units' biases (H), the output's
            weights (H), its bias.
        grads: the loss's gradient in each of them, (F, 4 H + 1) float32.
        loss: binary cross-entropy of all points, (F,) float32.
    """

    hidden: int
    learning_rate: float
    momentum: float
    steps: np.ndarray
    params: np.ndarray
    grads: np.ndarray
    loss: np.ndarray

    def tree(self, frame: int) -> dict[str, dict[str, np.ndarray]]:
        """The params of a frame as `demo_net` takes them."""
        h, numbers = self.hidden, self.params[frame]
        w, b, v, c = np.split(numbers, (2 * h, 3 * h, 4 * h))
        return {"dense1": {"kernel": w.reshape(2, h), "bias": b}, "dense2": {"kernel": v[:, None], "bias": c}}


def demo_net(hidden: int, activation: str = "tanh") -> Chain:
    """The net of the demo: two inputs, hidden units, one output, whose sign is the class."""
    return Chain(Dense(hidden), ACTIVATIONS[activation](), Dense(1))


def demo_runs(
    problem: str,
    hidden: int,
    learning_rates: Sequence[float],
    momenta: Sequence[float],
    *,
    activation: str = "tanh",
    steps: int = 3000,
    frames: int = 60,
    n: int = 160,
    seed: int = 0,
) -> list[Run]:
    """Train a net by gradient descent on all points, once for each rate and momentum, always from one start.

    Heavy ball, m ← β m + g and θ ← θ - η m, with the gradient g by hand. Frames lie close in the beginning, where most
    happens: frame i of F is at step max(i, T (i / (F - 1))³).

    Args:
        problem: of `hg.data.two_d_problem`.
        hidden: H, the hidden units.
        learning_rates: the rates η.
        momenta: the factors β.
        activation: "tanh" or "relu".
        steps: T, in all.
        frames: F, how often to look, the beginning and the end among them.
        n: points.
        seed: of points and weights.

    Returns:
        The runs, rate by rate, and momentum by momentum within.

    Example:
        >>> run = demo_runs("circle", 3, [1.0], [0.9], steps=300, frames=10, n=60)[0]
        >>> run.params.shape, run.steps[:4].tolist(), bool(run.loss[-1] < 0.2 * run.loss[0])
        ((10, 13), [0, 1, 3, 11], True)
    """
    x, y = two_d_problem(problem, n, seed)
    at = frame_steps(steps, frames)
    pairs = [(rate, beta) for rate in learning_rates for beta in momenta]
    rates, betas = np.asarray(pairs, np.float32).T
    net = demo_net(hidden, activation)
    params, _ = net.init(jax.random.key(seed), (2,), jnp.float32)
    gaps = np.diff(at, prepend=0).astype(np.int32)
    found = _train(net, params, *map(jnp.asarray, (x, y[:, None], gaps, rates, betas)))
    ways = zip(pairs, *map(np.asarray, found), strict=True)
    return [Run(hidden, rate, beta, at, params, grads, loss) for (rate, beta), params, grads, loss in ways]


def frame_steps(steps: int, frames: int) -> np.ndarray:
    """The step of each frame: the first ones one by one, then farther and farther apart.

    Example:
        >>> frame_steps(1000, 8).tolist()
        [0, 3, 23, 79, 187, 364, 630, 1000]
    """
    return np.array([max(i, round(steps * (i / (frames - 1)) ** 3)) for i in range(frames)])


@functools.partial(jax.jit, static_argnums=0)
def _train(net: Chain, params: Any, x: jax.Array, y: jax.Array, gaps: jax.Array, rates: jax.Array, betas: jax.Array):
    """Params, gradients and loss at each frame of each run, (R, F, ...)."""
    gradient = value_and_grad(Objective(net, BinaryCrossEntropy()))

    def run(rate: jax.Array, beta: jax.Array) -> tuple:
        optimizer = momentum(rate, beta)

        def step(_: Any, now: tuple) -> tuple:
            params, memory = now
            updates, memory = optimizer.update(gradient(params, x, y)[1], memory)
            return apply_updates(params, updates), memory

        def frame(now: tuple, gap: jax.Array) -> tuple:
            now = jax.lax.fori_loop(0, gap, step, now)
            (loss, _), grads = gradient(now[0], x, y)
            return now, (_flat(now[0]), _flat(grads), loss)

        return jax.lax.scan(frame, (params, optimizer.init(params)), gaps)[1]

    return jax.vmap(run)(rates, betas)


def _flat(tree: Any) -> jax.Array:
    """Params or gradients as one vector, in the order of `Run.params`."""
    first, second = tree["dense1"], tree["dense2"]
    return jnp.concatenate([first["kernel"].ravel(), first["bias"], second["kernel"].ravel(), second["bias"]])


def checked_numbers(argument: str, values: Any, below: float = math.inf) -> tuple[float, ...]:
    """A number or several, each at least 0, as a tuple."""
    values = (values,) if isinstance(values, int | float) else tuple(values)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < below:
            limits = "finite numbers from 0 on" if below == math.inf else f"numbers from 0 up to, not with, {below:g}"
            raise ValueError(f"demo_2d: {argument} must be {limits}, got {value!r}")
    if not values:
        raise ValueError(f"demo_2d: {argument} must name at least one, got none")
    return values

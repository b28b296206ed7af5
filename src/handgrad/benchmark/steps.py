"""The training step by hand beside the same net's under `jax.grad`: the contenders that need no other library."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.benchmark.trainer import Step, Trainer
from handgrad.compile import CPU_OPTIONS, cpu_options_work, jit
from handgrad.gradient import Objective
from handgrad.gradient import value_and_grad as by_hand
from handgrad.layers import Chain, Lambda, Layer, MaxPool, map_layers
from handgrad.losses import SoftmaxCrossEntropy
from handgrad.optimizers import momentum
from handgrad.training import TrainState, init_train_state, make_train_step

OURS = "handgrad"
OURS_DEFAULT = "handgrad, XLA's defaults"
AUTOMATIC = "jax.grad"
AUTOMATIC_RESHAPED = "jax.grad, pools by reshape"


@dataclass(frozen=True, eq=False)
class Case:
    """A net and a batch to train it on, by SGD with momentum 0.9 on softmax cross entropy, in float32."""

    name: str
    net: Chain
    in_shape: tuple[int, ...]
    batch: int
    learning_rate: float = 0.05
    rtol: float = 1e-4
    classes: int = 10
    seed: int = 0

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """A batch of random images and labels."""
        random = np.random.default_rng(self.seed)
        x = random.normal(size=(self.batch, *self.in_shape)).astype(np.float32)
        return x, random.integers(0, self.classes, self.batch).astype(np.int32)

    def train_state(self) -> TrainState:
        """The parameters that all contenders start from."""
        optimizer, key = momentum(self.learning_rate), jax.random.key(self.seed)
        return jax.jit(lambda key: init_train_state(self.net, optimizer, key, self.in_shape))(key)

    def objective(self, net: Layer | None = None) -> Objective:
        """The objective of this net, or of another form of it."""
        return Objective(self.net if net is None else net, SoftmaxCrossEntropy())


@dataclass(frozen=True)
class Start:
    """What all contenders of a case share: its batch on the device, and the first train state."""

    case: Case
    x: Any = field(init=False)
    y: Any = field(init=False)
    train_state: TrainState = field(init=False)

    def __post_init__(self) -> None:
        """Make batch and state."""
        x, y = map(jnp.asarray, self.case.arrays())
        for name, value in (("x", x), ("y", y), ("train_state", self.case.train_state())):
            object.__setattr__(self, name, value)


def own_step(case: Case, net: Layer, value_and_grad: Callable = by_hand) -> Any:
    """The library's training step of a net with someone's gradients."""
    return make_train_step(case.objective(net), momentum(case.learning_rate), value_and_grad)


def with_defaults(step: Step) -> Any:
    """The step jitted with XLA's default options, as a user's own `jax.jit` does it."""
    return jax.jit(lambda state, x, y: step(state, x, y), donate_argnums=0)


def with_our_options(step: Step) -> Any:
    """The step jitted with the options that the library gives its own steps on CPU."""
    return jax.jit(lambda state, x, y: step(state, x, y), donate_argnums=0, compiler_options=dict(CPU_OPTIONS))


def takes_our_options() -> bool:
    """Whether there are such options here: on CPU, and where this jaxlib knows them."""
    return jax.default_backend() == "cpu" and cpu_options_work()


def own_trainers(start: Start) -> dict[str, Trainer]:
    """Our step as it is, and the same net under `jax.grad` with XLA's default options."""
    trainers = {OURS: _trainer(start, own_step(start.case, start.case.net))}
    for name, net in automatic_nets(start.case.net).items():
        trainers[name] = _trainer(start, with_defaults(own_step(start.case, net, jax.value_and_grad)))
    return trainers


def other_options(start: Start) -> dict[str, Trainer]:
    """Our step with XLA's defaults, and the same net under `jax.grad` with our options."""
    step = own_step(start.case, start.case.net)
    trainers = {OURS: _trainer(start, step), OURS_DEFAULT: _trainer(start, with_defaults(step))}
    for name, net in automatic_nets(start.case.net).items():
        trainers[name] = _trainer(start, with_our_options(own_step(start.case, net, jax.value_and_grad)))
    return trainers


def forward_and_gradient(start: Start) -> dict[str, Callable[[], Any]]:
    """The loss alone, and the loss with its gradient by hand, to see how long backward takes beside forward."""
    state, objective = start.train_state, start.case.objective()

    def forward(params, x, y):
        logits, _, _ = objective.net.forward(params, x, state.state, state.key)
        return objective.loss(logits, y)

    def both(params, x, y):
        (loss, _), grads = by_hand(objective)(params, x, y, state.state, state.key)
        return loss, grads

    def runner(function):
        jitted = jit(function)
        return lambda: jax.block_until_ready(jitted(state.params, start.x, start.y))

    return {"forward": runner(forward), "forward and backward": runner(both)}


def automatic_nets(net: Layer) -> dict[str, Layer]:
    """The nets to differentiate automatically: as it is, and with pools by reshape where their windows allow it."""
    pools = []
    map_layers(lambda layer: pools.append(layer) or layer if isinstance(layer, MaxPool) else layer, net)
    nets = {AUTOMATIC: net}
    if pools and all(_side_by_side(pool) for pool in pools):
        nets[AUTOMATIC_RESHAPED] = map_layers(reshaped, net)
    return nets


def reshaped(layer: Layer) -> Layer:
    """A max pool as a reshape and a max, which JAX differentiates much faster than `reduce_window`.

    Its derivative shares the gradient among ties; on random images there are next to none but zeros behind a ReLU,
    whose gradient is zero either way.
    """
    if not isinstance(layer, MaxPool):
        return layer
    size = layer.window if isinstance(layer.window, int) else layer.window[0]

    def pool(x: jax.Array) -> jax.Array:
        n, h, w, c = x.shape
        cut = x[:, : h - h % size, : w - w % size]
        return cut.reshape(n, h // size, size, w // size, size, c).max((2, 4))

    return Lambda(pool)


def _side_by_side(pool: MaxPool) -> bool:
    return pool == MaxPool(pool.window, pool.window) or pool == MaxPool(pool.window)


def _trainer(start: Start, step: Any) -> Trainer:
    return Trainer(step, start.train_state, start.x, start.y)

"""One step of training: gradient, update, new state, with the whole state in one tree.

    g = dL/dθ at θ_t, by hand            key of step t = fold_in(key, t)
    u, s_{t+1} = optimizer(g, s_t)
    θ_{t+1} = θ_t + u

A train state holds all that a step depends on beside the batch, so a saved one continues as if nothing had happened.
The step donates it at top level: its buffers are taken over by the new one, and the old one is deleted. Inside jit,
scan and vmap nothing is donated.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from handgrad.compile import Jitted, jit
from handgrad.gradient import Objective
from handgrad.gradient import value_and_grad as by_hand
from handgrad.layers.layer import Array, Layer, Shape, check_is_layer
from handgrad.losses import Loss
from handgrad.optimizers import apply_updates
from handgrad.optimizers.optimizer import update_at
from handgrad.optimizers.transforms import global_norm
from handgrad.training.ensemble import Ensemble, init_optimizer, member_objective, member_step
from handgrad.training.evaluate import right
from handgrad.training.gradients import in_precision
from handgrad.training.guard import Guard, guarded


class TrainState(NamedTuple):
    """All that changes while a net is trained, and the key of its random masks.

    Attributes:
        step: how many steps there were, () int32.
        params: the net's parameters.
        state: the net's state, such as running statistics.
        opt_state: the optimizer's state, such as momenta.
        key: of all random masks; step t takes fold_in(key, t).

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(3), hg.BatchNorm())
        >>> train_state = init_train_state(net, hg.momentum(0.1), jax.random.key(0), (2,))
        >>> int(train_state.step), jax.tree.map(jnp.shape, train_state.state)
        (0, {'batchnorm1': {'mean': (3,), 'var': (3,)}})
        >>> jax.tree.map(jnp.shape, train_state.opt_state.memory["velocity"]["dense1"])  # as the parameters
        {'bias': (3,), 'kernel': (2, 3)}
    """

    step: Array
    params: Any
    state: Any
    opt_state: Any
    key: Array


class Metrics(NamedTuple):
    """What a step tells of its batch: three scalars. Accuracy is NaN where the labels are no classes.

    Attributes:
        loss: the objective on the batch, before the step.
        accuracy: the share of the batch that is right, from 0 to 1.
        grad_norm: ‖g‖, the root of the sum of the squares of all gradients.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(2, use_bias=False, kernel_init=hg.initializers.zeros))
        >>> step = make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), hg.sgd(0.5))
        >>> train_state = init_train_state(net, step.optimizer, jax.random.key(0), (1,))
        >>> _, metrics = step(train_state, jnp.ones((1, 1), "float32"), jnp.array([0]))
        >>> [round(float(metric), 4) for metric in metrics]  # log 2; ties go to class 0; |(½ - 1, ½)|
        [0.6931, 1.0, 0.7071]
    """

    loss: Array
    accuracy: Array
    grad_norm: Array


def init_train_state(net: Layer, optimizer: Any, key: Array, in_shape: Shape, dtype: Any = jnp.float32) -> TrainState:
    """A fresh train state.

    All its arrays are copies, also of `key`: a step deletes the state that it is given, and the caller keeps the key.

    Args:
        net: a layer.
        optimizer: an (init, update) pair, ours or optax's.
        key: params and state are those of net.init(key, in_shape, dtype), and step t trains with fold_in(key, t).
        in_shape: the shape of one example, without the batch axis.
        dtype: of the parameters, floating point.

    Returns:
        A TrainState at step 0.

    Raises:
        TypeError: net is no layer.

    Example:
        >>> from handgrad.layers import Chain, Dense
        >>> from handgrad.optimizers import sgd
        >>> train_state = init_train_state(Chain(Dense(3)), sgd(0.1), jax.random.key(0), (2,))
        >>> jax.tree.map(jnp.shape, train_state.params), int(train_state.step)
        ({'dense1': {'bias': (3,), 'kernel': (2, 3)}}, 0)
    """
    check_is_layer(net, "init_train_state, net")
    params, state = net.init(key, in_shape, dtype)
    return copied(TrainState(jnp.zeros((), jnp.int32), params, state, init_optimizer(net, optimizer, params), key))


@dataclass(frozen=True, eq=False)
class TrainStep:
    """A compiled step, (train_state, x, y, weights=None) -> (train_state, Metrics). Made by `make_train_step`.

    Attributes:
        objective: what is made small.
        optimizer: an (init, update) pair, ours or optax's.
        value_and_grad: how the gradient is made; `hg.value_and_grad`, or a function of its call.
        donate: whether the state given to a step is taken over by the new one, and deleted.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(2))
        >>> step = make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), hg.sgd(0.5))
        >>> train_state = init_train_state(net, step.optimizer, jax.random.key(0), (2,))
        >>> after, metrics = step(train_state, jnp.eye(2, dtype="float32"), jnp.array([0, 1]))
        >>> int(after.step), train_state.params["dense1"]["kernel"].is_deleted()  # the old one is donated
        (1, True)
    """

    objective: Objective
    optimizer: Any
    value_and_grad: Callable = by_hand
    donate: bool = True

    def __call__(
        self, train_state: TrainState, x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None
    ) -> tuple[TrainState, Metrics]:
        """The train state after one step on the batch, and the metrics of the batch before it."""
        return self._compiled(train_state, x, y, weights)

    def lower(self, train_state: TrainState, x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> Any:
        """The lowered step, as `jax.jit(f).lower` gives it: to read its memory and cost."""
        return self._compiled.lower(train_state, x, y, weights)

    def guarded(
        self, train_state: TrainState, guard: Guard, x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None
    ) -> tuple[TrainState, Guard, Metrics]:
        """The same, but a step whose loss or gradient is not finite leaves the train state as it is, see `Guard`."""
        return self._compiled_guarded(train_state, guard, x, y, weights)

    @functools.cached_property
    def _compiled(self) -> Jitted:
        def step(train_state: TrainState, x: Array, y: Array, weights: Array | None) -> tuple[TrainState, Metrics]:
            at, grads, state, metrics = self._gradient(train_state, x, y, weights)
            return self._updated(train_state, at, grads, state), metrics

        return jit(member_step(self.objective.net, step), donate_argnums=0 if self.donate else ())

    @functools.cached_property
    def _compiled_guarded(self) -> Jitted:
        def step(
            train_state: TrainState, guard: Guard, x: Array, y: Array, weights: Array | None
        ) -> tuple[TrainState, Guard, Metrics]:
            at, grads, state, metrics = self._gradient(train_state, x, y, weights)
            update = functools.partial(self._updated, train_state, at, grads, state)
            return *guarded(train_state, guard, metrics, update), metrics

        def step_of_members(
            train_state: TrainState, guard: Guard, x: Array, y: Array, weights: Array | None
        ) -> tuple[TrainState, Guard, Metrics]:
            """All are refused together: the metrics, means over members, are not finite where one member's are not."""
            new, metrics = self._compiled(train_state, x, y, weights)
            return *guarded(train_state, guard, metrics, lambda: new), metrics

        whole = step_of_members if isinstance(self.objective.net, Ensemble) else step
        return jit(whole, donate_argnums=0 if self.donate else ())

    def _gradient(
        self, train_state: TrainState, x: Array, y: Array, weights: Array | None
    ) -> tuple[Any, Any, Any, Metrics]:
        """Where the objective is looked at, and there its gradient, the layers' new state, the metrics."""
        t, params, state, _, key = train_state
        at = (params, x, y, state, jax.random.fold_in(key, t), weights)
        (loss, aux), grads = self.value_and_grad(member_objective(self.objective), has_aux=True)(*at)
        accuracy = batch_accuracy(self.objective.loss, aux.logits, y, weights)
        return at, grads, aux.state, Metrics(loss, accuracy, global_norm(grads))

    def _updated(self, train_state: TrainState, at: Any, grads: Any, state: Any) -> TrainState:
        t, params, _, opt_state, key = train_state
        updates, opt_state = update_at(self.optimizer, grads, opt_state, params, at)
        return TrainState(t + 1, apply_updates(params, updates), state, opt_state, key)


def make_train_step(
    objective: Objective,
    optimizer: Any,
    value_and_grad: Callable = by_hand,
    donate: bool = True,
    *,
    precision: str | None = None,
) -> TrainStep:
    """A compiled training step.

    It may be called inside jit, scan and vmap: over train states, or over learning rates with an optimizer whose rate
    is traced.

    Args:
        objective: what is made small.
        optimizer: an (init, update) pair, ours or optax's.
        value_and_grad: whose gradients: `hg.value_and_grad`, by hand, or `jax.value_and_grad`, automatic.
        donate: whether, at top level, the step deletes the train state it is given and takes over its memory.
        precision: "bf16" computes the gradient in bfloat16, while parameters and updates stay as they are (float32).

    Returns:
        step(train_state, x, y, weights=None) -> (train_state, Metrics): x (N, ...), y as the loss wants it, and one
        weight an example (N,), which counts in the accuracy too. Accuracy is NaN where the labels are no classes:
        neither int labels (N,), nor soft labels (N, K) of a loss of classes, such as `SoftmaxCrossEntropy`.

    Raises:
        TypeError: objective is no Objective, or optimizer no (init, update) pair.
        ValueError: an unknown precision.

    Example:
        >>> from handgrad.layers import Chain, Dense
        >>> from handgrad.losses import SoftmaxCrossEntropy
        >>> from handgrad.optimizers import sgd
        >>> net, optimizer = Chain(Dense(2)), sgd(0.5)
        >>> train_state = init_train_state(net, optimizer, jax.random.key(0), (2,))
        >>> step = make_train_step(Objective(net, SoftmaxCrossEntropy()), optimizer)
        >>> for _ in range(50):
        ...     train_state, metrics = step(train_state, jnp.eye(2, dtype="float32"), jnp.array([0, 1]))
        >>> int(train_state.step), float(metrics.accuracy)
        (50, 1.0)
    """
    if not isinstance(objective, Objective):
        raise TypeError(f"make_train_step: wants an hg.Objective, got {objective!r}; write hg.Objective(net, loss)")
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        raise TypeError(f"make_train_step: optimizer must have init and update, got {optimizer!r}; such as hg.sgd(0.1)")
    return TrainStep(objective, optimizer, in_precision(precision, value_and_grad), donate)


def batch_accuracy(loss: Loss, logits: Array, y: Array, weights: Array | None) -> Array:
    """The weighted share of right predictions, float32; NaN if nothing counts or the labels are no classes."""
    hits, counted = right(loss, logits, y)
    counted = counted.astype(jnp.float32) * (1 if weights is None else jnp.asarray(weights, jnp.float32))
    return (hits * counted).sum() / counted.sum()


def copied(tree: Any) -> Any:
    """The tree with each array in a buffer of its own."""
    return jax.tree.map(jnp.copy, tree)

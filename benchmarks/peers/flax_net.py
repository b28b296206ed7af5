"""A handgrad net in Flax's linen modules. Names and layouts are the same, so our parameters are Flax's as they are."""

from typing import Any

import flax.linen as nn
import jax
import optax
from flax.training import train_state

import handgrad as hg
from benchmarks.peers import no_counterpart, pairs_of, window_of
from handgrad.benchmark.steps import Start
from handgrad.benchmark.trainer import Step


class Net(nn.Module):
    """A chain of modules under the names of the layers."""

    layer: hg.Chain

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for name, layer in self.layer.items():
            x = called(layer, name, x, train)
        return x


class Sum(nn.Module):
    """A residual block."""

    layer: hg.Residual

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        paths = {name: called(layer, name, x, train) for name, layer in self.layer.items()}
        return paths["body"] + paths.get("shortcut", x)


def called(layer: hg.Layer, name: str, x: jax.Array, train: bool) -> jax.Array:
    """The counterpart of one layer, applied to x."""
    match layer:
        case hg.Chain():
            return Net(layer, name=name)(x, train)
        case hg.Residual():
            return Sum(layer, name=name)(x, train)
        case hg.Conv():
            size, pairs = _pair(layer.kernel_size), pairs_of(layer, x.shape[1:])
            conv = nn.Conv(
                *(layer.features, size, _pair(layer.strides), pairs),
                feature_group_count=layer.groups,
                use_bias=layer.use_bias,
                name=name,
            )
            return conv(x)
        case hg.Dense():
            return nn.Dense(layer.features, layer.use_bias, name=name)(x)
        case hg.BatchNorm():
            return nn.BatchNorm(not train, momentum=layer.momentum, epsilon=layer.eps, name=name)(x)
        case hg.Relu():
            return nn.relu(x)
        case hg.MaxPool():
            return nn.max_pool(x, *window_of(layer))
        case hg.AvgPool():
            return nn.avg_pool(x, *window_of(layer))
        case hg.GlobalAvgPool():
            return x.mean((1, 2))
        case hg.Flatten():
            return x.reshape(x.shape[0], -1)
    raise no_counterpart("Flax", layer)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


class State(train_state.TrainState):
    """Flax's train state with running statistics."""

    batch_stats: Any


def step_and_state(start: Start) -> tuple[Step, Any, Any, Any]:
    """The step of Flax's own examples, its first state, and the batch."""
    params, stats = start.train_state.params, start.train_state.state
    tx = optax.sgd(start.case.learning_rate, momentum=0.9)
    state = State.create(apply_fn=Net(start.case.net).apply, params=params, tx=tx, batch_stats=stats)

    def step(state: State, x: jax.Array, y: jax.Array) -> tuple[State, jax.Array]:
        def loss_of(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, changed = state.apply_fn(variables, x, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), changed

        (loss, changed), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        return state.apply_gradients(grads=grads, batch_stats=changed.get("batch_stats", {})), loss

    return step, state, start.x, start.y

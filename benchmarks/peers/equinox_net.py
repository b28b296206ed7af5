"""A handgrad net in Equinox's modules, which see one example in C H W each, under `jax.vmap`.

Kernels turn from H W I O to O I H W, and the rows of a dense layer behind a flatten from H W C order to C H W.
"""

# pyright: reportMissingImports=false

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import handgrad as hg
from benchmarks.peers import no_counterpart, pairs_of, rows_by_channel, walked, window_of
from handgrad.benchmark.steps import Start
from handgrad.benchmark.trainer import Step

KEY = jax.random.key(0)  # of parameters that ours replace


class Sum(eqx.nn.StatefulLayer):
    """A residual block."""

    body: eqx.nn.Sequential
    shortcut: eqx.nn.Sequential | None = None

    def __call__(self, x: jax.Array, state: eqx.nn.State, *, key: Any = None) -> tuple[jax.Array, eqx.nn.State]:
        y, state = self.body(x, state)
        if self.shortcut is not None:
            x, state = self.shortcut(x, state)
        return y + x, state


def chain(net: hg.Layer, params: Any, stats: Any, in_shape: tuple[int, ...]) -> eqx.nn.Sequential:
    """The modules of a chain, which both paths of a residual block are here too."""
    if not isinstance(net, hg.Chain):
        raise no_counterpart("Equinox", net)
    return eqx.nn.Sequential([module(*each) for each in walked(net, params, stats, in_shape)])


def module(layer: hg.Layer, params: Any, stats: Any, shape: tuple[int, ...], flat: tuple[int, ...] | None) -> Any:
    """The counterpart of one layer with our parameters; `flat` is the shape that a flatten before it was given."""
    match layer:
        case hg.Chain():
            return chain(layer, params, stats, shape)
        case hg.Residual():
            paths = {name: chain(path, p, s, shape) for name, path, p, s, _ in layer.walk(params, stats)}
            return Sum(**paths)
        case hg.Conv():
            return _conv(layer, params, shape)
        case hg.Dense():
            return _dense(layer, params, flat)
        case hg.BatchNorm():
            return eqx.nn.BatchNorm(shape[-1], "batch", layer.eps, momentum=layer.momentum, mode="batch")
        case hg.Relu():
            return eqx.nn.Lambda(jax.nn.relu)
        case hg.MaxPool():
            return eqx.nn.MaxPool2d(*window_of(layer))
        case hg.AvgPool():
            return eqx.nn.AvgPool2d(*window_of(layer))
        case hg.GlobalAvgPool():
            return eqx.nn.Lambda(_mean)
        case hg.Flatten():
            return eqx.nn.Lambda(jnp.ravel)
    raise no_counterpart("Equinox", layer)


def _mean(x: jax.Array) -> jax.Array:
    return x.mean((1, 2))


def _conv(layer: hg.Conv, params: Any, shape: tuple[int, ...]) -> eqx.nn.Conv2d:
    conv = eqx.nn.Conv2d(
        *(shape[-1], layer.features, layer.kernel_size, layer.strides, pairs_of(layer, shape)),
        groups=layer.groups,
        use_bias=layer.use_bias,
        key=KEY,
    )
    conv = eqx.tree_at(lambda conv: conv.weight, conv, params["kernel"].transpose(3, 2, 0, 1))
    return eqx.tree_at(lambda conv: conv.bias, conv, params["bias"][:, None, None]) if layer.use_bias else conv


def _dense(layer: hg.Dense, params: Any, flat: tuple[int, ...] | None) -> eqx.nn.Linear:
    kernel = rows_by_channel(params["kernel"], flat)
    linear = eqx.nn.Linear(*kernel.shape, use_bias=layer.use_bias, key=KEY)
    linear = eqx.tree_at(lambda linear: linear.weight, linear, kernel.T)
    return eqx.tree_at(lambda linear: linear.bias, linear, params["bias"]) if layer.use_bias else linear


def step_and_state(start: Start) -> tuple[Step, Any, Any, Any]:
    """The step of Equinox's own examples, its first state, and the batch in N C H W."""
    ours = start.train_state
    net = chain(start.case.net, ours.params, ours.state, start.case.in_shape)
    stats, optimizer = eqx.nn.State(net), optax.sgd(start.case.learning_rate, momentum=0.9)
    weights, static = eqx.partition(net, eqx.is_inexact_array)

    def step(state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        weights, stats, opt_state = state

        def loss_of(weights, stats):
            batched = jax.vmap(eqx.combine(weights, static), axis_name="batch", in_axes=(0, None), out_axes=(0, None))
            logits, stats = batched(x, stats)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), stats

        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(weights, stats)
        updates, opt_state = optimizer.update(grads, opt_state, weights)
        return (optax.apply_updates(weights, updates), stats, opt_state), loss

    return step, (weights, stats, optimizer.init(weights)), start.x.transpose(0, 3, 1, 2), start.y

"""A handgrad net in Haiku's modules, each under its path in our net; layouts are ours, only two names differ."""

# pyright: reportMissingImports=false

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import optax

import handgrad as hg
from benchmarks.peers import no_counterpart, pairs_of, window_of
from handgrad.benchmark.steps import Start
from handgrad.benchmark.trainer import Step

NAMES = {"kernel": "w", "bias": "b"}
NORM_NAMES = {"scale": "scale", "bias": "offset"}


def called(layer: hg.Layer, path: str, x: jax.Array) -> jax.Array:
    """The counterpart of a layer, applied to x in training."""
    match layer:
        case hg.Chain():
            for name, child in layer.items():
                x = called(child, _join(path, name), x)
            return x
        case hg.Residual():
            paths = {name: called(child, _join(path, name), x) for name, child in layer.items()}
            return paths["body"] + paths.get("shortcut", x)
        case hg.Conv():
            conv = hk.Conv2D(
                *(layer.features, layer.kernel_size, layer.strides),
                padding=pairs_of(layer, x.shape[1:]),
                feature_group_count=layer.groups,
                with_bias=layer.use_bias,
                name=path,
            )
            return conv(x)
        case hg.Dense():
            return hk.Linear(layer.features, layer.use_bias, name=path)(x)
        case hg.BatchNorm():
            return hk.BatchNorm(True, True, layer.momentum, layer.eps, name=path)(x, is_training=True)
        case hg.Relu():
            return jax.nn.relu(x)
        case hg.MaxPool():
            window, strides = window_of(layer)
            return hk.max_pool(x, (*window, 1), (*strides, 1), "VALID")
        case hg.AvgPool():
            window, strides = window_of(layer)
            return hk.avg_pool(x, (*window, 1), (*strides, 1), "VALID")
        case hg.GlobalAvgPool():
            return x.mean((1, 2))
        case hg.Flatten():
            return hk.Flatten()(x)
    raise no_counterpart("Haiku", layer)


def _join(path: str, name: str) -> str:
    return f"{path}_{name}" if path else name


def named_params(layer: hg.Layer, params: Any, path: str = "") -> dict[str, Any]:
    """Our parameters as Haiku names them."""
    if isinstance(layer, hg.Chain | hg.Residual):
        found = {}
        for name, child, p, _, _ in layer.walk(params, ()):
            found |= named_params(child, p, _join(path, name))
        return found
    if isinstance(layer, hg.BatchNorm):  # Haiku's have an axis for each of the input's
        return {path: {NORM_NAMES[name]: value[None, None, None, :] for name, value in params.items()}}
    return {path: {NAMES[name]: value for name, value in params.items()}} if params else {}


def step_and_state(start: Start) -> tuple[Step, Any, Any, Any]:
    """The step of Haiku's own examples, its first state, and the batch."""
    net = hk.transform_with_state(lambda x: called(start.case.net, "", x))
    drawn, stats = jax.eval_shape(net.init, jax.random.key(0), start.x[:1])
    stats = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), stats)  # as Haiku's averages start
    params = named_params(start.case.net, start.train_state.params)
    if jax.tree.map(jnp.shape, drawn) != jax.tree.map(jnp.shape, params):
        raise ValueError("benchmarks: Haiku's parameters have other names or shapes than ours")
    optimizer = optax.sgd(start.case.learning_rate, momentum=0.9)

    def step(state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        params, stats, opt_state = state

        def loss_of(params):
            logits, new_stats = net.apply(params, stats, None, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), new_stats

        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), stats, opt_state), loss

    return step, (params, stats, optimizer.init(params)), start.x, start.y

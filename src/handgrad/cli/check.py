"""`handgrad check` and `handgrad summary`: look at a net without training it."""

import argparse

import jax
import jax.numpy as jnp

from handgrad import data
from handgrad.cli.arguments import net_of_name
from handgrad.cli.planted import ERRORS, plant
from handgrad.cli.train import check as check_batch
from handgrad.cli.train import load, net_of
from handgrad.gradient import Objective
from handgrad.insight import check_layer
from handgrad.insight import summary as summary_of
from handgrad.layers.container import Chain
from handgrad.losses import SoftmaxCrossEntropy


def check(options: argparse.Namespace) -> int:
    """Print the gradient check; the exit code, 1 where something is wrong."""
    dataset = load(options)
    net, x = net_of(options, dataset), data.normalise(dataset.train_x[:8])
    if options.plant is not None:
        net, place = plant(net, options.plant)
        print(f"planted in {place}: {ERRORS[options.plant][0]}\n")
    params, state = net.init(jax.random.key(options.seed), x.shape[1:])
    if options.layer_by_layer:
        return _layer_by_layer(net, params, state, x.shape[1:])
    objective = Objective(net, SoftmaxCrossEntropy(), l2=options.l2)
    report = check_batch(objective, params, state, x, dataset.train_y)
    print(report)
    return 0 if report.ok else 1


def _layer_by_layer(net: Chain, params: dict, state: dict, in_shape: tuple[int, ...]) -> int:
    """Check each layer alone, on random numbers of the shape that it gets within the net."""
    x, wrong = jax.ShapeDtypeStruct((1, *in_shape), jnp.float32), []
    for name, layer, its_params, its_state, _ in net.walk(params, state):
        report = check_layer(layer, x.shape[1:], coordinates=4)
        print(f"{name}, {'x'.join(map(str, x.shape[1:]))}: {report}\n", flush=True)
        wrong += [] if report.ok else [name]
        x = jax.eval_shape(layer.apply, its_params, x, its_state)
    print(f"WRONG: {', '.join(wrong)}" if wrong else "all layers are right")
    return 1 if wrong else 0


def summary(options: argparse.Namespace) -> int:
    """Print the table of a net's layers."""
    net, in_shape = net_of_name(options)
    print(summary_of(net, in_shape, options.batch))
    return 0

"""`handgrad ledger` and `handgrad cost`: what a net's layers keep for backward, and what they cost."""

import argparse
from collections.abc import Callable
from typing import Any

from handgrad import insight, viz
from handgrad.cli.arguments import add_command, add_net, between, net_of_name


def add_ledger(commands: Any) -> None:
    """The command `ledger`."""
    text = "set the bytes that each layer keeps for backward by hand beside jax.grad's"
    command = add_command(commands, "ledger", ledger, text)
    add_net(command, batch=64)
    command.add_argument(
        "--no-temporary",
        dest="temporary",
        action="store_false",
        help="leave the memory out that XLA plans, for which both gradients are compiled",
    )
    _add_out(command)


def add_cost(commands: Any) -> None:
    """The command `cost`."""
    text = "time forward and backward of each layer, and count their multiply-adds"
    command = add_command(commands, "cost", cost, text)
    add_net(command, batch=32)
    command.add_argument(
        "--seconds",
        metavar="S",
        type=between(0),
        default=5.0,
        help="how long to measure, once all is compiled; five rounds at least (%(default)g)",
    )
    _add_out(command)


def ledger(options: argparse.Namespace) -> int:
    """Print the table of kept bytes, and draw it where asked."""
    net, in_shape = net_of_name(options)
    return _shown(insight.ledger(net, in_shape, options.batch, temporary=options.temporary), viz.ledger, options.out)


def cost(options: argparse.Namespace) -> int:
    """Print the table of times, and draw it where asked."""
    net, in_shape = net_of_name(options)
    return _shown(insight.cost(net, in_shape, options.batch, seconds=options.seconds), viz.cost, options.out)


def _shown(found: Any, draw: Callable, out: str | None) -> int:
    print(found)
    if out is not None:
        print(f"drawn to {viz.save(draw(found), out)}")
    return 0


def _add_out(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", metavar="FILE", help="also draw it to this file (.png, .svg or .pdf)")

"""What the commands' options share: a command with its help, the options that name a net, and kinds of arguments."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from handgrad import models
from handgrad.cli.train import DEFAULTS
from handgrad.layers.layer import Layer
from handgrad.models import NAMES
from handgrad.training.run_record import read_facts


def add_command(commands: Any, name: str, run: Callable, purpose: str) -> argparse.ArgumentParser:
    """A command with its purpose; defaults stand in brackets in the help."""
    codes = "The exit code is 1 for a wrong gradient, 2 for wrong input."
    about = f"{purpose[0].upper()}{purpose[1:]}. Defaults are in brackets. {codes}"
    added = commands.add_parser(name, help=purpose, description=about)
    added.set_defaults(run=run)
    return added


def add_net(command: argparse.ArgumentParser, batch: int) -> None:
    """The options that name a net and a batch; `net_of_name` makes the net of them."""
    command.add_argument(
        "target", metavar="RUN_OR_NET", nargs="?", help="the folder of a run, for its net; or a net by name"
    )
    command.add_argument("--model", choices=NAMES, help="which net (lenet)")
    command.add_argument(
        "--in-shape",
        metavar="HxWxC",
        type=in_shape,
        help="of one image (that of the net's paper, such as 28x28x1 for lenet and 227x227x3 for alexnet)",
    )
    command.add_argument(
        "--classes", metavar="N", type=at_least(1), help="how many outputs (the net's own, 10 or 1000)"
    )
    command.add_argument("--batch", metavar="N", type=at_least(1), default=batch, help="how many images (%(default)s)")


def net_of_name(options: argparse.Namespace) -> tuple[Layer, tuple[int, ...]]:
    """The net that the options name, and the shape of its images; of a run, those of its run.json."""
    if options.target is not None and os.path.isdir(options.target):
        return _net_of_run(options)
    name = one_name(options) or "lenet"
    given = {} if options.classes is None else {"classes": options.classes}
    return models.by_name(name, **given), options.in_shape or models.IN_SHAPES[name]


def one_name(options: argparse.Namespace) -> str | None:
    """The net's name, given in one of two places, or None."""
    target, model = options.target, options.model
    if target is not None and target not in NAMES:
        raise ValueError(f"{target} is neither the folder of a run nor a net; the nets are {', '.join(NAMES)}")
    if target is not None and model not in (None, target):
        raise ValueError(f"there are two nets, {target} and --model {model}; name one")
    return target or model


def _net_of_run(options: argparse.Namespace) -> tuple[Layer, tuple[int, ...]]:
    if options.model is not None or options.classes is not None:
        raise ValueError(f"{options.target} has a net of its own; leave --model and --classes out")
    facts = read_facts(options.target)
    if not isinstance(facts.get("net"), str) or not isinstance(facts.get("in_shape"), list):
        raise ValueError(f"{options.target} does not say which net was trained; it is no run of fit or handgrad train")
    return models.from_text(facts["net"]), options.in_shape or tuple(facts["in_shape"])


def add_data(command: argparse.ArgumentParser) -> None:
    """The options that name data and a net on them; `load` and `net_of` of `cli.train` make them."""
    group = command.add_argument_group("data and net")
    group.add_argument("--data", choices=DEFAULTS, default="digits", help="which images (%(default)s)")
    group.add_argument(
        "--data-dir", metavar="D", help="folder with the files of mnist, fashion_mnist, cifar10 or cifar100"
    )
    group.add_argument("--download", action="store_true", help="fetch what --data-dir lacks (needs pooch)")
    group.add_argument(
        "--test-images-only",
        action="store_true",
        help="mnist without its training files: train on four fifths of the test images, test on the others",
    )
    group.add_argument("--model", choices=NAMES, help=f"which net ({of_data('model')})")
    group.add_argument("--dropout", metavar="P", type=between(0, 1), help="rate of dropout (the net's own)")
    group.add_argument(
        "--l2", metavar="R", type=between(0), default=1e-4, help="penalty on the squares of all kernels (%(default)s)"
    )
    group.add_argument("--seed", metavar="S", type=at_least(0), default=0, help="of everything random (%(default)s)")


def of_data(field: str) -> str:
    """Defaults by data set, for the help."""
    return ", ".join(f"{getattr(defaults, field)} for {name}" for name, defaults in DEFAULTS.items())


def at_least(least: int) -> Callable[[str], int]:
    """An argument that is an int from `least` up to 2³² - 1, as seeds are."""

    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, got {text!r}")
        return int(text)

    return number


def between(least: float, end: float = float("inf")) -> Callable[[str], float]:
    """An argument that is a number, least <= number < end."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value < end:
            limits = f"of at least {least}" if end == float("inf") else f"of at least {least} and below {end}"
            raise argparse.ArgumentTypeError(f"must be a number {limits}, got {text!r}")
        return value

    return number


def in_shape(text: str) -> tuple[int, ...]:
    """A shape such as 28x28x1 or 28,28,1."""
    sizes = text.replace("x", ",").split(",")
    if not all(size.isascii() and size.isdigit() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"must be positive sizes such as 28,28,1, got {text!r}")
    return tuple(map(int, sizes))

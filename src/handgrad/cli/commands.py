"""The commands, their options, and how an error ends one: a line on stderr and exit code 2."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import handgrad
from handgrad.benchmark import SECTIONS
from handgrad.cli.arguments import add_command, add_data, add_net, at_least, between, of_data
from handgrad.cli.bench import bench
from handgrad.cli.check import check, summary
from handgrad.cli.look import add_cost, add_ledger
from handgrad.cli.pages import add_demo, add_report
from handgrad.cli.planted import ERRORS
from handgrad.cli.trace import add_trace
from handgrad.cli.train import GRADIENTS, OPTIMIZERS, train

DESCRIPTION = "Convolutional networks in JAX whose gradients are derived by hand."


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message alone, not the whole usage."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; None takes those of the process.

    Returns:
        The exit code: 0, 1 where a gradient check fails, 2 where something given is wrong, 130 after Ctrl-C.

    Example:
        >>> main(["summary", "--model", "perceptron", "--in-shape", "8,8,1"])
        layer     kind     output      parameters  multiply-adds  kept bytes
        flatten1  Flatten  64                   -              -           -
        dense1    Dense    10                 650            640         256
        total              batch of 1         650            640         256
        0
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    options.line = shlex.join(["handgrad", *(sys.argv[1:] if arguments is None else arguments)])
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return options.run(options)
    except (ValueError, TypeError, OSError) as error:
        notes = [f"({note})" for note in getattr(error, "__notes__", ()) if note.startswith("in ")]  # not JAX's own
        text = " ".join([str(error), *notes])
        print(f"handgrad {options.command}: {' '.join(text.split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> Parser:
    parser = Parser(prog="handgrad", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"handgrad {handgrad.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    looks = (_add_check, _add_summary, add_ledger, add_cost, add_trace)
    for add in (_add_train, *looks, _add_bench, add_report, add_demo):
        add(commands)
    return parser


def _add_train(commands: Any) -> None:
    command = add_command(commands, "train", train, "check a net's gradients, train it, test it, draw what it learned")
    add_data(command)
    run = command.add_argument_group("training")
    run.add_argument("--epochs", metavar="N", type=at_least(1), help=f"times through the data ({of_data('epochs')})")
    run.add_argument("--batch-size", metavar="N", type=at_least(1), help=f"images a step ({of_data('batch_size')})")
    run.add_argument(
        "--learning-rate",
        metavar="R",
        type=between(0),
        help="its peak, with a short warmup before and half a cosine wave after it "
        f"({', '.join(f'{rate:g} for {name}' for name, (_, rate) in OPTIMIZERS.items())})",
    )
    run.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help="how gradients become steps (%(default)s)")
    run.add_argument(
        "--label-smoothing",
        metavar="P",
        type=between(0, 1),
        default=0.1,
        help="how much of each label is spread over all classes (%(default)s)",
    )
    run.add_argument(
        "--validation",
        metavar="P",
        type=between(0, 1),
        default=0.1,
        help="share of the training images to hold out and validate on after each epoch (%(default)s)",
    )
    run.add_argument(
        "--gradients", choices=GRADIENTS, default="hand", help="by hand, or automatic by jax.grad (%(default)s)"
    )
    run.add_argument(
        "--trace-every",
        metavar="N",
        type=at_least(1),
        help="look inside each layer every N steps (never), for the report",
    )
    out = command.add_argument_group("output")
    out.add_argument(
        "--run-dir",
        metavar="D",
        help="folder for metrics.jsonl, checkpoints and figures (a new one under runs/)",
    )
    out.add_argument("--resume", action="store_true", help="continue the run in --run-dir from its newest checkpoint")
    out.add_argument("--no-check", dest="check", action="store_false", help="leave the gradient check out")
    out.add_argument("--no-figures", dest="figures", action="store_false", help="draw no pictures of the run")
    out.add_argument("--no-progress", dest="progress", action="store_false", help="show no progress bar")


def _add_check(commands: Any) -> None:
    command = add_command(
        commands, "check", check, "set gradients by hand, automatic ones and finite differences side by side"
    )
    add_data(command)
    look = command.add_argument_group("check")
    look.add_argument("--layer-by-layer", action="store_true", help="check each layer alone, on random numbers")
    look.add_argument(
        "--plant",
        choices=ERRORS,
        metavar="ERROR",
        help="put a wrong backward pass into a layer and see it found: "
        + "; ".join(f"{name}: {text}" for name, (text, _) in ERRORS.items()),
    )


def _add_summary(commands: Any) -> None:
    text = "list a net's layers, parameters, multiply-adds and kept bytes"
    add_net(add_command(commands, "summary", summary, text), batch=1)


def _add_bench(commands: Any) -> None:
    command = add_command(commands, "bench", bench, "time steps and pools by hand beside jax.grad's on this machine")
    command.add_argument("--only", metavar="SECTIONS", help=f"some of {','.join(SECTIONS)} (all)")
    command.add_argument("--quick", action="store_true", help="small and short, to see that it works")
    command.add_argument("--json", metavar="FILE", help="also write the figures to this file")


def _command(commands: Any, name: str, run: Callable, purpose: str) -> argparse.ArgumentParser:
    """A command with its purpose; defaults stand in brackets in the help."""
    codes = "The exit code is 1 for a wrong gradient, 2 for wrong input."
    about = f"{purpose[0].upper()}{purpose[1:]}. Defaults are in brackets. {codes}"
    command = commands.add_parser(name, help=purpose, description=about)
    command.set_defaults(run=run)
    return command


def _add_data(command: argparse.ArgumentParser) -> None:
    """What `train` and `check` share: data, net, and what they are made with."""
    group = command.add_argument_group("data and net")
    group.add_argument("--data", choices=DEFAULTS, default="digits", help="which images (%(default)s)")
    group.add_argument(
        "--data-dir", metavar="D", help="folder with the files of mnist, fashion_mnist, cifar10 or cifar100"
    )
    group.add_argument("--download", action="store_true", help="fetch the files that --data-dir lacks (needs pooch)")
    group.add_argument(
        "--test-images-only",
        action="store_true",
        help="mnist without its training files: train on four fifths of the test images, test on the others",
    )
    group.add_argument("--model", choices=NAMES, help=f"which net ({_of_data('model')})")
    group.add_argument("--dropout", metavar="P", type=between(0, 1), help="rate of dropout (the net's own)")
    group.add_argument(
        "--l2", metavar="R", type=between(0), default=1e-4, help="penalty on the squares of all kernels (%(default)s)"
    )
    group.add_argument("--seed", metavar="S", type=at_least(0), default=0, help="of everything random (%(default)s)")


def _of_data(field: str) -> str:
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

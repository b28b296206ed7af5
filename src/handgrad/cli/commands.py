"""The commands, their options, and how an error ends one: a line on stderr and exit code 2."""

import argparse
import difflib
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import jax

import handgrad
from handgrad.benchmark import SECTIONS
from handgrad.cli.arguments import add_command, add_data, add_net, at_least, between, of_data
from handgrad.cli.bench import bench
from handgrad.cli.check import check, summary
from handgrad.cli.devices import add_devices
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

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """An option that a command has not is that command's error, which names the nearest that it has."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            given = unknown[0].split("=")[0]
            near = difflib.get_close_matches(given, self._option_string_actions, 1)
            self.error(f"unrecognized argument {given}" + (f" (did you mean {near[0]}?)" if near else ""))
        return found, unknown


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
    except (ValueError, TypeError, OSError, FloatingPointError, ImportError) as error:  # the last one names an extra
        if jax.distributed.is_initialized():
            raise  # the other processes hear of it, and end
        notes = [f"({note})" for note in getattr(error, "__notes__", ()) if note.startswith("in ")]  # not JAX's own
        text = " ".join([str(error).removeprefix(f"{options.command}: "), *notes])
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
    add_devices(command)
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

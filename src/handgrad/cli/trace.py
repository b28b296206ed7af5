"""`handgrad trace`: each step of the chain rule in numbers, of a fresh net on one batch, or of a run that kept them."""

import argparse
import math
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from handgrad import data, insight, models, viz
from handgrad.cli.arguments import add_command, add_data, at_least, in_shape, one_name
from handgrad.cli.train import DEFAULTS, load, net_of
from handgrad.compile import jit
from handgrad.gradient import Objective
from handgrad.losses import SoftmaxCrossEntropy
from handgrad.training import read_history
from handgrad.viz.trace import NAMES


def add_trace(commands: Any) -> None:
    """The command `trace` and its options."""
    text = "show how large each layer's output and gradients are, and which layer breaks, dies, explodes or vanishes"
    command = add_command(commands, "trace", trace, text)
    command.add_argument(
        "target",
        metavar="RUN_OR_NET",
        nargs="?",
        help="the folder of a run with --trace-every: its last trace is printed, all of them are drawn; "
        "or a net by its name, as --model: a fresh one is traced on one batch",
    )
    add_data(command)
    look = command.add_argument_group("trace")
    look.add_argument("--batch", metavar="N", type=at_least(1), default=64, help="how many images (%(default)s)")
    look.add_argument("--in-shape", metavar="HxWxC", type=in_shape, help="take random images of this shape for data")
    look.add_argument(
        "--value",
        choices=NAMES,
        help="what is drawn of a run, such as ratio for |dW| / |W| (delta, and dead where there is a ReLU)",
    )


def trace(options: argparse.Namespace) -> int:
    """Print a trace, and draw those of a run; the exit code."""
    target = options.target
    if target is not None and os.path.isdir(target):
        return _of_run(Path(target), options.value)
    options.model = one_name(options)
    if options.value is not None:
        raise ValueError("--value is what to draw of a run; name its folder")
    return _of_net(options)


def _of_net(options: argparse.Namespace) -> int:
    """Fresh weights on the first images of the data, or on random ones whose labels are the classes in turn."""
    if options.in_shape is None:
        dataset = load(options)
        net, x = net_of(options, dataset), data.normalise(dataset.train_x[: options.batch])
        labels = jnp.asarray(dataset.train_y[: options.batch])
    else:
        name = options.model or DEFAULTS[options.data].model
        net = models.by_name(name, **({} if options.dropout is None else {"dropout": options.dropout}))
        x = jax.random.normal(jax.random.key(options.seed), (options.batch, *options.in_shape), jnp.float32)
        labels = None
    params, state = net.init(jax.random.key(options.seed), x.shape[1:])
    if labels is None:
        labels = jnp.arange(options.batch) % jax.eval_shape(net.apply, params, x, state).shape[-1]
    objective = Objective(net, SoftmaxCrossEntropy(), l2=options.l2)
    print(jit(insight.trace(objective))(params, x, labels, state, jax.random.key(options.seed + 1)))
    return 0


def _of_run(run_dir: Path, value: str | None) -> int:
    history = read_history(run_dir)
    if "trace" not in history:
        raise ValueError(f"{run_dir} keeps no traces; train with --trace-every N, or by fit(..., trace_every=N)")
    steps, last = history["trace_step"], insight.Trace.from_record(history["trace"][-1])
    print(f"step {steps[-1]}, the last of {len(steps)} traced: {last}")
    has_relu = any(not math.isnan(row.dead) for row in last.rows)
    values = [value] if value is not None else ["delta", "dead"] if has_relu else ["delta"]
    try:
        paths = [viz.save(viz.trace(history, name), run_dir / "figures" / f"trace_{name}.png") for name in values]
        print(f"figures     {run_dir / 'figures'}: {', '.join(path.name for path in paths)}")
    except ImportError as error:
        print(f"figures     none; {error}")
    return 0

"""`handgrad train`: check the gradients, train, test, and say where everything is."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from handgrad import data, models, schedules
from handgrad.cli.devices import mesh_of, on_mesh
from handgrad.cli.report import fresh_run_dir, holds_run, print_results
from handgrad.gradient import Objective, value_and_grad
from handgrad.insight import Report, check_gradients, summary
from handgrad.layers.container import Chain
from handgrad.losses import SoftmaxCrossEntropy
from handgrad.memory import keep_memory
from handgrad.optimizers import adam, adamw, momentum, sgd
from handgrad.training import checkpoint, distributed, fit, init_train_state, make_train_step, note_run

CHECKED = 4  # images of a gradient check
LONG = 300  # letters of a net, above which its name has to do
OFF_THE_KINK = 0.05  # biases of 0 put units that see nothing but black exactly on the kink of a ReLU


class Defaults(NamedTuple):
    """What is taken for a data set where no option says otherwise."""

    model: str
    epochs: int
    batch_size: int


DEFAULTS = {
    "digits": Defaults("digits_cnn", 30, 32),
    "mnist": Defaults("lenet", 3, 128),
    "fashion_mnist": Defaults("lenet", 5, 128),
    "cifar10": Defaults("resnet20", 10, 128),
    "cifar100": Defaults("resnet20", 10, 128),
}
LOADERS: dict[str, Callable[..., data.Dataset]] = {
    "fashion_mnist": data.load_fashion_mnist,
    "cifar10": data.load_cifar10,
    "cifar100": data.load_cifar100,
}
OPTIMIZERS: dict[str, tuple[Callable[[Any], Any], float]] = {
    "adam": (adam, 2e-3),
    "adamw": (adamw, 2e-3),
    "momentum": (momentum, 0.02),
    "nesterov": (lambda lr: momentum(lr, nesterov=True), 0.02),
    "sgd": (sgd, 0.2),
}
GRADIENTS = {"hand": value_and_grad, "automatic": jax.value_and_grad}


def train(options: argparse.Namespace) -> int:
    """Train as the options say; the exit code, 1 where the gradient check fails."""
    keep_memory()
    mesh = mesh_of(options)
    say = print if mesh is None or distributed.is_main() else _silent
    run_dir = run_dir_of(options)
    dataset = load(options)
    net = net_of(options, dataset)
    defaults = DEFAULTS[options.data]
    epochs, batch_size = options.epochs or defaults.epochs, options.batch_size or defaults.batch_size
    x, test_x, classes = data.normalise(dataset.train_x), data.normalise(dataset.test_x), dataset.classes
    (x, y), validation = (x, dataset.train_y), None
    if options.validation:
        validation, (x, y) = data.split(x, y, options.validation, seed=options.seed)
    make, rate = OPTIMIZERS[options.optimizer]
    steps = epochs * (len(x) // batch_size)
    rate = rate if options.learning_rate is None else options.learning_rate
    optimizer = make(schedules.cosine(rate, max(steps, 1), warmup=steps // 20))
    objective = Objective(net, SoftmaxCrossEntropy(options.label_smoothing), l2=options.l2)
    train_state = init_train_state(net, optimizer, jax.random.key(options.seed), x.shape[1:])
    shape, parameters = "x".join(map(str, x.shape[1:])), summary(net, x.shape[1:]).parameters
    say(f"data   {options.data}: {len(x):,} training and {len(test_x):,} test images of {shape}")
    text = str(net) if len(str(net)) <= LONG else options.model
    say(f"net    {text}, {parameters:,} parameters\n")
    report = None
    if options.check:
        report = check(objective, train_state.params, train_state.state, x, y)
        say(f"{report}\n", flush=True)
        if not report.ok:
            return 1
    if options.resume:
        newest = checkpoint.latest(run_dir)
        say(f"from   {newest or f'the start: {run_dir} holds no checkpoint yet'}\n")
    step = make_train_step(objective, optimizer, GRADIENTS[options.gradients], precision=options.precision)
    train_state, history = fit(
        train_state,
        on_mesh(step, mesh),
        x,
        y,
        batch_size=batch_size,
        epochs=epochs,
        seed=options.seed,
        validation=validation,
        run_dir=run_dir,
        resume=options.resume,
        progress=options.progress,
        trace_every=options.trace_every,
    )
    rule = f"{options.optimizer}, learning rate {rate:g} after a warmup, then half a cosine wave"
    if mesh is None or distributed.is_main():
        note_run(run_dir, command=options.line, data=options.data, optimizer=rule, gradients=options.gradients)
        note_run(run_dir, **({} if report is None else {"check": report}))
    say(f"trained {int(train_state.step):,} steps in {sum(history['seconds']):.1f} s\n")
    print_results(net, train_state, test_x, dataset.test_y, classes, run_dir, figures=options.figures)
    return 0


def _silent(*_: Any, **__: Any) -> None:
    """What process 0 says is enough."""


def check(objective: Objective, params: Any, state: Any, x: Any, y: Any) -> Report:
    """The gradient check on a few images, biases moved a little, off the kink of a ReLU."""
    moved = jax.tree.map(lambda leaf: leaf + OFF_THE_KINK if leaf.ndim == 1 else leaf, params)
    return check_gradients(objective, moved, x[:CHECKED], y[:CHECKED], state, jax.random.key(1), coordinates=4)


def load(options: argparse.Namespace) -> data.Dataset:
    """The data set that the options name."""
    if options.data == "digits":
        if options.data_dir is not None:
            raise ValueError("the digits travel inside the package; leave --data-dir out, or take --data mnist")
        return data.load_digits()
    if options.data_dir is None:
        raise ValueError(
            f"--data {options.data} needs --data-dir, the folder that holds its files, or that --download is to fill"
        )
    if options.data == "mnist":
        return data.load_mnist(options.data_dir, test_only=options.test_images_only, download=options.download)
    return LOADERS[options.data](options.data_dir, download=options.download)


def net_of(options: argparse.Namespace, dataset: data.Dataset) -> Chain:
    """The net that the options name, or the data set's own."""
    given: dict[str, Any] = {"dropout": options.dropout} if options.dropout is not None else {}
    name = options.model or DEFAULTS[options.data].model
    if name == "lenet5" and dataset.train_x.shape[1:3] == (28, 28):
        given["padding"] = 2  # the margin that makes the paper's 32x32 of them
    return models.by_name(name, classes=len(dataset.classes), **given)


def run_dir_of(options: argparse.Namespace) -> Path:
    """Where the run goes: a folder of its own under runs/ unless one is named."""
    if options.run_dir is None:
        if options.resume:
            raise ValueError("--resume needs --run-dir, the folder of the run to continue")
        return fresh_run_dir(Path("runs") / options.data)
    if holds_run(options.run_dir) and not options.resume:
        raise ValueError(
            f"{options.run_dir} holds a run already; add --resume to continue it, or name another --run-dir"
        )
    return Path(options.run_dir)

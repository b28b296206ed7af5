"""The loop of training: epochs over shuffled mini-batches, with metrics, validation and checkpoints.

The order of batches is a function of (seed, epoch), the masks of a step of (key, step), so a run that is stopped and
resumed goes through the same states, bit for bit on one device, as one that is not.
Metrics are read from the device some steps later, so that the device never waits for the host.
"""

import contextlib
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from handgrad.data import batches
from handgrad.data import prefetch as made_ahead
from handgrad.training.evaluate import evaluate
from handgrad.training.guard import Guarded, NotFinite, check_can_skip, explained
from handgrad.training.inputs import check_examples, check_labels, logits_shape
from handgrad.training.interrupt import stop_signals
from handgrad.training.log import Log
from handgrad.training.peers import Peers, checksum
from handgrad.training.run_folder import History, Line, RunFolder
from handgrad.training.run_record import note_run, training_facts
from handgrad.training.step import TrainState, copied
from handgrad.training.tracer import breaker, tracer

AUGMENT_STREAM = 2**31  # sets the keys of augmentation apart from keys that users make of the same seed


def fit(
    train_state: TrainState,
    step: Callable,
    x: Any,
    y: Any,
    *,
    batch_size: int,
    epochs: int,
    seed: int = 0,
    validation: tuple[Any, Any] | None = None,
    augment: Callable | None = None,
    prefetch: int = 2,
    run_dir: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool = True,
    trace_every: int | None = None,
    keep: int = 3,
    background: bool = False,
    skip_nonfinite: int | None = None,
) -> tuple[TrainState, History]:
    """Train for some epochs.

    With a run_dir, Ctrl-C and SIGTERM let the current step end and save all; SIGTERM then exits with code 0. With a
    `data_parallel` step in many processes each of them calls this alike, with the whole data; process 0 alone reads and
    writes run_dir and draws the bar, a SIGTERM to one stops all after the same step, and Ctrl-C saves nothing.

    Args:
        train_state: where to start; it is copied, and stays usable.
        step: from `make_train_step`.
        x: examples (n, ...), floating point, NumPy or jax arrays.
        y: labels (n, ...), as the loss wants them.
        batch_size: examples a step; the examples left over at the end of an epoch wait for another epoch's order.
        epochs: how often to go through the data, in all: a resumed run does what is left of them.
        seed: of the order of the examples, which is a function of (seed, epoch), and of augmentation.
        validation: (x, y) to evaluate on after each epoch.
        augment: (key, x, y) -> (x, y) on each batch, such as `hg.data.augment.flip()`, which is jitted; jit your own
            if it is in JAX.
        prefetch: how many batches a thread makes ready, augmented and on the device, while the step runs, see
            `hg.data.prefetch`; 0 makes each before its step, without a thread. The run is the same.
        run_dir: folder for metrics.jsonl (a line of JSON for each step, epoch and trace), checkpoints/step_XXXXXXXX.npz
            (one an epoch, see keep) and run.json, what was run: all that `hg.report` makes a page of.
        resume: continue from the newest checkpoint in run_dir; if there is none yet, start.
        progress: whether to draw a bar with loss, accuracy and images per second.
        trace_every: look inside the first step and each N-th after it: `hg.trace` of its batch and masks, before it is
            taken. It costs about three gradients; the device does not wait for it.
        keep: how many of the newest checkpoints stay, beside the best one, which `checkpoint.best(run_dir)` finds.
        background: whether a thread writes the checkpoints, from a copy on the host, while training goes on. At most
            one is under way; an error of it comes out at the next one or at the end.
        skip_nonfinite: how many steps in a row may have a loss or gradient that is not finite: they change nothing but
            the count of steps, and the epoch's line says how many they were, `skipped`. None stops at the first one.

    Returns:
        The trained state, and the history, lists by name: step, loss, accuracy, grad_norm with one entry a step; epoch,
        epoch_end (its last step), train_loss, train_accuracy, seconds, images_per_second, best_epoch (that of the
        lowest validation_loss, or else train_loss, so far) and, with validation, validation_loss and
        validation_accuracy with one entry an epoch. The first epoch's time includes compilation.
        With trace_every also trace_step and trace, what was found in that step, for `hg.viz.trace`; `Trace.from_record`
        makes a table of one.

    Raises:
        ValueError: shapes that do not fit, a label out of range (the first one is named), no examples, batch_size
            above n, a run_dir with a run in it and resume=False, a run to resume that is of other data or settings,
            processes that do not agree in data, settings or train state.
        TypeError: x that is not floating point, or a step without an objective together with validation or trace_every.
        FloatingPointError: a step whose loss or gradient is not finite. The layer, direction and array that went first
            are named (from `hg.trace` of that step); the state before the step is saved in run_dir.
        OSError: the disk is full, say; all that was saved before is whole.

    Example:
        >>> from handgrad.gradient import Objective
        >>> from handgrad.layers import Chain, Dense
        >>> from handgrad.losses import SoftmaxCrossEntropy
        >>> from handgrad.optimizers import sgd
        >>> from handgrad.training import init_train_state, make_train_step
        >>> net, optimizer = Chain(Dense(2)), sgd(0.5)
        >>> train_state = init_train_state(net, optimizer, jax.random.key(0), (2,))
        >>> step = make_train_step(Objective(net, SoftmaxCrossEntropy()), optimizer)
        >>> x, y = np.eye(2, dtype="float32"), np.array([0, 1])
        >>> train_state, history = fit(train_state, step, x, y, batch_size=2, epochs=30, progress=False)
        >>> len(history["loss"]), history["train_accuracy"][-1]
        (30, 1.0)
    """
    x, y = _checked("fit", train_state, step, x, y, batch_size)
    getattr(step, "check_batch_size", int)(batch_size)
    _check_count("epochs", epochs)
    _check_count("keep", keep)
    if skip_nonfinite is not None:
        _check_count("skip_nonfinite", skip_nonfinite)
        check_can_skip(step)
    if trace_every is not None:
        _check_count("trace_every", trace_every)
        _check_objective("trace_every", step)
    if validation is not None:
        validation = _checked_validation(train_state, step, validation)
    if resume and run_dir is None:
        raise ValueError("fit: resume=True needs the run_dir of the run to resume")
    order = functools.partial(batches, x, y, batch_size, seed=seed)
    order(epoch=0)  # raises for a seed out of range
    peers, facts = Peers.of(step), {"seed": seed, "batch_size": batch_size, "examples": len(x)}
    if peers.many:
        given = {"x": x, "y": y, "validation": validation, "train_state": train_state}
        settings = {
            "epochs": epochs,
            "run_dir": run_dir is None,
            "resume": resume,
            "trace_every": trace_every,
            "skip_nonfinite": skip_nonfinite,
        }
        peers.agree(facts | settings | {name: checksum(tree) for name, tree in given.items()})
    folder = None if run_dir is None else RunFolder(run_dir, facts, peers, keep, background)
    first, history = int(train_state.step), {}
    if folder is not None and resume:
        train_state, first, history = folder.resume(train_state)
    elif folder is not None:
        folder.start()
    if run_dir is not None and peers.is_main:
        held_out = 0 if validation is None else len(validation[0])
        settings = {"batch_size": batch_size, "epochs": epochs, "seed": seed, "trace_every": trace_every}
        note_run(run_dir, **training_facts(step, train_state.params, x, validation=held_out, **settings))
    guarded = Guarded(step, skip_nonfinite, history)
    train_state, per_epoch, traced = copied(train_state), len(x) // batch_size, tracer(step)
    progress = progress and peers.is_main
    with (
        stop_signals(active=folder is not None and not peers.many) as stop,
        _bar(per_epoch * batch_size * epochs, progress) as bar,
        folder or contextlib.nullcontext(),
    ):
        log, saved = Log(history, first, folder, bar, batch_size, skip_nonfinite), None
        try:
            for epoch in range(len(history.get("epoch", ())), epochs):
                bar.set_description(f"epoch {epoch + 1}/{epochs}")
                began, done_before = time.perf_counter(), log.done
                made = _batches(step, order(epoch=epoch), epoch * per_epoch, log.done, augment, seed)
                with contextlib.closing(made_ahead(made, prefetch)) as ready:
                    for batch in ready:
                        if trace_every is not None and log.done % trace_every == 0:
                            log.add_trace(traced(train_state, *batch))
                        train_state, metrics = guarded(train_state, *batch)
                        log.add(metrics)
                        if peers.stopped(stop, log.done):
                            break
                log.read_all()
                if stop.number is not None:
                    break
                seconds = time.perf_counter() - began
                line = log.epoch_line(epoch, per_epoch, seconds, (log.done - done_before) * batch_size)
                if validation is not None:
                    line |= _validated(train_state, step, validation, batch_size)
                line, score = log.with_best(line)
                log.add_line(line)
                if folder is not None:
                    saved = folder.save(train_state, first, score)
            if folder is not None and stop.number is not None:
                saved = folder.save(train_state, first)
        except NotFinite as found:
            look = None
            if guarded.can:  # the state is the one before that step, whose batch is made again
                saved = None if folder is None else folder.save(train_state, first)
                i = found.step - first - 1
                made = _batches(step, order(epoch=i // per_epoch), i - i % per_epoch, i, augment, seed)
                look = functools.partial(breaker(step), train_state, *next(made))
            raise explained(found, look, saved, skip_nonfinite) from None
        except KeyboardInterrupt:  # raised by step or augment themselves, or by a second Ctrl-C
            if folder is not None and not peers.many and stop.number is None and not _is_deleted(train_state):
                log.read_all()
                folder.save(train_state, first)
            raise
    if stop.number is not None:
        _leave(stop.number, saved, run_dir)
    return train_state, history


def _is_deleted(train_state: TrainState) -> bool:
    return any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(train_state))


def _batches(
    step: Any, epoch: Iterator[Any], start: int, done: int, augment: Callable | None, seed: int
) -> Iterator[Any]:
    """An epoch's batches, augmented and placed, without those trained before a resume; start is its first step."""
    place = getattr(step, "place_batch", lambda x, y: (x, y))
    for i, batch in enumerate(epoch, start):
        if i >= done:
            yield place(*batch) if augment is None else place(*augment(_augment_key(seed, i), *batch))


def _augment_key(seed: int, i: int) -> jax.Array:
    """The key of the i-th step of the run."""
    key = jax.random.key(seed % 2**32)
    return jax.random.fold_in(jax.random.fold_in(key, jnp.uint32(AUGMENT_STREAM)), i)


def _bar(images: int, progress: bool) -> tqdm:
    return tqdm(total=images, unit=" images", unit_scale=True, disable=not progress)


def _validated(train_state: TrainState, step: Any, validation: tuple[Any, Any], batch_size: int) -> Line:
    net, loss = step.objective.net, step.objective.loss
    size = max(batch_size, 256)
    result = evaluate(net, train_state.params, train_state.state, *validation, loss=loss, batch_size=size)
    return {f"validation_{name}": value for name, value in result.items()}


def _leave(number: signal.Signals, path: Any, run_dir: Any) -> None:
    """Say how to go on, and end as the signal asks."""
    if path is None:
        sys.stderr.write(f"fit: stopped by {number.name}; nothing is saved without a run_dir\n")
        raise SystemExit(128 + number)
    sys.stderr.write(
        f"fit: stopped by {number.name}; saved {path}; resume=True with run_dir {run_dir} goes on from there\n"
    )
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(0)


def _checked(op: str, train_state: Any, step: Any, x: Any, y: Any, batch_size: Any) -> tuple[np.ndarray, np.ndarray]:
    """Give x and y as NumPy arrays, once they fit the net and the loss; found without compute."""
    if not isinstance(train_state, TrainState):
        raise TypeError(f"{op}: wants a TrainState, got {type(train_state).__name__}; make one with init_train_state")
    check_examples(op, x, batch_size)
    if batch_size > x.shape[0]:
        raise ValueError(f"{op}: batch_size must be at most the {x.shape[0]} examples, got {batch_size}")
    objective = getattr(step, "objective", None)
    if objective is None:
        check_labels(op, x, y, ())
        return np.asarray(x), np.asarray(y)
    shape = logits_shape(objective.net, train_state.params, train_state.state, x)
    check_labels(op, x, y, shape, getattr(objective.loss, "ignore_index", None))
    x, y = np.asarray(x), np.asarray(y)
    some = jax.ShapeDtypeStruct((batch_size, *shape[1:]), jnp.float32)
    jax.eval_shape(lambda logits: objective.loss(logits, y[:batch_size]), some)
    return x, y


def _checked_validation(train_state: TrainState, step: Any, validation: Any) -> tuple[np.ndarray, np.ndarray]:
    _check_objective("validation", step)
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise ValueError(f"fit: validation must be a pair (x, y), got {type(validation).__name__}")
    return _checked("fit, validation", train_state, step, *validation, batch_size=1)


def _check_objective(argument: str, step: Any) -> None:
    if getattr(step, "objective", None) is None:
        raise TypeError(f"fit: {argument} needs a step with an objective; take one from make_train_step")


def _check_count(argument: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"fit: {argument} must be an int, got {value!r}")
    if value < 1:
        raise ValueError(f"fit: {argument} must be at least 1, got {value}")

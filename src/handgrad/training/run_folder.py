"""A run's folder: metrics.jsonl, a line of JSON for each step and each epoch, and checkpoints/step_XXXXXXXX.npz.

Metrics reach the disk before the checkpoint of the same step, so a run that is cut off at any moment has all lines up
to its newest checkpoint. To resume is to take that checkpoint and drop the lines after it. Of many processes that train
one net the first one alone reads and writes. The newest few
checkpoints are kept, and the best one, see `checkpoint.best`.
Step lines have step, loss, accuracy, grad_norm; epoch lines epoch, epoch_end (its last step), train_loss,
train_accuracy, seconds, images_per_second, validation_loss, validation_accuracy, best_epoch; trace lines trace_step,
the step that was looked into before it was taken, and trace, the record of that. A number that is not finite is null.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from handgrad.mesh import on_host
from handgrad.training import checkpoint
from handgrad.training.npz import replacing, sweep
from handgrad.training.peers import Peers
from handgrad.training.step import TrainState
from handgrad.training.writer import Writer

ALONE = Peers(many=False)

History = dict[str, list[Any]]
Line = dict[str, Any]


class RunFolder:
    """Where a run writes. As a context it waits at the end for what is being written.

    Args:
        folder: made if need be.
        facts: what the order of batches depends on; a run resumed with other facts would be another run.
        peers: the processes that train the net; each calls `start`, `resume` and `save` as the others do.
        keep: how many of the newest checkpoints stay.
        background: whether checkpoints are written by a thread; what goes wrong there is raised at the next one.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        facts: dict[str, int],
        peers: Peers = ALONE,
        keep: int = 3,
        background: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.metrics = self.folder / "metrics.jsonl"
        self.checkpoints = self.folder / "checkpoints"
        self._facts, self._peers, self._keep = facts, peers, keep
        self._background, self._writer = background, Writer(background)
        self._unwritten: list[Line] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        try:
            self._writer.close()
        except OSError as failed:
            if error is None:
                raise
            error.add_note(f"Beside that: {failed}")

    def start(self) -> None:
        """Make the folder, or raise if it holds a run already."""
        self._peers.from_main(lambda: ((), self._make()))

    def _make(self) -> None:
        if self.metrics.exists() or any(self.checkpoints.glob("*.npz")):
            raise ValueError(
                f"fit: run_dir {self.folder} holds a run already; pass resume=True to continue it, or another folder"
            )
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self.metrics.touch()

    def resume(self, like: TrainState) -> tuple[TrainState, int, History]:
        """The newest readable checkpoint, the step at which its run began, and the history up to it."""
        train_state, (first, lines) = self._peers.from_main(lambda: self._read(like), like)
        return train_state, first, history_of(lines)

    def _read(self, like: TrainState) -> tuple[TrainState, tuple[int, list[Line]]]:
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.checkpoints):
            sweep(folder)
        newest = checkpoint.latest(self.checkpoints)
        if newest is None:
            self._keep_lines([])
            return like, (int(like.step), [])
        about = checkpoint.metadata(newest)
        for name, wanted in self._facts.items():
            if about.get(name) != wanted:
                raise ValueError(
                    f"fit: the run in {self.folder} has {name} {about.get(name)}, got {wanted}; "
                    f"resume with the same data, batch_size and seed, or start anew in another run_dir"
                )
        train_state, first = checkpoint.load(newest, like), about["first_step"]
        lines = [line for line in self._read_lines() if _step_of(line) <= train_state.step]
        if sum("step" in line for line in lines) != int(train_state.step) - first:
            raise ValueError(f"fit: {self.metrics} lacks lines of steps before {newest.name}; it was changed")
        self._keep_lines(lines)
        return train_state, (first, lines)

    def log(self, line: Line) -> None:
        """Keep a line for the next `flush`."""
        self._unwritten.append(line)

    def flush(self) -> None:
        """Bring all lines to the disk, or none."""
        if self._peers.is_main:
            with self._telling(self.metrics):
                self._append("".join(map(_text, self._unwritten)).encode())
        self._unwritten.clear()

    def save(self, train_state: TrainState, first: int, score: tuple[str, float] | None = None) -> Path:
        """Write the checkpoint of a step, after its metrics, and remove all but the newest few and the best.

        Args:
            train_state: of that step.
            first: the step at which the run began.
            score: at the end of an epoch, by which of its numbers it is judged, and that number; the lowest is best.
        """
        self._writer.wait()
        self.flush()
        train_state = on_host(train_state)
        path = self.checkpoints / f"step_{int(train_state.step):08d}.npz"
        if not self._peers.is_main or (score is None and _is_whole(path)):  # of an epoch's end, with its score
            return path
        about = {**self._facts, "first_step": first}
        if score is not None:
            about |= {"score_name": score[0], "score": score[1]}
        snapshot = checkpoint.snapshot(train_state, metadata=about, copy=self._background)

        def write() -> None:
            with self._telling(path):
                snapshot.write(path)
                best = checkpoint.best_first(self.checkpoints)[:1]
                for old in checkpoint.newest_first(self.checkpoints)[self._keep :]:
                    if old not in best:
                        old.unlink()

        self._writer.do(write)
        return path

    def _append(self, data: bytes) -> None:
        with open(self.metrics, "ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                while data:
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.metrics, size)
                raise

    @contextlib.contextmanager
    def _telling(self, path: Path) -> Iterator[None]:
        """Say what a full disk leaves of the run."""
        try:
            yield
        except OSError as error:
            newest = next(iter(checkpoint.newest_first(self.checkpoints)), None)
            left = "there is no checkpoint yet" if newest is None else f"the checkpoint before, {newest.name}, is whole"
            raise OSError(
                error.errno,
                f"fit: could not write {path} ({error.strerror or error}); {left}; "
                f"make room, then resume=True goes on from there",
            ) from error

    def _read_lines(self) -> list[Line]:
        """All whole lines; the last one may have been cut off."""
        lines = []
        for text in self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.exists() else []:
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
        return lines

    def _keep_lines(self, lines: list[Line]) -> None:
        with replacing(self.metrics) as file:
            file.write("".join(_text(line) for line in lines).encode())


def _is_whole(path: Path) -> bool:
    """Whether there is a checkpoint without damage."""
    try:
        checkpoint.verify(path)
    except (ValueError, OSError):
        return False
    return True


def _step_of(line: Line) -> int:
    """The step that a line is of."""
    return next((line[name] for name in ("step", "epoch_end", "trace_step") if name in line), 0)


def read_history(path: str | os.PathLike[str]) -> History:
    r"""The history that `fit` wrote.

    Args:
        path: a run's folder, or its metrics.jsonl; the file's last line may be cut off, as a crash leaves it.

    Returns:
        Lists by name, as `fit` returns them; null is NaN.

    Raises:
        OSError: no such file.
        ValueError: a line that is no JSON.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
        >>> _ = path.write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "lo')
        >>> read_history(path.parent)
        {'step': [1], 'loss': [2.5]}
    """
    path = Path(path)
    path = path / "metrics.jsonl" if path.is_dir() else path
    texts, lines = path.read_text(encoding="utf-8").splitlines(), []
    for number, text in enumerate(texts, start=1):
        try:
            lines.append(json.loads(text))
        except ValueError:
            if number < len(texts):
                raise ValueError(f"{path} must hold a line of JSON a step, line {number} is none") from None
    return history_of(lines)


def history_of(lines: list[Line]) -> History:
    """Lists of numbers by name; null is NaN."""
    history: History = {}
    for line in lines:
        for name, value in line.items():
            history.setdefault(name, []).append(math.nan if value is None else value)
    return history


def _text(line: Line) -> str:
    """The line in strict JSON, which has no NaN."""
    return json.dumps({name: None if _is_not_finite(value) else value for name, value in line.items()}) + "\n"


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)

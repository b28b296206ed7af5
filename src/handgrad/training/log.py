"""What a run tells while it goes on. Metrics are read some steps late, so that the device never waits for the host."""

from collections import deque

import numpy as np
from tqdm import tqdm

from handgrad.insight.trace import Trace
from handgrad.training.run_folder import History, Line, RunFolder
from handgrad.training.step import Metrics

AHEAD = 16  # steps that the host may be ahead of the device
SHOWN = ("loss", "accuracy", "validation_accuracy")


class Log:
    """History, metrics file and progress bar; takes metrics as they are dispatched, reads them once they are there."""

    def __init__(self, history: History, first: int, folder: RunFolder | None, bar: tqdm, batch_size: int) -> None:
        self._history, self._first, self._folder, self._bar, self._batch_size = history, first, folder, bar, batch_size
        self._pending: deque[tuple[int, Metrics | Trace]] = deque()
        self.done = len(history.get("step", ()))
        bar.update(self.done * batch_size)

    def add(self, metrics: Metrics) -> None:
        """Take the metrics of a step, and read those of earlier steps that are ready or long under way."""
        self.done += 1
        self._pending.append((self.done, metrics))
        self._bar.update(self._batch_size)
        while self._pending and (len(self._pending) > AHEAD or _is_ready(self._pending[0][1])):
            self._read_one()

    def add_trace(self, trace: Trace) -> None:
        """Take the trace of the step that comes next."""
        self._pending.append((self.done + 1, trace))

    def read_all(self) -> None:
        """Wait for the metrics of all steps."""
        while self._pending:
            self._read_one()

    def add_line(self, line: Line) -> None:
        """Put numbers into history and metrics file."""
        for name, value in line.items():
            self._history.setdefault(name, []).append(value)
        if self._folder is not None:
            self._folder.log(line)
        shown = {name: f"{line[name]:.3g}" for name in SHOWN if name in line}
        if self._bar.disable is False:
            self._bar.set_postfix(shown, refresh=False)

    def epoch_line(self, epoch: int, per_epoch: int, seconds: float, images: int) -> Line:
        """What there is to say of an epoch: means over its steps, and speed."""
        steps = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
        return {
            "epoch": epoch + 1,
            "epoch_end": self._first + steps.stop,
            "train_loss": float(np.mean(self._history["loss"][steps])),
            "train_accuracy": float(np.mean(self._history["accuracy"][steps])),
            "seconds": seconds,
            "images_per_second": images / seconds,
        }

    def _read_one(self) -> None:
        done, found = self._pending.popleft()
        step = self._first + done
        if isinstance(found, Trace):
            self.add_line({"trace_step": step, "trace": found.record()})
        else:
            self.add_line({"step": step} | {name: float(np.asarray(value)) for name, value in found._asdict().items()})


def _is_ready(found: Metrics | Trace) -> bool:
    ready = getattr(found.loss, "is_ready", None)
    return ready is None or ready()

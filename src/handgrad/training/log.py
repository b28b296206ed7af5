"""What a run tells while it goes on. Metrics are read some steps late, so that the device never waits for the host."""

from collections import deque

import jax
import numpy as np
from tqdm import tqdm

from handgrad.insight.trace import Trace
from handgrad.training.guard import NotFinite, bad_in_a_row, is_finite
from handgrad.training.run_folder import History, Line, RunFolder
from handgrad.training.step import Metrics

AHEAD = 16  # steps that the host may be ahead of the device
SHOWN = ("loss", "accuracy", "validation_accuracy")


class Log:
    """History, metrics file and progress bar; takes metrics as they are dispatched, reads them once they are there.

    More than `skip` steps in a row that are not finite raise NotFinite once they are read.
    """

    def __init__(
        self,
        history: History,
        first: int,
        folder: RunFolder | None,
        bar: tqdm,
        batch_size: int,
        skip: int | None = None,
    ) -> None:
        self._history, self._first, self._folder, self._bar, self._batch_size = history, first, folder, bar, batch_size
        self._skip, self._bad = skip, bad_in_a_row(history)
        self._alone = jax.process_count() == 1
        self._pending: deque[tuple[int, Metrics | Trace]] = deque()
        self.done = len(history.get("step", ()))
        bar.update(self.done * batch_size)

    def add(self, metrics: Metrics) -> None:
        """Take the metrics of a step, and read those of earlier steps that are ready or long under way."""
        self.done += 1
        self._pending.append((self.done, metrics))
        self._bar.update(self._batch_size)
        while self._pending and (len(self._pending) > AHEAD or (self._alone and _is_ready(self._pending[0][1]))):
            self._read_one()  # with peers at a fixed distance, so that all stop at the same step

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
        """What there is to say of an epoch: means over its steps that were taken, and speed."""
        steps = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
        loss, accuracy = (np.array(self._history[name][steps]) for name in ("loss", "accuracy"))
        skipped = {}
        if self._skip is not None:
            taken = np.isfinite(loss) & np.isfinite(self._history["grad_norm"][steps])
            loss, accuracy, skipped = loss[taken], accuracy[taken], {"skipped": int((~taken).sum())}
        return {
            "epoch": epoch + 1,
            "epoch_end": self._first + steps.stop,
            "train_loss": float(np.mean(loss)) if len(loss) else float("nan"),
            "train_accuracy": float(np.mean(accuracy)) if len(loss) else float("nan"),
            "seconds": seconds,
            "images_per_second": images / seconds,
        } | skipped

    def with_best(self, line: Line) -> tuple[Line, tuple[str, float]]:
        """An epoch's line with the best epoch so far, and by what it is judged: name and number, lowest is best."""
        name = "validation_loss" if "validation_loss" in line else "train_loss"
        losses = [*self._history.get(name, []), line[name]]
        epochs = [*self._history.get("epoch", []), line["epoch"]][-len(losses) :]
        finite = [pair for pair in zip(losses, epochs, strict=True) if np.isfinite(pair[0])]
        return line | {"best_epoch": min(finite)[1] if finite else float("nan")}, (name, line[name])

    def _read_one(self) -> None:
        done, found = self._pending.popleft()
        step = self._first + done
        if isinstance(found, Trace):
            self.add_line({"trace_step": step, "trace": found.record()})
        else:
            line = {"step": step} | {name: float(np.asarray(value)) for name, value in found._asdict().items()}
            self.add_line(line)
            self._bad = 0 if is_finite(line) else self._bad + 1
            if self._bad > (self._skip or 0):
                self._pending.clear()
                raise NotFinite(step)


def _is_ready(found: Metrics | Trace) -> bool:
    ready = getattr(found.loss, "is_ready", None)
    return ready is None or ready()

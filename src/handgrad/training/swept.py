"""What came of a sweep: its runs, the best setting, and a table."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Setting = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        setting: its values by name.
        history: lists by name with one entry an epoch: train_loss, train_accuracy and, with validation, validation_loss
            and validation_accuracy.
        diverged: the step, from 1 on, at which the run was lost, see `hg.sweep`; None if it was not.
        train_state: how training left it.
    """

    setting: Setting
    history: dict[str, list[float]]
    diverged: int | None
    train_state: Any = field(repr=False, compare=False)

    def final(self, metric: str) -> float:
        """A metric after the last epoch; NaN if the run diverged."""
        return math.nan if self.diverged is not None else self.history[metric][-1]


@dataclass(frozen=True)
class Group:
    """The runs of one setting, which differ in their seed alone."""

    setting: Setting
    runs: tuple[Run, ...]

    @property
    def diverged(self) -> int:
        """How many of them did."""
        return sum(run.diverged is not None for run in self.runs)

    def finals(self, metric: str) -> list[float]:
        """The metric of each run that did not diverge, after the last epoch."""
        return [run.final(metric) for run in self.runs if run.diverged is None]

    def mean(self, metric: str) -> float:
        """The mean of these; NaN where all diverged."""
        return statistics.fmean(self.finals(metric)) if self.diverged < len(self.runs) else math.nan


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep, in the order of its grid; its text is a table with a row for each setting but the seed.

    In the table, ± is the standard deviation over the seeds that did not diverge.

    Attributes:
        runs: one for each setting of the grid, with its history.

    Example:
        >>> import numpy as np, handgrad as hg
        >>> def setup(learning_rate):
        ...     return hg.Objective(hg.Chain(hg.Dense(2)), hg.SoftmaxCrossEntropy()), hg.sgd(learning_rate)
        >>> x, y = np.eye(2, dtype="float32"), np.array([0, 1])
        >>> grid = {"learning_rate": [0.01, 1.0], "seed": range(2)}
        >>> found = hg.sweep(grid, setup, x, y, batch_size=2, epochs=3, progress=False)
        >>> [len(group.runs) for group in found.groups], found.judge, found.best
        ([2, 2], 'train_loss', {'learning_rate': 1.0})
    """

    runs: tuple[Run, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        """The runs by setting without the seed, in order."""
        found: list[tuple[Setting, list[Run]]] = []
        for run in self.runs:
            setting = {name: value for name, value in run.setting.items() if name != "seed"}
            same = next((runs for other, runs in found if other == setting), None)
            if same is None:
                found.append((setting, [run]))
            else:
                same.append(run)
        return tuple(Group(setting, tuple(runs)) for setting, runs in found)

    @property
    def judge(self) -> str:
        """The metric by which settings are compared: validation_loss, or train_loss without validation."""
        return "validation_loss" if "validation_loss" in self.runs[0].history else "train_loss"

    @property
    def best_group(self) -> Group | None:
        """The group of the lowest mean loss, of those of which no run diverged; None if there is none."""
        stable = [group for group in self.groups if not group.diverged and not math.isnan(group.mean(self.judge))]
        return min(stable, key=lambda group: group.mean(self.judge)) if stable else None

    @property
    def best(self) -> Setting | None:
        """The setting, without its seed, of the lowest mean loss, of those of which no run diverged."""
        group = self.best_group
        return None if group is None else group.setting

    def __str__(self) -> str:
        """The table."""
        names = list(self.groups[0].setting)
        metrics = [name for name in self.runs[0].history if name != "train_accuracy" or self.judge == "train_loss"]
        rows = [[*names, "runs", *(metric.replace("_", " ") for metric in metrics), ""]]
        for group in self.groups:
            values = [_text(value) for value in group.setting.values()]
            rows.append([*values, str(len(group.runs)), *(_spread(group, metric) for metric in metrics), _fate(group)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in [*lines, self._finding()])

    def _finding(self) -> str:
        group = self.best_group
        if group is None:
            return "no setting got through without a run that diverged"
        return f"best: {in_words(group.setting)}{_mean_in_words(group, self.judge)}"


def in_words(setting: Setting) -> str:
    """Such as "learning_rate 0.1, momentum 0.9"."""
    return ", ".join(f"{name} {_text(value)}" for name, value in setting.items())


def _mean_in_words(group: Group, metric: str) -> str:
    of = f" (mean of {len(group.runs)} runs)" if len(group.runs) > 1 else ""
    return f"{': ' if group.setting else ''}{metric.replace('_', ' ')} {group.mean(metric):.4g}{of}"


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(getattr(value, "__name__", value))


def _spread(group: Group, metric: str) -> str:
    """The mean ± the standard deviation; accuracies in percent."""
    finals: Sequence[float] = group.finals(metric)
    if not finals:
        return "-"
    percent = metric.endswith("accuracy")
    scale, form, of_deviation, unit = (100, ".1f", ".1f", " %") if percent else (1, ".4g", ".2g", "")
    deviation = f" ± {scale * statistics.stdev(finals):{of_deviation}}" if len(finals) > 1 else ""
    return f"{scale * group.mean(metric):{form}}{deviation}{unit}"


def _fate(group: Group) -> str:
    """Which runs diverged, and when."""
    if not group.diverged:
        return ""
    first = min(run.diverged for run in group.runs if run.diverged is not None)
    if len(group.runs) == 1:
        return f"diverged at step {first}"
    return f"{group.diverged} of {len(group.runs)} diverged, the first at step {first}"

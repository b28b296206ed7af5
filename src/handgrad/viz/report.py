"""A run on one page: what it was, how it learned, what it gets wrong, what is inside, whether its gradients hold."""

import html
import os
import re
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import jax
import numpy as np

from handgrad.metrics import confusion_matrix
from handgrad.training.run_record import TEST, Answers, RunRecord, read_run
from handgrad.viz.confusion import confusion
from handgrad.viz.kernels import kernels
from handgrad.viz.learning import learning_curve
from handgrad.viz.page import escaped, figure, figure_of, fill, image, part_of, table, write
from handgrad.viz.trace import NAMES, trace
from handgrad.viz.wrong import wrong

SETTINGS = {  # facts that have names of their own; others stand under theirs
    "command": "command",
    "data": "data",
    "net": "net",
    "parameters": "parameters",
    "in_shape": "input",
    "examples": "training examples",
    "validation": "held out",
    "classes": "classes",
    "loss": "loss",
    "l2": "l2 penalty",
    "optimizer": "optimizer",
    "gradients": "gradients",
    "epochs": "epochs",
    "batch_size": "batch size",
    "seed": "seed",
    "trace_every": "traced every (steps)",
    "date": "date",
    "device": "device",
    "handgrad": "handgrad",
    "jax": "JAX",
    "numpy": "NumPy",
    "python": "Python",
}
CODE = "command", "net", "loss"
LONG = 24  # letters of a fact, above which it has a line of its own
TRACED = "delta", "h", "dead"


class Section(NamedTuple):
    """A part of the page: its anchor, its title, and what it holds, as HTML."""

    anchor: str
    title: str
    content: str


def report(run_dir: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Write one HTML page of a run, which holds its pictures itself: no network, no script.

    It says what was run, with which settings and versions, and shows the learning curve, wrong images, confusion
    matrix, kernels, the trace of each layer, the net's diagram and tables, and the gradient check, each if the run's
    folder has what it takes: `hg.fit` writes metrics, checkpoints and settings, `hg.training.note_run` and `note_test`
    the rest, as `handgrad train` and `make train` do. Each picture is described in words in its alt attribute.

    Args:
        run_dir: the run's folder.
        out: the file to write; None makes report.html in the run's folder.

    Returns:
        The path.

    Raises:
        ImportError: without matplotlib.
        FileNotFoundError: no such folder.
        ValueError: a folder that holds no run, a damaged file in it, or test labels that are no classes of the logits.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> line = '{"epoch": 1, "train_loss": 0.5, "train_accuracy": 0.9}'
        >>> (folder / "metrics.jsonl").write_text(line) > 0
        True
        >>> page = report(folder)
        >>> page.name, "training accuracy 90.0 % after 1 epoch" in page.read_text(encoding="utf-8")
        ('report.html', True)
    """
    run = read_run(run_dir)
    if not run.history and run.params is None:
        raise ValueError(
            f"report: {run.folder} holds no run: neither metrics.jsonl with a line nor checkpoints; "
            f"give the run_dir of hg.fit or of handgrad train"
        )
    run = run._replace(test=_classification(run))
    makers = (_settings, _curve, _wrong, _confusion, _kernels, _traces, _net, _check)
    sections = [section for section in (make(run) for make in makers) if section is not None]
    page = fill(
        "report.html",
        style=part_of("page.css") + part_of("report.css"),
        title=escaped(_headline(run)),
        subtitle=escaped(_subtitle(run)),
        tiles="".join(_tile(*tile) for tile in _numbers(run)),
        contents="".join(f'<li><a href="#{part.anchor}">{escaped(part.title)}</a></li>' for part in sections),
        sections="\n".join(map(_html, sections)),
        made=escaped(f"Made by handgrad report of {run.folder.resolve().name}."),
    )
    return write(run.folder / "report.html" if out is None else out, page)


def _html(part: Section) -> str:
    return (
        f'<section class="card" id="{part.anchor}" aria-labelledby="{part.anchor}-title">'
        f'<h2 id="{part.anchor}-title">{escaped(part.title)}</h2>{part.content}</section>'
    )


def _headline(run: RunRecord) -> str:
    """The finding: how good the net is in the end."""
    name = run.facts.get("data") or run.folder.resolve().name
    right = _right(run)
    if right is not None:
        return f"{name}: {100 * right:.1f} % of the test images right"
    for key, words in (("validation_accuracy", "validation"), ("train_accuracy", "training")):
        if run.history.get(key) and np.isfinite(run.history[key][-1]):
            return f"{name}: {words} accuracy {100 * run.history[key][-1]:.1f} %"
    return f"{name}: a run of {_count(len(run.history.get('step', ())), 'step')}"


def _subtitle(run: RunRecord) -> str:
    words = [run.facts.get("net"), run.facts.get("date")]
    return " · ".join(str(word) for word in words if word)


def _classification(run: RunRecord) -> Answers | None:
    """The test, where its logits choose among classes; one number each says nothing of those."""
    if run.test is None or run.test.logits.shape[1] < 2 or not len(run.test.y):
        return None
    k, y = run.test.logits.shape[1], run.test.y
    none = y[(y < 0) | (y >= k)]
    if len(none):
        wanted = f"labels from 0 to {k - 1} for its logits of {k} classes"
        raise ValueError(f"report: {run.folder / TEST} must have {wanted}, got {none[0]}")
    return run.test


def _right(run: RunRecord) -> float | None:
    return None if run.test is None else float(np.mean(run.test.logits.argmax(1) == run.test.y))


def _numbers(run: RunRecord) -> list[tuple[str, str]]:
    """A few numbers at a glance, and what they are."""
    history, right, found = run.history, _right(run), []
    if right is not None and run.test is not None:
        found.append((f"{100 * right:.1f} %", "test accuracy"))
        found.append((f"{round((1 - right) * len(run.test.y)):,} of {len(run.test.y):,}", "test images wrong"))
    if isinstance(run.facts.get("parameters"), int | float):
        found.append((f"{run.facts['parameters']:,}", "parameters"))
    if history.get("step"):
        found.append((f"{len(history['step']):,}", f"steps in {_count(len(history.get('epoch', ())), 'epoch')}"))
    if history.get("seconds"):
        found.append((f"{sum(history['seconds']):.1f} s", "of training"))
    check = run.facts.get("check")
    if _is_table(check):
        found.append(("agree" if check.get("ok") else "WRONG", "gradients, checked in three ways"))
    return found


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _tile(number: str, words: str) -> str:
    return f"<div><dd>{escaped(number)}</dd><dt>{escaped(words)}</dt></div>"


def _settings(run: RunRecord) -> Section | None:
    facts = {name: value for name, value in run.facts.items() if not _is_table(value) and value is not None}
    order = [*(name for name in SETTINGS if name in facts), *(name for name in facts if name not in SETTINGS)]
    if not order:
        return None
    texts = [(SETTINGS.get(name, name), _text(name, facts[name])) for name in order]
    rows = "".join(_fact(*pair) for pair in sorted(texts, key=lambda pair: len(pair[1]) <= LONG))  # long ones first
    return Section("run", "What was run", f'<dl class="facts">{rows}</dl>')


def _fact(name: str, text: str) -> str:
    long = ' class="long"' if len(text) > LONG else ""
    value = f"<code>{escaped(text)}</code>" if name in CODE else escaped(text)
    return f"<div{long}><dt>{escaped(name)}</dt><dd>{value}</dd></div>"


def _text(name: str, value: Any) -> str:
    if isinstance(value, list):
        return ("×" if name == "in_shape" else ", ").join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and name != "seed" else str(value)


def _curve(run: RunRecord) -> Section | None:
    if run.history.get("train_loss"):
        return Section("curve", "Learning curve", figure(learning_curve(run.history)))
    steps = len(run.history.get("step", ()))
    words = f"The curve needs a whole epoch; this run has none yet, but {_count(steps, 'step')}."
    return Section("curve", "Learning curve", f"<p>{words}</p>") if steps else None


def _wrong(run: RunRecord) -> Section | None:
    if run.test is None or run.test.images.shape[-1] not in (1, 3):
        return None
    x = np.zeros((len(run.test.y), *run.test.images.shape[1:]), np.float32)  # those that are right are not drawn
    x[run.test.wrong] = run.test.images
    return Section("wrong", "Wrong predictions", figure(wrong(x, run.test.y, run.test.logits, _classes(run))))


def _confusion(run: RunRecord) -> Section | None:
    if run.test is None:
        return None
    classes = _classes(run)
    counts = confusion_matrix(run.test.logits.argmax(1), run.test.y, len(classes))
    return Section("confusion", "Which class is taken for which", figure(confusion(counts, classes)))


def _kernels(run: RunRecord) -> Section | None:
    if not any(np.ndim(leaf) == 4 for leaf in jax.tree.leaves(run.params)):
        return None
    return Section("kernels", "Kernels of the first convolution", figure(kernels(run.params)))


def _traces(run: RunRecord) -> Section | None:
    records = run.history.get("trace", ())
    known = [value for value in TRACED if any(_has(record, value) for record in records)]
    if not known:
        return None
    drawn = {value: trace(run.history, value) for value in known}
    finding = next(iter(drawn.values())).get_title()
    figures = "".join(figure(ax, NAMES[value].capitalize()) for value, ax in drawn.items())
    return Section("trace", "The chain rule, layer by layer", f"<p>{escaped(finding)}</p>{figures}")


def _has(record: dict[str, Any], value: str) -> bool:
    """Whether any layer of a traced step has this number."""
    return any(number is not None for number in record.get(value, ()))


def _net(run: RunRecord) -> Section | None:
    diagram = run.folder / "figures" / "net.svg"
    tables = {name: found for name, found in run.facts.items() if _is_table(found) and name != "check"}
    captions = {"layers": "Layers, for one image", "ledger": "Bytes kept for backward, for one image"}
    parts = [_from_file(diagram)] if diagram.is_file() else []
    parts += [table(found["cells"], found["sides"], captions.get(name, name)) for name, found in tables.items()]
    return Section("net", "The net", "".join(parts)) if parts else None


def _check(run: RunRecord) -> Section | None:
    found = run.facts.get("check")
    if not _is_table(found):
        return None
    kind = "good" if found.get("ok") else "bad"
    verdict = "".join(f'<p class="{kind}">{escaped(line)}</p>' for line in found.get("verdict", ()))
    caption = found.get("head", "gradient check")
    return Section("check", "Gradient check", table(found["cells"], found["sides"], caption) + verdict)


def _is_table(fact: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a fact is a record with the texts of a table."""
    if not isinstance(fact, dict) or not isinstance(fact.get("cells"), list) or not fact["cells"]:
        return False
    sides = fact.get("sides")
    return isinstance(sides, str) and all(isinstance(row, list) and len(row) == len(sides) > 0 for row in fact["cells"])


def _classes(run: RunRecord) -> list[str]:
    """The classes' names, or their numbers."""
    k = 0 if run.test is None else run.test.logits.shape[1]
    names = [str(name) for name in run.facts.get("classes") or ()]
    return names if len(names) == k else [str(i) for i in range(k)]


def _from_file(path: Path) -> str:
    """A figure that `viz.save` wrote, with the description that it carries."""
    svg = path.read_text(encoding="utf-8")
    words = re.search(r"<dc:description>(.*?)</dc:description>", svg, re.DOTALL)
    alt = html.unescape(words[1]) if words else "Diagram of the net"
    return figure_of(image(svg.encode(), "image/svg+xml", alt), "Layers, and the way of values and gradients")

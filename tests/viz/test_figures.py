"""What is on the figures: numbers, titles, labels, files; nothing global changes; the error without matplotlib."""

import importlib
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import image as images
from matplotlib.figure import Figure

import handgrad as hg
from handgrad import viz
from handgrad.insight import Cost, CostRow, Path, WiggleCost
from handgrad.training import Sweep
from handgrad.training.swept import Run

matplotlib = importlib.import_module("matplotlib")
CLASSES = tuple("0123456789")
HISTORY = {
    "step": [1, 2, 3, 4],
    "loss": [2.0, 1.0, 0.5, 0.25],
    "epoch": [1, 2],
    "train_loss": [1.5, 0.375],
    "train_accuracy": [0.5, 0.75],
    "validation_accuracy": [0.625, 0.991],
}


def picture_of(ax, place=0):
    return np.ma.filled(ax.images[place].get_array(), np.nan)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def lines(ax):
    return {line.get_label(): points(line) for line in ax.lines}


def points(line):
    return np.asarray(line.get_xydata()).tolist()


def own_axes():
    return Figure().add_subplot()


def metrics_file(folder, history):
    """As fit writes it: a line a step and a line an epoch."""
    steps = [{"step": s, "loss": v} for s, v in zip(history["step"], history["loss"], strict=True)]
    names = ("epoch", "train_loss", "train_accuracy", "validation_accuracy")
    epochs = [{name: history[name][i] for name in names} for i in range(2)]
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [*steps[:2], epochs[0], *steps[2:], epochs[1]]))
    return path


@pytest.mark.parametrize("from_file", [False, True])
def test_learning_curve(tmp_path, from_file):
    ax = viz.learning_curve(metrics_file(tmp_path, HISTORY) if from_file else HISTORY)
    accuracy = ax.figure.axes[1]
    assert ax.get_title() == "validation accuracy 99.1 % after 2 epochs"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "training loss (nats per image)")
    assert accuracy.get_ylabel() == "accuracy (%)"
    assert points(ax.lines[0]) == [[0.5, 2.0], [1.0, 1.0], [1.5, 0.5], [2.0, 0.25]]
    assert lines(ax)["training loss"] == [[1, 1.5], [2, 0.375]]
    assert lines(accuracy) == {"train": [[1, 50], [2, 75]], "validation": [[1, 62.5], [2, 99.1]]}


def test_learning_curve_of_a_run(tmp_path):
    net, optimizer = hg.Chain(hg.Dense(2)), hg.sgd(0.5)
    step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), optimizer)
    start = hg.init_train_state(net, optimizer, jax.random.key(0), (2,))
    x, y = np.eye(2, dtype="float32"), np.array([0, 1])
    settings = {"batch_size": 1, "epochs": 3, "run_dir": tmp_path / "run", "progress": False}
    _, history = hg.fit(start, step, x, y, validation=(x, y), **settings)
    drawn, read = viz.learning_curve(history), viz.learning_curve(tmp_path / "run" / "metrics.jsonl")
    assert len(points(drawn.lines[0])) == 6
    assert lines(drawn) == lines(read)
    assert drawn.get_title() == read.get_title() and "after 3 epochs" in drawn.get_title()


def test_learning_curve_titles():
    history = {"train_loss": [0.5], "train_accuracy": [0.9]}
    assert viz.learning_curve(history).get_title() == "training accuracy 90.0 % after 1 epoch"
    assert viz.learning_curve({"train_loss": [0.5]}).get_title() == "loss 0.5 after 1 epoch"
    assert viz.learning_curve(history, title="mine").get_title() == "mine"


def test_learning_curve_reads_a_file_that_was_cut_off(tmp_path):
    path = metrics_file(tmp_path, HISTORY)
    path.write_text(path.read_text() + '{"step": 5, "lo')
    assert lines(viz.learning_curve(path))["training loss"] == [[1, 1.5], [2, 0.375]]
    path.write_text("no JSON\n" + path.read_text())
    with pytest.raises(ValueError, match="must hold a line of JSON a step, line 1 is none"):
        viz.learning_curve(path)


def test_learning_curve_without_an_epoch():
    with pytest.raises(ValueError, match="learning_curve: there must be at least one whole epoch, got none"):
        viz.learning_curve({"loss": [1.0]})


def test_kernels_shows_every_weight_on_a_scale_symmetric_around_0():
    kernel = np.random.default_rng(0).normal(size=(3, 2, 1, 5)) + 0.5
    ax = viz.kernels({"dense1": {"kernel": np.ones((4, 4))}, "conv1": {"kernel": kernel, "bias": np.ones(5)}})
    picture = picture_of(ax)
    shown = np.sort(picture[np.isfinite(picture)])
    assert np.allclose(shown, np.sort(kernel.ravel().astype("float32")), atol=0)
    assert (ax.images[0].norm.vmin, ax.images[0].norm.vmax) == pytest.approx((-abs(kernel).max(), abs(kernel).max()))
    assert np.allclose(picture[:3, :2], kernel[:, :, 0, 0].astype("float32"), atol=0)
    assert ax.get_title() == "conv1: 5 kernels of 3x2"
    assert ax.figure.axes[1].get_ylabel() == "weight"


def test_kernels_of_three_channels_are_rgb():
    kernel = np.zeros((2, 2, 3, 4))
    kernel[0, 0, 0, 0], kernel[1, 1, 2, 0] = 1.0, -2.0
    ax = viz.kernels(kernel)
    picture = picture_of(ax)
    assert picture.shape[2] == 4 and set(np.unique(picture[..., 3])) == {0, 1}
    assert picture[0, 0].tolist() == [0.75, 0.5, 0.5, 1] and picture[1, 1].tolist() == [0.5, 0.5, 0.0, 1]
    assert ax.get_title() == "kernel: 4 kernels of 2x2x3"


def test_kernels_of_many_channels_have_a_row_for_each():
    kernel = np.arange(2 * 2 * 5 * 3.0).reshape(2, 2, 5, 3) + 1
    picture = picture_of(viz.kernels({"body": {"conv2": {"kernel": kernel}}}, "body/conv2"))
    assert picture.shape == (5 * 3, 3 * 3)
    assert np.array_equal(picture[3:5, 6:8], kernel[:, :, 1, 2])


def test_kernels_errors():
    params = {"dense1": {"kernel": np.ones((2, 2))}}
    with pytest.raises(ValueError, match=r"must have a layer with a kernel \(H, W, C, O\), those here are \[\]"):
        viz.kernels(params)
    with pytest.raises(ValueError, match=r"a layer 'conv9' with a kernel, those here are \['dense1'\]"):
        viz.kernels(params, "conv9")
    with pytest.raises(ValueError, match=r"dense1 must be a kernel \(H, W, C, O\), got shape \(2, 2\)"):
        viz.kernels(params, "dense1")


def test_wrong_shows_the_mistakes_in_order():
    x = np.random.default_rng(0).uniform(size=(6, 4, 4, 1))
    ax = viz.wrong(x, [1, 2, 3, 4, 5, 6], [1, 0, 3, 9, 5, 7], CLASSES, most=2)
    assert ax.get_title() == "3 of 6 images are wrong, 2 of them here: predicted → true"
    assert texts(ax) == ["0 → 2", "9 → 4"]
    spread = (x[3, ..., 0] - x[3].min()) / np.ptp(x[3])
    assert np.allclose(picture_of(ax, 1), spread.astype("float32"), atol=1e-6)


def test_wrong_takes_logits_colours_and_long_names():
    ax = viz.wrong(np.ones((2, 4, 4, 3)), [0, 1], np.array([[0.0, 1.0], [0.0, 1.0]]), ["T-shirt/top", "Trouser"])
    assert texts(ax) == ["Trouser\n→ T-shirt/top"]
    assert picture_of(ax).shape == (4, 4, 3)


def test_wrong_without_mistakes():
    ax = viz.wrong(np.ones((2, 4, 4, 1)), [0, 1], [0, 1], CLASSES)
    assert ax.get_title() == "none of 2 images are wrong" and not ax.images


def test_wrong_errors():
    with pytest.raises(ValueError, match=r"x must be \(n, H, W, 1 or 3\) with n labels and predictions"):
        viz.wrong(np.ones((2, 4, 4)), [0, 1], [0, 1], CLASSES)
    with pytest.raises(ValueError, match="with n labels and predictions"):
        viz.wrong(np.ones((2, 4, 4, 1)), [0, 1], [0], CLASSES)
    with pytest.raises(ValueError, match="most must be at least 1, got 0"):
        viz.wrong(np.ones((2, 4, 4, 1)), [0, 1], [0, 1], CLASSES, most=0)


def test_confusion():
    ax = viz.confusion([[8, 2, 0], [0, 5, 1], [0, 0, 0]], ["cat", "dog", "cow"])
    assert ax.get_title() == "13 of 16 right; most often cat is taken for dog (2)"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert {(text.get_position(), text.get_text()) for text in ax.texts} == {
        ((0, 0), "8"), ((1, 0), "2"), ((1, 1), "5"), ((2, 1), "1"),
    }  # fmt: skip
    picture = picture_of(ax)
    assert (picture[..., 3] == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]).all()
    assert picture[0, 0, 2] > picture[0, 0, 0] and picture[0, 1, 2] < picture[0, 1, 0]  # blue is right, orange wrong
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "dog", "cow"]


def test_confusion_without_mistakes_and_of_a_wrong_shape():
    assert viz.confusion(np.eye(2, dtype=int), "ab").get_title() == "2 of 2 right"
    with pytest.raises(ValueError, match=r"the matrix must be \(2, 2\) for its classes, got shape \(3, 3\)"):
        viz.confusion(np.eye(3), "ab")


def test_confusion_text_needs_no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    table = viz.confusion_text(np.array([[30, 0, 0], [10, 20, 0], [0, 0, 0]]), ["cat", "dog", "cow"]).splitlines()
    assert table[2].split() == ["dog", "10", "20", "·", "66.7", "%"]
    assert table[3].split() == ["cow", "·", "·", "·", "-"]


PATH = Path(jnp.array([[1.0, 1.0], [0.5, 0.5]]), jnp.array([1.0, 0.25]))
BRANCHED = hg.Chain(
    hg.Conv(2, 3), hg.Residual(hg.Chain(hg.Conv(2, 3), hg.Relu())),
    hg.Parallel(hg.Identity(), hg.Conv(4, 1)), hg.Flatten(), hg.Dense(3),
)  # fmt: skip
ROWS = [CostRow(f"conv{i}", "Conv", "by hand", 10, 20, 1.0 * i, 2.0 * i) for i in (1, 2)]
COST = Cost(tuple(ROWS), 8, 3.0, 6.0, 8.0, 0.01)
TRACE = {
    "name": ["dense1", "relu1"],
    "delta": [1.0, 0.1],
    "findings": [["dense1", "explodes", "output 153 times its input"]],
}

FIGURES = {
    "learning_curve": lambda ax: viz.learning_curve(HISTORY, ax),
    "kernels": lambda ax: viz.kernels(np.ones((3, 3, 1, 4)), ax=ax),
    "wrong": lambda ax: viz.wrong(np.eye(4)[None, :, :, None], [1], [0], CLASSES, ax=ax),
    "confusion": lambda ax: viz.confusion(np.eye(10, dtype=int), CLASSES, ax),
    "images": lambda ax: viz.images(np.eye(4)[None, :, :, None], ["one"], ax, title="a diagonal"),
    "saliency": lambda ax: viz.saliency(np.eye(4)[..., None], {"a": np.eye(4), "b": -np.eye(2)}, ax, title="why"),
    "activations": lambda ax: viz.activations({"conv1": np.eye(4)[None, :, :, None]}, ax=ax),
    "ledger": lambda ax: viz.ledger(hg.ledger(hg.Chain(hg.Relu(), hg.Tanh()), (64,), temporary=False), ax),
    "cost": lambda ax: viz.cost(COST, ax),
    "descend_2d": lambda ax: viz.descend_2d({"sgd": PATH}, "bowl", ax),
    "wiggle_cost": lambda ax: viz.wiggle_cost([WiggleCost(100, 2.0, 0.5), WiggleCost(400, 16.0, 1.0)], ax),
    "wiggle_signs": lambda ax: viz.wiggle_signs({"1e-6": (0.05, 0.08, 0.87), "1e-3": (0.95, 0.03, 0.02)}, ax),
    "net": lambda ax: viz.net(BRANCHED, (8, 8, 1), ax),
    "sweep": lambda ax: viz.sweep(Sweep(tuple(Run({"r": r}, {"train_loss": [r]}, None, None) for r in (1, 9))), ax),
    "sharpness": lambda ax: viz.sharpness({0.4: ([0, 50, 100], [1.0, 4.0, 5.1]), 0.8: ([0, 50], [1.0, 2.6])}, ax),
    "compare_losses": lambda ax: viz.compare_losses({"K-FAC": [2.0, 0.4, 0.1], "momentum": [2.0, 1.2, 0.4]}, ax),
    "trace": lambda ax: viz.trace({"trace_step": [1, 11], "trace": [TRACE, TRACE]}, ax=ax),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_ink_and_no_background_and_changes_nothing_global(tmp_path, name):
    before = dict(matplotlib.rcParams)
    ax = FIGURES[name](None)
    pixels = images.imread(viz.save(ax, tmp_path / "new" / f"{name}.png"))
    assert dict(matplotlib.rcParams) == before
    assert pixels[0, 0, 3] == 0 and (pixels[..., 3] > 0.9).mean() > 0.005
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_leaves_the_figure_or_lies_on_another(name):
    ax = FIGURES[name](None)
    figure: Any = ax.figure
    figure.draw_without_rendering()
    boxes = {}
    for a in figure.axes:
        for text in (a.title, a.xaxis.label, a.yaxis.label, *a.texts):
            if not text.get_text():
                continue
            boxes[text] = text.get_window_extent()
            assert figure.bbox.containsx(boxes[text].x0) and figure.bbox.containsx(boxes[text].x1)
            assert figure.bbox.containsy(boxes[text].y0) and figure.bbox.containsy(boxes[text].y1)
        for axis in (a.xaxis, a.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick.label1 if tick.label1.get_visible() else tick.label2 for tick in axis.get_major_ticks()]
            places = zip(ticks, axis.get_majorticklocs(), strict=True)
            boxes |= {t: t.get_window_extent() for t, place in places if low <= place <= high}
    texts = [text for text in boxes if text.get_text()]
    pairs = [(one.get_text(), other.get_text()) for i, one in enumerate(texts) for other in texts[:i]
             if boxes[one].overlaps(boxes[other].padded(-1))]  # fmt: skip
    assert len(texts) > 1 and not pairs


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_goes_into_axes_that_are_given_and_keeps_their_colours(name):
    ax = own_axes()
    assert FIGURES[name](ax) is ax
    assert ax.get_title() and ax.title.get_color() == matplotlib.rcParams["text.color"]
    assert ax.figure.get_facecolor() == (1, 1, 1, 1)


@pytest.mark.parametrize("name", FIGURES)
def test_without_matplotlib_the_error_names_the_extra(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"figures need matplotlib; install it with pip install 'handgrad\[plots\]'"):
        FIGURES[name](None)


def test_save_takes_figures_and_other_formats(tmp_path):
    figure: Any = Figure()
    ax = FIGURES["confusion"](figure.subfigures(1, 2)[1].add_subplot())
    assert viz.save(figure, tmp_path / "a.svg").read_text().startswith("<?xml")
    assert viz.save(ax, str(tmp_path / "a.pdf")).read_bytes()[:4] == b"%PDF"


def test_draw_run_writes_all_figures(tmp_path):
    metrics_file(tmp_path, HISTORY)
    params = {"conv1": {"kernel": np.ones((3, 3, 1, 4))}}
    x, y, logits = np.ones((4, 8, 8, 1)), np.array([0, 1, 2, 3]), 5 * np.eye(4)[[0, 1, 2, 2]]
    paths = viz.draw_run(tmp_path, params, x, y, logits, CLASSES[:4])
    assert [path.name for path in paths] == ["learning_curve.png", "kernels.png", "wrong.png", "confusion.png"]
    assert all(path.parent == tmp_path / "figures" and path.stat().st_size > 2000 for path in paths)
    dense = {"dense1": {"kernel": np.ones((64, 4))}}
    assert len(viz.draw_run(tmp_path, dense, x, y, logits, CLASSES[:4])) == 3


def test_the_description_goes_into_the_file(tmp_path):
    ax = FIGURES["confusion"](None)
    assert viz.alt_text(ax) == "Confusion matrix of 10 classes. 10 of 10 right"
    assert "Confusion matrix of 10 classes" in viz.save(ax, tmp_path / "a.svg").read_text()
    assert b"Confusion matrix of 10 classes" in viz.save(ax, tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_in_words_what_it_shows(name):
    ax = FIGURES[name](None)
    assert len(str(ax.get_label()).split()) > 1 and ax.get_title() in viz.alt_text(ax)


def test_panels_are_side_by_side_in_one_transparent_figure_in_the_manner_of_the_others():
    axes = viz.panels(2, 3, 6.0, 4.0, sharex=True, width_ratios=(1, 2, 3))
    figure = axes[0, 0].figure
    assert axes.shape == (2, 3) and len(figure.axes) == 6
    assert figure.get_facecolor()[3] == 0 and figure.get_size_inches().tolist() == [6.0, 4.0]
    axes[0, 0].set_xlim(2, 3)
    assert axes[1, 0].get_xlim() == (2, 3)  # what is for matplotlib reaches it
    alone = viz.wiggle_signs({"1e-3": (1.0, 0.0, 0.0)})
    for ax in axes.flat:
        assert ax.title.get_color() == ax.xaxis.label.get_color() == alone.title.get_color() == viz.INK
        assert ax.get_facecolor()[3] == 0 and not ax.spines["top"].get_visible()


def test_the_labels_of_minor_ticks_are_in_the_middle_tone_too():
    (ax,) = viz.panels(1, 1, 4.0, 3.0)[0]
    ax.semilogy([0, 1], [0.3, 0.7])
    ax.figure.draw_without_rendering()
    labels = [label for label in ax.get_yticklabels(minor=True) if label.get_text()]
    assert labels and {label.get_color() for label in labels} == {viz.INK}

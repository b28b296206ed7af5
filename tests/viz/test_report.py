"""The page of a run: what it says against the run itself, what it leaves out, what it escapes, and how it looks."""

import json
import math
import re
import shutil

import jax
import numpy as np
import pytest

import handgrad as hg
from browser import browser, needs_browser, open_page, overflow
from handgrad.insight.report import Report, Row
from handgrad.training import note_run, note_test, read_run
from pages import check_page

CLASSES = ["<cat>", "dog & co", 'the "cow"']
NET = hg.Chain(hg.Conv(2, 3), hg.Relu(), hg.MaxPool(2), hg.Flatten(), hg.Dense(3))
SECTIONS = ["run", "curve", "wrong", "confusion", "kernels", "trace", "net", "check"]


def images(n):
    x = np.random.default_rng(n).normal(size=(n, 5, 4, 1)).astype("float32")
    return x, np.arange(n) % 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a short run with all that a report can show, and the pieces it was made of."""
    folder = tmp_path_factory.mktemp("runs") / 'my <run> & "more"'
    objective = hg.Objective(NET, hg.SoftmaxCrossEntropy(), l2=0.01)
    optimizer = hg.sgd(0.1)
    start = hg.init_train_state(NET, optimizer, jax.random.key(0), (5, 4, 1))
    x, y = images(12)
    row = Row("dense1/bias", (3,), 1e-16, math.nan, math.inf, 6, 0, "-")
    check = Report(1.5, (row, row._replace(name="conv1/kernel", shape=(3, 3, 1, 2))))
    settings = {"batch_size": 4, "epochs": 2, "progress": False, "trace_every": 3}
    end, history = hg.fit(start, hg.make_train_step(objective, optimizer), x, y, run_dir=folder, **settings)
    test_x, test_y = images(9)
    logits = 5 * np.eye(3)[[0, 1, 2, 0, 1, 2, 1, 2, 2]]  # the seventh and the eighth are wrong
    note_test(folder, test_x, test_y, logits)
    note_run(folder, data="</script><script>alert(1)</script>", classes=CLASSES, check=check)
    note_run(folder, layers=hg.summary(NET, (5, 4, 1)), ledger=hg.ledger(NET, (5, 4, 1), temporary=False))
    hg.viz.save(hg.viz.net(NET, (5, 4, 1)), folder / "figures" / "net.svg")
    return folder, end, history, check


@pytest.fixture(scope="module")
def page(run):
    path = hg.report(run[0])
    assert path == run[0] / "report.html"
    return check_page(path)


def test_a_whole_run_has_every_section_in_order_and_links_to_each(page):
    assert [section["id"] for section in page.all("section")] == SECTIONS
    assert [link["href"] for link in page.all("a")] == [f"#{name}" for name in SECTIONS]


def test_names_are_escaped(page):
    assert "</script><script>alert(1)</script>: 77.8 % of the test images right" in page.texts
    assert ", ".join(CLASSES) in page.texts
    assert 'Made by handgrad report of my <run> & "more".' in page.texts
    assert page.all("script") == [] and "<cat>" not in page.source


def test_the_numbers_are_those_of_the_run(page, run):
    _, end, history, _ = run
    parameters = sum(leaf.size for leaf in jax.tree.leaves(end.params))
    facts = dict(zip(*(re.findall(rf"<{tag}>(.*?)</{tag}>", page.source) for tag in ("dt", "dd")), strict=True))
    numbers = {words: number for number, words in zip(*(
        re.findall(rf"<{tag}>([^<]*)</{tag}>", page.source.split('<dl class="tiles">')[1].split("</dl>")[0])
        for tag in ("dd", "dt")), strict=True)}  # fmt: skip
    assert numbers["test accuracy"] == "77.8 %" and numbers["test images wrong"] == "2 of 9"
    assert numbers["parameters"] == str(parameters) and numbers["steps in 2 epochs"] == "6"
    assert numbers["of training"] == f"{sum(history['seconds']):.1f} s"
    assert facts["input"] == "5×4×1" and facts["training examples"] == "12" and facts["held out"] == "0"
    assert facts["l2 penalty"] == "0.01" and facts["batch size"] == "4" and facts["traced every (steps)"] == "3"
    assert facts["JAX"] == jax.__version__ and facts["device"] == "cpu"
    assert str(NET) in page.text


def test_the_tables_are_those_of_the_tools(page, run):
    tables = re.findall(r"<table>(.*?)</table>", page.source)
    cells = [[re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:]] for table in tables]
    layers, ledger, check = cells
    assert [row[0] for row in layers] == ["layer", "conv1", "relu1", "maxpool1", "flatten1", "dense1", "total"]
    assert int(layers[-1][3]) == hg.summary(NET, (5, 4, 1)).parameters
    assert int(ledger[1][3]) == hg.ledger(NET, (5, 4, 1), temporary=False).rows[0].hand
    assert [row[0] for row in check[1:]] == [row.name for row in run[3].rows]
    assert "all three agree" in page.texts and f"gradient check in float64, value {run[3].value:.10g}" in page.texts


def test_each_picture_is_described_and_its_finding_stands_above_it(page):
    alts = [image["alt"] for image in page.all("img")]
    assert "Wrongly classified images. 2 of 9 images are wrong: predicted → true" in alts
    assert "Confusion matrix of 3 classes. 7 of 9 right; most often <cat> is taken for dog & co (1)" in alts
    assert any(alt.startswith("Heat map of 5 layers over 2 traced steps") for alt in alts)
    assert any(alt.startswith("Kernels as small pictures") for alt in alts)
    assert "2 of 9 images are wrong: predicted → true" in page.texts
    assert len(alts) == len(page.all("figure")) == len(page.all("figcaption")) == 8


def test_a_run_that_learned_nothing_else_shows_what_there_is(run, tmp_path):
    shutil.copy(run[0] / "metrics.jsonl", tmp_path)
    page = check_page(hg.report(tmp_path, tmp_path / "new" / "page.html"))
    assert [section["id"] for section in page.all("section")] == ["curve", "trace"]
    assert not (tmp_path / "report.html").exists()


def test_a_run_cut_off_before_its_first_epoch(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "accuracy": 0.5}\n{"step": 2, "lo')
    page = check_page(hg.report(tmp_path))
    assert "The curve needs a whole epoch; this run has none yet, but 1 step." in page.texts
    assert f"{tmp_path.name}: a run of 1 step" in page.texts


def test_checkpoints_alone_give_kernels(run, tmp_path):
    shutil.copytree(run[0] / "checkpoints", tmp_path / "checkpoints")
    assert [section["id"] for section in check_page(hg.report(tmp_path)).all("section")] == ["kernels"]


def test_a_wrong_gradient_is_said_in_red(tmp_path, run):
    shutil.copy(run[0] / "metrics.jsonl", tmp_path)
    wrong = {"ok": False, "head": "gradient check", "cells": [["leaf", "odd"], ["w", "manual"]], "sides": "<<"}
    note_run(tmp_path, check=wrong | {"verdict": ["WRONG: 1 of 1 leaves disagree; look first at w"]})
    page = check_page(hg.report(tmp_path))
    assert '<p class="bad">WRONG: 1 of 1 leaves disagree; look first at w</p>' in page.source
    assert "<dd>WRONG</dd>" in page.source


def test_facts_of_ones_own_are_listed_and_classes_may_be_missing(tmp_path, run):
    for name in ("metrics.jsonl", "test.npz"):
        shutil.copy(run[0] / name, tmp_path)
    note_run(tmp_path, teacher="me", classes=["too", "few"], my_table={"cells": [["a"], ["b"]], "sides": "<"})
    page = check_page(hg.report(tmp_path))
    assert "teacher" in page.texts and "me" in page.texts and "my_table" in page.texts
    assert any("most often 0 is taken for 1" in str(image["alt"]) for image in page.all("img"))


def test_errors(tmp_path, run, monkeypatch):
    with pytest.raises(FileNotFoundError, match="report: .*nowhere is no folder"):
        hg.report(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="report: .* holds no run: neither metrics.jsonl with a line nor checkpoints"):
        hg.report(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="holds no run"):
        hg.report(tmp_path)
    shutil.copy(run[0] / "metrics.jsonl", tmp_path)
    (tmp_path / "test.npz").write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match=r"test\.npz: the test is damaged"):
        hg.report(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json must hold JSON, but it is damaged"):
        hg.report(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="figures need matplotlib"):
        hg.report(run[0], tmp_path / "r.html")


def test_report_changes_nothing_in_the_folder(run, page):
    names = {path.name for path in run[0].iterdir()}
    assert names == {"metrics.jsonl", "checkpoints", "run.json", "test.npz", "figures", "report.html"}
    assert json.loads((run[0] / "run.json").read_text())["classes"] == CLASSES
    assert np.array_equal(read_run(run[0]).params["dense1"]["kernel"], run[1].params["dense1"]["kernel"])


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width, dark", [(1280, False), (375, True)])
def test_in_a_browser_it_fits_and_its_pictures_load(page, run, width, dark):
    with browser(width, dark=dark) as driver:
        open_page(driver, run[0] / "report.html")
        assert overflow(driver) <= 0
        widths = driver.execute_script("return [...document.images].map((image) => image.naturalWidth)")
        assert len(widths) == 8 and min(widths) > 100
        paper = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", paper))) < 60) == dark


def folder_of(path, **facts):
    """A run of one epoch, with facts of the user's own."""
    note_run(path, **facts)
    (path / "metrics.jsonl").write_text('{"epoch": 1, "train_loss": 0.5, "train_accuracy": 0.9}\n')
    return path


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"check": "by eye"}, ["by eye"]),
        ({"check": None, "parameters": None}, []),
        ({"parameters": "about ten"}, ["about ten"]),
        ({"check": {"ok": True, "cells": [], "sides": ""}}, []),
        ({"mine": {"cells": [["a", "b"], ["1"]], "sides": "<<"}}, ["a"]),
        ({"mine": {"cells": "no table", "sides": 3}}, ["no table"]),
    ],
)
def test_facts_of_ones_own_under_known_names_are_listed(tmp_path, facts, said):
    page = check_page(hg.report(folder_of(tmp_path, **facts)))
    assert "training accuracy 90.0 %" in page.source and "agree" not in page.source
    assert all(words in page.source for words in said)


@pytest.mark.parametrize(("n", "k"), [(0, 3), (4, 1)])
def test_a_test_of_nothing_or_of_one_number_is_no_classification(tmp_path, n, k):
    x, y = images(n)
    note_test(folder_of(tmp_path), x, y, np.zeros((n, k)))
    page = check_page(hg.report(tmp_path))
    assert [section["id"] for section in page.all("section")] == ["curve"]
    assert "test accuracy" not in page.source and "training accuracy 90.0 %" in page.source


def test_labels_that_are_no_classes_are_an_error(tmp_path):
    x, _ = images(4)
    note_test(folder_of(tmp_path), x, [0, 1, 2, 7], np.eye(3)[[0, 1, 2, 2]])
    with pytest.raises(ValueError, match=r"test.npz must have labels from 0 to 2 for its logits of 3 classes, got 7"):
        hg.report(tmp_path)

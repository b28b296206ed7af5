"""`handgrad report` and `handgrad demo`, called in process: their files, what they print, and their errors."""

import re
from pathlib import Path

import pytest

from handgrad.cli import main, pages
from pages import check_page

QUICK = ["--model", "perceptron", "--epochs", "1", "--batch-size", "400", "--no-figures", "--no-progress", "--no-check"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of the command line."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *QUICK, "--trace-every", "2", "--run-dir", str(folder)]) == 0
    return folder


def test_train_leaves_what_the_report_needs(run, tmp_path, capsys):
    assert main(["report", str(run), "--out", str(tmp_path / "new" / "r.html")]) == 0
    printed = capsys.readouterr().out
    size = (tmp_path / "new" / "r.html").stat().st_size
    assert printed == f"report      {tmp_path / 'new' / 'r.html'}, {size / 1e3:.0f} KB; open it in a browser\n"
    page = check_page(tmp_path / "new" / "r.html")
    names = [section["id"] for section in page.all("section")]
    assert names == ["run", "curve", "wrong", "confusion", "trace", "net"]
    assert f"handgrad train {' '.join(QUICK)} --trace-every 2 --run-dir {run}" in page.texts
    assert "adam, learning rate 0.002 after a warmup, then half a cosine wave" in page.texts
    assert re.fullmatch(r"digits: \d+\.\d % of the test images right", page.texts[1])


def test_train_says_how_to_get_the_report(tmp_path, capsys):
    assert main(["train", *QUICK, "--run-dir", str(tmp_path / "run")]) == 0
    assert (
        f"report      handgrad report {tmp_path / 'run'}: all of it on one page" in capsys.readouterr().out.splitlines()
    )


def test_report_stands_in_the_folder_by_default(run):
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").is_file()


def test_report_of_no_run(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"handgrad report: {tmp_path} holds no run")
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "nowhere is no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, problems", [([], ["circle", "spirals", "xor"]), (["xor", "circle"], ["xor", "circle"])]
)
def test_demo_writes_what_is_asked_for(options, problems, tmp_path, capsys, monkeypatch):
    asked = {}

    def small(out, problems, **settings):
        asked.update(settings, problems=list(problems))
        Path(out).write_text("x" * 2000)
        return Path(out)

    monkeypatch.setattr(pages, "demo_2d", small)
    given = [text for name in options for text in ("--problem", name)]
    assert main(["demo", "--out", str(tmp_path / "d.html"), "--seed", "5", *given]) == 0
    assert asked == {"problems": problems, "seed": 5, "activation": "tanh"}
    assert capsys.readouterr().out.splitlines()[-1] == f"demo        {tmp_path / 'd.html'}, 2 KB; open it in a browser"


def test_demo_of_an_unknown_problem(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["demo", "--problem", "moons"])
    assert "invalid choice: 'moons'" in capsys.readouterr().err

"""`handgrad trace` on a run and on a net, and `handgrad train --trace-every`."""

import json
import sys

import pytest

from handgrad.cli import main
from handgrad.viz.trace import NAMES

QUICK = ["--epochs", "2", "--batch-size", "200", "--no-figures", "--no-progress", "--no-check"]


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """The folder of a run of twelve steps, each fifth of which is traced."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "--model", "mlp", *QUICK, "--trace-every", "5", "--run-dir", str(folder)]) == 0
    return folder


def test_a_run_is_traced_printed_and_drawn(traced, capsys):
    assert main(["trace", str(traced)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 11, the last of 3 traced: loss ") and lines[0].endswith("on a batch of 200")
    assert lines[1].split()[:4] == ["layer", "kind", "backward", "output"]
    assert [line.split()[0] for line in lines[2:6]] == ["flatten1", "dense1", "relu1", "dense2"]
    assert lines[-1] == f"figures     {traced / 'figures'}: trace_delta.png, trace_dead.png"
    assert (traced / "figures" / "trace_dead.png").read_bytes().startswith(b"\x89PNG")
    assert main(["trace", str(traced), "--value", "ratio"]) == 0
    assert (traced / "figures" / "trace_ratio.png").stat().st_size > 2000


def test_a_run_that_is_cut_off_and_one_without_traces(traced, tmp_path, capsys, monkeypatch):
    written = (traced / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(written + '{"step": 13, "lo')
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["trace", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("figures     none; viz: figures need matplotlib")
    lines = [json.loads(line) for line in written.splitlines()]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines if "trace" not in line))
    assert main(["trace", str(tmp_path)]) == 2
    assert f"handgrad trace: {tmp_path} keeps no traces; train with --trace-every N" in capsys.readouterr().err


def test_a_net_by_its_name_on_its_data_or_on_random_images(capsys):
    tables = []
    for arguments in (["perceptron"], ["--model", "perceptron"], ["perceptron", "--in-shape", "4x3x2", "--batch", "2"]):
        assert main(["trace", *arguments]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1] and "on a batch of 64\n" in tables[0] and "on a batch of 2\n" in tables[2]
    assert [line.split()[4] for line in tables[2].splitlines()[2:4]] == ["24", "10"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is neither the folder of a run nor a net; the nets are perceptron, mlp, "),
        (["mlp", "--model", "lenet"], "there are two nets, mlp and --model lenet; name one"),
        (["mlp", "--value", "dead"], "--value is what to draw of a run; name its folder"),
        (["mlp", "--batch", "0"], "argument --batch: must be a whole number from 1 on, got '0'"),
        (["alexnet"], "conv: "),
    ],
)
def test_an_error_is_one_line(arguments, message, capsys):
    try:
        code = main(["trace", *arguments])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and error.startswith(f"handgrad trace: {message}") and error.count("\n") == 1


def test_an_empty_folder_is_no_run(tmp_path, capsys):
    assert main(["trace", str(tmp_path)]) == 2
    assert "metrics.jsonl" in capsys.readouterr().err


def test_help_names_every_value(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["trace", "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and "RUN_OR_NET" in out and "%(" not in out
    assert "{" + ",".join(NAMES) + "}" in "".join(out.split())

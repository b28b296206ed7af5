"""`handgrad ledger` and `handgrad cost`, called in process."""

import pytest

import handgrad as hg
from handgrad.cli import main
from handgrad.training import note_run


def test_ledger_prints_the_table_and_draws(tmp_path, capsys):
    picture = tmp_path / "new" / "ledger.png"
    options = ["--model", "lenet", "--batch", "2", "--no-temporary", "--out", str(picture)]
    assert main(["ledger", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "bytes kept for backward, batch of 2"
    maps, pooled = 2 * 28 * 28 * 32 * 4, 2 * 14 * 14 * 32
    rows = {line.split()[0]: line.split() for line in lines}
    assert rows["maxpool1"] == ["maxpool1", "MaxPool", "by", "hand", f"{pooled:,}", f"{maps:,}", "saves", "94", "%"]
    assert "XLA's peak" not in "".join(lines) and lines[-1] == f"drawn to {picture}"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_ledger_has_what_xla_plans_and_takes_a_shape_and_classes(capsys):
    assert main(["ledger", "--model", "perceptron", "--in-shape", "4x3x1", "--classes", "3", "--batch", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split() == ["dense1", "Dense", "by", "hand", "240", "240"] and lines[-1].startswith("XLA's peak")


def test_cost_prints_the_table_and_draws(tmp_path, capsys):
    options = ["--model", "perceptron", "--batch", "2", "--seconds", "0", "--out", str(tmp_path / "cost.svg")]
    assert main(["cost", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "batch of 2"
    assert lines[3].split()[:7] == ["dense1", "Dense", "by", "hand", "15,680", "15,680", "1.00"]
    assert (tmp_path / "cost.svg").exists()


def test_a_run_has_a_net_of_its_own(tmp_path, capsys):
    """Also one with settings of its own; what a run does not say is an error."""
    run = tmp_path / "run"
    note_run(run, net=str(hg.Chain(hg.Flatten(), hg.Dense(7), hg.Relu(), hg.Dense(3))), in_shape=(4, 3, 1))
    assert main(["summary", str(run)]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows["dense1"][3:5] == ["91", "84"] and rows["dense2"][3:5] == ["24", "21"]
    assert main(["ledger", str(run), "--batch", "2", "--no-temporary"]) == 0
    assert "relu1" in capsys.readouterr().out
    assert main(["cost", str(run), "--batch", "2", "--seconds", "0", "--in-shape", "2,2,1"]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows["dense1"][4] == f"{2 * 4 * 7}"  # multiply-adds of two images of four pixels
    assert main(["ledger", str(run), "--model", "lenet"]) == 2
    assert "has a net of its own; leave --model and --classes out" in capsys.readouterr().err
    note_run(run, net="Chain(Mine())")
    assert main(["ledger", str(run)]) == 2
    assert "'Mine' is no layer of handgrad.layers" in capsys.readouterr().err
    assert main(["cost", str(tmp_path)]) == 2
    assert "does not say which net was trained" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ledger", "--batch", "0"], "handgrad ledger: argument --batch: must be a whole number from 1 on, got '0'"),
        (["ledger", "--in-shape", "1,1,1"], "handgrad ledger: max_pool: the window spans 2 places on spatial axis 0"),
        (["ledger", "--model", "vgg"], "handgrad ledger: argument --model: invalid choice: 'vgg'"),
        (["cost", "--seconds", "-1"], "handgrad cost: argument --seconds: must be a number of at least 0, got '-1'"),
        (["ledger", "nowhere"], "handgrad ledger: nowhere is neither the folder of a run nor a net; the nets are "),
        (["cost", "lenet", "--model", "mlp"], "handgrad cost: there are two nets, lenet and --model mlp; name one"),
        (["cost", "--in-shape", "1,1,1"], "handgrad cost: max_pool: the window spans"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(arguments, message, capsys):
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = ended.code
    error = capsys.readouterr().err
    assert code == 2 and error.startswith(message) and len(error.splitlines()) == 1

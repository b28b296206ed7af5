"""The command line, called in process: what it prints, its exit codes, its files, and its errors of one line."""

import argparse
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import handgrad as hg
from handgrad import models
from handgrad.cli import fresh_run_dir, main
from handgrad.cli.planted import ERRORS, plant
from handgrad.cli.train import GRADIENTS, net_of
from handgrad.models import NAMES, by_name
from handgrad.training import checkpoint

QUICK = ["--model", "perceptron", "--epochs", "2", "--batch-size", "200", "--no-figures", "--no-progress"]


def train(*options):
    return main(["train", *QUICK, *options])


def epochs_in(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "epoch" in line]


def idx(array):
    """The bytes of an IDX file of unsigned bytes."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """A folder with the test images of a small data set in MNIST's form: class k has a bright row k."""
    folder, y = tmp_path_factory.mktemp("mnist"), np.arange(300, dtype=np.uint8) % 10
    x = np.random.default_rng(0).integers(0, 60, (300, 28, 28), np.uint8)
    x[np.arange(300), 2 * y] = 255
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(x))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(y))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train("--no-check", "--run-dir", str(folder)) == 0
    return folder


def test_train_checks_trains_tests_and_says_where_all_is(tmp_path, capsys):
    assert main(["train", *QUICK[:6], "--no-progress", "--run-dir", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert captured.err == ""
    assert lines[0] == "data   digits: 1,293 training and 360 test images of 8x8x1"
    assert lines[1] == "net    Chain(Flatten(), Dense(10)), 650 parameters"
    order = ["gradient check in float64", "all three agree", "trained 12 steps in ", "true \\ predicted", "checkpoint "]
    places = [next(i for i, line in enumerate(lines) if line.startswith(start)) for start in order]
    assert places == sorted(places)
    saved = tmp_path / "run" / "checkpoints" / "step_00000012.npz"
    assert f"checkpoint  {saved}" in lines and f"metrics     {tmp_path / 'run' / 'metrics.jsonl'}" in lines
    assert f"figures     {tmp_path / 'run' / 'figures'}: learning_curve.png, wrong.png, confusion.png, net.svg" in lines
    assert (tmp_path / "run" / "figures" / "wrong.png").stat().st_size > 2000
    params = checkpoint.load(saved).params
    digits = hg.data.load_digits()
    net, x = hg.models.perceptron(), hg.data.normalise(digits.test_x)
    accuracy = hg.evaluate(net, params, {}, x, digits.test_y)["accuracy"]
    assert lines[-1] == f"test accuracy {100 * accuracy:.1f} %"


def test_a_wrong_gradient_stops_the_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(NAMES, "perceptron", lambda classes: plant(hg.models.perceptron(classes), "factor")[0])
    assert train("--run-dir", str(tmp_path / "run")) == 1
    assert "WRONG: 1 of 3 leaves disagree; look first at dense1 (Planted)" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_progress_bar_shows_loss_accuracy_and_images_per_second(tmp_path, capsys):
    assert main(["train", *QUICK[:-1], "--no-check", "--run-dir", str(tmp_path / "run")]) == 0
    bar = capsys.readouterr().err
    assert "epoch 2/2" in bar and "images/s" in bar


def test_runs_without_a_folder_get_one_each(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        assert train("--no-check", "--epochs", "1") == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["digits", "digits-2", "digits-3"]
    assert f"metrics     {os.path.join('runs', 'digits-3', 'metrics.jsonl')}" in capsys.readouterr().out


def test_resume_goes_on_and_a_finished_run_is_tested_again(finished, tmp_path, capsys):
    copy = tmp_path / "run"
    assert train("--no-check", "--epochs", "1", "--run-dir", str(copy), "--resume") == 0
    assert f"from   the start: {copy} holds no checkpoint yet\n" in capsys.readouterr().out
    assert len(epochs_in(copy)) == 1
    assert train("--no-check", "--epochs", "3", "--run-dir", str(copy), "--resume") == 0
    assert [line["epoch"] for line in epochs_in(copy)] == [1, 2, 3]
    out = capsys.readouterr().out
    assert "trained 18 steps in " in out
    assert f"from   {copy / 'checkpoints' / 'step_00000006.npz'}\n" in out
    assert train("--no-check", "--run-dir", str(finished), "--resume") == 0
    assert len(epochs_in(finished)) == 2


def test_the_seed_fixes_the_run(finished, tmp_path):
    assert train("--no-check", "--run-dir", str(tmp_path / "same")) == 0
    assert train("--no-check", "--seed", "1", "--run-dir", str(tmp_path / "other")) == 0
    losses = [
        [line["train_loss"] for line in epochs_in(run)] for run in (finished, tmp_path / "same", tmp_path / "other")
    ]
    assert losses[0] == losses[1] != losses[2]


def test_automatic_gradients_train_alike(finished, tmp_path, monkeypatch):
    asked = []

    def spy(objective, has_aux):
        asked.append(objective)
        return jax.value_and_grad(objective, has_aux=has_aux)

    monkeypatch.setitem(GRADIENTS, "automatic", spy)
    assert train("--no-check", "--gradients", "automatic", "--run-dir", str(tmp_path / "run")) == 0
    assert len(asked) == 1
    for by_hand, automatic in zip(epochs_in(finished), epochs_in(tmp_path / "run"), strict=True):
        assert by_hand["train_loss"] == pytest.approx(automatic["train_loss"], rel=1e-5)


@pytest.mark.parametrize(
    "optimizer", ["adamw", "nesterov", *(pytest.param(name, marks=pytest.mark.slow) for name in ("momentum", "sgd"))]
)
def test_every_optimizer_learns(optimizer, tmp_path):
    options = ["--optimizer", optimizer, "--epochs", "20", "--batch-size", "50", "--validation", "0"]
    assert train("--no-check", *options, "--run-dir", str(tmp_path / "run")) == 0
    losses = [line["train_loss"] for line in epochs_in(tmp_path / "run")]
    assert losses[-1] < 0.7 * losses[0]
    assert all("validation_accuracy" not in line for line in epochs_in(tmp_path / "run"))


def test_settings_reach_the_training(finished, tmp_path):
    settings = {"--l2": "0.1", "--label-smoothing": "0.5", "--learning-rate": "0.1"}
    first = [epochs_in(finished)[0]["train_loss"]]
    for option, value in settings.items():
        run = tmp_path / option.strip("-")
        assert train("--no-check", "--epochs", "1", option, value, "--run-dir", str(run)) == 0
        first.append(epochs_in(run)[0]["train_loss"])
    assert len(set(first)) == 4


def test_mnist_from_its_test_images_alone(mnist, tmp_path, capsys):
    options = ["--data", "mnist", "--data-dir", str(mnist), "--test-images-only", "--run-dir", str(tmp_path / "run")]
    assert main(["train", *QUICK, *options, "--no-check", "--epochs", "5", "--batch-size", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "data   mnist: 216 training and 60 test images of 28x28x1"
    assert lines[-1] == "test accuracy 100.0 %"


def test_figures_without_matplotlib_are_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["train", *QUICK[:6], "--no-progress", "--no-check", "--run-dir", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "figures     none; viz: figures need matplotlib; install it with pip install 'handgrad[plots]'" in out
    assert out.splitlines()[-1].startswith("test accuracy ")


ERROR_LINES = {
    "a data set without its folder": (
        ["train", "--data", "mnist"],
        "handgrad train: --data mnist needs --data-dir, the folder that holds its files",
    ),
    "no such folder": (
        ["check", "--data", "fashion_mnist", "--data-dir", "no/such"],
        "handgrad check: load_fashion_mnist: there is no folder no/such; name the one that holds the MNIST files",
    ),
    "a folder for the digits": (
        ["train", "--data-dir", "x"],
        "handgrad train: the digits travel inside the package; leave --data-dir out, or take --data mnist",
    ),
    "resume nothing": (
        ["train", "--resume"],
        "handgrad train: --resume needs --run-dir, the folder of the run to continue",
    ),
    "no dropout": (
        ["train", "--model", "perceptron", "--dropout", "0.5"],
        "handgrad train: models: perceptron has no setting 'dropout'; it has classes",
    ),
    "too large a batch": (
        ["train", "--model", "perceptron", "--batch-size", "5000", "--no-check", "--run-dir", "no/such/run"],
        "handgrad train: fit: batch_size must be at most the 1293 examples, got 5000",
    ),
    "a shape that does not fit": (
        ["summary", "--model", "lenet", "--in-shape", "1,1,1"],
        "handgrad summary: max_pool: the window spans 2 places on spatial axis 0",
    ),
    "no int": (
        ["train", "--epochs", "0"],
        "handgrad train: argument --epochs: must be a whole number from 1 on, got '0'; see handgrad train --help",
    ),
    "no such option": (
        ["check", "--plnat=transpose"],
        "handgrad check: unrecognized argument --plnat (did you mean --plant?); see handgrad check --help",
    ),
    "a seed below 0": (["train", "--seed", "-1"], "handgrad train: argument --seed: "),
    "no number": (
        ["train", "--learning-rate", "fast"],
        "handgrad train: argument --learning-rate: must be a number of at least 0, got 'fast'",
    ),
    "a rate of 1": (
        ["train", "--dropout", "1"],
        "handgrad train: argument --dropout: must be a number of at least 0 and below 1, got '1'",
    ),
    "no shape": (
        ["summary", "--in-shape", "28,0"],
        "handgrad summary: argument --in-shape: must be positive sizes such as 28,28,1, got '28,0'",
    ),
    "no such model": (["summary", "--model", "vgg"], "handgrad summary: argument --model: invalid choice: 'vgg'"),
    "no such command": (["tain"], "handgrad: argument COMMAND: invalid choice: 'tain'"),
}


@pytest.mark.parametrize("case", ERROR_LINES)
def test_an_error_is_one_line_and_exit_code_2(case, capsys):
    arguments, message = ERROR_LINES[case]
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2 and captured.err.startswith(message)
    assert captured.err.count("\n") == 1 and "JAX" not in captured.err


def test_a_run_is_not_written_over(finished, capsys):
    before = (finished / "metrics.jsonl").read_bytes()
    assert train("--run-dir", str(finished)) == 2
    assert capsys.readouterr().err == (
        f"handgrad train: {finished} holds a run already; add --resume to continue it, or name another --run-dir\n"
    )
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_ctrl_c_ends_with_130(monkeypatch, tmp_path):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("handgrad.cli.train.fit", interrupted)
    assert train("--no-check", "--run-dir", str(tmp_path)) == 130


def test_check_passes_and_takes_layers_alone(capsys):
    assert main(["check", "--model", "perceptron"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "all three agree"
    assert main(["check", "--model", "perceptron", "--layer-by-layer"]) == 0
    out = capsys.readouterr().out
    assert "flatten1, 8x8x1: gradient check" in out and "dense1, 64: gradient check" in out
    assert out.splitlines()[-1] == "all layers are right"


@pytest.mark.parametrize(("error", "leaf"), [("factor", "kernel"), ("transpose", "kernel"), ("bias", "bias")])
def test_a_planted_error_is_found_and_named(error, leaf, capsys):
    assert main(["check", "--model", "perceptron", "--plant", error]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"planted in dense1: {ERRORS[error][0]}"
    odd = {line.split()[0]: line.split()[-1] for line in lines if line.startswith(("x ", "dense1/"))}
    assert odd == {"x": "-", "dense1/bias": "-", "dense1/kernel": "-"} | {f"dense1/{leaf}": "manual"}
    assert "WRONG: 1 of 3 leaves disagree; look first at dense1 (Planted)" in lines


def test_a_planted_sign_shows_below_its_layer(capsys):
    assert main(["check", "--model", "mlp", "--plant", "sign"]) == 1
    out = capsys.readouterr().out
    odd = {line.split()[0]: line.split()[-1] for line in out.splitlines() if line.startswith(("x ", "dense"))}
    assert {name for name, one in odd.items() if one == "manual"} == {"x", "dense1/bias", "dense1/kernel"}
    assert "look first at dense2 (Planted)" in out


def test_a_planted_error_is_found_in_its_layer_alone(capsys):
    assert main(["check", "--model", "perceptron", "--plant", "sign", "--layer-by-layer"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "WRONG: dense1"


def test_summary(capsys):
    assert main(["summary", "--model", "lenet", "--batch", "2"]) == 0
    total = capsys.readouterr().out.splitlines()[-1].split()
    assert total[:5] == ["total", "batch", "of", "2", "857,738"]
    assert main(["summary", "--model", "digits_cnn"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[4] == "79,626"


def test_summary_of_alexnet_has_every_layer_and_the_exact_total(capsys):
    assert main(["summary", "--model", "alexnet"]) == 0
    header, *rows, total = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert header[:4] == ["layer", "kind", "output", "parameters"]
    assert [row[0] for row in rows if row[3] != "-"] == [
        *(f"conv{i}" for i in range(1, 6)),
        "dense1",
        "dense2",
        "dense3",
    ]
    assert rows[0][:5] == ["conv1", "Conv", "55x55x96", "34,944", "105,415,200"]
    assert rows[4][:5] == ["conv2", "Conv", "27x27x256", "307,456", "223,948,800"]
    assert sum(int(row[3].replace(",", "")) for row in rows if row[3] != "-") == 60_965_224
    assert total[:6] == ["total", "batch", "of", "1", "60,965,224", "724,406,816"]


def test_summary_takes_another_shape_and_number_of_classes(capsys):
    assert main(["summary", "--model", "alexnet", "--in-shape", "99x99x3", "--classes", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[2] == "23x23x96" and lines[-2].split()[:4] == ["dense3", "Dense", "10", "40,970"]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in ("lenet", "resnet20", "vgg11") else pytest.mark.slow) for n in sorted(NAMES)],
)
def test_every_net_has_a_summary_at_its_own_shape(name, capsys):
    assert main(["summary", "--model", name]) == 0
    classes = "1000" if models.IN_SHAPES[name][0] > 200 else "10"
    assert capsys.readouterr().out.splitlines()[-2].split()[2] == classes


@pytest.mark.parametrize(("size", "padding"), [(28, 2), (32, 0)])
def test_lenet5_gets_its_margin_on_mnist(size, padding):
    images = np.zeros((1, size, size, 1), np.uint8)
    dataset = hg.data.Dataset(images, np.zeros(1), images, np.zeros(1), tuple("0123456789"))
    net = net_of(argparse.Namespace(model="lenet5", dropout=None, data="mnist"), dataset)
    assert net == models.lenet5(padding=padding)


@pytest.mark.slow
def test_a_long_net_goes_by_its_name(tmp_path, capsys):
    run = ["--epochs", "1", "--batch-size", "600", "--no-progress", "--no-figures", "--no-check"]
    assert main(["train", "--model", "resnet20", *run, "--run-dir", str(tmp_path / "run")]) == 0
    assert "net    resnet20, 272,186 parameters" in capsys.readouterr().out


def test_a_bias_error_is_planted_where_there_is_a_bias():
    assert plant(models.cifar_resnet(1), "bias")[1] == "dense1"
    assert plant(models.cifar_resnet(1), "sign")[1] == "stage1/residual1/body/conv1"


def test_alone_it_prints_its_help(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: handgrad") and all(f"\n    {name} " in out for name in ("train", "check", "summary"))


@pytest.mark.parametrize("command", ["train", "check", "summary"])
def test_help_explains_every_option(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    usage, *groups = capsys.readouterr().out.split("\n\n")
    text = "\n".join(groups)
    for option in [word.strip("[]") for word in usage.split() if word.startswith("[--")]:
        described = text.split(f"  {option}", 1)[1].split("\n  -")[0]
        assert len(described.split()) > 3, option
    assert "%(" not in text


def test_module_and_version():
    run = subprocess.run([sys.executable, "-m", "handgrad", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"handgrad {hg.__version__}\n" and run.stderr == ""


def test_fresh_run_dir_passes_over_runs_only(tmp_path):
    (tmp_path / "a").mkdir()
    assert fresh_run_dir(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a" / "checkpoints").mkdir()
    (tmp_path / "a" / "checkpoints" / "step_00000001.npz").touch()
    assert fresh_run_dir(str(tmp_path / "a")) == tmp_path / "a-2"


def test_nets_by_name():
    assert by_name("mlp", classes=3, dropout=0.5) == hg.models.mlp(3, dropout=0.5)
    with pytest.raises(ValueError, match="no net named 'vgg'; take one of perceptron, mlp, lenet, digits_cnn"):
        by_name("vgg")
    with pytest.raises(ValueError, match="lenet has no setting 'depth'; it has classes, dropout"):
        by_name("lenet", depth=3)

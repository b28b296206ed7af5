"""Each example runs as its reader runs it, in a process of its own, and its output says what its docstring promises."""

import re

import numpy as np
import pytest

from scripts import ROOT, run_example


def output_of(name, *arguments):
    """What a script prints, once it has nothing to complain of."""
    run = run_example(name, *arguments)
    assert run.stderr == ""
    return run.stdout


def numbers(pattern, text):
    return [float(number) for number in re.findall(pattern, text)]


def test_toy_trainer_learns_the_digits():
    output = output_of("toy_trainer.py")
    accuracy, loss = numbers(r"test accuracy ([\d.]+) %", output), numbers(r"loss ([\d.]+)", output)
    assert len(accuracy) == len(loss) == 10
    assert accuracy[-1] > 93 and loss[-1] < loss[0] / 5


@pytest.mark.slow
def test_manual_and_automatic_training_stay_together():
    output = output_of("manual_vs_automatic.py")
    rows = re.findall(r"^ *(\d+) +([\d.]+) +([\d.]+) +([\d.e+-]+)$", output, re.MULTILINE)
    assert float(rows[-1][1]) < 0.5 * float(rows[0][1])
    assert max(abs(float(by_hand) - float(automatic)) for _, by_hand, automatic, _ in rows) < 1e-3
    assert 0 < numbers(r"largest difference of the losses +([\d.e+-]+)", output)[0] < 1e-3
    assert 0 < numbers(r"largest difference of the weights +([\d.e+-]+)", output)[0] < 1e-2
    by_hand, automatic = re.findall(r"by hand ([\d.]+) ms, automatic ([\d.]+) ms", output)[0]
    assert float(by_hand) > 0 and float(automatic) > 0


@pytest.mark.slow
def test_custom_layer_is_checked_caught_and_trained():
    right, wrong, training = output_of("custom_layer.py").split("\n\n")
    assert "all three agree" in right and "WRONG" not in right
    assert re.search(r"^x .* manual$", wrong, re.MULTILINE)
    assert re.search(r"^beta .* -$", wrong, re.MULTILINE)
    assert "WRONG: 1 of 2 leaves disagree; look first at swish (HalfSwish)" in wrong
    assert numbers(r"test accuracy ([\d.]+) %", training)[-1] > 85


@pytest.mark.slow
def test_augmentations_are_drawn(tmp_path):
    assert output_of("draw_augmentations.py", "--out", str(tmp_path / "augment.png")).startswith("drawn to")
    assert (tmp_path / "augment.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_wrong_labels_have_long_gradients(tmp_path):
    output = output_of("per_example.py", "--out", str(tmp_path / "found.png"))
    among_40, among_20 = numbers(r"(\d+) (?:of 20|among the 20)", output)
    assert among_40 >= 18 and among_20 >= 10
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")


def drawn(name, folder):
    """What an example prints that draws a picture, once the picture is there."""
    output = output_of(name, "--out", str(folder / "picture.png"))
    assert output.splitlines()[-1] == f"drawn to {folder / 'picture.png'}"
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")
    return output


@pytest.mark.slow
def test_thresholds_learn_by_other_backward_rules(tmp_path):
    straight, near, own = numbers(r": ([\d.]+) ±", drawn("backward_rules.py", tmp_path))
    assert min(straight, near) > own + 10


@pytest.mark.slow
def test_random_feedback_learns_and_aligns(tmp_path):
    output = drawn("feedback_alignment.py", tmp_path)
    accuracy = numbers(r"random feedback, epoch +\d+: accuracy ([\d.]+) %", output)
    angle = numbers(r"random feedback, epoch .* angle ([\d.]+)°", output)
    assert accuracy[-1] > 90 and angle[0] > 80 and angle[-1] < angle[0] - 10
    assert numbers(r"backprop, epoch .* angle ([\d.]+)°", output) == [0] * 4


@pytest.mark.slow
def test_guided_backprop_heeds_the_weights_less_than_the_gradient(tmp_path):
    likeness = dict(re.findall(r"^(.+?) +(-?[\d.]+)$", drawn("saliency.py", tmp_path), re.MULTILINE))
    assert len(likeness) == 7 and float(likeness["guided backprop"]) > float(likeness["gradient"]) + 0.3


@pytest.mark.slow
def test_activations_are_drawn_and_counted(tmp_path):
    silent = numbers(r"(\d+) channels are silent", drawn("activations.py", tmp_path))
    assert len(silent) == 8 and silent[4] == silent[5]  # a pool of zeros is 0


@pytest.mark.slow
def test_kernels_are_drawn_beside_the_confusion(tmp_path):
    right = numbers(r"([\d.]+) %", drawn("kernels.py", tmp_path))
    assert len(right) == 10 and sum(right) / 10 > 60


@pytest.mark.slow
def test_noise_for_privacy_costs_accuracy(tmp_path):
    accuracy = numbers(r"accuracy ([\d.]+) %", drawn("private.py", tmp_path))
    assert len(accuracy) == 4 and accuracy == sorted(accuracy, reverse=True)
    assert accuracy[0] > 88 and accuracy[-1] < accuracy[0] - 20


@pytest.mark.slow
def test_a_large_learning_rate_kills_a_net_and_the_trace_says_where(tmp_path):
    dying, living, _ = drawn("trace.py", tmp_path).split("\n\n")
    assert "relu3 dies: 100 % of its units are dead" in dying and "nothing breaks, dies" in living
    accuracy = numbers(r"training accuracy ([\d.]+) %", dying + living)
    assert accuracy[0] < 15 and accuracy[1] > 90


@pytest.mark.parametrize(
    ("name", "says"),
    [("ledger", "maxpool1 .* saves 94 %"), pytest.param("cost", "in one program", marks=pytest.mark.slow)],
)
def test_memory_and_time_are_told_and_drawn(name, says, tmp_path):
    output = output_of(f"{name}.py", "--out", str(tmp_path / "figure.png"))
    assert re.search(says, output) and "batch of 64" in output
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_report_is_written_of_a_run(tmp_path):
    for folder in ("run", "run-2"):
        output = output_of("report.py", "--out", str(tmp_path / "r.html"), "--run-dir", str(tmp_path / "run"))
        assert numbers(r"training loss ([\d.]+)", output)[0] < 0.3 and (tmp_path / folder / "run.json").exists()
    assert "% of the test images right" in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_three_hidden_units_close_the_circle_and_two_do_not(tmp_path):
    output = output_of("demo_2d.py", "--out", str(tmp_path / "d.html"))
    right = numbers(r"([\d.]+) %", output)
    assert max(right[:2]) < 95 and right[2:] == [100.0] * 4
    assert (tmp_path / "d.html").stat().st_size < 300_000


@pytest.mark.slow
def test_small_wiggles_say_nothing_in_float32(tmp_path):
    """Nor may one say the sign of a weight whose loss did not change in its last digit."""
    output = output_of("wiggle.py", "--out", str(tmp_path / "figure.png"))
    right, unseen = numbers(r"(\d+) % right", output), numbers(r"(\d+) % no change", output)
    assert right[-1] > 95 and right[0] < 10 and unseen[0] > 80 and unseen[1] > 60
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "says"),
    [("descend_2d", "ravine +gradient descent 0.97 "), ("draw_net", "96.2 % of 60,965,224 parameters")],
)
def test_paths_and_nets_are_drawn(name, says, tmp_path):
    assert re.search(says, output_of(f"{name}.py", "--out", str(tmp_path / "figure.png")))
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_sharpness_rises_to_what_the_rate_bears(tmp_path):
    output = output_of("curvature.py", "--out", str(tmp_path / "curvature.png"))
    runs = [numbers(r"(?m)^ +\d+ +([\d.]+) ", run) for run in output.split("rate 0.")[1:]]
    assert len(runs) == 2
    for limit, (first, *_, last) in zip((5, 2.5), runs, strict=True):
        assert first < 0.6 * limit and 0.9 * limit < last < 1.2 * limit
    assert (tmp_path / "curvature.png").exists()


@pytest.mark.slow
def test_kfac_comes_lower_in_as_many_steps(tmp_path):
    output = output_of("kfac.py", "--out", str(tmp_path / "kfac.png"))
    momentum, each, tenth = numbers(r"loss ([\d.]+) after 55 steps", output)
    assert max(each, tenth) < 0.3 * momentum and (tmp_path / "kfac.png").exists()


@pytest.mark.slow
def test_the_vote_of_five_nets_beats_their_mean_for_each_of_five_seeds(tmp_path):
    output = output_of("ensemble.py", "--seeds", "5", "--out", str(tmp_path / "ensemble.png"))
    mean, vote, meant = (numbers(p, output) for p in (r"mean ([\d.]+);", r"vote ([\d.]+)", r"probability ([\d.]+) %"))
    assert len(mean) == 5 and all(v > m and p > m for m, v, p in zip(mean, vote, meant, strict=True))
    assert sum(vote) - sum(mean) > 5


@pytest.mark.slow
def test_a_sweep_finds_a_rate_and_shows_what_diverged(tmp_path):
    output = output_of("sweep.py", "--out", str(tmp_path / "sweep.png"))
    assert re.search(r"^best: learning_rate 0\.\d+, momentum 0.9: validation loss 0\.", output, re.MULTILINE)
    assert output.count("3 of 3 diverged") == 2 and (tmp_path / "sweep.png").exists()


@pytest.mark.slow
def test_the_average_is_above_the_last_parameters(tmp_path):
    output = output_of("ema.py", "--out", str(tmp_path / "ema.png"))
    last, averaged, anew = ([float(a) for a in line.split(": ")[1].split()[:8]] for line in output.splitlines()[:3])
    assert np.mean(averaged) > np.mean(last) + 1 and np.mean(anew) > np.mean(last) + 1
    assert (tmp_path / "ema.png").exists()


@pytest.mark.slow
def test_two_processes_train_one_net_and_go_on(tmp_path):
    """Started a second time, they have nothing left to do and say the same."""
    options = ["--processes", "2", "--epochs", "4", "--run-dir", str(tmp_path / "run")]
    first, second = (run_example("train_distributed.py", *options).stdout for _ in range(2))
    says = r"2 processes with 4 devices, 176 steps\ntraining loss (\S+), test accuracy (\S+)%"
    assert re.findall(says, first) == re.findall(says, second)
    (found,) = re.findall(says, first)
    assert float(found[0]) < 0.3 and float(found[1]) > 95


def test_every_example_has_a_heading_in_the_readme():
    """Outside of the outputs, where an output that is not closed would swallow it."""
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    missing = [
        path.name for path in sorted((ROOT / "examples").glob("*.py")) if f"\n## `{path.name}`\n\n" not in outside
    ]
    assert not missing


def test_examples_that_draw_what_is_inside_fit_on_a_page():
    """Those of docs/inside.md, with their docstrings, in 40 lines."""
    named = set(re.findall(r"`(\w+\.py)`", (ROOT / "docs" / "inside.md").read_text(encoding="utf-8")))
    long = [name for name in named if len((ROOT / "examples" / name).read_text(encoding="utf-8").splitlines()) > 40]
    assert len(named) > 12 and not long


@pytest.mark.slow
def test_image_folder_is_read_and_learned():
    output = output_of("image_folder.py")
    assert output.startswith("1,437 training images in the folders 0 1 2 3 4 5 6 7 8 9\n")
    accuracy = numbers(r"test accuracy ([\d.]+) %", output)
    assert len(accuracy) == 8 and accuracy[-1] > 95

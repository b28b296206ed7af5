"""What is on the figures of wiggling and of descents."""

import numpy as np
import pytest

import handgrad as hg
from handgrad import viz
from handgrad.insight import CostRow, SignRow, WiggleCost, WiggleSigns

BOWL = hg.surfaces["bowl"]


def test_wiggle_cost():
    rows = CostRow(85, 86, 0.4, 0.2), CostRow(2410, 2411, 20.0, 0.25)
    ax = viz.wiggle_cost(WiggleCost(rows, 64))
    assert ax.get_title() == "with 2,410 weights wiggling takes 80 times as long as backprop"
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("weights N", "time of a gradient, batch of 64 (ms)")
    lines = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in ax.lines}
    assert lines == {
        "wiggle: N + 1 losses": [[85, 0.4], [2410, 20]],
        "backprop: about 3 losses": [[85, 0.2], [2410, 0.25]],
    }


def test_wiggle_signs():
    rows = SignRow(1e-6, 50, 30, 120), SignRow(1e-3, 190, 0, 10), SignRow(1e-2, 0, 0, 0)
    ax = viz.wiggle_signs(WiggleSigns(rows, "float32", 4))
    assert ax.get_title() == "float32: eps 1e-03 gets 95.0 % of the signs right, 1e-02 0.0 %"
    bars = [[(bar.get_y(), bar.get_height()) for bar in group] for group in ax.containers]  # pyright: ignore
    assert np.allclose(bars[0], [(0, 25), (0, 95), (0, 0)])
    assert np.allclose(bars[1], [(25, 15), (95, 0), (0, 0)])
    assert np.allclose(bars[2], [(40, 60), (95, 5), (0, 0)])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1e-06", "1e-03", "1e-02"]
    assert [text.get_text() for text in ax.texts] == ["25", "95"]
    only = viz.wiggle_signs(WiggleSigns(rows[:1], "float64", 0))
    assert only.get_title() == "float64: eps 1e-06 gets 25.0 % of the signs right"


def paths(**rates):
    return {name: hg.descend_2d(BOWL, hg.sgd(lr), (1.0, 0.5), 10) for name, lr in rates.items()}


def test_descend_2d():
    found = paths(slow=0.1, quick=0.5)
    ax = viz.descend_2d(found, BOWL)
    low = float(found["quick"].values[-1])
    assert ax.get_title() == f"bowl: quick ends lowest, at f = {low:.2g}"
    drawn = [np.asarray(line.get_xydata()) for line in ax.lines]
    for path in found.values():
        assert any(line.shape == (11, 2) and np.allclose(line, path.points) for line in drawn)
        assert any(line.shape == (1, 2) and np.allclose(line[0], path.points[-1]) for line in drawn)
    assert any(line.shape == (1, 2) and np.allclose(line, 0) for line in drawn)  # the minimum
    assert (ax.get_xlim(), ax.get_ylim()) == BOWL.box
    legend = ax.get_legend()
    assert legend and legend.get_texts()[1].get_text() == f"quick, f = {low:.2g} after 10 steps"
    assert viz.alt_text(ax).startswith("Paths of slow, quick over the contours of the bowl. bowl: quick")


def test_descend_2d_that_diverges_to_nan(tmp_path):
    found = {"lr 9": hg.descend_2d(BOWL, hg.sgd(9e9), (1.0, 0.5), 60)}
    assert np.isnan(np.asarray(found["lr 9"].points[-1])).all()
    ax = viz.descend_2d(found, BOWL)
    assert ax.get_title() == "bowl: lr 9 climbs"
    assert viz.save(ax, tmp_path / "a.png").stat().st_size > 2000
    both = viz.descend_2d(paths(good=0.5) | found, BOWL)
    assert both.get_title().endswith("; lr 9 climbs") and "good ends at" in both.get_title()


def test_descend_2d_that_stands_still():
    plateau = hg.surfaces["plateau"]
    still = hg.descend_2d(plateau, hg.sgd(1.0), (-9.0, 0.0), 20)
    assert viz.descend_2d({"sgd": still}, plateau).get_title() == "plateau: the descent stands still"
    moving = hg.descend_2d(plateau, hg.adam(1.0), (-9.0, 0.0), 30)
    title = viz.descend_2d({"sgd": still, "adam": moving}, plateau).get_title()
    assert title.startswith("plateau: adam ends at f") and title.endswith("; sgd stands still")


def test_descend_2d_errors():
    with pytest.raises(ValueError, match="descend_2d: paths must hold at least one path by name, got none"):
        viz.descend_2d({}, BOWL)
    (path,) = paths(a=0.1).values()
    many = path._replace(points=path.points[None])
    with pytest.raises(ValueError, match=r"descend_2d: a must have points \(steps \+ 1, 2\), got \(1, 11, 2\)"):
        viz.descend_2d({"a": many}, BOWL)

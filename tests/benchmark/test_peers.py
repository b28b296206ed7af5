"""The suite in benchmarks/: its translations into other libraries, where these are installed, and what it writes."""

import json
import sys

import jax
import numpy as np
import pytest
from benchmarks import bounds, growth, nets, peers, report

import handgrad as hg
from handgrad.benchmark import Bound, Line, Table, as_records
from handgrad.benchmark.steps import OURS, Case, Start, own_trainers, with_defaults
from handgrad.benchmark.trainer import Trainer, check_same_losses

EVERY_LAYER = hg.Chain(
    *(hg.Conv(4, 3, padding=1, use_bias=False), hg.BatchNorm(), hg.Relu(), hg.MaxPool(2)),
    hg.Residual(hg.Chain(hg.Conv(4, 3, 2, padding=1, groups=2)), hg.Chain(hg.Conv(4, 1, 2, padding=0), hg.BatchNorm())),
    hg.Residual(hg.Chain(hg.Conv(4, 3), hg.Relu())),
    *(hg.AvgPool(2, 1), hg.Flatten(), hg.Dense(5), hg.Relu(), hg.Dense(3, use_bias=False)),
)
MEAN = hg.Chain(hg.Conv(4, 3), hg.GlobalAvgPool(), hg.Dense(3))
LIBRARIES = {"Flax": "flax", "Equinox": "equinox", "Haiku": "haiku"}


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Benchmarks run in float32, and the peers mix ranks and dtypes within."""
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def start_of(net):
    return Start(Case("every layer", net, (10, 12, 2), 6, learning_rate=0.01, classes=3))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # what the peers warn of is theirs
@pytest.mark.parametrize("net", [EVERY_LAYER, MEAN], ids=["every layer", "mean"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_jax_peer_computes_our_losses(library, net):
    pytest.importorskip(LIBRARIES[library])
    start = start_of(net)
    step, state, x, y = peers.load(peers.MODULES[library]).step_and_state(start)
    peer = Trainer(with_defaults(step), state, x, y)
    check_same_losses({OURS: own_trainers(start)[OURS], library: peer}, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("net", [EVERY_LAYER, MEAN], ids=["every layer", "mean"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_torch_computes_our_losses(net, layout):
    pytest.importorskip("torch")
    start = start_of(net)
    trainer = peers.load(peers.TORCH_MODULE).TorchTrainer(start, layout)
    check_same_losses({OURS: own_trainers(start)[OURS], "torch": trainer}, rtol=1e-5)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_layer_without_counterpart_is_named(library):
    pytest.importorskip(LIBRARIES[library])
    step_and_state = peers.load(peers.MODULES[library]).step_and_state
    with pytest.raises(TypeError, match=rf"{library} has no counterpart of Tanh\(\) here"):
        step, state, x, y = step_and_state(start_of(hg.Chain(hg.Tanh(), hg.Flatten(), hg.Dense(3))))
        jax.eval_shape(step, state, x, y)


def test_a_padded_pool_has_no_counterpart():
    with pytest.raises(TypeError, match="peers know pools without padding"):
        peers.window_of(hg.MaxPool(2, padding="SAME"))


def test_a_missing_peer_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "haiku", None)
    monkeypatch.delitem(sys.modules, "benchmarks.peers.haiku_net", raising=False)
    with pytest.raises(ImportError, match=r"install the peers with pip install 'handgrad\[bench\]'"):
        peers.load("haiku_net")


@pytest.mark.parametrize(("name", "parameters"), [("alexnet", 60_965_224), ("resnet20", 272_474)])
def test_the_nets_have_the_sizes_of_their_papers(name, parameters):
    case = nets.CASES[name]
    params = jax.eval_shape(lambda key: case.net.init(key, case.in_shape)[0], jax.random.key(0))
    assert sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(params)) == parameters


def test_every_net_has_its_bounds():
    assert set(nets.CASES) == set(bounds.STEPS) and set(nets.QUICK_CASES) <= set(bounds.STEPS)


def test_a_jump_of_ours_alone_is_flagged():
    names = ["1", "4", "16"]
    assert growth.jumps([1, 4, 16], [1.0, 8.0, 32.0], [1.0, 4.0, 16.0], names) == [
        "JUMP from 1 to 4: time per unit 2.00 times ours before, 1.00 times Flax's"
    ]
    (fine,) = growth.jumps([1, 4, 16], [1.0, 8.0, 32.0], [1.0, 7.0, 30.0], names)
    assert fine.startswith("No time per unit")


def test_a_section_takes_the_place_of_its_last_run_and_others_stay(tmp_path):
    pytest.importorskip("matplotlib")
    ours, theirs = Line("c", OURS, 1.0), Line("c", "theirs", 4.0, 3.0, 5.0, 0.25, Bound(0.5))
    tables = [Table("pools", "Pools", "ms", (ours, theirs))]
    for name, date in (("pools", "2020-01-01"), ("steps", "2020-01-02"), ("pools", "2020-01-03")):
        report.write(tmp_path, name, {"machine": {"date": date}, "tables": as_records(tables)}, tables)
    record = json.loads((tmp_path / "benchmarks.json").read_text())
    dates = {name: section["machine"]["date"] for name, section in record.items()}
    assert list(dates.items()) == [("steps", "2020-01-02"), ("pools", "2020-01-03")]
    assert report.table_of(record["pools"]["tables"][0]) == tables[0]
    text = (tmp_path / "benchmarks_table.md").read_text()
    assert (
        "2 of 2 ratios are within their bounds" in text and "| c | theirs | 4.0 | 3.0-5.0 | 0.25 | 0.5 | kept |" in text
    )
    assert "theirs over ours" in (tmp_path / "images" / "benchmarks_pools.svg").read_text()

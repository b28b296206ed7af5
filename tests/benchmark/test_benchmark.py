"""The core of the benchmarks: what it counts, compares and refuses. No time is asserted."""

import json
import math

import jax
import jax.numpy as jnp
import pytest

import handgrad as hg
from handgrad.benchmark import Bound, Line, Table, Timing, as_markdown, as_records, as_text, bench, interleaved, machine
from handgrad.benchmark.pools import QUICK_CASES, PoolCase, check_close, own_pool_contenders
from handgrad.benchmark.steps import (
    AUTOMATIC,
    AUTOMATIC_RESHAPED,
    OURS,
    Case,
    Start,
    automatic_nets,
    own_trainers,
    reshaped,
)
from handgrad.benchmark.table import bounded, compared, line_of
from handgrad.benchmark.trainer import Trainer, check_finite, check_same_losses, losses
from handgrad.cli import main
from handgrad.timing import summarised

TINY = hg.Chain(hg.Conv(2, 3), hg.Relu(), hg.MaxPool(2), hg.Flatten(), hg.Dense(3))


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Benchmarks run in float32, as users do."""
    with jax.enable_x64(False):
        yield


@pytest.fixture
def start():
    return Start(Case("tiny", TINY, (4, 4, 1), 8, learning_rate=0.01, classes=3))


class Pretender:
    """A contender whose losses are given."""

    def __init__(self, *curve):
        self.curve, self.loss = list(curve), math.nan

    def __call__(self):
        self.loss = self.curve.pop(0)


def test_rounds_are_interleaved_and_each_timed_call_follows_an_untimed_one():
    calls = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, at_least=3, at_most=3)
    assert "".join(calls) == "ab" + "aabb" * 3
    assert times["a"].count == times["b"].count == 3


def test_rounds_end_when_the_seconds_are_over_but_not_before_the_least():
    assert interleaved({"a": lambda: None}, seconds=0, at_least=4, at_most=9)["a"].count == 4
    with pytest.raises(ValueError, match="at_least must be 2 or more"):
        interleaved({"a": lambda: None}, at_least=1)


def test_the_figure_is_the_median_and_the_spread_the_quartiles():
    assert summarised([5.0, 1.0, 2.0, 3.0, 40.0]) == Timing(2.0, 3.0, 5.0, 5)


def test_a_ratio_is_ours_over_theirs():
    lines = compared([Line("c", "theirs", 8.0), Line("c", OURS, 2.0), Line("c", "nothing", 0.0)], OURS)
    assert [line.ratio for line in lines] == [0.25, None, None]
    with pytest.raises(ValueError, match="no line is of 'handgrad', only of theirs"):
        compared([Line("c", "theirs", 8.0)], OURS)


@pytest.mark.parametrize(("ratio", "verdict"), [(0.3, "goal"), (0.4, "goal"), (0.45, "kept"), (0.51, "missed")])
def test_a_bound_is_kept_or_missed(ratio, verdict):
    (line,) = bounded([Line("c", "theirs", 1.0, ratio=ratio)], {"theirs": Bound(0.5, 0.4)})
    assert line.verdict == verdict
    assert Line("c", "theirs", 1.0, ratio=ratio).verdict == ""


def test_a_table_is_text_markdown_and_json():
    line = line_of("pool", "theirs", Timing(1.0, 2.0, 1234.5, 7), ratio=0.25, bound=Bound(0.5, 0.4))
    table = Table("pools", "Pools", "ms", (line,), ("a note",))
    assert as_text(table).splitlines()[2].split() == [
        "pool",
        "theirs",
        "2.0",
        "1.0-1,234",
        "0.25",
        "0.5,",
        "goal",
        "0.4",
        "goal",
    ]
    assert as_text(table).endswith("\na note")
    assert "| pool | theirs | 2.0 | 1.0-1,234 | 0.25 | 0.5, goal 0.4 | goal |" in as_markdown(table)
    (record,) = json.loads(json.dumps(as_records([table])))
    assert record["lines"][0]["verdict"] == "goal" and record["lines"][0]["bound"] == {"at_most": 0.5, "goal": 0.4}


def test_the_machine_says_what_it_is():
    where = machine()
    assert where["jax"] == jax.__version__ and where["handgrad"] == hg.__version__ and where["processor"]


def test_other_losses_are_an_error_that_names_the_contender():
    assert check_same_losses({"a": Pretender(2.0, 1.0), "b": Pretender(2.0, 1.00001)}, steps=2) == [2.0, 1.0]
    with pytest.raises(
        ValueError, match="b does not compute the losses of a to a relative 0.0001: 2, 1.1 against 2, 1"
    ):
        check_same_losses({"a": Pretender(2.0, 1.0), "b": Pretender(2.0, 1.1)}, steps=2)


def test_a_divergence_is_an_error():
    with pytest.raises(ValueError, match="a diverges, its losses are 2, nan; take a smaller learning rate"):
        check_same_losses({"a": Pretender(2.0, math.nan)}, steps=2)
    with pytest.raises(ValueError, match="a diverged while it was timed"):
        check_finite({"a": Pretender()})


def test_other_numbers_are_an_error():
    check_close("a", (jnp.ones(2), jnp.zeros(1)), (jnp.ones(2), jnp.full(1, 1e-30)), 2.0)
    with pytest.raises(ValueError, match="a computes other numbers than handgrad, result 1 by 5.0e-01"):
        check_close("a", (jnp.ones(2), jnp.ones(2)), (jnp.ones(2), jnp.full(2, 2.0)), 1e-5)
    with pytest.raises(ValueError, match="result 0 by inf"):
        check_close("a", jnp.ones(2), jnp.ones(3), 1e-5)
    with pytest.raises(ValueError, match="by nan"):
        check_close("a", jnp.full(2, jnp.nan), jnp.ones(2), 1e-5)


def test_own_trainers_compute_the_same_losses_and_the_state_is_shared_by_none(start):
    trainers = own_trainers(start)
    assert list(trainers) == [OURS, AUTOMATIC, AUTOMATIC_RESHAPED]
    curve = check_same_losses(trainers, steps=3)
    assert curve[0] > curve[2]
    assert int(start.train_state.step) == 0 and not start.train_state.params["dense1"]["kernel"].is_deleted()


def test_a_wrong_gradient_shows_in_the_losses(start):
    def doubled(objective, **settings):
        gradient = hg.value_and_grad(objective, **settings)

        def wrong(*args):
            told, grads = gradient(*args)
            return told, jax.tree.map(lambda g: 2 * g, grads)

        return wrong

    step = hg.make_train_step(start.case.objective(), hg.momentum(start.case.learning_rate), doubled)
    wrong = Trainer(step, start.train_state, start.x, start.y)
    with pytest.raises(ValueError, match="wrong does not compute the losses of handgrad"):
        check_same_losses({OURS: own_trainers(start)[OURS], "wrong": wrong})
    assert len(losses(wrong, 2)) == 2


def test_a_reshaped_pool_is_the_pool_and_leaves_a_rest_out():
    x = jax.random.normal(jax.random.key(0), (2, 5, 7, 3))
    assert (reshaped(hg.MaxPool(2)).apply({}, x) == hg.MaxPool(2).apply({}, x)).all()
    assert reshaped(hg.Relu()) == hg.Relu()


def test_only_pools_side_by_side_are_reshaped():
    assert list(automatic_nets(hg.Chain(hg.MaxPool(2), hg.MaxPool(2, 2)))) == [AUTOMATIC, AUTOMATIC_RESHAPED]
    for net in (
        hg.Chain(hg.MaxPool(2), hg.MaxPool(3, 2)),
        hg.Chain(hg.MaxPool(2, padding="SAME")),
        hg.Chain(hg.Relu()),
    ):
        assert list(automatic_nets(net)) == [AUTOMATIC]


@pytest.mark.parametrize("case", QUICK_CASES, ids=lambda case: case.name)
def test_pools_compute_the_same(case):
    assert OURS in own_pool_contenders(case)  # which checks them against each other


def test_a_pool_case_has_a_cotangent_of_its_output():
    x, dy = PoolCase("max", (2, 9, 9, 3), 3, 2).arrays()
    assert (x.shape, dy.shape) == ((2, 9, 9, 3), (2, 4, 4, 3))


def test_the_command_runs_a_section_and_writes_its_figures(tmp_path, capsys):
    path = tmp_path / "new" / "figures.json"
    assert main(["bench", "--quick", "--only", "pools", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "jax " in printed and "Pools in hg.bridge, forward and backward" in printed
    record = json.loads(path.read_text())
    assert record["machine"]["jax"] == jax.__version__
    assert {line["contender"] for line in record["tables"][0]["lines"]} >= {OURS, "reduce_window", "jnp.mean"}


def test_an_unknown_section_is_named(capsys):
    assert main(["bench", "--only", "nope"]) == 2
    assert "there is no section 'nope'; take some of steps, pools" in capsys.readouterr().err
    with pytest.raises(ValueError, match="there is no section 'nope'"):
        bench(["nope"])

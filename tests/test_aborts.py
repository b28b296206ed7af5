"""aborts.py: no random setting makes XLA abort or a rule by hand differ; one that did would be found and named."""

import json
import random
import shlex
import subprocess
import sys
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest

import aborts
from handgrad.ops.rules import RULES

POOL = {
    "op": "max_pool",
    "x": [2, 5, 2],
    "settings": {"window": [2], "strides": [2], "padding": [[1, 2]], "ties": "first"},
    "dtype": "float32",
    "llvm": "few passes",
    "vmap": "no",
}
CONV = {"op": "conv", "x": [1, 4, 1], "kernel": [2, 1, 1], "bias": True, "settings": {}} | {
    name: POOL[name] for name in ("dtype", "llvm", "vmap")
}


WENT_WRONG = {  # settings that the search found
    "eight-bit-quotients": POOL | {"x": [8, 90, 30, 4], "settings": {"window": [22, 3], "strides": [11, 1]}},
    "empty-batch": POOL | {"x": [0, 5, 2], "settings": {"window": [2], "strides": [1]}},
}


def planted(bad, does):
    """The command of a child that finds nothing wrong, but does something where `bad` holds of a setting s."""
    code = f"""
import json, os, sys, time
for s in json.load(sys.stdin):
    print("stage", file=sys.stderr, flush=True)
    if {bad}:
        {does}
    print(json.dumps(""), flush=True)
"""
    return (sys.executable, "-c", code)


def many(count=100):
    return [POOL | {"x": [n % 7, 5 + n, 2]} for n in range(count)]


@pytest.mark.core
@pytest.mark.parametrize(
    "culprits", [[50, 53], *(pytest.param(few, marks=pytest.mark.slow) for few in ([37], [0, 99]))]
)
def test_a_planted_abort_is_found_named_and_made_smaller(culprits):
    sizes = [many()[n]["x"][1] for n in culprits]
    command = planted(f's["x"][1] in {sizes} and s["settings"].get("padding") and s["x"][2] > 0', "os.abort()")
    found = aborts.search(many(), command)
    assert [one.setting["x"] for one in found] == [[0, size, 1] for size in sizes]
    assert found[0].setting["settings"] == {"window": [1], "padding": [[0, 0]]}
    assert found[0].trouble == "died by signal 6 at: stage"
    line = shlex.split(str(found[0]).splitlines()[1])
    assert line[:3] == ["python", "tests/aborts.py", "--only"] and json.loads(line[3]) == found[0].setting


@pytest.mark.slow
@pytest.mark.core
def test_a_hang_is_found(monkeypatch):
    monkeypatch.setattr(aborts, "SECONDS", (1.5, 0))
    (found,) = aborts.search(many(4), planted(f"s == {many(4)[3]}", "time.sleep(60)"))
    assert found.setting == many(4)[3] and found.trouble.startswith("hung at: stage")


def test_an_abort_that_takes_two_settings_names_the_whole_process():
    settings = many(4)
    command = planted('(seen := globals().get("seen", 0) + 1) == 4', "os.abort()")
    (found,) = aborts.search(settings, command)
    assert found.setting == {"together": settings} and "neither half dies alone" in found.trouble


def test_a_child_that_fails_by_itself_is_no_abort():
    with pytest.raises(RuntimeError, match="failed:(.|\n)*ZeroDivisionError"):
        aborts.search(many(4), planted("1 / 0", "pass"))


@pytest.mark.parametrize("setting", [POOL, CONV, CONV | {"vmap": "kernel"}], ids=["pool", "conv", "vmap"])
def test_a_right_rule_passes_and_a_wrong_one_is_named(monkeypatch, setting):
    assert aborts.check(setting) == ""
    rule = RULES[setting["op"]]

    def wrong(residuals, dy, **settings):
        dx, *others = rule.backward(residuals, dy, **settings)
        return dx.at[0].add(dx.dtype.type(1)), *others

    monkeypatch.setitem(RULES, setting["op"], rule._replace(backward=wrong))
    assert aborts.check(setting).startswith("by_hand under jax.jit: dx differs at ")


@pytest.mark.parametrize("setting", WENT_WRONG.values(), ids=WENT_WRONG)
def test_what_once_went_wrong_is_right(setting):
    assert aborts.check(setting) == ""


def test_an_empty_axis_in_which_no_window_can_start_is_refused():
    setting = POOL | {
        "x": [2, 0, 2],
        "settings": {"window": [3], "strides": [3], "padding": [[0, 2]], "ceil_mode": True},
    }
    with pytest.raises(ValueError, match="max_pool: spatial axis 0 is empty, so no window can start in it"):
        aborts.out_shape(setting)


def test_a_plain_op_that_raises_no_value_error_is_named(monkeypatch):
    def raising(*arrays, **settings):
        raise TypeError("not like this")

    monkeypatch.setitem(RULES, "conv", RULES["conv"]._replace(op=raising))
    assert aborts.check(CONV) == "the plain op raised TypeError: not like this"
    assert len(list(aborts.drawn(3, 0, ["conv"], Counter()))) == 3


def test_a_rule_that_raises_is_named(monkeypatch):
    def raising(*arrays, **settings):
        raise NotImplementedError("not here")

    monkeypatch.setitem(RULES, "conv", RULES["conv"]._replace(forward=raising))
    assert aborts.check(CONV) == "by_hand under jax.jit raised NotImplementedError: not here"


def test_the_real_child_answers_for_each_setting():
    assert aborts.run([POOL, CONV]) == ["", ""]


def test_the_draws_are_odd_and_repeat():
    tally, again = Counter(), Counter()
    settings = list(aborts.drawn(300, 3, aborts.OPS, tally))
    assert settings == list(aborts.drawn(300, 3, aborts.OPS, again)) and tally == again
    assert len(settings) == sum(tally[op] for op in aborts.OPS) == 300
    assert tally["refused with a ValueError"] > 20
    convs = [one for one in settings if one["op"] == "conv"]
    assert {one["dtype"] for one in convs} == set(aborts.TOLERANCE)
    assert {one["vmap"] for one in convs} == {"no", "x", "kernel", "both"}
    assert {len(one["x"]) for one in convs} == {3, 4, 5}
    assert any(one["x"][0] == 0 for one in settings)
    assert any(1 < one["settings"]["groups"] == one["x"][-1] < one["kernel"][-1] for one in convs)
    assert any(k > a for one in convs for k, a in zip(one["kernel"][:-2], one["x"][1:-1], strict=True))
    assert any(one["settings"].get("ceil_mode") for one in settings)


def test_shrinking_ends():
    setting = aborts.draw(random.Random(0), "conv")
    for _ in range(1000):
        setting = next(aborts.shrunk(setting), None)
        if setting is None:
            return
    pytest.fail("a setting can be made smaller forever")


@pytest.mark.parametrize(
    "got, wanted, text",
    [
        (jnp.ones(2), jnp.ones(3), "is float64 (2,), not float64 (3,)"),
        (jnp.ones(2), jnp.ones(2, jnp.float32), "is float64 (2,), not float32 (2,)"),
        (jnp.array([-np.inf, np.nan, 1]), jnp.array([-np.inf, np.nan, 1]), ""),
        (jnp.array([-np.inf, 5]), jnp.array([-np.inf, 1]), "differs at 1 of 2 places: 5.0 at (1,), not 1.0"),
        (jnp.ones((0, 3)), jnp.ones((0, 3)), ""),
    ],
)
def test_compare(got, wanted, text):
    assert aborts.compare(got, wanted, 1e-12) == text


@pytest.mark.slow
def test_two_hundred_random_settings():
    done = subprocess.run([*aborts.CHILD[:2], "--settings", "200", "--seed", "11"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

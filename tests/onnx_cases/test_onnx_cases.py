"""The node tests of ONNX, whose authors had nothing to do with this library, on its ops.

Each case is asked of the op's plain formula and of its forward by hand; losses and optimizers have one form. ONNX
tolerates 1e-3 of each number; we a hundredth.
"""

import re
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from node_adapters import OPS
from node_adapters_learning import LEARNING
from node_adapters_shape import SHAPE
from node_cases import MODULES, Case, asked_for, cases
from node_left_out import LEFT_OUT, REASONS

from handgrad import ops

ADAPTERS = {**OPS, **SHAPE, **LEARNING}
ASKED = {name: case for name, case in cases().items() if name not in LEFT_OUT}
RTOL, ATOL = 1e-5, 1e-6
COARSE = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 1e-3}
"""Cases whose outputs ONNX writes down with four digits, and the relative tolerance that is right for these."""

SLOW = re.compile("dilations.*_large|(sce|nllloss)_.*(d1d2d3|_3d|_4d)|layer_normalization_4d")
"""Cases that ask in more axes, or of more windows, what others ask."""


def plain(name, *arrays, **settings):
    return called(name, partial(getattr(ops, name), **settings), arrays)


def by_hand(name, *arrays, **settings):
    """The forward that keeps what backward needs, where the op has one: ops of inference are no rules."""
    if name not in ops.RULES:
        return plain(name, *arrays, **settings)
    return called(name, lambda *arrays: ops.RULES[name].forward(*arrays, **settings)[0], arrays)


def called(name, op, arrays):
    """Pools are compiled whole, for each of their many taps would be a piece of its own; other ops share pieces."""
    return jax.jit(op)(*arrays) if "pool" in name else op(*arrays)


def assert_as_onnx(got, case: Case):
    """Equal in shape, dtype and value, for all outputs that the case asks for; the first is one."""
    assert len(got) >= len(case.outputs) and case.outputs[0] is not None
    for ours, theirs in zip(got, case.outputs, strict=False):
        if theirs is not None:
            assert (jnp.shape(ours), ours.dtype) == (theirs.shape, theirs.dtype)
            np.testing.assert_allclose(ours, theirs, rtol=COARSE.get(case.name, RTOL), atol=ATOL)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=name, marks=pytest.mark.slow if SLOW.search(name) else ()) for name, case in ASKED.items()],
)
def test_node(case):
    for run in (plain,) if case.op in LEARNING else (plain, by_hand):
        assert_as_onnx(ADAPTERS[case.op](run, case.attributes, *case.inputs), case)


def test_what_is_left_out_exists_and_has_a_reason():
    assert LEFT_OUT.keys() <= cases().keys()
    assert sum(map(len, REASONS.values())) == len(LEFT_OUT), "a case is left out twice"
    assert all(REASONS) and all(REASONS.values())
    assert COARSE.keys() <= ASKED.keys()


def test_each_kind_of_node_is_asked():
    assert ADAPTERS.keys() == MODULES.keys() == {case.op for case in ASKED.values()}


def test_whole_numbers_are_refused_by_name():
    case = cases()["test_add_uint8"]
    with pytest.raises(TypeError, match="add: array 1 must be floating, got uint8"):
        ADAPTERS["Add"](plain, case.attributes, *case.inputs)


@pytest.mark.slow
def test_no_case_of_these_nodes_is_missed():
    """Against ONNX's own loader, which generates all cases of all nodes."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = load_model_tests(kind="node")
    assert {case.name for case in asked_for(every)} == cases().keys()

"""ops/join.py against jax.vjp of the plain ops, PyTorch, and by hand."""

from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from against_torch import TIERS, assert_equal, cotangent, drawn_array, for_drawn, ours, theirs
from handgrad import ops

IMAGE, GATE = (2, 3, 4, 2), (2, 1, 1, 2)
CASES = [  # op, shapes, settings
    pytest.param("concatenate", [IMAGE, (2, 3, 4, 1), (2, 3, 4, 3)], {}, id="concatenate"),
    pytest.param("concatenate", [IMAGE, (2, 5, 4, 2)], {"axis": 1}, id="concatenate-an-axis"),
    pytest.param("concatenate", [IMAGE, (0, 3, 4, 2), IMAGE], {"axis": -4}, id="concatenate-nothing-between"),
    pytest.param("concatenate", [IMAGE], {}, id="concatenate-one"),
    pytest.param("add", [IMAGE, IMAGE, IMAGE], {}, id="add"),
    pytest.param("add", [GATE, IMAGE, (1, 3, 1, 1)], {}, id="add-copied"),
    pytest.param("add", [(3, 1), (1, 4)], {}, id="add-each-copied"),
    pytest.param("add", [IMAGE], {}, id="add-one"),
    pytest.param("multiply", [IMAGE, IMAGE, IMAGE], {}, id="multiply"),
    pytest.param("multiply", [IMAGE, GATE], {}, id="multiply-gate"),
    pytest.param("multiply", [GATE, (1, 3, 1, 1), IMAGE, (2, 1, 4, 2)], {}, id="multiply-copied"),
    pytest.param("multiply", [(3, 1), (1, 4)], {}, id="multiply-outer"),
]
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)
TORCH = {
    "concatenate": lambda *t, axis=-1: torch.cat(t, axis),
    "add": lambda *t: reduce(torch.add, t),
    "multiply": lambda *t: reduce(torch.multiply, t),
}


def both(name, arrays, dy, **setting):
    """y and the gradients, by hand and automatic."""
    y, backward = ops.vjp(name, *arrays, **setting)
    plain, vjp = jax.vjp(lambda *arrays: getattr(ops, name)(*arrays, **setting), *arrays)
    return [y, *backward(dy)], [plain, *vjp(dy)]


@pytest.mark.parametrize("name, shapes, setting", CASES)
def test_matches_jax_vjp_and_torch(name, shapes, setting):
    arrays = [drawn_array(seed, shape) for seed, shape in enumerate(shapes)]
    want = theirs(partial(TORCH[name], **setting), arrays, cotangent)
    assert_equal(ours(name, arrays, **setting), want)
    got, plain = jax.jit(lambda arrays, dy: both(name, arrays, dy, **setting))(arrays, cotangent(want[0].shape))
    jax.tree.map(close, got, plain)


@TIERS
def test_torch_broadcasts_alike(examples):
    def check(drawn):
        name, shape, ones, seed = drawn
        shapes = [tuple(1 if one else size for size, one in zip(shape, which, strict=False)) for which in ones]
        arrays = [drawn_array(seed + i, s, ties=True) for i, s in enumerate(shapes)]  # zeros among the factors
        assert_equal(ours(name, arrays), theirs(TORCH[name], arrays, cotangent))

    shape = st.lists(st.integers(1, 4), min_size=1, max_size=4)
    ones = st.lists(st.tuples(*[st.booleans()] * 4), min_size=1, max_size=4)
    for_drawn(examples, st.tuples(st.sampled_from(["add", "multiply"]), shape, ones, st.integers(0, 10**6)), check)


def test_a_product_with_zeros_has_its_gradient():
    arrays = jnp.array([0.0]), jnp.array([3.0]), jnp.array([0.0]), jnp.array([2.0])
    _, backward = ops.vjp("multiply", *arrays)
    assert [dx.item() for dx in backward(jnp.ones(1))] == [0, 0, 0, 0]
    _, backward = ops.vjp("multiply", *arrays[:2], arrays[3])
    assert [dx.item() for dx in backward(jnp.ones(1))] == [6, 0, 0]


@pytest.mark.parametrize("name", ["concatenate", "add", "multiply"])
def test_a_nan_stays_where_it_belongs(name):
    arrays = [jnp.ones((2, 3)).at[0, 1].set(jnp.nan), 2 * jnp.ones((2, 3)), jnp.ones((2, 3 if name != "add" else 1))]
    dy = jnp.ones((2, 9 if name == "concatenate" else 3)).at[1, 2].set(jnp.nan).at[0, 0].set(jnp.inf)
    got, want = both(name, arrays, dy)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert [int(np.isnan(dx).sum()) for dx in got[1:]] == {
        "concatenate": [1, 0, 0],
        "add": [1, 1, 1],
        "multiply": [1, 2, 2],
    }[name]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_halves_are_added_in_float32_and_rounded_once(dtype):
    eps = jnp.asarray(jnp.finfo(dtype).eps / 2, dtype)
    tiny = [jnp.ones((1, 1), dtype), *[jnp.full((1, 1), eps, dtype)] * 8]
    assert ops.add(*tiny).item() == 1 + 8 * float(eps)
    _, shapes = ops.add_forward(jnp.ones((1, 1), dtype), jnp.ones((4096, 1), dtype))
    assert ops.add_backward(shapes, jnp.ones((4096, 1), dtype))[0].item() == 4096
    _, arrays = ops.multiply_forward(jnp.ones((1, 1), dtype), jnp.ones((4096, 1), dtype))
    dgate, dx = ops.multiply_backward(arrays, jnp.ones((4096, 1), dtype))
    assert dgate.item() == 4096 and dgate.dtype == dx.dtype == dtype


A = jnp.ones((2, 3))


@pytest.mark.parametrize(
    "name, arrays, setting, error, message",
    [
        ("concatenate", [], {}, ValueError, "concatenate: wants at least one array, got none"),
        ("concatenate", [A, A[:1]], {}, ValueError, r"must have one shape but for axis -1, got \(2, 3\), \(1, 3\)"),
        ("concatenate", [A, A[0]], {}, ValueError, r"must have one shape but for axis -1, got \(2, 3\), \(3,\)"),
        ("concatenate", [A], {"axis": 2}, ValueError, r"axis must be an axis of the arrays, got axis 2 for shape \(2"),
        ("concatenate", [A, A.astype(int)], {}, TypeError, "concatenate: array 2 must be floating, got int64"),
        ("add", [], {}, ValueError, "add: wants at least one array, got none"),
        ("add", [A, A[:, :2]], {}, ValueError, r"one shape, or 1 in the place of an axis, got \(2, 3\), \(2, 2\)"),
        ("add", [A, A[0]], {}, ValueError, r"add: .* got \(2, 3\), \(3,\)"),
        ("add", [A, A.astype(jnp.float32)], {}, TypeError, "add: all arrays must have one dtype, got array 1 float64"),
        ("multiply", [A, A.T], {}, ValueError, r"multiply: .* got \(2, 3\), \(3, 2\)"),
    ],
)
def test_bad_input_is_named(name, arrays, setting, error, message):
    with pytest.raises(error, match=message):
        getattr(ops, name)(*arrays, **setting)
    with pytest.raises(error, match=message):
        ops.vjp(name, *arrays, **setting)

"""ops/upsample.py against jax.vjp of the plain op, PyTorch's interpolate, ONNX's reference of Resize, and by hand."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import assume
from hypothesis import strategies as st
from jax.test_util import check_vjp
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from against_torch import TIERS, assert_equal, drawn_array, first, first_cotangent, for_drawn, last, ours, theirs
from handgrad.ops.upsample import COORDINATES, ROUNDINGS, upsample, upsample_backward, upsample_forward

CASES = [  # in_shape, settings
    pytest.param((2, 3, 4, 3), {"factor": 2}, id="whole-factor"),
    pytest.param((2, 3, 4, 2), {"factor": (3, 1)}, id="whole-factors-by-axis"),
    pytest.param((1, 2, 3, 1), {"factor": (2.5, 3)}, id="one-whole-one-not-one-example-one-channel"),
    pytest.param((2, 5, 7, 2), {"output_size": (8, 4)}, id="larger-and-smaller"),
    pytest.param((2, 5, 4, 2), {"factor": 0.5, "coordinates": "half_pixel", "rounding": "ceil"}, id="half"),
    pytest.param((2, 2, 2), {"factor": 70}, id="1-D-many-taps-nearest"),
    pytest.param((2, 3, 4, 3), {"factor": 2, "method": "linear"}, id="linear"),
    pytest.param((2, 4, 1, 2), {"factor": (1.5, 3), "method": "bilinear"}, id="linear-from-one-place"),
    pytest.param((2, 5, 7, 2), {"output_size": (9, 1), "method": "linear", "align_corners": True}, id="corners"),
    pytest.param((2, 5, 6, 2), {"output_size": (3, 2), "method": "linear"}, id="linear-smaller-leaves-places-out"),
    pytest.param((2, 4, 3), {"factor": 2.3, "method": "linear", "coordinates": "asymmetric"}, id="1-D-asymmetric"),
    pytest.param((1, 2, 2), {"factor": 40, "method": "linear"}, id="1-D-many-taps-linear"),
    pytest.param((1, 2, 3, 2, 2), {"output_size": (3, 6, 1), "method": "trilinear"}, id="3-D"),
]
MODES = pytest.mark.parametrize(
    "setting",
    [{"factor": 2}, {"factor": 1.5}, {"output_size": (5, 7), "method": "linear"}],
    ids=["tiles", "nearest", "linear"],
)
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)


def normal(shape, seed=0, dtype=jnp.float64):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def cotangent(x, **setting):
    return normal(jax.eval_shape(lambda x: upsample(x, **setting), x).shape, 1, x.dtype)


def by_hand(x, dy, **setting):
    y, nothing = upsample_forward(x, **setting)
    assert nothing is None
    return y, upsample_backward(dy, in_shape=x.shape, **setting)


def automatic(x, dy, **setting):
    y, vjp = jax.vjp(lambda x: upsample(x, **setting), x)
    return y, vjp(dy)[0]


@pytest.mark.parametrize("in_shape, setting", CASES)
def test_matches_jax_vjp(in_shape, setting):
    x = normal(in_shape)
    dy = cotangent(x, **setting)
    both = jax.jit(lambda x, dy: (by_hand(x, dy, **setting), automatic(x, dy, **setting)))
    jax.tree.map(close, *both(x, dy))


@st.composite
def resizes(draw, modes, factors):
    mode = draw(st.sampled_from(modes))
    ndim = {"bilinear": 2, "trilinear": 3, "linear": 1}.get(mode) or draw(st.integers(1, 3))
    sizes = draw(st.tuples(*[st.integers(1, 5)] * ndim))
    if draw(st.booleans()):
        return mode, sizes, {"output_size": draw(st.tuples(*[st.integers(1, 8)] * ndim))}
    return mode, sizes, {"factor": draw(st.tuples(*[st.sampled_from(factors)] * ndim))}


def fits(sizes, setting):
    """Whether each axis keeps a place, and PyTorch has the same t: it takes a factor for 1 or 2 where P is A or 2A."""
    outs = [int(a * f) for a, f in zip(sizes, setting.get("factor", ()), strict=False)]
    return 0 not in outs and not any(
        p in (a, 2 * a) and p != a * f for a, p, f in zip(sizes, outs, setting.get("factor", ()), strict=False)
    )


def told_apart_in_float32(sizes, setting, offset):
    """Whether PyTorch, which has t of nearest in float32, takes the place that the exact t says."""
    outs = setting.get("output_size") or [int(a * f) for a, f in zip(sizes, setting["factor"], strict=True)]
    steps = setting.get("factor") or [p / a for a, p in zip(sizes, outs, strict=True)]
    for a, out, factor in zip(sizes, outs, steps, strict=True):
        p = np.arange(out) + offset
        exact, rounded = np.floor(p / factor + 1e-9), np.floor(p.astype(np.float32) * np.float32(1 / factor))
        if (np.minimum(exact, a - 1) != np.minimum(rounded, a - 1)).any():
            return False
    return True


@TIERS
def test_torch_s_interpolate(examples):
    modes = ["nearest", "nearest-exact", "linear", "bilinear", "trilinear"]

    def check(drawn):
        (mode, sizes, setting), seed, corners = drawn
        corners = corners and "linear" in mode
        assume(fits(sizes, setting))
        if "nearest" in mode:
            assume(told_apart_in_float32(sizes, setting, 0.5 if "exact" in mode else 0))
        x = drawn_array(seed, (2, *sizes, 2))
        named: dict[str, Any] = {"method": mode, "align_corners": corners}
        if mode == "nearest-exact":
            named = {"method": "nearest", "coordinates": "half_pixel", "rounding": "round_prefer_ceil"}
        renamed = {"size": setting.get("output_size"), "scale_factor": setting.get("factor")}
        if "linear" in mode:
            renamed["align_corners"] = corners
        y, dx = theirs(lambda t: F.interpolate(t, mode=mode, **renamed), [first(x)], first_cotangent)
        assert_equal(ours("upsample", [x], **setting, **named), [last(y), last(dx)])

    drawn = st.tuples(resizes(modes, [0.5, 1.0, 1.5, 2.0, 2.3, 3.0]), st.integers(0, 10**6), st.booleans())
    for_drawn(examples, drawn, check)


@TIERS
def test_onnx_s_resize(examples):
    def check(drawn):
        (mode, sizes, setting), coordinates, rounding = drawn
        assume(fits(sizes, setting))
        if coordinates == "align_corners":  # the reference has P = A factor, whole or not
            assume(all((a * f).is_integer() for a, f in zip(sizes, setting.get("factor", ()), strict=False)))
        x = drawn_array(0, (1, *sizes, 1))
        node = helper.make_node(
            "Resize",
            ["x", "", "scales", "sizes"] if "output_size" in setting else ["x", "", "scales"],
            ["y"],
            mode=mode,
            coordinate_transformation_mode=coordinates,
            nearest_mode=rounding,
        )
        inputs = [helper.make_tensor_value_info("x", TensorProto.DOUBLE, None)]
        inputs.append(helper.make_tensor_value_info("scales", TensorProto.FLOAT, None))
        inputs.append(helper.make_tensor_value_info("sizes", TensorProto.INT64, None))
        outputs = [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)]
        model = helper.make_model(helper.make_graph([node], "resize", inputs, outputs))
        given = {"scales": np.array([1, 1, *setting["factor"]], np.float32)} if "factor" in setting else {}
        given |= {"sizes": np.array([1, 1, *setting["output_size"]])} if "output_size" in setting else {}
        empty = {"scales": np.array([], np.float32), "sizes": np.array([], np.int64)}
        (want,) = ReferenceEvaluator(model).run(None, {"x": first(x), **empty, **given})
        named: dict[str, Any] = {"method": mode, "coordinates": coordinates}
        named["rounding"] = rounding if mode == "nearest" else None
        assert_equal([np.asarray(upsample(jnp.asarray(x), **setting, **named))], [last(np.asarray(want))])

    drawn = st.tuples(
        resizes(["nearest"], [0.5, 1.0, 2.0, 2.5, 3.0]), st.sampled_from(COORDINATES), st.sampled_from(ROUNDINGS)
    )
    linear = st.tuples(resizes(["linear"], [0.5, 1.0, 2.0, 2.5, 3.0]), st.sampled_from(COORDINATES), st.just("floor"))
    for_drawn(examples, drawn | linear, check)


@pytest.mark.parametrize(
    "setting, expected",  # of [0, 1, 2, 3], on paper
    [
        ({"factor": 2}, [0, 0, 1, 1, 2, 2, 3, 3]),
        ({"factor": 2, "coordinates": "half_pixel"}, [0, 0, 1, 1, 2, 2, 3, 3]),
        ({"output_size": 2, "coordinates": "half_pixel"}, [0, 2]),  # t = 1/2 and 5/2, ties
        ({"output_size": 2, "coordinates": "half_pixel", "rounding": "round_prefer_ceil"}, [1, 3]),
        ({"output_size": 6}, [0, 0, 1, 2, 2, 3]),
        ({"factor": 1.5, "rounding": "ceil"}, [0, 1, 2, 2, 3, 3]),
        ({"output_size": 1}, [0]),
        ({"output_size": 1, "method": "linear"}, [1.5]),
        ({"output_size": 1, "method": "linear", "coordinates": "pytorch_half_pixel"}, [0]),
        ({"factor": 2, "method": "linear"}, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]),
        ({"output_size": 7, "method": "linear", "align_corners": True}, [0, 0.5, 1, 1.5, 2, 2.5, 3]),
        ({"output_size": 1, "method": "linear", "align_corners": True}, [0]),
        ({"factor": 2, "method": "linear", "coordinates": "asymmetric"}, [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]),
    ],
)
def test_on_paper(setting, expected):
    x = jnp.arange(4.0).reshape(1, 4, 1)
    np.testing.assert_array_equal(upsample(x, **setting).ravel(), expected)
    np.testing.assert_array_equal(upsample_forward(x, **setting)[0].ravel(), expected)


def test_a_decimal_factor_means_the_fraction_it_names():
    x = jnp.arange(5.0).reshape(1, 5, 1)
    assert upsample(x, factor=0.6).ravel().tolist() == [0, 1, 3]
    assert upsample(x, factor=1.4).ravel().tolist() == [0, 0, 1, 2, 2, 3, 4]  # place 7/1.4 of y would be 5 exactly


@MODES
def test_dual_to_itself_and_sums_are_kept(setting):
    x = normal((2, 3, 4, 2))
    dy = cotangent(x, **setting)
    y, dx = by_hand(x, dy, **setting)
    np.testing.assert_allclose((y * dy).sum(), (x * dx).sum(), rtol=1e-12)
    np.testing.assert_allclose(dx.sum(), dy.sum(), rtol=1e-12)  # each row of M sums to 1


@MODES
def test_matches_finite_differences(setting):
    def hand_vjp(x):
        return upsample_forward(x, **setting)[0], lambda dy: (upsample_backward(dy, in_shape=x.shape, **setting),)

    check_vjp(jax.jit(partial(upsample, **setting)), hand_vjp, (normal((2, 3, 4, 2)),), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("setting", [{"factor": 2}, {"factor": 1.5}, {"factor": 2, "method": "linear"}])
def test_a_nan_spreads_where_it_is_taken_from_and_no_further(setting):
    x = normal((1, 5, 4, 1)).at[0, 2, 1, 0].set(jnp.nan)
    dy = cotangent(x, **setting).at[0, 2, 3, 0].set(jnp.nan).at[0, 5, 0, 0].set(jnp.inf)
    for got, want in zip(by_hand(x, dy, **setting), automatic(x, dy, **setting), strict=True):
        assert np.isnan(want).any() and not np.isnan(want).all()
        close(got, want)


@pytest.mark.parametrize(
    "setting",
    [{"factor": (9, 5)}, {"factor": (100, 1)}, {"output_size": (7, 6)}, {"output_size": (9, 7), "method": "linear"}],
    ids=["tiles", "many", "nearest", "linear"],
)
def test_halves_are_rounded_once(setting):
    x = jnp.ones((1, 3, 2, 2), jnp.bfloat16)
    dy = cotangent(x, **setting)
    dx = upsample_backward(dy, in_shape=x.shape, **setting)
    once = upsample_backward(dy.astype(jnp.float32), in_shape=x.shape, **setting).astype(jnp.bfloat16)
    np.testing.assert_array_equal(dx, once)


def test_in_float32_mode_without_a_warning():
    with jax.enable_x64(False):
        x = np.random.default_rng(0).normal(size=(2, 3, 4, 1))
        y, dx = by_hand(x, np.ones((2, 6, 8, 1)), factor=2, method="linear")
        assert y.dtype == dx.dtype == jnp.float32


X = jnp.ones((1, 4, 4, 1))


@pytest.mark.parametrize("op", [upsample, upsample_forward])
@pytest.mark.parametrize(
    "x, setting, error, message",
    [
        (X[0, 0], {"factor": 2}, ValueError, r"x must be \(N, L, C\), .* got shape \(4, 1\)"),
        (X[:, :0], {"factor": 2}, ValueError, r"no empty spatial axis, got shape \(1, 0, 4, 1\)"),
        (X.astype(int), {"factor": 2}, TypeError, "x must be floating, got int64"),
        (X, {}, ValueError, "give either factor or output_size, got None and None"),
        (X, {"factor": 2, "output_size": 3}, ValueError, "give either factor or output_size, got 2 and 3"),
        (X, {"factor": (2, 2, 2)}, ValueError, r"factor \(2, 2, 2\) has 3 numbers, x has 2 spatial axes"),
        (X, {"factor": "2"}, TypeError, "factor must be a number or one an axis, got '2'"),
        (X, {"factor": 0.2}, ValueError, r"factor must leave one place at least of each axis of \(4, 4\), got 0.2"),
        (X, {"factor": -1}, ValueError, "factor must leave one place"),
        (X, {"factor": float("inf")}, ValueError, "factor must leave one place .* got inf"),
        (X, {"output_size": (3, 0)}, ValueError, "output_size must be at least 1"),
        (X, {"factor": 2, "method": "cubic"}, ValueError, "method must be 'nearest' or 'linear' or 'bilinear' for x"),
        (X, {"factor": 2, "method": "trilinear"}, ValueError, "with 2 spatial axes, got 'trilinear'"),
        (X, {"factor": 2, "coordinates": "corners"}, ValueError, "coordinates must be one of .* got 'corners'"),
        (X, {"factor": 2, "rounding": "round"}, ValueError, "rounding must be one of .* got 'round'"),
        (X, {"factor": 2, "method": "linear", "rounding": "floor"}, ValueError, "rounding is for method='nearest'"),
        (
            X,
            {"factor": 2, "align_corners": True, "coordinates": "asymmetric"},
            ValueError,
            "align_corners=True contradicts coordinates='asymmetric'",
        ),
    ],
)
def test_bad_settings_are_named(op, x, setting, error, message):
    with pytest.raises(error, match=f"{op.__name__}: .*{message}"):
        op(x, **setting)


def test_bad_cotangents_are_named():
    with pytest.raises(ValueError, match=r"upsample_backward: dy must have shape \(1, 8, 8, 1\) for in_shape"):
        upsample_backward(X, in_shape=X.shape, factor=2)
    with pytest.raises(TypeError, match="upsample_backward: dy must be floating, got int64"):
        upsample_backward(X.astype(int), in_shape=X.shape, factor=1)

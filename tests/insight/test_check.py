"""check_gradients: right nets pass, planted errors are found, placed and named, kinks are set aside."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.gradient import Objective
from handgrad.insight import check_gradients, check_layer
from handgrad.layers import (
    AvgPool,
    BatchNorm,
    Chain,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Lambda,
    Layer,
    LeakyRelu,
    MaxPool,
    Parallel,
    Relu,
    Residual,
    Tanh,
    map_layers,
)
from handgrad.losses import Hinge, Loss, MeanSquaredError, SoftmaxCrossEntropy

SOFTMAX = SoftmaxCrossEntropy()


def problem(net, in_shape=(6, 6, 1), dtype=jnp.float64, n=4):
    """params, x, y, state for a net with 3 outputs; all random, so that no bias is 0."""
    random = np.random.default_rng(7)
    shapes = jax.eval_shape(lambda key: net.init(key, in_shape, dtype), jax.random.key(0))
    params, state = jax.tree.map(lambda leaf: jnp.asarray(0.4 * random.normal(size=leaf.shape), dtype), shapes)
    x = jnp.asarray(random.normal(size=(n, *in_shape)), dtype)
    return params, x, jnp.arange(n, dtype=jnp.int32) % 3, jax.tree.map(jnp.abs, state)


def check(net, loss: Loss = SOFTMAX, l2=0.0, key=None, **settings):
    return check_gradients(Objective(net, loss, l2), *problem(net, **settings), key)


def wrong_rows(report):
    return {row.name: row.odd for row in report.rows if not row.ok}


RIGHT = {
    "relu, max pool, dropout, l2": (
        Chain(Conv(3, 3), Relu(), MaxPool(2), Dropout(0.3), Flatten(), Dense(5), Relu(), Dense(3)),
        0.01,
    ),
    "leaky relu, overlapping pool, batch norm": (
        Chain(Conv(3, 3), BatchNorm(), LeakyRelu(0.1), MaxPool(3, 2), Flatten(), Dense(3)),
        0.0,
    ),
    "residual, parallel, tanh": (
        Chain(Conv(2, 3), Residual(Chain(Conv(2, 3), Tanh())), Parallel(Conv(1, 1), AvgPool(1)), Flatten(), Dense(3)),
        0.0,
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_nets_pass(name):
    net, l2 = RIGHT[name]
    report = check(net, l2=l2, key=jax.random.key(3))
    assert report.ok and report.first_wrong is None and not report.parted, str(report)
    assert max(row.automatic_error for row in report.rows) < 1e-12
    assert max(row.difference_error for row in report.rows) < 1e-6
    names = [row.name for row in report.rows]
    assert names[:3] == ["x", "conv1/bias", "conv1/kernel"] and names[-1] == f"{names[-1].split('/')[0]}/kernel"
    for row in report.rows:
        assert row.directions == min(10, math.prod(row.shape)) + 3
        unseen = name.startswith("leaky") and row.name == "conv1/bias"  # batch norm takes it out: gradient 0
        assert math.isinf(row.slope) if unseen else row.slope == pytest.approx(2, abs=0.1), str(report)


def test_table_is_aligned_and_says_all():
    report = check(Chain(Flatten(), Dense(3)))
    lines = str(report).splitlines()
    assert lines[0] == f"gradient check in float64, value {report.value:.10g}"
    assert lines[1].split("  ")[0].strip() == "leaf" and lines[1].endswith("odd one out")
    assert lines[-1] == "all three agree" and len(lines) == 3 + len(report.rows)
    assert max(map(len, lines)) <= 110
    assert len({line.index(" of ") for line in lines[2:-1]}) == 1


class Negative(Dense):
    def backward(self, params, residuals, dy):
        dx, dparams = super().backward(params, residuals, dy)
        return -dx, dparams


class NoPaddingRow(Conv):
    """The outermost row, which a window reaches only by way of the padding, is forgotten."""

    def backward(self, params, residuals, dy):
        dx, dparams = super().backward(params, residuals, dy)
        return dx.at[:, -1].set(0), dparams


def test_an_error_upstream_shows_below_and_its_layer_is_named():
    net = Chain(Conv(1, 3), Tanh(), NoPaddingRow(1, 3), Relu(), Flatten(), Dense(3))
    report = check(net)
    assert wrong_rows(report) == dict.fromkeys(["x", "conv1/bias", "conv1/kernel"], "manual")
    assert report.parted == ("conv2 (NoPaddingRow)",) and report.first_wrong == "conv2 (NoPaddingRow)"
    text = str(report)
    assert "WRONG: 3 of 7 leaves disagree; look first at conv2 (NoPaddingRow)" in text
    assert "part, from the loss down: conv2 (NoPaddingRow)" in text


def test_two_errors_are_told_apart_by_their_place():
    report = check(Chain(Flatten(), Negative(4), Tanh(), Negative(4, name="upper"), Dense(3)))
    assert report.parted == ("upper (Negative)", "dense1 (Negative)")
    assert wrong_rows(report)["dense1/kernel"] == "manual"
    assert "x" not in wrong_rows(report)  # two signs cancel there, so the layers tell more than the leaves


@jax.custom_jvp
def wrong_square(x):
    return x * x


wrong_square.defjvp(lambda primals, tangents: (wrong_square(*primals), 3 * primals[0] * tangents[0]))


class Square(Layer):
    """A right backward by hand of a formula whose own derivative rule is wrong."""

    def apply(self, params, x, state=()):
        return wrong_square(x)

    def forward(self, params, x, state=(), key=None):
        return x * x, state, {"x": x}

    def backward(self, params, residuals, dy):
        return 2 * residuals["x"] * dy, {}


def test_an_error_of_the_automatic_side_is_named():
    report = check(Chain(Flatten(), Dense(4), Square(), Dense(3)))
    assert wrong_rows(report) == dict.fromkeys(["x", "dense1/bias", "dense1/kernel"], "automatic")
    assert all(row.slope == pytest.approx(2, abs=0.1) for row in report.rows)  # of the gradient by hand, which is right
    assert report.first_wrong == "square1 (Square)"


def test_both_gradients_wrong_leaves_the_differences_odd():
    """A derivative rule that both share is seen by the differences alone."""
    report = check_layer(Lambda(wrong_square), (3,))
    assert wrong_rows(report) == {"x": "finite differences"}
    assert report.rows[0].automatic_error < 1e-12 and report.parted == () and report.first_wrong == "x"


def test_relu_at_exactly_zero_is_set_aside_and_counted():
    net = Chain(Dense(4), Relu(), Dense(3))
    params, x, y, state = problem(net, in_shape=(5,))
    params["dense1"] = {"kernel": params["dense1"]["kernel"], "bias": jnp.zeros(4)}
    x = x.at[0].set(0.0)  # so all four units of example 0 are at the kink
    report = check_gradients(Objective(net, SOFTMAX), params, x, y, state)
    assert report.ok, str(report)
    rows = {row.name: row for row in report.rows}
    assert rows["dense1/bias"].kinks == 7 and rows["dense1/bias"].directions == 7  # every one
    assert math.isnan(rows["dense1/bias"].slope) and math.isnan(rows["dense1/bias"].difference_error)
    assert rows["dense1/kernel"].kinks == 0 and rows["dense2/kernel"].kinks == 0
    assert 3 <= rows["x"].kinks < 13  # coordinates of example 0 and the random lines
    (line,) = [line for line in str(report).splitlines() if line.startswith("dense1/bias")]
    assert "7 of 7" in line and line.split()[-4:] == ["7", "of", "7", "-"]


def test_an_error_at_kinks_alone_is_not_excused():
    """Where no difference can tell, two gradients that part are still a failure."""

    class One(Relu):
        def backward(self, params, residuals, dy):
            return dy, {}

    net = Chain(Dense(4), One(), Dense(3))
    params, x, y, state = problem(net, in_shape=(5,))
    params["dense1"] = jax.tree.map(jnp.zeros_like, params["dense1"])
    report = check_gradients(Objective(net, SOFTMAX), params, x, y, state)
    assert not report.ok and wrong_rows(report)["dense1/bias"] == "undecided"
    assert report.first_wrong == "relu1 (One)"


def test_max_pool_ties_are_kinks():
    net = Chain(MaxPool(2), Flatten(), Dense(3))
    params, x, y, state = problem(net, (4, 4, 1))
    report = check_gradients(Objective(net, SOFTMAX), params, jnp.ones_like(x), y, state)
    assert report.ok and report.rows[0].name == "x" and report.rows[0].kinks == 13


def test_linear_is_exact_and_quadratic_has_slope_2():
    report = check_layer(Dense(3), (4,))  # <dy, xW + b> is linear in each leaf
    assert report.ok and all(math.isinf(row.slope) for row in report.rows)
    assert str(report).count("  exact  ") == 3
    net = Chain(Dense(3))
    params, x, _, state = problem(net, in_shape=(5,))
    report = check_gradients(Objective(net, MeanSquaredError()), params, x, jnp.zeros((4, 3)), state)
    assert report.ok and [row.slope for row in report.rows] == pytest.approx([2, 2, 2], abs=1e-2)
    assert check(Chain(Flatten(), Dense(3)), Hinge()).ok  # piecewise linear


@pytest.mark.parametrize("x64", [False, True], ids=["float32 caller", "float64 caller"])
def test_the_callers_mode_and_dtypes_do_not_matter(x64):
    net = Chain(Dense(4), BatchNorm(), Relu(), Dropout(0.5), Dense(3))
    with jax.enable_x64(x64):
        params, x, y, state = problem(net, (5,), dtype=jnp.bfloat16 if x64 else jnp.float32)
        report = check_gradients(Objective(net, SoftmaxCrossEntropy(), 0.1), params, x, y, state, jax.random.key(2))
        assert (jnp.ones(1).dtype == jnp.float64) == x64
        assert check_layer(Dense(2), (3,)).ok
    assert report.ok and max(row.automatic_error for row in report.rows) < 1e-11
    assert params["dense1"]["kernel"].dtype == (jnp.bfloat16 if x64 else jnp.float32)


def test_a_net_that_has_learnt_all_passes():
    """Loss 1e-10: the gradient is what rounding leaves of p - y."""
    net = Chain(Dense(3))
    params = {"dense1": {"kernel": 25.0 * jnp.eye(3), "bias": jnp.zeros(3)}}
    report = check_gradients(Objective(net, SOFTMAX), params, jnp.eye(3), jnp.arange(3))
    assert report.value < 1e-9 and report.ok, str(report)


def test_the_loss_is_named():
    @dataclass(frozen=True)
    class WrongLoss(SoftmaxCrossEntropy):
        def backward(self, logits, y, dlosses):
            return 2 * super().backward(logits, y, dlosses)

    report = check(Chain(Flatten(), Dense(3)), WrongLoss())
    assert report.first_wrong == "loss" and set(wrong_rows(report).values()) == {"manual"}


def test_a_wrong_forward_is_named():
    class Stretched(Tanh):
        def forward(self, params, x, state=(), key=None):
            y, state, residuals = super().forward(params, x, state, key)
            return 1.01 * y, state, residuals

    report = check_layer(Chain(Dense(3), Stretched()), (4,))
    assert not report.ok and report.problems == ("forward's output differs from apply_train's",)
    assert report.first_wrong == "tanh1 (Stretched.forward)"
    report = check(Chain(Flatten(), Dense(3), Stretched()))
    assert not report.ok and "by the forward pass by hand" in str(report)


def test_nan_and_infinity_are_no_success():
    net = Chain(Flatten(), Dense(3))
    params, x, y, state = problem(net)
    report = check_gradients(Objective(net, SOFTMAX), params, x.at[0].set(jnp.nan), y, state)
    assert not report.ok and "WRONG: the value is nan" in str(report)

    class NanBias(Dense):
        def backward(self, params, residuals, dy):
            dx, dparams = super().backward(params, residuals, dy)
            return dx, dparams | {"bias": dparams["bias"] * jnp.nan}

    report = check_layer(NanBias(3), (4,))
    assert wrong_rows(report) == {"bias": "manual"}
    assert report.parted == ("dense (NanBias)",)


def test_bad_arguments():
    net: Any = Chain(Flatten(), Dropout(0.5), Dense(3))
    params, x, y, state = problem(net)
    objective = Objective(net, SOFTMAX)
    with pytest.raises(ValueError, match="Dropout: training needs a key"):
        check_gradients(objective, params, x, y, state)
    with pytest.raises(
        TypeError, match="check_gradients: wants an hg.Objective, got .*; for a layer use hg.check_layer"
    ):
        check_gradients(
            net,
            params,
            x,
            y,
            state,
        )
    with pytest.raises(TypeError, match="check_gradients: x must be floating, got uint8"):
        check_gradients(objective, params, x.astype(jnp.uint8), y, state)
    with pytest.raises(ValueError, match="check_gradients: coordinates must be at least 1, got 0"):
        check_gradients(objective, params, x, y, state, coordinates=0)
    with pytest.raises(ValueError, match="check_layer: batch must be at least 1, got 0"):
        check_layer(Relu(), (3,), batch=0)


def test_map_layers_swaps_in_a_planted_error():
    """As `handgrad check` does: the net of the user, one rule swapped."""
    net = Chain(Dense(4), Relu(), Dense(3))
    planted = map_layers(lambda layer: Negative(4) if layer == Dense(4) else layer, net)
    assert check(planted, in_shape=(5,)).first_wrong == "dense1 (Negative)"

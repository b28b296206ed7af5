"""check_layer: each kind of planted error is found in its row, and a broken contract is named."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from handgrad.insight import check_layer
from handgrad.layers import AvgPool, Conv, Dense, Dropout, Lambda, Layer, MaxPool, Relu, Tanh
from handgrad.ops.conv import conv_backward


def wrong_rows(report):
    return {row.name: row.odd for row in report.rows if not row.ok}


class Negative(Dense):
    def backward(self, params, residuals, dy):
        dx, dparams = super().backward(params, residuals, dy)
        return -dx, dparams


class Twice(Dense):
    def backward(self, params, residuals, dy):
        dx, dparams = super().backward(params, residuals, dy)
        return dx, dparams | {"kernel": 2 * dparams["kernel"]}


class NoBias(Dense):
    def backward(self, params, residuals, dy):
        dx, dparams = super().backward(params, residuals, dy)
        return dx, dparams | {"bias": jnp.zeros_like(dparams["bias"])}


class OneEntry(Dense):
    """0.03 % off in one entry: no random direction sees it, the line along which the gradients part does."""

    def backward(self, params, residuals, dy):
        dx, dparams = super().backward(params, residuals, dy)
        return dx, dparams | {"kernel": dparams["kernel"].at[2, 1].multiply(1.0003)}


class NoPaddingRow(Conv):
    """The outermost row, which a window reaches only by way of the padding, is forgotten."""

    def backward(self, params, residuals, dy):
        dx, dparams = super().backward(params, residuals, dy)
        return dx.at[:, -1].set(0), dparams


class NotFlipped(Conv):
    def backward(self, params: Any, residuals, dy):
        dx, dparams = super().backward(params, residuals, dy)
        flipped = jnp.flip(params["kernel"], (0, 1))
        return conv_backward(residuals["x"], flipped, dy)[0], dparams


class NoPaddingRowPool(AvgPool):
    def backward(self, params, residuals, dy):
        dx, _ = super().backward(params, residuals, dy)
        return dx.at[:, 0].set(0), {}


class SetForAdd(MaxPool):
    """`=` for `+=`: a later window of 3, 2 places on, overwrites what an earlier one gave."""

    def forward(self, params, x, state=(), key=None):
        return self.apply(params, x), state, {"x": x}

    def backward(self, params, residuals, dy):
        x = residuals["x"]
        dx = jnp.zeros_like(x)
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                place = np.s_[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
                dx = dx.at[place].set(jax.vjp(lambda window: window.max((1, 2)), x[place])[1](dy[:, i, j])[0])
        return dx, {}


@pytest.mark.parametrize(
    ("layer", "in_shape", "rows"),
    [
        (Negative(3), (4,), {"x"}),
        (Twice(3), (4,), {"kernel"}),
        (NoBias(3), (4,), {"bias"}),
        (OneEntry(30), (60,), {"kernel"}),
        (NoPaddingRow(2, 3), (4, 5, 2), {"x"}),
        (NotFlipped(2, 3), (4, 5, 2), {"x"}),
        (NoPaddingRowPool(3, 1, "SAME"), (4, 5, 1), {"x"}),
        (SetForAdd(3, 2), (7, 7, 2), {"x"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Layer) else "",
)
def test_a_planted_error_is_found(layer, in_shape, rows):
    report = check_layer(layer, in_shape)
    assert not report.ok
    assert wrong_rows(report) == dict.fromkeys(rows, "manual"), str(report)
    assert all(row.slope == pytest.approx(1, abs=0.05) for row in report.rows if not row.ok), str(report)
    assert report.parted == (f"{layer.kind} ({type(layer).__name__})",)


def test_other_masks_and_other_states_are_found():
    class OtherMask(Dropout):
        def forward(self, params, x, state=(), key: Any = None):
            return super().forward(params, x, state, jax.random.fold_in(key, 1))

    class Counted(Layer):
        """Its forward forgets to count."""

        def init(self, key, in_shape, dtype=jnp.float32):
            return {}, {"steps": jnp.zeros((), dtype)}

        def apply(self, params, x, state=()):
            return x

        def apply_train(self, params, x, state: Any = (), key=None):
            return x, {"steps": state["steps"] + 1}

        def forward(self, params, x, state=(), key=None):
            return x, state, {}

        def backward(self, params, residuals, dy):
            return dy, {}

    assert check_layer(OtherMask(0.5), (20,)).problems == ("forward's output differs from apply_train's",)
    assert check_layer(Counted(), (4,)).problems == ("forward's new state differs from apply_train's",)


def test_the_seed_draws_everything():
    first, again, other = (check_layer(Tanh(), (4,), seed=seed) for seed in (0, 0, 1))
    assert first == again and first.value != other.value


def bad(**methods):
    """A Dense(2) with other methods."""
    return type("Mine", (Dense,), methods)(2)


def shapes_kept(self, params, x, state=(), key=None):
    y, state, residuals = Dense.forward(self, params, x, state, key)
    return y, state, residuals | {"shape": x.shape}


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (Relu, r"check_layer: wants a layer, got the class Relu"),
        (
            bad(forward=lambda self, params, x, state=(), key=None: (x, state)),
            r"check_layer: Mine.forward must return \(y, state, residuals\), got 2 things",
        ),
        (bad(backward=lambda self, params, r, dy: dy), r"Mine.backward must return \(dx, dparams\), got"),
        (bad(forward=shapes_kept), r"Mine.forward: residuals must be arrays, got 3 at shape/0; wrap .* hg.Static"),
        (
            bad(backward=lambda self, p, r, dy: (r["x"], {"kernel": p["kernel"]})),
            "Mine.backward: dparams must be like params: bias is missing",
        ),
        (
            bad(backward=lambda self, p, r, dy: (dy, dict(p))),
            r"Mine.backward: dx must be like x: it is float64 \(3, 2\), wanted float64 \(3, 3\)",
        ),
        (
            bad(backward=lambda self, p, r, dy: (r["x"], p | {"kernel": p["kernel"].astype(jnp.float32)})),
            r"dparams must be like params: kernel is float32 \(3, 2\), wanted float64 \(3, 2\)",
        ),
        (
            bad(forward=lambda self, p, x, state=(), key=None: (x, state, {"x": x})),
            r"Mine.forward: y must be like apply_train's: it is float64 \(3, 3\), wanted float64 \(3, 2\)",
        ),
    ],
)
def test_a_layer_that_breaks_the_contract(layer, match):
    with pytest.raises(TypeError, match=match):
        check_layer(layer, (3,))


def test_a_step_function_is_all_kinks_or_flat():
    """Where f jumps, differences are set aside or see the flat pieces; no gradient but 0 is right there."""
    report = check_layer(Lambda(lambda x: lax.stop_gradient(jnp.floor(100 * x))), (6,))
    assert report.ok and all(row.automatic_error == 0 for row in report.rows)

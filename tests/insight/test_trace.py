"""The numbers of a trace by NumPy and jax.vjp, and faults planted in a known place."""

import json
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.insight import NonFinite, Trace, trace

LOSS = hg.SoftmaxCrossEntropy()
X, Y = jax.random.normal(jax.random.key(1), (6, 5)), jnp.arange(6) % 3


def looked_at(net):
    """The trace of a net, compiled: op by op it takes ten times as long."""
    return jax.jit(trace(hg.Objective(net, LOSS)))


def dense_net():
    net = hg.Chain(hg.Dense(4), hg.Relu(), hg.Dense(3))
    params, _ = net.init(jax.random.key(0), (5,), jnp.float64)
    return net, params


def by_name(found):
    return {row.name: row for row in found.rows}


def rms(*arrays):
    numbers = np.concatenate([np.ravel(a) for a in arrays])
    return np.sqrt(np.mean(numbers**2))


def norm(array):
    return np.sqrt(np.sum(np.square(array)))


def test_every_number_of_a_small_net():
    """Forward by NumPy; the gradient in each layer's output by jax.grad of a probe added there."""
    net, params = dense_net()
    params["dense1"]["bias"] += jnp.array([0.0, -100.0, 0.3, 0.1])  # the second unit is dead
    rows = by_name(looked_at(net)(params, X, Y))
    one, two = params["dense1"], params["dense2"]
    h1 = np.asarray(X) @ one["kernel"] + np.asarray(one["bias"])[None]
    h2 = np.maximum(h1, 0)
    h3 = h2 @ two["kernel"] + np.asarray(two["bias"])[None]

    def loss(probe1, probe2, params):
        h = jnp.where(jnp.asarray(h1) + probe1 > 0, jnp.asarray(h1) + probe1, 0) + probe2
        return LOSS(hg.ops.dense(h, params["kernel"], params["bias"]), Y)

    d1, d2, dtwo = jax.grad(loss, (0, 1, 2))(jnp.zeros_like(h1), jnp.zeros_like(h1), two)
    d3 = jax.grad(LOSS)(jnp.asarray(h3), Y)
    assert rows["dense1"].h == pytest.approx(rms(h1), rel=1e-12) and rows["dense2"].h == pytest.approx(rms(h3))
    assert {row.backward for row in rows.values()} == {"by hand"}
    assert rows["dense1"].delta == pytest.approx(rms(d1), rel=1e-12)
    assert rows["relu1"].delta == pytest.approx(rms(d2), rel=1e-12)
    assert rows["relu1"].dead == 0.25 and np.isnan(rows["dense1"].dead)
    assert rows["dense1"].zero == np.mean(np.asarray(d1) == 0) >= 0.25
    assert rows["dense2"].dw == pytest.approx(rms(dtwo["kernel"], dtwo["bias"]), rel=1e-12)
    assert rows["dense2"].ratio == pytest.approx(rows["dense2"].dw / rms(two["kernel"], two["bias"]), rel=1e-12)
    assert rows["relu1"].forward_gain == pytest.approx(rms(h2) / rms(h1), rel=1e-12)
    assert rows["relu1"].backward_gain == pytest.approx(rms(d1) / rms(d2), rel=1e-12)
    assert rows["dense2"].backward_gain == pytest.approx(norm(d2) / norm(d3), rel=1e-12)
    assert rows["dense1"].arrived == pytest.approx(norm(d1) / norm(d3), rel=1e-12) and rows["dense2"].arrived == 1
    assert rows["dense2"].w == pytest.approx(rms(two["kernel"], two["bias"]), rel=1e-12)
    assert np.isnan(rows["relu1"].ratio) and rows["relu1"].shape == (4,)


@dataclass(frozen=True, repr=False)
class Broken(hg.Layer):
    """Multiplies by a kernel of ones, but one number of one array is not finite."""

    place: tuple[int, ...] = ()
    array: str = "y"

    def init(self, key, in_shape, dtype=jnp.float32):
        return {"kernel": jnp.ones(in_shape[-1:], dtype)}, {}

    def apply(self, params: Any, x, state=()):
        y = x * jnp.broadcast_to(params["kernel"], x.shape)
        return y.at[self.place].set(jnp.nan) if self.array == "y" else y

    def backward(self, params, residuals, dy):
        dx, dparams = super().backward(params, residuals, dy)
        if self.array == "dx":
            return dx.at[self.place].set(jnp.inf), dparams
        if self.array == "dparams/kernel":
            return dx, {"kernel": dparams["kernel"].at[self.place].set(-jnp.inf)}
        return dx, dparams


@pytest.mark.parametrize(
    ("array", "direction", "place"),
    [("y", "forward", (4, 2)), ("dx", "backward", (3, 1)), ("dparams/kernel", "backward", (2,))],
)
def test_the_first_bad_number_is_found_in_its_layer(array, direction, place):
    """What comes after it is not finite either, and is not blamed."""
    net = hg.Chain(hg.Dense(4), Broken(place, array), hg.Tanh(), hg.Residual(hg.Dense(4)), hg.Dense(3))
    params, _ = net.init(jax.random.key(0), (5,), jnp.float64)
    found = looked_at(net)(params, X, Y)
    assert found.first_nonfinite == NonFinite("broken1", direction, array, place)
    assert str(found.findings[0]) == f"broken1 breaks: {array} is not finite at {place} going {direction}"
    again = Trace.from_record(json.loads(json.dumps(found.record(), allow_nan=False)))
    assert again.first_nonfinite == found.first_nonfinite and again.findings == found.findings


def test_what_comes_in_broken_is_not_blamed_on_the_layers():
    net, params = dense_net()
    look = looked_at(net)
    assert look(params, X, Y).first_nonfinite is None
    assert look(params, X.at[5, 1].set(jnp.nan), Y).first_nonfinite == NonFinite("dense1", "forward", "x", (5, 1))
    bad_label = look(params, X, Y.at[0].set(7))
    assert bad_label.first_nonfinite == NonFinite("loss", "forward", "value", ())
    assert str(bad_label.findings[0]) == "loss breaks: value is not finite going forward"
    assert Trace.from_record(bad_label.record()).first_nonfinite == bad_label.first_nonfinite
    params["dense2"]["kernel"] = params["dense2"]["kernel"].at[1, 2].set(jnp.inf)
    assert look(params, X, Y).first_nonfinite == NonFinite("dense2", "forward", "params/kernel", (1, 2))


def test_a_sum_that_overflows_shows_where_it_goes():
    """Body and shortcut are finite, their sum is not: no layer's output, but the next one's input."""
    net = hg.Chain(hg.Residual(hg.Identity()), hg.Relu())
    found = looked_at(net)((), jnp.ones((2, 3)).at[1, 2].set(1.5e308), Y[:2])
    assert found.first_nonfinite == NonFinite("relu1", "forward", "x", (1, 2))


def deep_net(width=16):
    layers = [hg.Dense(width), hg.Tanh()] * 3
    net = hg.Chain(*layers, hg.Dense(3))
    params, _ = net.init(jax.random.key(0), (5,), jnp.float64)
    return params, looked_at(net)


def events(found):
    return [(finding.layer, finding.event) for finding in found.findings]


def test_the_layer_that_explodes_or_vanishes_is_named_and_its_neighbours_are_not():
    params, look = deep_net()
    assert look(params, X, Y).findings == ()
    assert str(look(params, X, Y)).endswith("nothing breaks, dies, explodes or vanishes")
    kernel = params["dense2"]["kernel"]
    params["dense2"]["kernel"] = 1e-3 * kernel
    assert set(events(look(params, X, Y))) == {("dense2", "vanishes")}
    params["dense2"]["kernel"] = 1e3 * kernel
    assert {("dense2", "explodes")} < set(events(look(params, X, Y)))


def test_many_layers_that_each_lose_a_little_are_found_too():
    params, look = deep_net()
    for i, factor in ((2, 0.05), (3, 0.04), (4, 0.1)):
        params[f"dense{i}"]["kernel"] *= factor
    found = look(params, X, Y)
    assert events(found) == [("dense3", "vanishes")] * 2
    assert found.findings[1].detail.startswith("gradient at dense1 ")
    arrived = {row.name: row.arrived for row in found.rows}
    assert arrived["dense1"] == min(arrived.values()) < 1e-3 and all(row.backward_gain > 1 / 30 for row in found.rows)


def test_a_pool_over_many_places_is_no_layer_that_vanishes():
    net = hg.Chain(hg.GlobalAvgPool())
    (row,) = looked_at(net)((), jnp.ones((2, 8, 8, 3)), Y[:2]).rows
    assert row.backward_gain == pytest.approx(1 / 8)


def test_sizes_neither_overflow_nor_underflow():
    look = looked_at(hg.Chain(hg.Dense(3, use_bias=False)))
    for size in (1e-200, 1e200):
        found = look({"dense1": {"kernel": jnp.full((5, 3), size)}}, jnp.ones((2, 5)), Y[:2])
        assert found.rows[0].w == pytest.approx(size, rel=1e-12)
        assert found.rows[0].h == pytest.approx(5 * size, rel=1e-12)


@dataclass(frozen=True, repr=False)
class Mine(hg.Layer):
    """No backward of its own."""

    def apply(self, params, x, state=()):
        return 2 * x


@pytest.mark.parametrize("batch", [1, 6])
def test_any_net_gives_a_row_for_each_leaf(batch):
    body = hg.Chain(hg.Conv(2, 3), hg.BatchNorm(), hg.Relu6(), hg.Dropout(0.5))
    net = hg.Chain(hg.Residual(body), hg.Parallel(Mine(), hg.Identity()), hg.Flatten(), hg.Dense(3))
    params, state = net.init(jax.random.key(0), (4, 3, 2), jnp.float64)
    x = jax.random.normal(jax.random.key(2), (batch, 4, 3, 2))
    found = looked_at(net)(params, x, Y[:batch], state, jax.random.key(3))
    rows = by_name(found)
    assert list(rows)[:2] == ["residual1/body/conv1", "residual1/body/batchnorm1"] and len(rows) == 8
    assert rows["parallel1/mine1"].backward == "jax.vjp" and rows["dense1"].backward == "by hand"
    assert 0 <= rows["residual1/body/relu61"].dead <= 1 and found.first_nonfinite is None
    table = str(found).splitlines()
    assert table[0] == f"loss {float(found.loss):.6g} on a batch of {batch}" and len(table) >= 11
    assert table[6].split()[:4] == ["parallel1/mine1", "Mine", "jax.vjp", "4x3x2"]
    assert str(Trace.from_record(json.loads(json.dumps(found.record())))) == str(found)


def test_a_relu_of_your_own_counts_and_one_of_another_make_does_not():
    class Guided(hg.Relu):
        pass

    net = hg.Chain(Guided(), hg.Lambda(jax.nn.relu))
    x = jnp.array([[-1.0, 2.0, 0.0], [-3.0, -1.0, 1.0]])
    rows = looked_at(net)((), x, Y[:2]).rows
    assert rows[0].dead == pytest.approx(1 / 3) and np.isnan(rows[1].dead)


def test_traces_of_several_nets_at_once():
    net, params = dense_net()
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    look = looked_at(net)
    found = jax.vmap(look, (0, None, None))(both, X, Y)
    second = jax.tree.map(lambda a: a[1], found)
    alone = look(jax.tree.map(lambda a: a[1], both), X, Y)
    np.testing.assert_allclose([row[4:] for row in second.rows], [row[4:] for row in alone.rows], rtol=1e-12)
    with pytest.raises(ValueError, match="Trace: these are several, as vmap gives them"):
        str(found)


def test_a_net_of_one_layer():
    found = looked_at(hg.Dense(3))(hg.Dense(3).init(jax.random.key(0), (5,), jnp.float64)[0], X, Y)
    assert [row.name for row in found.rows] == ["dense"]


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"trace: wants an hg.Objective, got Dense\(3\)"):
        trace(hg.Dense(3))  # pyright: ignore[reportArgumentType]
    net, params = dense_net()
    with pytest.raises(ValueError, match=r"trace: x must hold at least one example, \(N, ...\), got shape \(0, 5\)"):
        trace(hg.Objective(net, LOSS))(params, X[:0], Y[:0])
    with pytest.raises(ValueError, match="Trace.from_record: wants a record with loss, batch, .*, got {'loss': 1}"):
        Trace.from_record({"loss": 1})

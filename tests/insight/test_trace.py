"""The numbers of a trace by NumPy and jax.vjp, and faults planted in a known place."""

import json
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.insight.trace import NonFinite, trace

LOSS = hg.SoftmaxCrossEntropy()
X, Y = jax.random.normal(jax.random.key(1), (6, 5)), jnp.arange(6) % 3


def dense_net():
    net = hg.Chain(hg.Dense(4), hg.Relu(), hg.Dense(3))
    params, _ = net.init(jax.random.key(0), (5,), jnp.float64)
    return net, params


def by_name(found):
    return {row.name: row for row in found.rows}


def rms(*arrays):
    numbers = np.concatenate([np.ravel(a) for a in arrays])
    return np.sqrt(np.mean(numbers**2))


def test_every_number_of_a_small_net():
    """Forward by NumPy; the gradient in each layer's output by jax.grad of a probe added there."""
    net, params = dense_net()
    params["dense1"]["bias"] += jnp.array([0.0, -100.0, 0.3, 0.1])  # the second unit is dead
    rows = by_name(jax.jit(trace(hg.Objective(net, LOSS)))(params, X, Y))
    one, two = params["dense1"], params["dense2"]
    h1 = np.asarray(X) @ one["kernel"] + np.asarray(one["bias"])[None]
    h2 = np.maximum(h1, 0)
    h3 = h2 @ two["kernel"] + np.asarray(two["bias"])[None]

    def loss(probe1, probe2, params):
        h = jnp.where(jnp.asarray(h1) + probe1 > 0, jnp.asarray(h1) + probe1, 0) + probe2
        return LOSS(hg.ops.dense(h, params["kernel"], params["bias"]), Y)

    d1, d2, dtwo = jax.grad(loss, (0, 1, 2))(jnp.zeros_like(h1), jnp.zeros_like(h1), two)
    assert rows["dense1"].h == pytest.approx(rms(h1), rel=1e-12) and rows["dense2"].h == pytest.approx(rms(h3))
    assert rows["dense1"].delta == pytest.approx(rms(d1), rel=1e-12)
    assert rows["relu1"].delta == pytest.approx(rms(d2), rel=1e-12)
    assert rows["relu1"].dead == 0.25 and np.isnan(rows["dense1"].dead)
    assert rows["dense1"].zero == np.mean(np.asarray(d1) == 0) >= 0.25
    assert rows["dense2"].dw == pytest.approx(rms(dtwo["kernel"], dtwo["bias"]), rel=1e-12)
    assert rows["dense2"].ratio == pytest.approx(rows["dense2"].dw / rms(two["kernel"], two["bias"]), rel=1e-12)
    assert rows["relu1"].forward_gain == pytest.approx(rms(h2) / rms(h1), rel=1e-12)
    assert rows["relu1"].backward_gain == pytest.approx(rms(d1) / rms(d2), rel=1e-12)
    assert np.isnan(rows["relu1"].ratio) and rows["relu1"].shape == (4,)


@dataclass(frozen=True, repr=False)
class Broken(hg.Layer):
    """The identity, but for one number in one pass; no backward of its own, but where it is the broken one."""

    place: tuple = ()
    where: str = "forward"

    def apply(self, params, x, state=()):
        return x.at[self.place].set(jnp.nan) if self.where == "forward" else x

    def backward(self, params, residuals, dy):
        if self.where == "forward":
            return super().backward(params, residuals, dy)
        return dy.at[self.place].set(jnp.inf), {}


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        (Broken((4, 2)), NonFinite("broken1", "forward", (4, 2))),
        (Broken((3, 1), "backward"), NonFinite("broken1", "backward", (3, 1))),
    ],
)
def test_the_first_bad_number_is_found_in_its_layer(fault, wanted):
    """What comes after it is not finite either, and is not blamed."""
    net = hg.Chain(hg.Dense(4), fault, hg.Tanh(), hg.Residual(hg.Dense(4)), hg.Dense(3))
    params, _ = net.init(jax.random.key(0), (5,), jnp.float64)
    found = trace(hg.Objective(net, LOSS))(params, X, Y)
    assert found.first_nonfinite == wanted
    assert found.findings[0].startswith("broken1 is the first that is not finite")
    assert found.rows[1].backward == "by hand"
    json.dumps(found.record(), allow_nan=False)


def test_a_bad_label_is_the_loss_and_a_bad_weight_its_layer():
    net, params = dense_net()
    assert trace(hg.Objective(net, LOSS))(params, X, Y.at[0].set(7)).first_nonfinite == NonFinite("loss", "forward", ())
    params["dense2"]["kernel"] = params["dense2"]["kernel"].at[1, 2].set(jnp.inf)
    found = trace(hg.Objective(net, LOSS))(params, X, Y).first_nonfinite
    assert found is not None and (found.layer, found.direction, found.place[1]) == ("dense2", "forward", 2)


def test_the_layer_that_explodes_or_vanishes_is_named_and_its_neighbours_are_not():
    layers = [hg.Dense(16), hg.Tanh()] * 3
    net = hg.Chain(*layers, hg.Dense(3))
    params, _ = net.init(jax.random.key(0), (5,), jnp.float64)
    look = jax.jit(trace(hg.Objective(net, LOSS)))
    assert look(params, X, Y).findings == ()
    params["dense2"]["kernel"] *= 1e-3
    assert {text.split(" ")[0] for text in look(params, X, Y).findings} == {"dense2"}
    params["dense2"]["kernel"] *= 1e6
    assert any(text.startswith("dense2 makes the output explode") for text in look(params, X, Y).findings)


@pytest.mark.parametrize("batch", [1, 6])
def test_any_net_gives_a_row_for_each_leaf(batch):
    @dataclass(frozen=True, repr=False)
    class Mine(hg.Layer):
        def apply(self, params, x, state=()):
            return 2 * x

    body = hg.Chain(hg.Conv(2, 3), hg.BatchNorm(), hg.Relu6(), hg.Dropout(0.5))
    net = hg.Chain(hg.Residual(body), hg.Parallel(Mine(), hg.Identity()), hg.Flatten(), hg.Dense(3))
    params, state = net.init(jax.random.key(0), (4, 3, 2), jnp.float64)
    x = jax.random.normal(jax.random.key(2), (batch, 4, 3, 2))
    found = trace(hg.Objective(net, LOSS))(params, x, Y[:batch], state, jax.random.key(3))
    rows = by_name(found)
    assert list(rows)[:2] == ["residual1/body/conv1", "residual1/body/batchnorm1"] and len(rows) == 8
    assert rows["parallel1/mine1"].backward == "jax.vjp" and rows["dense1"].backward == "by hand"
    assert 0 <= rows["residual1/body/relu61"].dead <= 1 and found.first_nonfinite is None
    assert "jax.vjp" in str(found) and len(str(found).splitlines()) >= 10


def test_a_net_of_one_layer_and_a_wrong_argument():
    found = trace(hg.Objective(hg.Dense(3), LOSS))(hg.Dense(3).init(jax.random.key(0), (5,), jnp.float64)[0], X, Y)
    assert [row.name for row in found.rows] == ["dense"]
    with pytest.raises(TypeError, match=r"trace: wants an hg.Objective, got Dense\(3\)"):
        trace(hg.Dense(3))  # pyright: ignore[reportArgumentType]


def trained(tmp_path, epochs, trace_every: int | None = 3, **settings):
    net, optimizer = hg.Chain(hg.Dense(4), hg.Relu(), hg.Dropout(0.5), hg.Dense(3)), hg.sgd(0.1)
    step = hg.make_train_step(hg.Objective(net, LOSS), optimizer)
    start = hg.init_train_state(net, optimizer, jax.random.key(0), (5,), jnp.float64)
    x, y = np.random.default_rng(0).normal(size=(10, 5)), np.arange(10) % 3
    return hg.fit(
        start, step, x, y, batch_size=2, epochs=epochs, progress=False, run_dir=tmp_path, trace_every=trace_every,
        **settings,
    )  # fmt: skip


def test_fit_traces_every_third_step_before_it_is_taken(tmp_path):
    """The traced loss is the step's own loss: same params, batch and masks. A resumed run has the same lines."""
    _, history = trained(tmp_path / "whole", 3)
    assert history["trace_step"] == [1, 4, 7, 10, 13]
    losses = [history["loss"][step - 1] for step in history["trace_step"]]
    assert [record["loss"] for record in history["trace"]] == pytest.approx(losses, rel=1e-12)
    trained(tmp_path / "parts", 2)
    _, resumed = trained(tmp_path / "parts", 3, resume=True)
    assert resumed["trace"] == history["trace"] and resumed["trace_step"] == history["trace_step"]
    lines = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [line["trace_step"] for line in lines if "trace" in line] == [1, 4, 7, 10, 13]
    assert hg.viz.trace(tmp_path / "parts" / "metrics.jsonl").get_title() == hg.viz.trace(history).get_title()


def test_tracing_changes_nothing(tmp_path):
    (state, history), (other, plain) = trained(tmp_path / "a", 2), trained(tmp_path / "b", 2, trace_every=None)
    assert history["loss"] == plain["loss"] and "trace" not in plain
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True))


@pytest.mark.parametrize(("wrong", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_trace_every_must_be_a_count(tmp_path, wrong, error):
    with pytest.raises(error, match="fit: trace_every must be"):
        trained(tmp_path, 1, trace_every=wrong)


def test_tracing_needs_an_objective():
    state = hg.init_train_state(hg.Dense(3), hg.sgd(0.1), jax.random.key(0), (5,))
    with pytest.raises(TypeError, match="trace_every needs a step with an objective"):
        hg.fit(state, lambda *args: args, np.ones((4, 5)), np.arange(4) % 3, batch_size=2, epochs=1, trace_every=1)

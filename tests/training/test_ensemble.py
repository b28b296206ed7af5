"""training/ensemble.py: members train as they would alone, and answer together as their formulas say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.training.ensemble import each_member

SHAPE, N = (5, 4, 2), 3
NET = hg.Chain(hg.Residual(hg.Conv(2, 3)), hg.BatchNorm(), hg.Relu(), hg.Flatten(), hg.Dropout(0.3), hg.Dense(3))
DENSE = hg.Chain(hg.Flatten(), hg.Dropout(0.3), hg.Dense(3))
LOSS = hg.SoftmaxCrossEntropy()
OPTIMIZER = hg.optimizers.chain(hg.optimizers.clip_by_global_norm(0.5), hg.momentum(0.1), hg.optimizers.ema(0.5))
KEY = jax.random.key(3)
X = np.asarray(jax.random.normal(jax.random.key(1), (6, *SHAPE)))
Y = np.array([0, 1, 2, 0, 1, 2])


def start(net, optimizer=OPTIMIZER, key=KEY, shape=SHAPE):
    return hg.init_train_state(net, optimizer, key, shape, jnp.float64)


def step_of(net, optimizer=OPTIMIZER, *, l2=0.0, donate=True, **settings):
    return hg.make_train_step(hg.Objective(net, LOSS, l2=l2), optimizer, donate=donate, **settings)


def unkeyed(train_state):
    return train_state._replace(key=jax.random.key_data(train_state.key))


def close(one, other, rtol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-14), unkeyed(one), unkeyed(other))


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, unkeyed(one), unkeyed(other))


def check_members(net, n, steps, optimizer=OPTIMIZER, rtol=1e-12, x=X, args=(), **settings):
    """Each member, trained so many steps, is the net trained alone, and trains on alone; metrics are means."""
    members = hg.ensemble(net, n)
    keys, shape = [jax.random.fold_in(KEY, m) for m in range(n)], x.shape[1:]
    together, each = start(members, optimizer, KEY, shape), [start(net, optimizer, key, shape) for key in keys]
    step, step_alone = step_of(members, optimizer, **settings), step_of(net, optimizer, **settings)
    for t in range(steps + 1):
        if t == steps:
            each = [members.member(together, m) for m in range(n)]
        together, metrics = step(together, x, Y, *args)
        told = []
        for m in range(n):
            each[m], own = step_alone(each[m], x, Y, *args)
            told.append(own)
        np.testing.assert_allclose(metrics, np.mean(told, 0), rtol=max(rtol, 1e-6))
        np.testing.assert_allclose(metrics.loss, np.mean([own.loss for own in told]), rtol=rtol)
        for m in range(n):
            close(members.member(together, m), each[m], rtol)
    return together


def test_members_train_as_they_would_alone():
    """Under momentum, clipping, an average, l2, batch norm and dropout; and differ from each other."""
    together = check_members(NET, N, 3, l2=1e-2)
    kernels = together.params["dense1"]["kernel"]
    assert kernels.shape == (N, 40, 3) and together.step == 4
    assert len({float(kernel.sum()) for kernel in kernels}) == N


def test_more_members_than_one_vmap_has_on_cpu():
    check_members(hg.Dense(3), 18, 1, hg.sgd(0.1), x=X[:, 0, 0])


def test_one_member_and_weights_and_automatic_gradients():
    check_members(DENSE, 1, 2, hg.sgd(0.1), args=(jnp.array([1.0, 2, 0, 1, 1, 1]),), value_and_grad=jax.value_and_grad)


def test_in_parts_of_the_batch():
    check_members(DENSE, 2, 2, hg.sgd(0.1), value_and_grad=hg.gradient_accumulation(3))


@pytest.mark.parametrize("net", [hg.Dense(3), hg.Chain(hg.Flatten(), hg.Lambda(lambda x: x[:, :3]))])
def test_a_net_that_is_one_leaf_or_has_no_parameters(net):
    members, x = hg.ensemble(net, 2), X if isinstance(net, hg.Chain) else X[:, 0, 0]
    optimizer = hg.momentum(0.1)
    own = hg.init_train_state(members, optimizer, KEY, x.shape[1:], jnp.float64)
    own, metrics = step_of(members, optimizer)(own, x, Y)
    assert np.isfinite(metrics.loss) and own.opt_state.step.shape == (2,)
    assert members.apply(own.params, jnp.asarray(x), own.state).shape == (6, 3)


def test_fit_resumes_bit_for_bit_and_validates_the_joint_answer(tmp_path):
    members = hg.ensemble(DENSE, 2)
    step, settings = step_of(members), {"batch_size": 3, "validation": (X, Y), "progress": False, "prefetch": 0}
    whole, history = hg.fit(start(members), step, X, Y, epochs=3, **settings)
    hg.fit(start(members), step, X, Y, epochs=1, run_dir=tmp_path, **settings)
    resumed, again = hg.fit(start(members), step, X, Y, epochs=3, run_dir=tmp_path, resume=True, **settings)
    same(whole, resumed)
    assert history["loss"] == again["loss"] and history["validation_loss"] == again["validation_loss"]
    told = hg.evaluate(members, whole.params, whole.state, X, Y, loss=LOSS)
    assert history["validation_accuracy"][-1] == told["accuracy"]
    np.testing.assert_allclose(history["validation_loss"][-1], told["loss"], rtol=1e-12)


def test_over_a_mesh():
    members, mesh = hg.ensemble(DENSE, 2), jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    plain, spread = step_of(members), hg.distributed.data_parallel(step_of(members), mesh)
    one, other = start(members), start(members)
    for _ in range(2):
        (one, metrics), (other, spread_metrics) = plain(one, X, Y), spread(other, X, Y)
        np.testing.assert_allclose(metrics, spread_metrics, rtol=1e-6)
    close(one, jax.tree.map(hg.distributed.on_host, other), rtol=1e-10)


def logits_net(logits):
    """An ensemble that answers with these logits (n, N, K) to any x, and its params."""

    class Says(hg.Layer):
        def init(self, key, in_shape, dtype=jnp.float32):
            return {"says": jnp.zeros((1,))}, {}

        def apply(self, params, x, state=()):
            return params["says"]

    return Says(), {"says": jnp.asarray(logits)}


def softmax(o):
    return np.exp(o) / np.exp(o).sum(-1, keepdims=True)


LOGITS = np.random.default_rng(0).normal(size=(4, 7, 3)) * 3


@pytest.mark.parametrize("by", ["probability", "vote", "mean"])
def test_answers_by_their_formulas(by):
    net, params = logits_net(LOGITS)
    answer = np.asarray(hg.ensemble(net, 4, by).apply(params, jnp.zeros((7, 1))))
    votes = np.stack([np.bincount(LOGITS[:, i].argmax(-1), minlength=3) for i in range(7)])
    mean = softmax(LOGITS).mean(0)
    expected = {"probability": np.log(mean), "vote": votes + mean / 2, "mean": LOGITS.mean(0)}[by]
    np.testing.assert_allclose(answer, expected, rtol=1e-12)
    if by == "vote":
        assert (np.floor(answer) == votes).all()


def test_one_column_of_logits_is_a_yes_or_no():
    logits = LOGITS[:, :, :1]
    net, params = logits_net(logits)
    yes, votes = 1 / (1 + np.exp(-logits)), (logits > 0).sum(0)
    joint, voted = (
        np.asarray(hg.ensemble(net, 4, by).apply(params, jnp.zeros((7, 1)))) for by in ("probability", "vote")
    )
    np.testing.assert_allclose(joint, np.log(yes.mean(0) / (1 - yes.mean(0))), rtol=1e-10)
    decided = np.where(votes == 2, yes.mean(0) > 0.5, votes > 2)
    assert ((voted > 0) == decided).all() and (votes == 2).any()


def test_a_tie_in_votes_goes_to_the_higher_mean_probability():
    logits = np.array([[[2.0, 1.9, 0.0]], [[0.0, 5.0, 0.0]]])
    net, params = logits_net(logits)
    assert int(hg.ensemble(net, 2, "vote").apply(params, jnp.zeros((1, 1))).argmax()) == 1
    sure = np.array([[[0.1, 0.0]], [[0.1, 0.0]], [[0.0, 50.0]]])  # two votes stand against any certainty
    net, params = logits_net(sure)
    assert int(hg.ensemble(net, 3, "vote").apply(params, jnp.zeros((1, 1))).argmax()) == 0
    assert int(hg.ensemble(net, 3).apply(params, jnp.zeros((1, 1))).argmax()) == 1


def test_the_joint_loss_is_that_of_the_mean_probability_and_at_most_the_mean_loss():
    net, params = logits_net(LOGITS)
    y = np.arange(7) % 3
    joint = hg.evaluate(hg.ensemble(net, 4), params, (), np.zeros((7, 1)), y, loss=LOSS)["loss"]
    np.testing.assert_allclose(joint, -np.log(softmax(LOGITS).mean(0)[np.arange(7), y]).mean(), rtol=1e-12)
    assert joint < -np.log(softmax(LOGITS)[:, np.arange(7), y]).mean()


@pytest.mark.parametrize("by", ["probability", "vote", "mean"])
def test_a_member_of_nan_does_not_go_unseen(by):
    net, params = logits_net(np.stack([LOGITS[0], np.full((7, 3), np.nan)]))
    assert np.isnan(np.asarray(hg.ensemble(net, 2, by).apply(params, jnp.zeros((7, 1))))).all()


def test_half_precision_counts_votes_in_float32():
    net, params = logits_net(jnp.asarray(LOGITS, jnp.bfloat16))
    assert hg.ensemble(net, 4, "vote").apply(params, jnp.zeros((7, 1))).dtype == jnp.float32


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_each_member_in_groups(at_once):
    a = np.arange(10.0).reshape(5, 2)
    y = each_member(lambda m, row: row * m.astype(float), 5, at_once)(a)
    np.testing.assert_array_equal(y, a * np.arange(5.0)[:, None])


def test_bad_input_is_named():
    with pytest.raises(TypeError, match=r"ensemble, net: wants a layer, got the class Relu"):
        hg.ensemble(hg.Relu, 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="ensemble: n must be an int, got 2.5"):
        hg.ensemble(DENSE, 2.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="ensemble: n must be an int, got True"):
        hg.ensemble(DENSE, True)
    with pytest.raises(ValueError, match="ensemble: n must be at least 1, got 0"):
        hg.ensemble(DENSE, 0)
    with pytest.raises(ValueError, match="ensemble: by must be one of probability, vote, mean, got 'median'"):
        hg.ensemble(DENSE, 2, by="median")


def test_what_wants_one_net_is_told_to_take_a_member():
    members = hg.ensemble(DENSE, 2)
    own = start(members, hg.sgd(0.1))
    for take in (hg.value_and_grad, lambda objective: objective):
        with pytest.raises(ValueError, match="Ensemble: hg.make_train_step trains its members, .* take one member"):
            take(hg.Objective(members, LOSS))(own.params, X, Y, own.state, KEY)
    with pytest.raises(IndexError, match="Ensemble: members are 0 to 1, got 2"):
        members.member(own, 2)


def test_other_numbers_of_members_do_not_load(tmp_path):
    hg.checkpoint.save(tmp_path / "two.npz", start(hg.ensemble(DENSE, 2)))
    with pytest.raises(
        ValueError, match=r"leaf 'params/dense1/bias' must be float64 \(3, 3\), the file has .*\(2, 3\)"
    ):
        hg.checkpoint.load(tmp_path / "two.npz", start(hg.ensemble(DENSE, 3)))

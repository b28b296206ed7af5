"""A step that looks at the curvature every so often is the plain step, with factors put into its state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.training.step import TrainState

LOSS = hg.SoftmaxCrossEntropy()
NET = hg.Chain(hg.Dense(4), hg.Dropout(0.3), hg.Tanh(), hg.Dense(3))
X, Y = jax.random.normal(jax.random.key(5), (6, 5)), jnp.arange(6) % 3


def start(optimizer, net=NET):
    return hg.init_train_state(net, optimizer, jax.random.key(0), (5,), jnp.float64)


def assert_same(ours, theirs):
    def same(a, b):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)

    jax.tree.map(same, ours, theirs)


def test_it_is_the_plain_step_with_factors_put_in(tmp_path):
    objective = hg.Objective(NET, LOSS, l2=0.01)
    optimizer = hg.optimizers.chain(hg.optimizers.clip_by_global_norm(1.0), hg.kfac(NET), hg.momentum(0.1))
    step = hg.make_kfac_step(objective, optimizer, every=2)
    plain, factors = hg.make_train_step(objective, optimizer, donate=False), jax.jit(hg.kfac_factors(objective))
    ours = theirs = start(optimizer)
    ours = jax.tree.map(jnp.copy, ours)  # the step takes over its buffers
    for t in range(3):
        if t % 2 == 0:
            key = jax.random.fold_in(theirs.key, t)
            opt_state = hg.kfac_update(theirs.opt_state, factors(theirs.params, X, Y, theirs.state, key))
            theirs = theirs._replace(opt_state=opt_state)
        ours, metrics = step(ours, X, Y)
        theirs, wanted = plain(theirs, X, Y)
        assert_same(metrics, wanted)
    assert_same(ours, theirs)
    assert int(ours.opt_state[1].updates) == 2
    hg.checkpoint.save(tmp_path / "a.npz", ours)
    back = hg.checkpoint.load(tmp_path / "a.npz")
    assert isinstance(back, TrainState) and jax.tree.structure(back) == jax.tree.structure(ours)
    assert_same(back, ours)


def test_inputs_of_many_sizes_take_few_steps():
    """Inputs of sizes 1 to 100: ten steps of K-FAC go where momentum does not come in a hundred. In `fit`."""
    even = jax.random.normal(jax.random.key(0), (64, 5))
    y = np.asarray(jnp.argmax(even @ jax.random.normal(jax.random.key(1), (5, 3)), 1))  # all inputs matter alike
    x = np.asarray(even * jnp.array([[1.0, 3.0, 10.0, 30.0, 100.0]]))
    net = hg.Chain(hg.Dense(3, kernel_init=hg.initializers.zeros))
    objective, losses = hg.Objective(net, LOSS), {}
    curved = hg.optimizers.chain(hg.kfac(net, 1e-4), hg.sgd(0.5))
    steps = {"kfac": (hg.make_kfac_step(objective, curved, every=3), 10),
             "momentum": (hg.make_train_step(objective, hg.momentum(3e-4)), 100)}  # fmt: skip
    for name, (step, epochs) in steps.items():
        settings = {"batch_size": 64, "epochs": epochs, "progress": False}
        losses[name] = hg.fit(start(step.optimizer, net), step, x, y, **settings)[1]["loss"]
    assert losses["kfac"][-1] < 0.5 * losses["momentum"][-1] and losses["momentum"][-1] < losses["momentum"][0]


def test_a_net_with_batch_norm_takes_the_curvature_of_its_inference():
    net = hg.Chain(hg.Dense(4), hg.BatchNorm(), hg.Relu(), hg.Dense(3))
    objective, optimizer = hg.Objective(net, LOSS), hg.optimizers.chain(hg.kfac(net), hg.sgd(0.1))
    with pytest.raises(ValueError, match="make_kfac_step: batchnorm1 is a BatchNorm in training"):
        hg.make_kfac_step(objective, optimizer)
    frozen = hg.Objective(hg.inference(net), LOSS)
    step, state = hg.make_kfac_step(objective, optimizer, samples=1, curvature=frozen), start(optimizer, net)
    before = float(objective(state.params, X, Y, state.state)[0])
    for _ in range(10):
        state, metrics = step(state, X, Y)
    assert metrics.loss < 0.7 * before and int(state.opt_state[0].updates) == 1
    assert (state.state["batchnorm1"]["mean"] != 0).any()


def test_errors():
    objective = hg.Objective(NET, LOSS)
    with pytest.raises(ValueError, match="every must be an int of at least 1, got 0"):
        hg.make_kfac_step(objective, hg.kfac(NET), every=0)
    with pytest.raises(ValueError, match="make_kfac_step: samples must be None or an int of at least 1, got 1.5"):
        hg.make_kfac_step(objective, hg.kfac(NET), samples=1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"with hg.kfac in it, got OptState"):
        hg.make_kfac_step(objective, hg.sgd(0.1))(start(hg.sgd(0.1)), X, Y)

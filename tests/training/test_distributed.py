"""A step over four devices is the step of one big batch on one."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import P
from jax.sharding import AxisType, NamedSharding

import handgrad as hg
from handgrad.training import distributed

NET = hg.Chain(
    hg.Conv(4, 3), hg.BatchNorm(), hg.Relu(), hg.MaxPool(2), hg.Flatten(), hg.Dropout(0.5), hg.Dense(3)
)  # fmt: skip
OBJECTIVE = hg.Objective(NET, hg.SoftmaxCrossEntropy(), l2=0.1)
STEP = hg.make_train_step(OBJECTIVE, hg.momentum(0.1))
RANDOM = np.random.default_rng(0)
X, Y, WEIGHTS = RANDOM.normal(size=(8, 6, 4, 2)), np.arange(8) % 3, RANDOM.uniform(size=8)


def fresh():
    return hg.init_train_state(NET, STEP.optimizer, jax.random.key(0), X.shape[1:], jnp.float64)


def trained(step, steps=20):
    train_state, losses = fresh(), []
    for _ in range(steps):
        train_state, metrics = step(train_state, X, Y, WEIGHTS)
        losses.append([float(metric) for metric in metrics])
    return train_state, losses


@pytest.fixture(scope="module")
def alone():
    return trained(STEP)


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
def test_twenty_steps_over_four_devices_are_those_of_one(alone, kind):
    """Loss, accuracy and gradient norm of each step; batch statistics, momentum and parameters after them."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
    found, losses = trained(distributed.data_parallel(STEP, mesh))
    chex.assert_trees_all_close((found[:4], losses), (alone[0][:4], alone[1]), rtol=1e-9, atol=1e-12)
    assert all(len(leaf.sharding.device_set) == 4 for leaf in jax.tree.leaves(found))


def test_the_sums_of_all_gradients_are_one_all_reduce():
    """Beside it there are two numbers: the sum of the weights, before it, and how many answers are right."""
    net = hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.Flatten(), hg.Dense(5), hg.Relu(), hg.Dense(3))
    step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), hg.sgd(0.1))
    train_state = hg.init_train_state(net, step.optimizer, jax.random.key(0), X.shape[1:], jnp.float64)
    parallel = distributed.data_parallel(step, jax.make_mesh((4,), ("data",)))
    text = parallel.lower(train_state, X, Y).compile().as_text()
    sums = re.findall(r"= (\(.*?\)|\S+) all-reduce\(", text)
    (fused,) = [size for size in sums if not re.fullmatch(r"f\d\d\[\]", size)]
    assert fused.count("f64[") == 7 and len(sums) <= 3
    assert not re.search(r" (all-gather|all-to-all|collective-permute)\(", text)


def test_a_large_dense_kernel_and_its_momentum_over_a_model_axis(monkeypatch):
    monkeypatch.setattr(distributed, "LARGE", 60)
    net = hg.Chain(hg.Flatten(), hg.Dense(6), hg.Relu(), hg.Dense(3))
    step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), hg.momentum(0.1))
    parallel = distributed.data_parallel(step, jax.make_mesh((2, 2), ("data", "model")), model_axis="model")
    states = [hg.init_train_state(net, step.optimizer, jax.random.key(0), X.shape[1:], jnp.float64) for _ in range(2)]
    for _ in range(3):
        states = [run(state, X, Y)[0] for run, state in zip((step, parallel), states, strict=True)]
    chex.assert_trees_all_close(*(state[:4] for state in states), rtol=1e-10, atol=1e-14)
    parts = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.addressable_shards[0].data.shape
             for path, leaf in jax.tree.leaves_with_path(states[1][:4])}  # fmt: skip
    spread = {name for name, shape in parts.items() if shape == (48, 3)}
    assert spread == {"1/dense1/kernel", "3/memory/velocity/dense1/kernel"}
    assert parts["1/dense2/kernel"] == (6, 3)


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
@pytest.mark.parametrize("loss", [None, hg.SoftmaxCrossEntropy(ignore_index=1)])
def test_evaluation_over_devices_is_exact(kind, loss):
    """Seven examples over four devices, in batches of three."""
    params, state = fresh()[1:3]
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
    there = jax.device_put((params, state), NamedSharding(mesh, P()))
    places = ((params, state), there)
    alone, over = (hg.evaluate(NET, p, s, X[:7], Y[:7], loss=loss, batch_size=3) for p, s in places)
    assert over == pytest.approx(alone, rel=1e-12)
    one, other = (hg.predict(NET, p, s, X[:7], batch_size=3) for p, s in places)
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_place_leaves_alone_what_lies_there():
    step = distributed.data_parallel(STEP, jax.make_mesh((4,), ("data",)))
    train_state = step.place_state(fresh())
    again, batch = step.place_state(train_state), step.place_batch(X, None)
    assert all(a is b for a, b in zip(jax.tree.leaves(train_state), jax.tree.leaves(again), strict=True))
    assert batch[1] is None and step.place_batch(*batch)[0] is batch[0]
    assert [shard.data.shape[0] for shard in batch[0].addressable_shards] == [2, 2, 2, 2]


def test_rows_that_processes_read_become_one_batch():
    """In one process its rows are all; two processes are tried in test_two_processes.py."""
    x, y = distributed.global_batch(jax.make_mesh((4,), ("data",)), X, Y)
    assert np.array_equal(x, X) and np.array_equal(y, Y) and len(x.sharding.device_set) == 4


def test_errors():
    mesh = jax.make_mesh((2, 2), ("data", "model"))
    parallel = distributed.data_parallel(STEP, mesh)
    with pytest.raises(ValueError, match=r"a batch of 7 does not divide into the 2 parts of mesh axis 'data'"):
        parallel(fresh(), X[:7], Y[:7])
    with pytest.raises(ValueError, match=r"the mesh has no axis 'batch', it has \('data', 'model'\)"):
        distributed.data_parallel(STEP, mesh, "batch")
    with pytest.raises(ValueError, match="must differ, got 'data' for both"):
        distributed.data_parallel(STEP, mesh, model_axis="data")
    with pytest.raises(TypeError, match="must be a mesh of jax.make_mesh, got int"):
        distributed.data_parallel(STEP, 4)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="wants a step from make_train_step, got function"):
        distributed.data_parallel(lambda *args: args, mesh)


def test_initialize_says_what_is_not_known(monkeypatch):
    def refuse(address, number, index, **settings):
        raise ValueError("Number of processes must be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    assert distributed.initialize() is False
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ValueError, match=r"must be defined. Not known: num_processes, process_id"):
        distributed.initialize()
    monkeypatch.setenv("JAX_PROCESS_ID", "one")
    with pytest.raises(ValueError, match="JAX_PROCESS_ID must be a number, got 'one'"):
        distributed.initialize()

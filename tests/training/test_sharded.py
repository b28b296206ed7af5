"""training/sharded.py: arrays in parts on four devices come back in parts, on other meshes too."""

import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import P
from jax.sharding import NamedSharding

import handgrad as hg
from handgrad.training import checkpoint, distributed, init_train_state, make_train_step

pytest.importorskip("orbax.checkpoint")
MESH = jax.make_mesh((2, 2), ("data", "model"))


def placed(spec, shape=(4, 6), dtype=jnp.float64, mesh=MESH):
    return jax.device_put(jnp.arange(np.prod(shape)).reshape(shape).astype(dtype), NamedSharding(mesh, spec))


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype and a.sharding.is_equivalent_to(b.sharding, a.ndim)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_a_train_state_spread_over_a_model_axis_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "LARGE", 20)
    net = hg.Chain(hg.Flatten(), hg.Dense(6), hg.BatchNorm(), hg.Dropout(0.5), hg.Dense(4))
    step = make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), hg.momentum(0.1))
    step = distributed.data_parallel(step, MESH, model_axis="model")
    x, y = np.random.default_rng(0).normal(size=(4, 3, 3, 1)), np.arange(4)
    start = init_train_state(net, step.optimizer, jax.random.key(0), x.shape[1:], jnp.float64)
    state, _ = step(start, x, y)
    assert [part.data.shape for part in state.params["dense1"]["kernel"].addressable_shards] == [(9, 3)] * 4
    checkpoint.save_sharded(tmp_path / "step_1", state)
    fresh = init_train_state(net, step.optimizer, jax.random.key(1), x.shape[1:], jnp.float64)
    loaded = checkpoint.load_sharded(tmp_path / "step_1", like=step.place_state(fresh))
    same(loaded, state)
    same(step(loaded, x, y)[0], step(state, x, y)[0])


TREE = {"kernel": placed(P("data", "model")), "half": placed(P(None, "model"), dtype=jnp.bfloat16), "none": None,
        "empty": jnp.zeros((0, 3)), "a/b": [jnp.int32(3), jnp.ones(2, bool)], "key": jax.random.key(3)}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded") / "step_7"
    checkpoint.save_sharded(folder, TREE)
    return folder


def test_each_leaf_comes_back_where_its_like_lies(saved):
    same(checkpoint.load_sharded(saved, like=TREE), TREE)
    other = jax.make_mesh((4,), ("data",))
    like = TREE | {"kernel": placed(P("data"), mesh=other), "half": jnp.zeros((4, 6), jnp.bfloat16)}
    loaded = checkpoint.load_sharded(saved, like)
    assert loaded["kernel"].sharding == like["kernel"].sharding and len(loaded["half"].sharding.device_set) == 1
    np.testing.assert_array_equal(loaded["kernel"], TREE["kernel"])


UNLIKE = {
    "step_7: leaf 'more' is missing; the checkpoint is of another net": TREE | {"more": jnp.ones(2)},
    "step_7: leaf 'kernel' is left over": {name: leaf for name, leaf in TREE.items() if name != "kernel"},
    r"step_7: leaf 'kernel' must be float64 \(6, 4\), the checkpoint has float64 \(4, 6\)": TREE
    | {"kernel": placed(P(), (6, 4))},
    r"step_7: leaf 'kernel' must be float32 \(4, 6\), the checkpoint has": TREE
    | {"kernel": placed(P(), dtype=jnp.float32)},
}


@pytest.mark.parametrize("message", UNLIKE)
def test_what_is_not_like_the_wanted_tree_is_named(saved, message):
    with pytest.raises(ValueError, match=message):
        checkpoint.load_sharded(saved, UNLIKE[message])


def test_a_folder_that_is_not_whole(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nothing"):
        checkpoint.load_sharded(tmp_path / "nothing", TREE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty is no whole checkpoint"):
        checkpoint.load_sharded(tmp_path / "empty", TREE)
    shutil.copytree(saved, tmp_path / "cut")
    for path in (tmp_path / "cut").rglob("*"):
        if path.is_file() and "d" in path.parts[-2:-1]:
            path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="cut is no whole checkpoint"):
        checkpoint.load_sharded(tmp_path / "cut", TREE)


def test_an_older_one_is_not_overwritten(saved):
    with pytest.raises(ValueError, match="step_7 exists already; give each checkpoint its own folder"):
        checkpoint.save_sharded(saved, TREE)


def test_without_orbax_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(
        ImportError, match=r"save_sharded needs Orbax, which is not installed: pip install 'handgrad\[o"
    ):
        checkpoint.save_sharded(tmp_path / "a", TREE)
    (tmp_path / "b").mkdir()
    with pytest.raises(ImportError, match=r"load_sharded needs Orbax, .* 'handgrad\[orbax\]'"):
        checkpoint.load_sharded(tmp_path / "b", TREE)

"""layers/norm.py: the running statistics, by numbers worked out on paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

PARAMS = {"scale": jnp.ones(1), "bias": jnp.zeros(1)}
STATE = {"mean": jnp.array([10.0]), "var": jnp.array([5.0])}


@pytest.mark.parametrize("run", ["forward", "apply_train"])
def test_running_statistics_keep_the_share_of_momentum_and_take_the_biased_variance(run):
    x = jnp.array([[1.0], [2.0], [6.0]])  # mean 3, biased variance 14/3
    _, state, *_ = getattr(hg.BatchNorm(momentum=0.75), run)(PARAMS, x, STATE)
    np.testing.assert_allclose(state["mean"], [0.75 * 10 + 0.25 * 3], rtol=1e-14)
    np.testing.assert_allclose(state["var"], [0.75 * 5 + 0.25 * 14 / 3], rtol=1e-14)


def test_inference_uses_the_running_statistics_and_leaves_them():
    frozen = hg.inference(hg.BatchNorm(eps=0.0))
    y, state, _ = frozen.forward(PARAMS, jnp.array([[10.0 + 5.0**0.5]]), STATE)
    np.testing.assert_allclose(y, [[1.0]], rtol=1e-14)
    assert state is STATE


def test_a_mask_in_the_state_leaves_padded_examples_out_and_comes_back():
    net = hg.Chain(hg.Dense(3), hg.BatchNorm(), hg.Relu(), hg.Dense(2))
    params, state = net.init(jax.random.key(0), (4,), jnp.float64)
    x, y = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4))), jnp.array([0, 1, 0])
    padded_x, padded_y = x.at[3:].set(7.0), jnp.array([0, 1, 0, 0, 0])
    mask = jnp.arange(5) < 3
    masked = {"batchnorm1": {**state["batchnorm1"], "mask": mask}}
    objective = hg.Objective(net, hg.SoftmaxCrossEntropy())

    def close(got, want):
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-11, atol=1e-14), got, want)

    for derive in (hg.value_and_grad(objective), jax.value_and_grad(objective, has_aux=True)):
        (want, want_aux), want_grads = jax.jit(derive)(params, x[:3], y, state)
        (loss, aux), grads = jax.jit(derive)(params, padded_x, padded_y, masked, None, mask.astype(float))
        close((loss, grads), (want, want_grads))
        close(aux.state["batchnorm1"], want_aux.state["batchnorm1"] | {"mask": mask})
    close(net.apply(params, x, masked), net.apply(params, x, state))  # inference has no need of it


def test_a_scan_carries_a_mask():
    norm = hg.BatchNorm(momentum=0.5)
    state = {**STATE, "mask": jnp.array([True, True, False])}
    x = jnp.array([[1.0], [3.0], [50.0]])
    new, _ = jax.lax.scan(lambda s, x: (norm.forward(PARAMS, x, s)[1], None), state, jnp.stack([x, x]))
    assert new["mean"].tolist() == [4.0] and new["var"].tolist() == [2.0]  # 10 and 5, halfway to 2 and 1 twice
    assert new["mask"].tolist() == [True, True, False]


def test_local_response_norm_takes_an_alpha_that_the_paper_multiplies_by_size():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8)))
    y = hg.LocalResponseNorm(alpha=5e-4, k=2.0).apply({}, x)
    near = sum((x[:, c] ** 2 for c in range(1, 6)), start=jnp.zeros(2))
    np.testing.assert_allclose(y[:, 3], x[:, 3] / (2 + 1e-4 * near) ** 0.75, rtol=1e-13)

"""layers/blocks.py and the small layers it is made of, against a twin in PyTorch and jax.grad."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import handgrad as hg
from against_torch import assert_equal, cotangent, drawn_array, first, first_cotangent, last, theirs

MISUSED: Any = hg  # for calls that the type checker would refuse


def drawn_params(layer, in_shape):
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), in_shape, jnp.float64)[0])
    random = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape)), shapes)


def twin(x, kernel1, bias1, kernel2, bias2):
    """The paper's block on (N, C, H, W) as its pictures have it: pool, two linear layers, scale."""
    squeezed = F.adaptive_avg_pool2d(x, 1).flatten(1)
    gate = torch.sigmoid(F.linear(F.relu(F.linear(squeezed, kernel1.T, bias1)), kernel2.T, bias2))
    return x * gate[:, :, None, None]


def test_squeeze_excite_is_its_twin_in_torch():
    layer, x = hg.squeeze_excite(6, ratio=2), drawn_array(0, (3, 5, 4, 6))
    params = drawn_params(layer, x.shape[1:])
    y, _, residuals = jax.jit(layer.forward)(params, x)
    dx, dparams = jax.jit(layer.backward)(params, residuals, jnp.asarray(cotangent(x.shape)))

    names = [(dense, leaf) for dense in ("dense1", "dense2") for leaf in ("kernel", "bias")]
    given = [np.asarray(params["gate"][dense][leaf]) for dense, leaf in names]
    their_y, their_dx, *their_dparams = theirs(twin, [first(x), *given], first_cotangent)
    got = [y, dx, *(dparams["gate"][dense][leaf] for dense, leaf in names)]
    assert_equal([np.asarray(a) for a in got], [last(their_y), last(their_dx), *their_dparams])


@pytest.mark.parametrize("ndim, in_shape", [(1, (5, 4)), (3, (2, 3, 2, 4))])
def test_squeeze_excite_with_other_axes_has_the_gradient_of_jax(ndim, in_shape):
    layer, x = hg.squeeze_excite(4, ratio=16, ndim=ndim), jnp.asarray(drawn_array(1, (2, *in_shape)))
    params = drawn_params(layer, in_shape)
    assert params["gate"]["dense1"]["kernel"].shape == (4, 1)

    def by_hand(params, x):
        y, _, residuals = layer.forward(params, x)
        return layer.backward(params, residuals, y**2)[::-1]

    automatic = jax.grad(lambda params, x: (layer.apply(params, x) ** 3).sum() / 3, (0, 1))
    got, want = jax.jit(lambda *point: (by_hand(*point), automatic(*point)))(params, x)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-13), got, want)


def test_squeeze_excite_in_a_chain_keeps_its_names():
    net = hg.Chain(hg.Conv(4, 3), hg.squeeze_excite(4, ratio=2, name="squeeze"), hg.Flatten(), hg.Dense(2))
    params, _ = net.init(jax.random.key(0), (3, 3, 1))
    assert sorted(params) == ["conv1", "dense1", "squeeze"]
    assert list(params["squeeze"]) == ["gate"]
    assert hg.map_layers(lambda layer: layer, net) == net


def test_a_channel_shut_by_its_gate_has_no_gradient_and_an_open_one_all():
    layer, x = hg.squeeze_excite(2, ratio=1), jnp.ones((1, 2, 2, 2))
    params = jax.tree.map(jnp.zeros_like, drawn_params(layer, (2, 2, 2)))
    params["gate"]["dense2"]["bias"] = jnp.array([-1000.0, 1000.0])
    y, _, residuals = layer.forward(params, x)
    dx, _ = layer.backward(params, residuals, 3 * x)
    assert y[0, 0, 0].tolist() == [0, 1] and dx[0, 1, 1].tolist() == [0, 3]


@pytest.mark.parametrize("join", ["add", "multiply"])
def test_a_branch_of_one_number_a_channel_meets_every_place(join):
    pooled = hg.Chain(hg.GlobalAvgPool(), hg.Reshape((1, 1, -1)))
    layer, x = hg.Parallel(hg.Identity(), pooled, join=join), jnp.asarray(drawn_array(2, (2, 3, 4, 2)))
    y, _, residuals = layer.forward({}, x)
    mean = x.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(y, x + mean if join == "add" else x * mean, rtol=1e-14)
    dx, _ = layer.backward({}, residuals, jnp.ones_like(y))
    np.testing.assert_allclose(dx, 2 * jnp.broadcast_to(jnp.ones(()) if join == "add" else mean, x.shape), rtol=1e-13)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: hg.squeeze_excite(0), ValueError, "squeeze_excite: channels must be at least 1, got 0"),
        (lambda: hg.squeeze_excite(4, 0), ValueError, "squeeze_excite: ratio must be at least 1, got 0"),
        (lambda: hg.squeeze_excite(4, ndim=0), ValueError, "squeeze_excite: ndim must be at least 1, got 0"),
        (
            lambda: hg.squeeze_excite(4).init(jax.random.key(0), (5, 5, 3)),
            ValueError,
            "equal in shape, or 1 on",
        ),
        (lambda: MISUSED.Reshape([2, 2]), TypeError, r"Reshape: shape must be a tuple of ints .* got \[2, 2\]"),
        (lambda: MISUSED.Reshape((2.0,)), TypeError, "Reshape: shape must be a tuple of ints"),
        (
            lambda: hg.Reshape((0, 2)),
            ValueError,
            r"Reshape: sizes must be at least 1, or -1 for one .* got \(0, 2",
        ),
        (lambda: hg.Reshape((-1, -1)), ValueError, r"Reshape: sizes must be .* got \(-1, -1\)"),
        (
            lambda: hg.Reshape((2, -1)).apply({}, jnp.ones((4, 3))),
            ValueError,
            r"Reshape: \(2, -1\) must hold the 3 numbers of an example of x \(4, 3\)",
        ),
        (lambda: hg.Reshape((2, 2)).apply({}, jnp.ones((4, 8))), ValueError, r"must hold the 8 numbers"),
        (lambda: hg.Reshape((1,)).apply({}, jnp.ones(())), ValueError, "x must have a batch axis, got a scalar"),
        (
            lambda: hg.Upsample().apply({}, jnp.ones((1, 2, 1))),
            ValueError,
            "upsample: give either factor or",
        ),
        (
            lambda: hg.Pad(3, mode="reflect").apply({}, jnp.ones((1, 3, 1))),
            ValueError,
            "pad: mode 'reflect' .*needs 4",
        ),
    ],
)
def test_misuse_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_reshape_takes_an_empty_batch():
    y, _, residuals = hg.Reshape((2, -1)).forward({}, jnp.zeros((0, 6)))
    assert y.shape == (0, 2, 3) and hg.Reshape((2, -1)).backward({}, residuals, y)[0].shape == (0, 6)

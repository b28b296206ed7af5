"""ops/conv_algorithms.py: each algorithm against jax.vjp of the plain convolution, and the rule that picks one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.ops import conv, conv_algorithms, conv_backward, conv_forward, vjp

CASES = {  # algorithm -> x, kernel, settings
    "product": [
        ((2, 7, 8, 6), (1, 1, 6, 5), {}),
        ((2, 7, 8, 3), (1, 1, 3, 4), {"strides": (2, 3), "padding": "VALID"}),
        ((2, 7, 3), (1, 3, 4), {"strides": 3, "padding": 0, "dilation": 2}),
    ],
    "taps": [
        ((2, 6, 5, 3), (3, 3, 1, 3), {"groups": 3}),
        ((2, 7, 8, 3), (3, 2, 1, 6), {"groups": 3, "strides": (2, 3), "dilation": (2, 1)}),
        ((2, 9, 2), (2, 1, 4), {"groups": 2, "strides": 4, "padding": ((3, 1),)}),
        ((1, 3, 4, 3, 2), (2, 3, 2, 1, 2), {"groups": 2}),
        ((2, 4, 17, 3), (4, 3, 1, 6), {"groups": 3}),  # longer rows than those of a short pass
    ],
    "groups": [
        ((2, 5, 6, 4), (3, 3, 2, 6), {"groups": 2}),
        ((2, 5, 4, 4), (3, 2, 1, 4), {"groups": 4, "strides": 2}),
        ((2, 3, 3, 96), (3, 3, 2, 48), {"groups": 48, "dilation": 2}),
    ],
    "phases": [
        ((2, 7, 8, 2), (3, 3, 2, 3), {"strides": 2}),
        ((2, 8, 9, 2), (3, 2, 2, 3), {"strides": (1, 4), "padding": ((0, 3), (2, 1))}),
        ((2, 11, 2), (2, 2, 3), {"strides": 5, "padding": 1}),
        ((1, 4, 5, 4, 4), (2, 3, 2, 2, 2), {"groups": 2, "strides": (1, 2, 3)}),
    ],
}
ALL = [pytest.param(name, *case, id=f"{name}{n}") for name, cases in CASES.items() for n, case in enumerate(cases)]


def draw(*shapes, dtype=jnp.float64):
    random = np.random.default_rng(0)
    return [jnp.asarray(random.normal(size=shape), dtype) for shape in shapes]


def assert_equal(got, want, rtol=1e-12):
    assert got.shape == want.shape and got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * float(np.abs(want).max()))


@pytest.mark.parametrize("algorithm, x_shape, kernel_shape, settings", ALL)
def test_each_algorithm_is_the_formula(algorithm, x_shape, kernel_shape, settings):
    x, kernel = draw(x_shape, kernel_shape)
    y, automatic = jax.vjp(lambda x, kernel: conv(x, kernel, **settings), x, kernel)
    (dy,) = draw(y.shape)
    dx, dkernel, _ = conv_backward(x, kernel, dy, algorithm=algorithm, **settings)
    assert_equal(dx, automatic(dy)[0])
    assert_equal(dkernel, automatic(dy)[1])
    if algorithm != "phases":
        assert_equal(conv_forward(x, kernel, algorithm=algorithm, **settings)[0], y)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_taps_keep_the_dtype_and_sum_in_float32(dtype):
    x, kernel = draw((1, 40, 2), (40, 1, 2), dtype=dtype)
    y, automatic = jax.vjp(lambda x, kernel: conv(x, kernel, groups=2), x.astype("float32"), kernel.astype("float32"))
    (dy,) = draw(y.shape, dtype=dtype)
    got = conv_forward(x, kernel, groups=2)[0], *conv_backward(x, kernel, dy, groups=2)[:2]
    for ours, formula in zip(got, (y, *automatic(dy.astype("float32"))), strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours.astype("float32"), formula, rtol=2 * float(jnp.finfo(dtype).eps), atol=1e-4)


def chosen(monkeypatch, x_shape, kernel_shape, **settings):
    """The names of the algorithms that run in forward and backward of a convolution."""
    names, x, kernel = [], *draw(x_shape, kernel_shape)
    real = conv_algorithms.Map.choose
    monkeypatch.setattr(conv_algorithms.Map, "choose", lambda *args: names.append(real(*args)) or names[-1])
    y, _ = conv_forward(x, kernel, **settings)
    conv_backward(x, kernel, jnp.ones_like(y), **settings)
    monkeypatch.undo()
    return names


def test_the_rule(monkeypatch):
    assert chosen(monkeypatch, (2, 5, 5, 3), (3, 3, 3, 2)) == ["direct"] * 3
    assert chosen(monkeypatch, (2, 5, 5, 1), (3, 3, 1, 2)) == ["direct"] * 3
    assert chosen(monkeypatch, (2, 5, 5, 3), (1, 1, 3, 2)) == ["product"] * 3
    assert chosen(monkeypatch, (2, 5, 5, 3), (1, 1, 3, 2), padding=1) == ["direct"] * 3
    assert chosen(monkeypatch, (2, 6, 3), (3, 3, 2), strides=2) == ["direct", "phases", "direct", "product", "direct"]
    assert chosen(monkeypatch, (2, 5, 40), (3, 1, 40), groups=40) == ["taps"] * 3
    assert chosen(monkeypatch, (2, 5, 80), (3, 2, 40), groups=40) == ["direct", "direct", "groups", *["direct"] * 4]
    assert chosen(monkeypatch, (2, 5, 4), (3, 2, 4), groups=2)[:2] == ["groups", "direct"]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert chosen(monkeypatch, (2, 5, 4), (3, 2, 4), groups=2) == ["direct"] * 3


@pytest.mark.parametrize(
    "op, algorithm, settings, message",
    [
        (conv_forward, "winograd", {}, "conv_forward: algorithm must be one of direct, product, taps, groups, got"),
        (conv_forward, "phases", {"strides": 2}, "conv_forward: algorithm must be one of"),
        (conv_forward, "product", {}, "cannot compute this convolution: it wants a kernel of one place"),
        (conv_forward, "taps", {}, "it wants groups of one channel each, got 4 channels in 1 groups"),
        (
            conv_backward,
            "groups",
            {},
            "conv_backward: 'groups' cannot compute this convolution: it wants more than one",
        ),
        (conv_backward, "phases", {}, r"it wants strides above 1 and no dilation, got \(1, 1\)"),
    ],
)
def test_an_algorithm_that_cannot(op, algorithm, settings, message):
    x, kernel = draw((2, 5, 5, 4), (3, 3, 4, 4))
    rest = (conv(x, kernel, **settings),) if op is conv_backward else ()
    with pytest.raises(ValueError, match=message):
        op(x, kernel, *rest, algorithm=algorithm, **settings)


def test_infinities_stay_in_their_group():
    x, kernel = draw((1, 4, 4, 4), (3, 3, 1, 4))
    y, backward = vjp("conv", x.at[..., 0].set(jnp.inf), kernel, groups=4)
    assert jnp.isfinite(y[..., 1:]).all() and jnp.isfinite(backward(jnp.ones_like(y))[1][..., 1:]).all()


def test_a_loop_that_would_be_too_long_is_not_taken(monkeypatch):
    assert chosen(monkeypatch, (1, 70, 2), (65, 1, 2), groups=2)[0] == "groups"
    assert chosen(monkeypatch, (1, 140, 1), (1, 1, 1), strides=70, padding=1)[1] == "direct"


@pytest.mark.parametrize("algorithm, x_shape, kernel_shape, settings", ALL)
def test_an_empty_batch(algorithm, x_shape, kernel_shape, settings):
    x, kernel = draw((0, *x_shape[1:]), kernel_shape)
    y = conv(x, kernel, **settings)
    dx, dkernel, _ = conv_backward(x, kernel, y, algorithm=algorithm, **settings)
    assert dx.shape == x.shape and dkernel.shape == kernel.shape and not dkernel.any()
    if algorithm != "phases":
        assert conv_forward(x, kernel, algorithm=algorithm, **settings)[0].shape == y.shape

"""Every pool against torch.nn.functional, forward and backward, on one to three axes, inputs and settings drawn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from against_torch import (
    TIERS,
    assert_equal,
    cotangent,
    drawn_array,
    first,
    first_cotangent,
    for_drawn,
    last,
    ours,
    theirs,
)
from handgrad import ops

inf, nan = np.inf, np.nan
SEED = st.integers(0, 10**6)


def torch_fn(name, ndim):
    return getattr(F, f"{name}{ndim}d")


def compare(name, x, fn, **settings):
    """Ours and torch's output and gradient, of x in our layout."""
    got, want = ours(name, [x], **settings), theirs(fn, [first(x)], first_cotangent)
    assert_equal(got, [last(a) for a in want])


@st.composite
def axes(draw, *, dilated=False, symmetric=False):
    """Sizes, window, strides, dilation and padding of one to three axes; each window has a place in the input.

    Torch takes symmetric padding up to half a window; any other is put around the input by hand.
    """
    ndim, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3)) if dilated else 1
    window = tuple(draw(st.integers(1, {1: 5, 2: 3, 3: 2}[ndim])) for _ in range(ndim))
    strides = draw(st.none() | st.tuples(*[st.integers(1, 4)] * ndim))
    padding, sizes = [], []
    for k in window:
        span = (k - 1) * dilation + 1
        low, high = (draw(st.integers(0, k // 2 if symmetric else span - 1)) for _ in range(2))
        padding.append((low, low if symmetric else high))
        fits = span if symmetric or dilation > 1 else max(span - low - high, 1)  # else wider than the input at times
        sizes.append(draw(st.integers(fits, fits + 5)))
    return tuple(sizes), {"window": window, "strides": strides, "dilation": dilation, "padding": tuple(padding)}


def padded(x, padding, fill):
    return F.pad(x, [p for pair in reversed(padding) for p in pair], value=fill)


def settings_of_torch(setting, symmetric):
    """kernel_size, stride, padding, as torch names them."""
    low = [pair[0] if symmetric else 0 for pair in setting["padding"]]
    return {"kernel_size": setting["window"], "stride": setting["strides"] or setting["window"], "padding": low}


@TIERS
def test_max_pool_with_padding_of_torch_and_ceil_mode(examples):
    def check(drawn):
        seed, (sizes, setting), ceil_mode, kind = drawn
        x = drawn_array(seed, (2, *sizes, 2), ties=kind != "normal")
        if kind == "infinite":  # whole windows of -inf, some of them in the padding
            x = np.where(x < 1, -inf, x)
        fn = partial(torch_fn("max_pool", len(sizes)), **settings_of_torch(setting, True))
        fn = partial(fn, dilation=setting["dilation"], ceil_mode=ceil_mode)
        compare("max_pool", x, fn, **setting, ceil_mode=ceil_mode)

    kinds = st.sampled_from(["normal", "tied", "infinite"])
    for_drawn(examples, st.tuples(SEED, axes(dilated=True, symmetric=True), st.booleans(), kinds), check)


@TIERS
@pytest.mark.parametrize("ties", ["first", "split"])
def test_max_pool_with_padding_by_hand(ties, examples):
    def check(drawn):
        seed, (sizes, setting) = drawn
        k, d, s = setting["window"], setting["dilation"], setting["strides"] or setting["window"]

        def torch_first(x):
            x = padded(x, setting["padding"], -inf)
            return torch_fn("max_pool", len(sizes))(x, k, s, dilation=d)

        def torch_split(x):  # amax shares evenly
            x = padded(x, setting["padding"], -inf)
            for axis in range(len(sizes)):
                x = x.unfold(axis + 2, (k[axis] - 1) * d + 1, s[axis])[..., ::d]
            return x.amax(tuple(range(-len(sizes), 0)))

        x = drawn_array(seed, (2, *sizes, 2), ties=True)
        compare("max_pool", x, torch_first if ties == "first" else torch_split, **setting, ties=ties)

    for_drawn(examples, st.tuples(SEED, axes(dilated=True)), check)


@TIERS
def test_avg_pool_with_padding_of_torch_and_ceil_mode(examples):
    def check(drawn):
        seed, (sizes, setting), ceil_mode, count_include_pad = drawn
        flags = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
        fn = partial(torch_fn("avg_pool", len(sizes)), **settings_of_torch(setting, True), **flags)
        compare("avg_pool", drawn_array(seed, (2, *sizes, 2)), fn, **setting, **flags)

    for_drawn(examples, st.tuples(SEED, axes(symmetric=True), st.booleans(), st.booleans()), check)


@TIERS
def test_avg_pool_with_padding_by_hand(examples):
    def check(drawn):
        seed, (sizes, setting), count_include_pad = drawn

        def torch_mean(x):
            pool = partial(torch_fn("avg_pool", len(sizes)), **settings_of_torch(setting, False))
            ones = torch.ones(x.shape) if not count_include_pad else None
            y = pool(padded(x, setting["padding"], 0.0))
            return y if ones is None else y / pool(padded(ones.to(x.dtype), setting["padding"], 0.0))

        x = drawn_array(seed, (2, *sizes, 2))
        compare("avg_pool", x, torch_mean, **setting, count_include_pad=count_include_pad)

    for_drawn(examples, st.tuples(SEED, axes(), st.booleans()), check)


@TIERS
@pytest.mark.parametrize("kind", ["avg", "max"])
def test_adaptive_pool(kind, examples):
    def check(drawn):
        seed, sizes, output_size, infinite = drawn
        output_size = output_size[: len(sizes)]
        x = drawn_array(seed, (2, *sizes, 2), ties=kind == "max")
        if infinite and kind == "max":
            x = np.where(x < 1, -inf, x)
        fn = partial(torch_fn(f"adaptive_{kind}_pool", len(sizes)), output_size=output_size)
        compare(f"adaptive_{kind}_pool", x, fn, output_size=output_size)

    sizes = st.lists(st.integers(1, 9), min_size=1, max_size=3)
    for_drawn(examples, st.tuples(SEED, sizes, st.tuples(*[st.integers(1, 9)] * 3), st.booleans()), check)


@TIERS
def test_global_pools(examples):
    def check(drawn):
        seed, sizes = drawn
        places = tuple(range(2, len(sizes) + 2))
        x = drawn_array(seed, (2, *sizes, 3), ties=True)
        flat = {  # our layout and torch's of y are the same: (N, C)
            ("global_avg_pool", None): lambda t: t.mean(places),
            ("global_max_pool", "first"): lambda t: t.flatten(2).max(-1).values,
            ("global_max_pool", "split"): lambda t: t.amax(places),
        }
        for (name, ties), fn in flat.items():
            y, dx = theirs(fn, [first(x)], cotangent)
            assert_equal(ours(name, [x], **({"ties": ties} if ties else {})), [y, last(dx)])

    for_drawn(examples, st.tuples(SEED, st.lists(st.integers(1, 6), min_size=1, max_size=3)), check)


def unpooled(x, winner, dy=None, **settings):
    """The output of ours and the gradient of x; the winner has none."""

    def run(x, winner):
        y, backward = ops.vjp("max_unpool", x, winner, **settings)
        return y, backward(cotangent(y.shape) if dy is None else dy)[0]

    return [np.asarray(a) for a in jax.jit(run)(x, winner)]


@TIERS
def test_max_unpool_where_windows_do_not_overlap(examples):
    def check(drawn):
        seed, (sizes, setting), apart, ceil_mode = drawn
        ndim = len(sizes)
        setting |= {"strides": tuple(k + more for k, more in zip(setting["window"], apart[:ndim], strict=True))}
        image = drawn_array(seed, (2, *sizes, 2), ties=True)
        pool = partial(torch_fn("max_pool", ndim), ceil_mode=ceil_mode, **settings_of_torch(setting, True))
        values, index = pool(torch.tensor(first(image).copy()), return_indices=True)
        y, winner = jax.jit(partial(ops.max_pool_forward, **setting, ceil_mode=ceil_mode))(image)
        assert_equal([np.asarray(y)], [last(values)])
        x, unpool = drawn_array(seed + 1, y.shape), torch_fn("max_unpool", ndim)
        fn = partial(unpool, indices=index, output_size=sizes, **settings_of_torch(setting, True))
        want = theirs(fn, [first(x)], first_cotangent)
        assert_equal(unpooled(x, winner, output_size=sizes, **setting, ceil_mode=ceil_mode), [last(a) for a in want])

    apart = st.tuples(*[st.integers(0, 2)] * 3)
    for_drawn(examples, st.tuples(SEED, axes(symmetric=True), apart, st.booleans()), check)


def test_max_unpool_sums_where_torch_keeps_one():
    image, x = np.array([1.0, 5.0, 2.0]).reshape(1, 3, 1), np.array([2.0, 3.0]).reshape(1, 2, 1)
    _, index = F.max_pool1d(torch.tensor(first(image).copy()), 2, 1, return_indices=True)
    kept = F.max_unpool1d(torch.tensor(first(x).copy()), index, (2,), (1,), output_size=[3]).ravel().tolist()
    assert kept in ([0, 2, 0], [0, 3, 0])  # whichever of its threads came last
    _, winner = ops.max_pool_forward(jnp.asarray(image), window=2, strides=1)
    assert unpooled(x, winner, output_size=3, window=2, strides=1)[0].ravel().tolist() == [0, 5, 0]


NAN = np.array([1.0, nan, 3.0, nan, 2.0]).reshape(1, 5, 1)


@pytest.mark.parametrize(
    "name, settings, fn",
    [
        ("max_pool", {"window": 5}, partial(F.max_pool1d, kernel_size=5)),
        ("max_pool", {"window": 6, "padding": 1}, partial(F.max_pool1d, kernel_size=6, padding=1)),
        ("adaptive_max_pool", {"output_size": 1}, partial(F.adaptive_max_pool1d, output_size=1)),
    ],
)
def test_a_nan_wins_in_both_and_takes_the_gradient_first_in_ours_last_in_torch(name, settings, fn):
    y, dx = ours(name, [NAN], **settings)
    torch_y, torch_dx = theirs(fn, [first(NAN)], first_cotangent)
    assert np.isnan(y).all() and np.isnan(torch_y).all()
    assert np.nonzero(dx.ravel())[0].tolist() == [1] and np.nonzero(torch_dx.ravel())[0].tolist() == [3]


@pytest.mark.parametrize("kind", ["avg", "max"])
def test_a_nan_or_an_infinity_spoils_its_own_windows_only(kind):
    x = np.arange(91.0).reshape(1, 13, 7, 1) % 10
    x[0, 4, 2], x[0, 11, 6], x[0, 8, 0] = nan, inf, -inf
    y = np.asarray(getattr(ops, f"adaptive_{kind}_pool_forward")(x, output_size=(5, 4))[0])
    want = torch_fn(f"adaptive_{kind}_pool", 2)(torch.tensor(first(x).copy()), (5, 4))
    np.testing.assert_allclose(y, last(want), rtol=1e-12)
    assert np.isnan(y).sum() == 1 and np.isfinite(y).sum() >= 16

"""The norms against torch.nn.functional, forward and backward, shapes and settings drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

import handgrad as hg
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

SEEDS = st.integers(0, 10**6)
EPS = st.sampled_from([1e-5, 1e-3, 0.5])
SPATIAL = st.lists(st.integers(1, 4), max_size=3)


def drawn(seed, shape):
    """x with an offset in each channel, scale and bias."""
    channels = shape[-1:]
    x = 2 * drawn_array(seed, shape) + drawn_array(seed + 1, channels)
    return [x, drawn_array(seed + 2, channels), drawn_array(seed + 3, channels)]


def enough(*sizes):
    """Whether a set has more than two numbers: one is always 0, two are -1 and 1, and their dx is all rounding."""
    return np.prod([np.prod(size) for size in sizes]) > 2


def compare(name, fn, arrays, **settings):
    """Our op against torch's fn of (x, scale, bias), whose x has channels behind the batch axis."""
    x, scale, bias = arrays
    y, dx, dscale, dbias = theirs(fn, [first(x), scale, bias], first_cotangent)
    assert_equal(ours(name, arrays, **settings), [last(y), last(dx), dscale, dbias])


@TIERS
def test_batch_norm(examples):
    def check(case):
        seed, n, spatial, c, eps = case
        arrays = drawn(seed, (n, *spatial, c))
        compare("batch_norm", lambda x, s, b: F.batch_norm(x, None, None, s, b, True, eps=eps), arrays, eps=eps)

    cases = st.tuples(SEEDS, st.integers(1, 5), SPATIAL, st.integers(1, 5), EPS)
    for_drawn(examples, cases.filter(lambda case: enough(case[1], case[2])), check)


@TIERS
def test_batch_norm_over_masked_examples_is_torch_s_over_the_others(examples):
    def check(case):
        seed, n, spatial, c, eps, as_weights = case
        arrays = drawn(seed, (n, *spatial, c))
        mask = np.arange(n) % 3 != 1
        dy = cotangent(arrays[0].shape) * mask.reshape(-1, *(1,) * (len(spatial) + 1))
        rule = ops.RULES["batch_norm"]

        def by_hand(x, scale, bias, mask, dy):
            y, residuals = rule.forward(x, scale, bias, mask, eps=eps)
            return y, *rule.backward(residuals, dy, eps=eps)[:3]

        y, dx, dscale, dbias = jax.jit(by_hand)(*arrays, mask.astype(float) if as_weights else mask, dy)
        want = theirs(
            lambda x, s, b: F.batch_norm(x, None, None, s, b, True, eps=eps),
            [first(arrays[0][mask]), *arrays[1:]],
            lambda _: first(dy[mask]),
        )
        got = [y[mask], dx[mask], dscale, dbias]
        assert_equal([np.asarray(g) for g in got], [last(want[0]), last(want[1]), *want[2:]])
        assert not np.asarray(dx)[~mask].any()

    cases = st.tuples(SEEDS, st.integers(4, 7), SPATIAL, st.integers(1, 4), EPS, st.booleans())
    for_drawn(examples, cases, check)


@TIERS
def test_batch_norm_in_inference(examples):
    def check(case):
        seed, n, spatial, c, eps = case
        x, scale, bias = drawn(seed, (n, *spatial, c))
        mean, var = drawn_array(seed + 4, (c,)), np.exp(drawn_array(seed + 5, (c,)))

        def by_hand(x, scale, bias, mean, var, dy):
            y, residuals = ops.batch_norm_inference_forward(x, scale, bias, mean, var, eps=eps)
            return y, *ops.batch_norm_inference_backward(residuals, scale, dy, eps=eps)

        got = [np.asarray(a) for a in jax.jit(by_hand)(x, scale, bias, mean, var, cotangent(x.shape))]
        statistics = torch.tensor(mean), torch.tensor(var)
        y, dx, dscale, dbias = theirs(
            lambda x, s, b: F.batch_norm(x, *statistics, s, b, False, eps=eps), [first(x), scale, bias], first_cotangent
        )
        assert_equal(got, [last(y), last(dx), dscale, dbias])

    for_drawn(examples, st.tuples(SEEDS, st.integers(1, 4), SPATIAL, st.integers(1, 5), EPS), check)


@TIERS
def test_running_statistics_are_torch_s_but_for_its_unbiased_variance(examples):
    def check(case):
        seed, n, spatial, c, momentum = case
        x, scale, bias = drawn(seed, (n, *spatial, c))
        mean, var = drawn_array(seed + 4, (c,)), np.exp(drawn_array(seed + 5, (c,)))
        params = {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}
        state = {"mean": jnp.asarray(mean), "var": jnp.asarray(var)}
        new = jax.jit(hg.BatchNorm(momentum=momentum).forward)(params, x, state)[1]
        t_mean, t_var = torch.tensor(mean), torch.tensor(var)
        F.batch_norm(torch.tensor(first(x)), t_mean, t_var, training=True, momentum=1 - momentum)  # theirs is the new's
        m = n * int(np.prod(spatial))
        batch_var = (np.asarray(new["var"]) - momentum * var) * m / (m - 1)  # (1 - momentum) times the unbiased one
        assert_equal([np.asarray(new["mean"]), momentum * var + batch_var], [t_mean.numpy(), t_var.numpy()])

    cases = st.tuples(SEEDS, st.integers(2, 5), SPATIAL, st.integers(1, 4), st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    for_drawn(examples, cases, check)


@TIERS
def test_layer_norm(examples):
    def check(case):
        seed, shape, eps = case
        arrays = drawn(seed, tuple(shape))
        want = theirs(lambda x, s, b: F.layer_norm(x, s.shape, s, b, eps), arrays, cotangent)
        assert_equal(ours("layer_norm", arrays, eps=eps), want)

    cases = st.tuples(SEEDS, st.lists(st.integers(1, 5), min_size=1, max_size=4), EPS)
    for_drawn(examples, cases.filter(lambda case: enough(case[1][-1])), check)


@TIERS
def test_group_norm(examples):
    def check(case):
        seed, n, spatial, groups, size, eps = case
        arrays = drawn(seed, (n, *spatial, groups * size))
        compare("group_norm", lambda x, s, b: F.group_norm(x, groups, s, b, eps), arrays, num_groups=groups, eps=eps)

    cases = st.tuples(SEEDS, st.integers(1, 3), SPATIAL, st.integers(1, 3), st.integers(1, 3), EPS)
    for_drawn(examples, cases.filter(lambda case: enough(case[2], case[4])), check)


@TIERS
def test_instance_norm(examples):
    def check(case):
        seed, n, spatial, c, eps = case
        arrays = drawn(seed, (n, *spatial, c))
        compare("instance_norm", lambda x, s, b: F.instance_norm(x, None, None, s, b, eps=eps), arrays, eps=eps)

    cases = st.tuples(SEEDS, st.integers(1, 3), SPATIAL, st.integers(1, 4), EPS)
    for_drawn(examples, cases.filter(lambda case: enough(case[2])), check)


@TIERS
def test_local_response_norm(examples):
    def check(case):
        seed, n, spatial, c, size, alpha, beta, k = case
        x = 3 * drawn_array(seed, (n, *spatial, c))
        settings = {"size": size, "alpha": alpha, "beta": beta, "k": k}
        y, dx = theirs(lambda x: F.local_response_norm(x, **settings), [first(x)], first_cotangent)
        assert_equal(ours("local_response_norm", [x], **settings), [last(y), last(dx)])

    cases = st.tuples(
        *(SEEDS, st.integers(1, 3), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 9)),
        *(st.integers(1, 9), st.sampled_from([1e-4, 0.3, 2.0]), st.sampled_from([0.5, 0.75, 1.0, 1.7])),
        st.sampled_from([0.5, 1.0, 2.0]),
    )
    for_drawn(examples, cases, check)

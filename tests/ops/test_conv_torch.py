"""ops/conv.py against torch.nn.functional: one to three axes, settings drawn, by each algorithm that can take them."""

from collections import Counter

import torch.nn.functional as F
from hypothesis import assume
from hypothesis import strategies as st

from against_torch import (
    ALGORITHMS,
    TIERS,
    assert_equal,
    by_each_algorithm,
    drawn_array,
    first,
    first_cotangent,
    for_drawn,
    kernel_from_torch,
    kernel_to_torch,
    last,
    theirs,
)

CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@st.composite
def convolutions(draw):
    """Shapes of x, kernel and perhaps bias, and settings: wide kernels, leftovers, depthwise ones with a multiplier."""
    ndim = draw(st.sampled_from([1, 2, 2, 3]))
    ones, steps = (1,) * ndim, st.tuples(*[st.integers(1, 3)] * ndim)
    groups, channels, features = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    sizes, window = draw(st.tuples(*[st.integers(1, 7)] * ndim)), draw(st.tuples(*[st.integers(1, 4)] * ndim))
    pads = draw(st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * ndim))
    dilation = draw(st.just(ones) | steps)
    kind = draw(st.sampled_from(["any", "any", "depthwise", "one place"]))
    if kind == "depthwise":
        groups, channels = draw(st.integers(2, 4)), 1
    if kind == "one place":  # what a matrix product can take
        groups, window, pads = 1, ones, ((0, 0),) * ndim
    x, kernel = (draw(st.integers(1, 3)), *sizes, groups * channels), (*window, channels, groups * features)
    settings = {"strides": draw(steps), "padding": pads, "dilation": dilation, "groups": groups}
    return [x, kernel, kernel[-1:]][: draw(st.integers(2, 3))], settings


def by_torch(arrays, settings):
    """The output and the gradients in torch, whose convolutions pad both ends alike: so x is padded first."""
    pads = [pad for pair in reversed(settings["padding"]) for pad in pair]
    of_torch = {"stride": settings["strides"], "dilation": settings["dilation"], "groups": settings["groups"]}

    def convolved(x, kernel, *bias):
        return CONVS[x.ndim - 2](F.pad(x, pads), kernel, *bias, **of_torch)

    x, kernel, *bias = arrays
    y, dx, dkernel, *dbias = theirs(convolved, [first(x), kernel_to_torch(kernel), *bias], first_cotangent)
    return [last(y), last(dx), kernel_from_torch(dkernel), *dbias]


@TIERS
def test_conv(examples):
    used = Counter()

    def check(drawn):
        shapes, settings = drawn
        axes = zip(shapes[0][1:], shapes[1], settings["dilation"], settings["padding"], strict=False)
        assume(all((k - 1) * d + 1 <= low + a + high for a, k, d, (low, high) in axes))
        arrays = [drawn_array(number, shape) for number, shape in enumerate(shapes)]
        want = by_torch(arrays, settings)
        for algorithm, got in by_each_algorithm("conv", arrays, **settings).items():
            assert_equal(got, want)
            used[algorithm] += 1

    for_drawn(examples, convolutions(), check)
    assert set(used) == {"rule", *ALGORITHMS}

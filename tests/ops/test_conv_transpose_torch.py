"""ops/conv_transpose.py against torch.nn.functional: settings drawn, by each algorithm that can take them."""

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

CONVS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@st.composite
def transposed_convolutions(draw):
    """Shapes of x, kernel and perhaps bias, and settings; output_padding up to what torch allows."""
    ndim = draw(st.sampled_from([1, 2, 2, 3]))
    ones, steps = (1,) * ndim, st.tuples(*[st.integers(1, 3)] * ndim)
    groups, channels, features = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    sizes, window = draw(st.tuples(*[st.integers(1, 5)] * ndim)), draw(st.tuples(*[st.integers(1, 4)] * ndim))
    pads = draw(st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * ndim))
    strides, dilation = draw(steps), draw(st.just(ones) | steps)
    kind = draw(st.sampled_from(["any", "symmetric", "one feature a group", "one place"]))
    if kind == "symmetric":  # what torch's own padding is
        pads = tuple((low, low) for low, _ in pads)
    if kind == "one feature a group":
        groups, features = draw(st.integers(2, 4)), 1
    if kind == "one place":  # what a matrix product can take
        groups, window, pads = 1, ones, ((0, 0),) * ndim
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilation, strict=True))
    x, kernel = (draw(st.integers(1, 3)), *sizes, groups * channels), (*window, groups * channels, features)
    settings = {"strides": strides, "padding": pads, "dilation": dilation, "groups": groups, "output_padding": extra}
    return [x, kernel, (groups * features,)][: draw(st.integers(2, 3))], settings


def by_torch(arrays, settings):
    """The output and the gradients in torch; where the two ends differ, y is cropped by a negative pad."""
    lows, highs = zip(*settings["padding"], strict=True)
    of_torch = {"stride": settings["strides"], "dilation": settings["dilation"], "groups": settings["groups"]}
    if lows == highs:
        pads, of_torch = [0, 0], of_torch | {"padding": lows, "output_padding": settings["output_padding"]}
    else:
        pairs = zip(lows, highs, settings["output_padding"], strict=True)
        pads = [pad for low, high, extra in reversed(list(pairs)) for pad in (-low, extra - high)]

    def convolved(x, kernel, *bias):
        y = F.pad(CONVS[x.ndim - 2](x, kernel, **of_torch), pads)
        return y + bias[0].reshape(-1, *(1,) * (x.ndim - 2)) if bias else y

    x, kernel, *bias = arrays
    y, dx, dkernel, *dbias = theirs(
        convolved, [first(x), kernel_to_torch(kernel.swapaxes(-1, -2)), *bias], first_cotangent
    )
    return [last(y), last(dx), kernel_from_torch(dkernel).swapaxes(-1, -2), *dbias]


@TIERS
def test_conv_transpose(examples):
    used = Counter()

    def check(drawn):
        shapes, settings = drawn
        names = ("strides", "dilation", "padding", "output_padding")
        axes = zip(shapes[0][1:], shapes[1], *(settings[name] for name in names), strict=False)
        assume(all((a - 1) * s + (k - 1) * d + 1 + m > low + high for a, k, s, d, (low, high), m in axes))
        arrays = [drawn_array(number, shape) for number, shape in enumerate(shapes)]
        want = by_torch(arrays, settings)
        for algorithm, got in by_each_algorithm("conv_transpose", arrays, **settings).items():
            assert_equal(got, want)
            used[algorithm] += 1

    for_drawn(examples, transposed_convolutions(), check)
    assert set(used) == {"rule", *ALGORITHMS}

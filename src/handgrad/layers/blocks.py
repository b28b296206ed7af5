"""Blocks of papers, put together from layers."""

from handgrad.layers.activation import Relu, Sigmoid
from handgrad.layers.affine import Dense
from handgrad.layers.branches import Parallel
from handgrad.layers.container import Chain
from handgrad.layers.pool import GlobalAvgPool
from handgrad.layers.shape import Identity, Reshape


def squeeze_excite(channels: int, ratio: int = 16, *, ndim: int = 2, name: str | None = None) -> Parallel:
    """Squeeze and excite: each channel times a gate between 0 and 1 that the whole image decides on.

    z = mean of x over all places,  s = sigmoid(W2 relu(W1 z + b1) + b2),  y[n, p, c] = x[n, p, c] s[n, c]

    The gate is copied to every place, so its gradient is the sum of dy x over all places.

    Args:
        channels: C, the channels of x.
        ratio: how many times narrower the hidden layer is, of max(C // ratio, 1) units.
        ndim: the spatial axes of x.
        name: its own name in a container.

    Returns:
        A layer of (N, A.., C) to the same, whose params are those of `gate`, a Chain with dense1 and dense2.

    Raises:
        ValueError: channels, ratio or ndim below 1.

    Source: Hu, Shen and Sun, Squeeze-and-excitation networks, 2018, section 3.

    Example:
        >>> import jax
        >>> params, _ = squeeze_excite(32, ratio=4).init(jax.random.key(0), (8, 8, 32))
        >>> params["gate"]["dense1"]["kernel"].shape, params["gate"]["dense2"]["kernel"].shape
        ((32, 8), (8, 32))
    """
    for argument, number in (("channels", channels), ("ratio", ratio), ("ndim", ndim)):
        if number < 1:
            raise ValueError(f"squeeze_excite: {argument} must be at least 1, got {number}")
    gate = Chain(
        GlobalAvgPool(),
        Dense(max(channels // ratio, 1)),
        Relu(),
        Dense(channels),
        Sigmoid(),
        Reshape((1,) * ndim + (channels,)),
        name="gate",
    )
    return Parallel(Identity(), gate, join="multiply", name=name)

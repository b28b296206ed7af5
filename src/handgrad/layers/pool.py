"""Pools: the largest or the mean value of each window. Their mathematics stands in ops/."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from handgrad.layers.op_layer import OpLayer
from handgrad.ops.spatial import Padding

Ints = int | Sequence[int]


@dataclass(frozen=True, repr=False)
class MaxPool(OpLayer):
    """The largest value of each window; its gradient goes to that place. No parameters. See `ops.max_pool`.

    Args:
        window: places a window spans, an int or one an axis.
        strides: places from one window to the next; the window itself unless given.
        padding: "VALID" (none), "SAME", an int, or (low, high) pairs; padded places never win.
        dilation: places from one element of a window to the next.
        ceil_mode: also count a last window that hangs over the end.
        ties: "first" gives the whole gradient to the first maximum, "split" shares it among equals.

    Example:
        >>> import jax.numpy as jnp
        >>> MaxPool(2).apply({}, jnp.arange(16.0).reshape(1, 4, 4, 1)).ravel().tolist()
        [5.0, 7.0, 13.0, 15.0]
    """

    kind: ClassVar[str] = "maxpool"
    op: ClassVar[str] = "max_pool"
    window: Ints
    strides: Ints | None = None
    padding: Padding = "VALID"
    dilation: Ints = 1
    ceil_mode: bool = False
    ties: Literal["first", "split"] = "first"


@dataclass(frozen=True, repr=False)
class AvgPool(OpLayer):
    """The mean of each window; its gradient is shared out evenly. No parameters. See `ops.avg_pool`.

    Args:
        window: places a window spans, an int or one an axis.
        strides: places from one window to the next; the window itself unless given.
        padding: "VALID" (none), "SAME", an int, or (low, high) pairs; of zeros.
        dilation: places from one element of a window to the next.
        ceil_mode: also count a last window that hangs over the end.
        count_include_pad: whether padded places count in the divisor.

    Example:
        >>> import jax.numpy as jnp
        >>> AvgPool(2).apply({}, jnp.arange(16.0).reshape(1, 4, 4, 1)).ravel().tolist()
        [2.5, 4.5, 10.5, 12.5]
    """

    kind: ClassVar[str] = "avgpool"
    op: ClassVar[str] = "avg_pool"
    window: Ints
    strides: Ints | None = None
    padding: Padding = "VALID"
    dilation: Ints = 1
    ceil_mode: bool = False
    count_include_pad: bool = True


@dataclass(frozen=True, repr=False)
class GlobalAvgPool(OpLayer):
    """The mean over all places, one number a channel: (N, *A, C) to (N, C). No parameters.

    Source: Lin, Chen and Yan, Network in network, 2013, section 3.2.

    Example:
        >>> import jax.numpy as jnp
        >>> GlobalAvgPool().apply({}, jnp.arange(4.0).reshape(1, 2, 2, 1)).tolist()
        [[1.5]]
    """

    kind: ClassVar[str] = "globalavgpool"
    op: ClassVar[str] = "global_avg_pool"


@dataclass(frozen=True, repr=False)
class GlobalMaxPool(OpLayer):
    """The largest value over all places, one number a channel: (N, *A, C) to (N, C). No parameters.

    Args:
        ties: "first" gives the whole gradient to the first maximum, "split" shares it among equals.

    Source: Oquab et al., CVPR 2015. See `ops.global_max_pool`.

    Example:
        >>> import jax.numpy as jnp
        >>> GlobalMaxPool().apply({}, jnp.arange(4.0).reshape(1, 2, 2, 1)).tolist()
        [[3.0]]
    """

    kind: ClassVar[str] = "globalmaxpool"
    op: ClassVar[str] = "global_max_pool"
    ties: Literal["first", "split"] = "first"


@dataclass(frozen=True, repr=False)
class AdaptiveAvgPool(OpLayer):
    """The mean of each of as many windows as are asked for, whatever the input's size. No parameters.

    Windows are PyTorch's: window p of P on an axis of A places is ⌊pA/P⌋ ≤ a < ⌈(p+1)A/P⌉. See `ops.adaptive_avg_pool`.

    Args:
        output_size: windows, an int or one an axis; there may be more of them than places.

    Source: He et al., ECCV 2014 (spatial pyramid pooling).

    Example:
        >>> import jax.numpy as jnp
        >>> AdaptiveAvgPool(2).apply({}, jnp.array([1.0, 2.0, 6.0, 4.0, 8.0]).reshape(1, 5, 1)).ravel().tolist()
        [3.0, 6.0]
    """

    kind: ClassVar[str] = "adaptiveavgpool"
    op: ClassVar[str] = "adaptive_avg_pool"
    output_size: Ints


@dataclass(frozen=True, repr=False)
class AdaptiveMaxPool(OpLayer):
    """The largest value of each of as many windows as are asked for, whatever the input's size. No parameters.

    Windows are those of `AdaptiveAvgPool`. See `ops.adaptive_max_pool`.

    Args:
        output_size: windows, an int or one an axis; there may be more of them than places.
        ties: "first" gives the whole gradient to the first maximum, "split" shares it among equals.

    Source: He et al., ECCV 2014 (spatial pyramid pooling).

    Example:
        >>> import jax.numpy as jnp
        >>> AdaptiveMaxPool(2).apply({}, jnp.array([1.0, 2.0, 6.0, 4.0, 8.0]).reshape(1, 5, 1)).ravel().tolist()
        [6.0, 8.0]
    """

    kind: ClassVar[str] = "adaptivemaxpool"
    op: ClassVar[str] = "adaptive_max_pool"
    output_size: Ints
    ties: Literal["first", "split"] = "first"

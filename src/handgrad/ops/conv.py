"""Convolution over one, two or three spatial axes: the same weights at every location.

Written for one spatial axis; with more, a, p, i, s, d and l become tuples and nothing else changes. Stride s, dilation
d, low padding l; x is 0 outside its range; channels c, features o.

Forward          y[n, p, o]  = Σ_{i, c} x[n, ps + id - l, c] W[i, c, o] + b[o]
Input gradient   dx[n, a, c] = Σ_{i, o} Σ_{p: ps + id - l = a} dy[n, p, o] W[i, c, o]
Kernel gradient  dW[i, c, o] = Σ_{n, p} x[n, ps + id - l, c] dy[n, p, o]
Bias gradient    db[o]       = Σ_{n, p} dy[n, p, o]

All three are maps of one trilinear form T(x, W, dy) = Σ x[n, ps + id - l, c] W[i, c, o] dy[n, p, o] with one factor
left out, so each is linear in the two others, and each one's derivatives are the other two.
 - dx is a convolution again. Spread dy by s - 1 zeros between its places, so that place ps holds dy[p]; then
   a + l - id runs over the kernel backwards: dx is the stride-dilated dy with W flipped in i and turned in (c, o).
   Places of x that no window reached (the stride's leftovers) get zero, through the padding at the high end.
 - dW is a convolution too: x correlated with dy, whose places lie s apart, moved by d from one i to the next; the
   batch n is summed as channels are in forward, the channels c are carried along as a batch is.
With G groups, group g maps channels c in [g C/G, (g+1) C/G) to features o in [g O/G, (g+1) O/G), each group for itself.

The three formulas stand below as XLA's convolution. Forward and backward take faster algorithms for some shapes, by the
rule in ops/conv_algorithms.py.

Shapes: x and dx (N, *A, C), kernel W and dW (*K, C/G, O), bias (O,), y and dy (N, *P, O), P as in ops/spatial.py.
Source: LeCun et al., Gradient-based learning applied to document recognition, 1998; Dumoulin and Visin, A guide to
convolution arithmetic for deep learning, 2016, chapter 4.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.ops import check
from handgrad.ops import conv_algorithms as fast
from handgrad.ops.precision import sum_rows
from handgrad.ops.spatial import Padding, Sizes, Windows, out_sizes, pad_pairs, per_axis, span, taps

Ints = int | Sequence[int]

SPATIAL = {1: "W", 2: "HW", 3: "DHW"}


def conv(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    strides: Ints = 1,
    padding: Padding = "SAME",
    dilation: Ints = 1,
    groups: int = 1,
) -> jax.Array:
    """The convolution y of x with the kernel, by the plain formula.

    Args:
        x: input (N, *A, C) with one to three spatial axes.
        kernel: W (*K, C/groups, O), of x's dtype.
        bias: b (O,), or None for none.
        strides: places from one window to the next, an int or one an axis.
        padding: "SAME" (ceil(A/strides) outputs), "VALID" (none), an int, or (low, high) pairs; of zeros.
        dilation: places from one kernel element to the next.
        groups: how many groups channels and features fall into; C of them is a depthwise convolution.

    Returns:
        y (N, *P, O), of x's dtype.

    Raises:
        ValueError: shapes or settings that do not fit, or a kernel larger than the padded input.
        TypeError: integer arrays, or arrays of different dtypes.

    Example:
        >>> x = jnp.arange(1.0, 5.0).reshape(1, 4, 1)
        >>> conv(x, jnp.array([1.0, 0.0, -1.0]).reshape(3, 1, 1), padding="VALID").ravel().tolist()
        [-2.0, -2.0]
    """
    windows = _checked(x, kernel, bias, strides, padding, dilation, groups)
    return with_bias(conv_output(x, kernel, windows, groups), bias)


def conv_forward(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    strides: Ints = 1,
    padding: Padding = "SAME",
    dilation: Ints = 1,
    groups: int = 1,
    algorithm: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The output y (N, *P, O) and the residual x (N, *A, C); the kernel is given to backward again.

    Args:
        x: as in `conv`, and so are the settings.
        kernel: as in `conv`.
        bias: as in `conv`.
        strides: as in `conv`.
        padding: as in `conv`.
        dilation: as in `conv`.
        groups: as in `conv`.
        algorithm: "direct", "product", "taps" or "groups"; None for the choice of the rule.

    Raises:
        ValueError: as in `conv`, or an algorithm that cannot take this convolution.
        TypeError: as in `conv`.

    Example:
        >>> x, kernel = jnp.arange(1.0, 5.0).reshape(1, 4, 1), jnp.array([1.0, 0.0, -1.0]).reshape(3, 1, 1)
        >>> y, residual = conv_forward(x, kernel, padding="VALID")
        >>> y.ravel().tolist(), residual is x
        ([-2.0, -2.0], True)
    """
    windows = _checked(x, kernel, bias, strides, padding, dilation, groups)
    fast.check_algorithm("conv_forward", algorithm, (OUTPUT,), windows, groups, x.shape[-1])
    return with_bias(OUTPUT(x, kernel, windows, groups, algorithm), bias), x


def conv_backward(
    x: jax.Array,
    kernel: jax.Array,
    dy: jax.Array,
    *,
    strides: Ints = 1,
    padding: Padding = "SAME",
    dilation: Ints = 1,
    groups: int = 1,
    algorithm: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of `conv`.

    Args:
        x: the residual of `conv_forward` (N, *A, C).
        kernel: W (*K, C/groups, O).
        dy: cotangent of y (N, *P, O).
        strides: as in `conv`, and likewise the rest.
        padding: see `conv`.
        dilation: see `conv`.
        groups: see `conv`.
        algorithm: "direct", "product", "taps", "groups", or "phases", which dx alone has; None for the choice of the
            rule.

    Returns:
        dx (N, *A, C), dkernel (*K, C/groups, O) and dbias (O,).

    Raises:
        ValueError: as in `conv`, or an algorithm that cannot take this convolution.
        TypeError: as in `conv`.

    Example:
        >>> x, kernel = jnp.arange(1.0, 5.0).reshape(1, 4, 1), jnp.array([1.0, 0.0, -1.0]).reshape(3, 1, 1)
        >>> dx, dkernel, dbias = conv_backward(x, kernel, jnp.array([1.0, 10.0]).reshape(1, 2, 1), padding="VALID")
        >>> dx.ravel().tolist()  # dy spread out by the kernel
        [1.0, 10.0, -1.0, -10.0]
        >>> dkernel.ravel().tolist(), dbias.tolist()  # 1·1 + 2·10 and so on; 1 + 10
        ([21.0, 32.0, 43.0], [11.0])
    """
    windows = _checked(x, kernel, None, strides, padding, dilation, groups)
    fast.check_algorithm("conv_backward", algorithm, (INPUT_GRADIENT, KERNEL_GRADIENT), windows, groups, x.shape[-1])
    dx = INPUT_GRADIENT(kernel, dy, windows, groups, algorithm)
    dkernel = KERNEL_GRADIENT(x, dy, windows, groups, algorithm)
    return dx, dkernel, sum_rows(dy)


def with_bias(y: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Y + b (O,) at every place, where there is a b."""
    return y if bias is None else y + jnp.broadcast_to(bias, y.shape)


def conv_output(x: jax.Array, kernel: jax.Array, windows: Windows, groups: int) -> jax.Array:
    """Y (N, *P, O) without bias."""
    spatial = SPATIAL[x.ndim - 2]
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=windows.strides,
        padding=windows.padding,
        rhs_dilation=windows.dilation,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        feature_group_count=groups,
    )


def conv_input_gradient(kernel: jax.Array, dy: jax.Array, windows: Windows, groups: int) -> jax.Array:
    """Dx (N, *A, C): the stride-dilated dy convolved with the flipped kernel whose channels and features are turned.

    The dilated dy has (P-1)s + 1 places. It is padded by e - 1 - l at the low end, with e = (k-1)d + 1, and at the high
    end so that A places come out; a negative pad crops.
    """
    spatial = SPATIAL[dy.ndim - 2]
    padding = [(e - 1 - low, a + low - (p - 1) * s - 1) for e, a, p, s, low in _axes(windows)]
    return lax.conv_general_dilated(
        dy,
        _turned(kernel, groups),
        window_strides=(1,) * len(padding),
        padding=padding,
        lhs_dilation=windows.strides,
        rhs_dilation=windows.dilation,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        feature_group_count=groups,
    )


def conv_kernel_gradient(x: jax.Array, dy: jax.Array, windows: Windows, groups: int) -> jax.Array:
    """DW (*K, C/G, O): x correlated with the stride-dilated dy, in steps of the kernel's dilation.

    The axes change their roles: c is the batch, n the channels that are summed. High padding is such that exactly the k
    offsets of the kernel come out; it is negative where the stride left places of x over.
    """
    spatial = SPATIAL[dy.ndim - 2]
    padding = [(low, e - a - low + (p - 1) * s) for e, a, p, s, low in _axes(windows)]
    return lax.conv_general_dilated(
        x,
        dy,
        window_strides=windows.dilation,
        padding=padding,
        rhs_dilation=windows.strides,
        dimension_numbers=(f"C{spatial}N", f"I{spatial}O", f"{spatial}NC"),
        batch_group_count=groups,
    )


OUTPUT = fast.Map(
    conv_output,
    {"product": fast.output_by_product, "taps": fast.output_by_taps, "groups": fast.by_groups},
    batch=0,
)
INPUT_GRADIENT = fast.Map(
    conv_input_gradient,
    {
        "product": fast.input_gradient_by_product,
        "taps": fast.input_gradient_by_taps,
        "groups": fast.by_groups,
        "phases": fast.input_gradient_by_phases,
    },
    batch=1,
)
KERNEL_GRADIENT = fast.Map(
    conv_kernel_gradient,
    {
        "product": fast.kernel_gradient_by_product,
        "taps": fast.kernel_gradient_by_taps,
        "groups": fast.kernel_gradient_by_groups,
    },
    batch=None,
)


def _axes(windows: Windows) -> list[Sizes]:
    """Span e, input places a, output places p, stride s and low padding l of each axis."""
    spans, lows = span(windows.window, windows.dilation), [low for low, _ in windows.padding]
    return list(zip(spans, windows.in_sizes, windows.out_sizes, windows.strides, lows, strict=True))


def _turned(kernel: jax.Array, groups: int) -> jax.Array:
    """W (*K, C/G, O) flipped along K, its channels and features exchanged within each group: (*K, O/G, C)."""
    *sizes, channels, features = kernel.shape
    grouped = kernel.reshape(*sizes, channels, groups, features // groups)
    turned = jnp.moveaxis(grouped, -1, -3)  # (*K, O/G, C/G, G)
    turned = jnp.swapaxes(turned, -1, -2).reshape(*sizes, features // groups, groups * channels)
    return jnp.flip(turned, tuple(range(len(sizes))))


def patches(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: Ints = 1,
    padding: Padding = "SAME",
    dilation: Ints = 1,
    groups: int = 1,
) -> list[jax.Array]:
    """What each element of the kernel sees: with it a convolution is a sum of dense layers, y = Σ_k patches[k] W_k.

    Args:
        x: as in `conv`, and so are the settings.
        kernel: as in `conv`; only its shape counts.
        strides: as in `conv`.
        padding: as in `conv`.
        dilation: as in `conv`.
        groups: as in `conv`.

    Returns:
        For each element k of the kernel, row by row, (N, groups, T, C/groups), T the number of windows.

    Example:
        >>> x = jnp.arange(1.0, 5.0).reshape(1, 4, 1)
        >>> [patch.ravel().tolist() for patch in patches(x, jnp.zeros((2, 1, 1)), padding="VALID")]
        [[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]
    """
    windows = _checked(x, kernel, None, strides, padding, dilation, groups)
    n, channels = x.shape[0], x.shape[-1] // groups
    return [jnp.swapaxes(tap.reshape(n, -1, groups, channels), 1, 2) for tap in taps(x, windows, 0)]


def _checked(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None,
    strides: Ints,
    padding: Padding,
    dilation: Ints,
    groups: int,
) -> Windows:
    """Where the windows lie, once everything fits."""
    check.floating("conv", x=x, kernel=kernel, bias=bias)
    ndim = x.ndim - 2
    if ndim not in SPATIAL:
        raise ValueError(f"conv: x must be (N, L, C), (N, H, W, C) or (N, D, H, W, C), got shape {x.shape}")
    if kernel.ndim != x.ndim:
        raise ValueError(f"conv: kernel must have {ndim} spatial axes as x {x.shape} has, got kernel {kernel.shape}")
    *_, channels, features = kernel.shape
    if not isinstance(groups, int) or groups < 1 or features % groups:
        raise ValueError(f"conv: groups must divide the {features} features of the kernel, got {groups!r}")
    if x.shape[-1] != channels * groups:
        raise ValueError(
            f"conv: input has {x.shape[-1]} channels, kernel expects {channels * groups}"
            f"{f' ({groups} groups of {channels})' if groups > 1 else ''}; x is {x.shape}, kernel {kernel.shape}"
        )
    if bias is not None and bias.shape != (features,):
        raise ValueError(f"conv: bias must be {(features,)} to match kernel {kernel.shape}, got {bias.shape}")
    strides, dilation = per_axis("conv", "strides", strides, ndim), per_axis("conv", "dilation", dilation, ndim)
    in_sizes, window = x.shape[1:-1], kernel.shape[:-2]
    pairs = pad_pairs("conv", padding, in_sizes, window, strides, dilation)
    return Windows(in_sizes, window, strides, dilation, pairs, out_sizes(in_sizes, window, strides, dilation, pairs))

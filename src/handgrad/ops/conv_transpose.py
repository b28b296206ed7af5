"""Transposed convolution over one to three spatial axes: each place of x is spread over a window of y.

Written for one spatial axis, as in ops/conv.py; stride s, dilation d, kernel of k places, which span e = (k-1)d + 1.

Forward          y[n, u, o]  = Σ_{i, c} Σ_{a: as + id - l = u} x[n, a, c] W[i, c, o] + b[o]
Input gradient   dx[n, a, c] = Σ_{i, o} dy[n, as + id - l, o] W[i, c, o]
Kernel gradient  dW[i, c, o] = Σ_{n, a} x[n, a, c] dy[n, as + id - l, o]
Bias gradient    db[o]       = Σ_{n, u} dy[n, u, o]

Dual: convolution. Its trilinear form Σ v[n, ps + id - l, c] W[i, c, o] z[n, p, o] has a large array v and a small z.
Here the large one is y and the small one x, so the form is the same with c and o of W exchanged, and its three maps
change their roles: y is conv's input gradient of x, dx is a plain convolution of dy, and dW is conv's kernel gradient
with x and dy exchanged. Forward and backward are those maps, by their faster algorithms. Without bias,
<conv(v, Wᵀ), x> = <v, conv_transpose(x, W)> for all v and x.

Sizes: A places of x reach (A-1)s + e places. Padding crops l of them at the low and h at the high end; output_padding
then adds m at the high end, which undoes the crop before it adds places. B = (A-1)s + e - l - h + m.
 - m is there to tell apart the inputs of a strided convolution that have the same output: m < max(s, d), as in PyTorch.
 - "VALID" crops nothing. "SAME" gives B = As + m: it crops (e-s)//2 at the low end and the rest, so the extra place of
   an odd total, at the high end; where the window is shorter than the stride (e < s) it adds s - e places at the high
   end. That is the transpose of conv's "SAME" over As places, and jax.lax.conv_transpose's "SAME".
Places that nothing reaches hold the bias alone.
With G groups, group g maps channels c in [g C/G, (g+1) C/G) to features o in [g O/G, (g+1) O/G).

Shapes: x and dx (N, *A, C), kernel W and dW (*K, C, O/G), not flipped, as PyTorch's (C, O/G, *K); bias (O,), y and dy
(N, *B, O).
Source: Zeiler, Krishnan, Taylor and Fergus, Deconvolutional networks, CVPR 2010; Dumoulin and Visin, A guide to
convolution arithmetic for deep learning, 2016, chapter 4.
"""

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.ops import check
from handgrad.ops import conv_algorithms as fast
from handgrad.ops.conv import INPUT_GRADIENT, KERNEL_GRADIENT, OUTPUT, SPATIAL, Ints, with_bias
from handgrad.ops.precision import sum_rows
from handgrad.ops.spatial import Padding, Windows, per_axis, span, taps, transposed_windows


def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    strides: Ints = 1,
    padding: Padding = "SAME",
    output_padding: Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> jax.Array:
    """The transposed convolution y of x with the kernel, by the plain formula.

    With zeros between its places, x is convolved with the flipped kernel in steps of one.

    Args:
        x: input (N, *A, C) with one to three spatial axes.
        kernel: W (*K, C, O/groups), of x's dtype; not flipped.
        bias: b (O,), or None for none.
        strides: places of y from one place of x to the next, an int or one an axis.
        padding: what is cropped: "SAME" (A*strides places come out), "VALID" (nothing), an int, or (low, high) pairs.
        output_padding: places that are added at the high end, an int or one an axis; below strides or dilation.
        dilation: places from one kernel element to the next.
        groups: how many groups channels and features fall into.

    Returns:
        y (N, *B, O), of x's dtype, B = (A-1)*strides + (K-1)*dilation + 1 - low - high + output_padding.

    Raises:
        ValueError: shapes or settings that do not fit, or padding that leaves nothing.
        TypeError: integer arrays, or arrays of different dtypes.

    Example:
        >>> x = jnp.array([1.0, 10.0]).reshape(1, 2, 1)
        >>> kernel = jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
        >>> conv_transpose(x, kernel, strides=2, padding="VALID").ravel().tolist()
        [1.0, 2.0, 13.0, 20.0, 30.0]
    """
    windows = _checked("conv_transpose", x, kernel, bias, strides, padding, output_padding, dilation, groups)
    *sizes, channels, features = kernel.shape
    by_group = kernel.reshape(*sizes, groups, channels // groups, features)
    side_by_side = jnp.moveaxis(by_group, -3, -2).reshape(*sizes, channels // groups, groups * features)
    axes = zip(
        span(windows.window, windows.dilation),
        *(windows.out_sizes, windows.in_sizes, windows.strides, windows.padding),
        strict=True,
    )
    spatial = SPATIAL[x.ndim - 2]
    y = lax.conv_general_dilated(
        x,
        jnp.flip(side_by_side, tuple(range(len(sizes)))),
        window_strides=(1,) * len(sizes),
        padding=[(e - 1 - low, b + low - (a - 1) * s - 1) for e, a, b, s, (low, _) in axes],
        lhs_dilation=windows.strides,
        rhs_dilation=windows.dilation,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        feature_group_count=groups,
    )
    return with_bias(y, bias)


def conv_transpose_forward(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    strides: Ints = 1,
    padding: Padding = "SAME",
    output_padding: Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
    algorithm: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The output y (N, *B, O) and the residual x (N, *A, C); the kernel is given to backward again.

    Args:
        x: as in `conv_transpose`, and so are the settings.
        kernel: as in `conv_transpose`.
        bias: as in `conv_transpose`.
        strides: as in `conv_transpose`.
        padding: as in `conv_transpose`.
        output_padding: as in `conv_transpose`.
        dilation: as in `conv_transpose`.
        groups: as in `conv_transpose`.
        algorithm: "direct", "product", "taps" (one feature a group), "groups" or "phases"; None for the choice of the
            rule.

    Raises:
        ValueError: as in `conv_transpose`, or an algorithm that cannot take this convolution.
        TypeError: as in `conv_transpose`.

    Example:
        >>> x, kernel = jnp.array([1.0, 10.0]).reshape(1, 2, 1), jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
        >>> y, residual = conv_transpose_forward(x, kernel, strides=2, padding="VALID")
        >>> y.ravel().tolist(), residual is x
        ([1.0, 2.0, 13.0, 20.0, 30.0], True)
    """
    op = "conv_transpose_forward"
    windows = _checked(op, x, kernel, bias, strides, padding, output_padding, dilation, groups)
    fast.check_algorithm(op, algorithm, (INPUT_GRADIENT,), windows, groups, kernel.shape[-1] * groups)
    return with_bias(INPUT_GRADIENT(_turned(kernel), x, windows, groups, algorithm), bias), x


def conv_transpose_backward(
    x: jax.Array,
    kernel: jax.Array,
    dy: jax.Array,
    *,
    strides: Ints = 1,
    padding: Padding = "SAME",
    output_padding: Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
    algorithm: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of `conv_transpose`.

    Args:
        x: the residual of `conv_transpose_forward` (N, *A, C).
        kernel: W (*K, C, O/groups).
        dy: cotangent of y (N, *B, O).
        strides: as in `conv_transpose`, and likewise the rest.
        padding: see `conv_transpose`.
        output_padding: see `conv_transpose`.
        dilation: see `conv_transpose`.
        groups: see `conv_transpose`.
        algorithm: "direct", "product", "taps" (one feature a group) or "groups"; None for the choice of the rule.

    Returns:
        dx (N, *A, C), dkernel (*K, C, O/groups) and dbias (O,).

    Raises:
        ValueError: as in `conv_transpose`, a dy that is not of y's shape, or an algorithm that cannot take this
            convolution.
        TypeError: as in `conv_transpose`.

    Example:
        >>> x, kernel = jnp.array([1.0, 10.0]).reshape(1, 2, 1), jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
        >>> dy = jnp.array([0.0, 0.0, 1.0, 0.0, 0.0]).reshape(1, 5, 1)  # of y[2] = x[0] W[2] + x[1] W[0]
        >>> dx, dkernel, dbias = conv_transpose_backward(x, kernel, dy, strides=2, padding="VALID")
        >>> dx.ravel().tolist(), dkernel.ravel().tolist(), dbias.tolist()
        ([3.0, 1.0], [10.0, 0.0, 1.0], [1.0])
    """
    op = "conv_transpose_backward"
    windows = _checked(op, x, kernel, None, strides, padding, output_padding, dilation, groups)
    features = kernel.shape[-1] * groups
    wanted = (x.shape[0], *windows.in_sizes, features)
    if dy.shape != wanted:
        raise ValueError(f"{op}: dy must have shape {wanted} for x {x.shape} and kernel {kernel.shape}, got {dy.shape}")
    fast.check_algorithm(op, algorithm, (OUTPUT, KERNEL_GRADIENT), windows, groups, features)
    dx = OUTPUT(dy, _turned(kernel), windows, groups, algorithm)
    dkernel = KERNEL_GRADIENT(dy, x, windows, groups, algorithm)
    return dx, _turned(dkernel), sum_rows(dy)


def patches(
    x: jax.Array,
    kernel: jax.Array,
    dy: jax.Array,
    *,
    strides: Ints = 1,
    padding: Padding = "SAME",
    output_padding: Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> list[jax.Array]:
    """What each element of the kernel sends each place of x to, taken from dy: dW_k = Σ_a x[a] patches[k][a].

    Args:
        x: as in `conv_transpose`, and so are the settings; only its shape counts.
        kernel: as in `conv_transpose`; only its shape counts.
        dy: cotangent of y (N, *B, O).
        strides: as in `conv_transpose`.
        padding: as in `conv_transpose`.
        output_padding: as in `conv_transpose`.
        dilation: as in `conv_transpose`.
        groups: as in `conv_transpose`.

    Returns:
        For each element k of the kernel, row by row, (N, groups, T, O/groups), T the number of places of x.

    Example:
        >>> dy = jnp.arange(1.0, 6.0).reshape(1, 5, 1)
        >>> found = patches(jnp.zeros((1, 2, 1)), jnp.zeros((3, 1, 1)), dy, strides=2, padding="VALID")
        >>> [patch.ravel().tolist() for patch in found]
        [[1.0, 3.0], [2.0, 4.0], [3.0, 5.0]]
    """
    op = "conv_transpose patches"
    windows = _checked(op, x, kernel, None, strides, padding, output_padding, dilation, groups)
    n, features = dy.shape[0], dy.shape[-1] // groups
    return [jnp.swapaxes(tap.reshape(n, -1, groups, features), 1, 2) for tap in taps(dy, windows, 0)]


def _turned(kernel: jax.Array) -> jax.Array:
    """Wᵀ (*K, O/G, C), the kernel of the convolution that is the dual, from W (*K, C, O/G), and back."""
    return jnp.swapaxes(kernel, -1, -2)


def _checked(
    op: str,
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None,
    strides: Ints,
    padding: Padding,
    output_padding: Ints,
    dilation: Ints,
    groups: int,
) -> Windows:
    """Where the windows lie in y, once everything fits."""
    check.floating(op, x=x, kernel=kernel, bias=bias)
    ndim = x.ndim - 2
    if ndim not in SPATIAL:
        raise ValueError(f"{op}: x must be (N, L, C), (N, H, W, C) or (N, D, H, W, C), got shape {x.shape}")
    if kernel.ndim != x.ndim:
        raise ValueError(f"{op}: kernel must have {ndim} spatial axes as x {x.shape} has, got kernel {kernel.shape}")
    *window, channels, features = kernel.shape
    if x.shape[-1] != channels:
        raise ValueError(
            f"{op}: input has {x.shape[-1]} channels, kernel expects {channels}; x is {x.shape}, kernel {kernel.shape}"
        )
    if not isinstance(groups, int) or groups < 1 or channels % groups:
        raise ValueError(f"{op}: groups must divide the {channels} channels of the kernel, got {groups!r}")
    if bias is not None and bias.shape != (features * groups,):
        raise ValueError(
            f"{op}: bias must be {(features * groups,)} to match kernel {kernel.shape} in {groups} groups, "
            f"got {bias.shape}"
        )
    strides, dilation = per_axis(op, "strides", strides, ndim), per_axis(op, "dilation", dilation, ndim)
    return transposed_windows(op, x.shape[1:-1], tuple(window), strides, dilation, padding, output_padding)

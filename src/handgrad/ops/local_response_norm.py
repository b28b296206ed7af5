"""Local response normalisation: each number divided by a power of the squares of its neighbours across channels.

Forward     d[i, c] = k + α/n Σ_{j in W(c)} x[i, j]²            W(c) = c - n//2 .. c + (n-1)//2, n of them
            y[i, c] = x[i, c] d[i, c]^-β
Residual    x, d
Backward    t[i, j] = dy[i, j] x[i, j] d[i, j]^(-β-1)
            dx[i, c] = dy[i, c] d[i, c]^-β - 2αβ/n x[i, c] Σ_{j: c in W(j)} t[i, j]

x[c] reaches y[c] itself, and by way of d every y[j] whose window holds c: ∂d[j]/∂x[c] = 2α/n x[c]. These are the j from
c - (n-1)//2 to c + n//2, the window turned round, which for an even n is another one. Channels beyond the ends are 0.
α is divided by n, as torch.nn.functional.local_response_norm does; the paper's α is ours over n.
Forward adds n shifted slices of one padded array, all of them plain rows of memory. And d^-0.75, the power of the
paper, is 1/(√d √√d): a general power costs twenty times as much as two roots.
At k = 0: a window of zeros gives 0 · inf, NaN.
Shapes: x, y, d, dx, dy (..., C). d and sums in float32 at least.
Source: Krizhevsky, Sutskever and Hinton 2012, section 3.3.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad.ops import check
from handgrad.ops.precision import wide
from handgrad.ops.spatial import MANY_TAPS


def local_response_norm(
    x: jax.Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> jax.Array:
    """Divide x by (k + α/n times the sum of squares over n neighbouring channels) to the power β.

    Args:
        x: (..., C), floating point.
        size: n, how many channels a window takes: n//2 below, the channel itself, (n-1)//2 above.
        alpha: α, not negative.
        beta: β, the power.
        k: what is there without neighbours, not negative.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point, or size is no int.
        ValueError: no channel, a size below 1, or a negative alpha or k.

    Example:
        >>> x = jnp.array([1.0, 2.0, 0.0, 4.0])
        >>> print(local_response_norm(x, size=2, alpha=2.0, beta=1.0, k=0.0))
        [1.   0.4  0.   0.25]
    """
    x = _checked("local_response_norm", x, size, alpha, k)
    around = _window_sum(jnp.square(wide(x)), size // 2, (size - 1) // 2)
    return (wide(x) / (k + alpha / size * around) ** beta).astype(x.dtype)


def local_response_norm_forward(
    x: jax.Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The output y (..., C), and the residuals x (..., C) and d (..., C), which is in float32 at least.

    Example:
        >>> y, (x, d) = local_response_norm_forward(jnp.array([1.0, 2.0]), size=1, alpha=1.0, beta=1.0, k=0.0)
        >>> print(y, x, d)  # y = x / d, and d = x² here
        [1.  0.5] [1. 2.] [1. 4.]
    """
    x = _checked("local_response_norm_forward", x, size, alpha, k)
    d = k + alpha / size * _shifted_sum(jnp.square(wide(x)), size // 2, (size - 1) // 2)
    return (wide(x) * _inverse_power(d, beta)).astype(x.dtype), (x, d)


def local_response_norm_backward(
    residuals: tuple[jax.Array, jax.Array],
    dy: jax.Array,
    *,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
) -> jax.Array:
    """The gradient of `local_response_norm`.

    Args:
        residuals: x and d, as `local_response_norm_forward` gave them.
        dy: the gradient of the output, (..., C).
        size: as in forward, and so are the other settings.
        alpha: as in forward.
        beta: as in forward.
        k: as in forward; d holds it already.

    Returns:
        dx, of the shape and dtype of dy.

    Example:
        >>> y, residuals = local_response_norm_forward(jnp.array([2.0, 0.0]), size=1, alpha=1.0, beta=1.0, k=0.0)
        >>> print(y[0], local_response_norm_backward(residuals, jnp.ones(2), size=1, alpha=1.0, beta=1.0, k=0.0)[0])
        0.5 -0.25
    """
    x, d = wide(residuals[0]), residuals[1]
    through = wide(dy) * _inverse_power(d, beta)
    others = _shifted_sum(through * x / d, (size - 1) // 2, size // 2)
    return (through - 2 * alpha * beta / size * x * others).astype(dy.dtype)


def _window_sum(x: jax.Array, below: int, above: int) -> jax.Array:
    """Σ of x[..., c - below] to x[..., c + above]."""
    ones = (1,) * (x.ndim - 1)
    window, pads = (*ones, below + 1 + above), [*[(0, 0) for _ in ones], (below, above)]
    return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, window, (1,) * x.ndim, pads)


def _shifted_sum(x: jax.Array, below: int, above: int) -> jax.Array:
    """`_window_sum` as a sum of slices; the barrier has x and its padding computed once, not for each slice."""
    if below + 1 + above > MANY_TAPS:
        return _window_sum(x, below, above)
    pads = [*[(0, 0, 0)] * (x.ndim - 1), (below, above, 0)]
    padded = lax.optimization_barrier(lax.pad(x, np.zeros((), x.dtype), pads))
    first, *others = (lax.slice_in_dim(padded, i, i + x.shape[-1], axis=-1) for i in range(below + 1 + above))
    return sum(others, start=first)


def _inverse_power(d: jax.Array, beta: float) -> jax.Array:
    """d^-β."""
    if isinstance(beta, float) and beta == 0.75:
        root = jnp.sqrt(d)
        return 1 / (root * jnp.sqrt(root))
    return d**-beta


def _checked(op: str, x: jax.Array, size: int, alpha: float, k: float) -> jax.Array:
    x = jnp.asarray(x)
    check.floating(op, x=x)
    if x.ndim < 1 or x.shape[-1] == 0:
        raise ValueError(f"{op}: x must be (..., channels) with at least one channel, got shape {x.shape}")
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"{op}: size must be an int, got {size!r}")
    if size < 1:
        raise ValueError(f"{op}: size must be at least 1, got {size}")
    for name, value in (("alpha", alpha), ("k", k)):
        if isinstance(value, (int, float)) and value < 0:
            raise ValueError(f"{op}: {name} must not be negative, got {value}")
    return x

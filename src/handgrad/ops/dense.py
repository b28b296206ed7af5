"""Dense (fully connected): an affine map of the last axis.

Forward     y[…, o]  = Σ_i x[…, i] W[i, o] + b[o]                y  = x W + b
Backward    dx[…, i] = Σ_o dy[…, o] W[i, o]                      dx = dy Wᵀ
            dW[i, o] = Σ_… x[…, i] dy[…, o]                      dW = xᵀ dy
            db[o]    = Σ_… dy[…, o]

The map is bilinear in x and W, so each gradient is a product with the other factor: backward needs x and W, never y.
The bias is copied to every row, so its gradient is the sum over rows: the dual of a copy is a sum.
Shapes: x and dx (..., I), kernel W (I, O), bias b (O,), y and dy (..., O).
Source: Rumelhart, Hinton and Williams, Learning representations by back-propagating errors, 1986.
"""

import jax
import jax.numpy as jnp

from handgrad.ops import check


def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """The affine map y = x W + b of the last axis.

    Args:
        x: input (..., I), with any leading axes.
        kernel: weights W (I, O), of x's dtype.
        bias: b (O,), or None for none.

    Returns:
        y (..., O), of x's dtype.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: integer arrays, or arrays of different dtypes.

    Example:
        >>> dense(jnp.array([[1.0, 2.0]]), jnp.array([[1.0], [10.0]]), jnp.array([0.5])).tolist()
        [[21.5]]
    """
    check.floating("dense", x=x, kernel=kernel, bias=bias)
    if kernel.ndim != 2:
        raise ValueError(f"dense: kernel must be (in, out), got shape {kernel.shape}")
    if x.ndim < 1 or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"dense: the last axis of x must be {kernel.shape[0]} to match kernel {kernel.shape}, got x {x.shape}; "
            f"put Flatten() before Dense() if x is an image"
        )
    if bias is not None and bias.shape != kernel.shape[1:]:
        raise ValueError(f"dense: bias must be {kernel.shape[1:]} to match kernel {kernel.shape}, got {bias.shape}")
    y = jnp.matmul(x, kernel)
    return y if bias is None else y + jnp.broadcast_to(bias, y.shape)


def dense_forward(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """The output y (..., O) and the residual x (..., I); the kernel is given to backward again.

    Example:
        >>> y, x = dense_forward(jnp.array([[1.0, 2.0]]), jnp.array([[1.0], [10.0]]))
        >>> print(y, x)
        [[21.]] [[1. 2.]]
    """
    return dense(x, kernel, bias), x


def dense_backward(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of `dense`.

    Args:
        x: the residual of `dense_forward` (..., I).
        kernel: weights W (I, O).
        dy: cotangent of y (..., O).

    Returns:
        dx (..., I), dkernel (I, O) and dbias (O,).

    Example:
        >>> x, kernel, dy = jnp.array([[1.0, 2.0]]), jnp.array([[1.0], [10.0]]), jnp.array([[3.0]])
        >>> dx, dkernel, dbias = dense_backward(x, kernel, dy)  # dy Wᵀ, xᵀ dy and dy
        >>> dx.tolist(), dkernel.tolist(), dbias.tolist()
        ([[3.0, 30.0]], [[3.0], [6.0]], [3.0])
    """
    rows = tuple(range(dy.ndim - 1))
    return jnp.matmul(dy, kernel.T), jnp.tensordot(x, dy, (rows, rows)), dy.sum(rows)

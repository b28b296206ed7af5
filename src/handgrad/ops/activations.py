"""Activations: one function of one number, applied to every element.

relu         y = max(x, 0)                      dx = dy [x > 0]               residual: the mask
leaky_relu   y = x if x > 0 else αx             dx = dy (1 if x > 0 else α)   residual: the mask
tanh         y = (eˣ - e⁻ˣ)/(eˣ + e⁻ˣ)          dx = dy (1 + y)(1 - y)        residual: y
sigmoid      y = 1/(1 + e⁻ˣ)                    dx = dy y (1 - y)             residual: y

An elementwise map has a diagonal Jacobian, so backward multiplies dy by the slope at each element. The slopes of tanh
and sigmoid follow from y alone: tanh' = 1 - tanh², written as (1 + y)(1 - y), which keeps the digits that y² loses
near 1; and σ' = e⁻ˣ/(1 + e⁻ˣ)² = σ (1 - σ).
The mask of relu is one byte an element, where y would be two to eight: a max pool after relu keeps no input that y
could share.
At 0: relu has slope 0 and leaky_relu α, as jax.nn.relu and torch.nn.functional.leaky_relu (jax.nn.leaky_relu: 1).
NaN: passes through forward. Backward treats it as a live unit, dx = dy, as jax.vjp of the plain formula does: the NaN
travels in y, and so in the loss.
Shapes: x, y, dx, dy and the residuals have one shape, any.
Source: Nair and Hinton 2010 (relu); Maas, Hannun and Ng 2013 (leaky_relu).
"""

import jax
import jax.numpy as jnp

from handgrad.ops import check


def relu(x: jax.Array) -> jax.Array:
    """The positive part of x.

    Args:
        x: any shape, floating point.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.

    Example:
        >>> print(relu(jnp.array([-1.0, 0.0, 2.0])))
        [0. 0. 2.]
    """
    check.floating("relu", x=x)
    return jnp.where(x <= 0, 0, x)


def relu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The output y and the mask of live units, both of x's shape; the mask is boolean."""
    return relu(x), ~(x <= 0)


def relu_backward(live: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient dx: dy where the unit is live, 0 elsewhere.

    Args:
        live: the mask that `relu_forward` gave.
        dy: the gradient of the output, of the mask's shape.

    Returns:
        dx, of the shape and dtype of dy.

    Example:
        >>> y, live = relu_forward(jnp.array([-1.0, 0.0, 2.0]))
        >>> print(relu_backward(live, jnp.array([5.0, 6.0, 7.0])))
        [0. 0. 7.]
    """
    return jnp.where(live, dy, 0)


def leaky_relu(x: jax.Array, *, negative_slope: float = 0.01) -> jax.Array:
    """The input where it is positive, a small multiple of it elsewhere, so that no unit is dead.

    Args:
        x: any shape, floating point.
        negative_slope: α, the slope for x <= 0.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.

    Example:
        >>> print(leaky_relu(jnp.array([-1.0, 0.0, 2.0]), negative_slope=0.25))
        [-0.25  0.    2.  ]
    """
    check.floating("leaky_relu", x=x)
    x = jnp.asarray(x)
    return jnp.where(x <= 0, jnp.asarray(negative_slope, x.dtype) * x, x)


def leaky_relu_forward(x: jax.Array, *, negative_slope: float = 0.01) -> tuple[jax.Array, jax.Array]:
    """The output y and the mask of positive units, both of x's shape; the mask is boolean."""
    return leaky_relu(x, negative_slope=negative_slope), ~(x <= 0)


def leaky_relu_backward(live: jax.Array, dy: jax.Array, *, negative_slope: float = 0.01) -> jax.Array:
    """The gradient dx, of the shape and dtype of dy: dy where the unit is positive, α dy elsewhere."""
    dy = jnp.asarray(dy)
    return jnp.where(live, dy, jnp.asarray(negative_slope, dy.dtype) * dy)


def tanh(x: jax.Array) -> jax.Array:
    """The hyperbolic tangent, between -1 and 1.

    Args:
        x: any shape, floating point.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.

    Example:
        >>> print(tanh(jnp.array([-jnp.inf, 0.0, jnp.inf])))
        [-1.  0.  1.]
    """
    check.floating("tanh", x=x)
    return jnp.tanh(x)


def tanh_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The output y, and y again as the residual."""
    y = tanh(x)
    return y, y


def tanh_backward(y: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient dx = dy (1 + y)(1 - y), of the shape and dtype of dy."""
    return dy * (1 + y) * (1 - y)


def sigmoid(x: jax.Array) -> jax.Array:
    """The logistic function, between 0 and 1.

    Args:
        x: any shape, floating point.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.

    Example:
        >>> print(sigmoid(jnp.array([-jnp.inf, 0.0, jnp.inf])))
        [0.  0.5 1. ]
    """
    check.floating("sigmoid", x=x)
    return jax.nn.sigmoid(x)


def sigmoid_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The output y, and y again as the residual."""
    y = sigmoid(x)
    return y, y


def sigmoid_backward(y: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient dx = dy y (1 - y), of the shape and dtype of dy."""
    return dy * y * (1 - y)

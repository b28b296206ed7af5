"""Activations in pieces: one function of one number, straight or bent between its kinks, applied to every element.

relu          y = max(x, 0)                        dx = dy [x > 0]                  residual: the mask
leaky_relu    y = x if x > 0 else αx               dx = dy (1 if x > 0 else α)      residual: the mask
relu6         y = min(max(x, 0), 6)                dx = dy [0 < x < 6]              residual: the mask
hard_sigmoid  y = min(max(αx + β, 0), 1)           dx = dy α [0 < αx + β < 1]       residual: the mask
hardswish     y = x hard_sigmoid(x), α 1/6, β 1/2  dx = dy (2x + 3)/6 inside ±3     residual: x
              that is 0, x (x + 3)/6, x            and 0 before, dy behind

An elementwise map has a diagonal Jacobian, so backward multiplies dy by the slope at each element. Where the slope is
one of two numbers, the residual is a mask of one byte an element, where y would be two to eight: a max pool after relu
keeps no input that y could share.
At a kink the slope is that of the outer piece: 0 for relu at 0, relu6 at 0 and 6 and hard_sigmoid at both ends; α for
leaky_relu; 0 and 1 for hardswish at -3 and 3. So in jax.nn.relu and torch.nn.functional's leaky_relu, relu6,
hardsigmoid and hardswish (jax.nn differs: 1 for leaky_relu, the mean of both sides for the last three).
NaN: passes through forward. Backward treats it as a live unit, inside the kinks, as jax.vjp of the plain formula does:
the NaN travels in y, and so in the loss.
±inf: hardswish gives 0 at -inf (torch: NaN) and inf at inf, with the slopes 0 and 1.
Shapes: x, y, dx, dy and the residuals have one shape, any.
Source: Nair and Hinton 2010 (relu); Maas, Hannun and Ng 2013 (leaky_relu); Howard et al. 2017 (relu6); Courbariaux,
Bengio and David 2015 (hard_sigmoid); Howard et al. 2019 (hardswish).
"""

import jax
import jax.numpy as jnp

from handgrad.ops import check
from handgrad.ops.precision import wide


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
    """The output y and the mask of live units, both of x's shape; the mask is boolean.

    Example:
        >>> y, live = relu_forward(jnp.array([-1.0, 0.0, 2.0]))
        >>> print(y, live)
        [0. 0. 2.] [False False  True]
    """
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
    """The output y and the mask of positive units, both of x's shape; the mask is boolean.

    Example:
        >>> y, live = leaky_relu_forward(jnp.array([-1.0, 0.0, 2.0]), negative_slope=0.25)
        >>> print(y, live)
        [-0.25  0.    2.  ] [False False  True]
    """
    return leaky_relu(x, negative_slope=negative_slope), ~(x <= 0)


def leaky_relu_backward(live: jax.Array, dy: jax.Array, *, negative_slope: float = 0.01) -> jax.Array:
    """The gradient dx, of the shape and dtype of dy: dy where the unit is positive, α dy elsewhere.

    Args:
        live: the mask that `leaky_relu_forward` gave.
        dy: the gradient of the output, of the mask's shape.
        negative_slope: α, as in forward.

    Example:
        >>> _, live = leaky_relu_forward(jnp.array([-1.0, 0.0, 2.0]), negative_slope=0.25)
        >>> print(leaky_relu_backward(live, jnp.ones(3), negative_slope=0.25))
        [0.25 0.25 1.  ]
    """
    dy = jnp.asarray(dy)
    return jnp.where(live, dy, jnp.asarray(negative_slope, dy.dtype) * dy)


def relu6(x: jax.Array) -> jax.Array:
    """The input held between 0 and 6, so that low precision has few digits before the point.

    Args:
        x: any shape, floating point.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.

    Example:
        >>> print(relu6(jnp.array([-1.0, 2.0, 7.0])))
        [0. 2. 6.]
    """
    check.floating("relu6", x=x)
    return jnp.where(x <= 0, 0, jnp.where(x >= 6, 6, x))


def relu6_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The output y and the mask of units between 0 and 6, both of x's shape; the mask is boolean.

    Example:
        >>> y, live = relu6_forward(jnp.array([-1.0, 2.0, 7.0]))
        >>> print(y, live)
        [0. 2. 6.] [False  True False]
    """
    return relu6(x), ~((x <= 0) | (x >= 6))


def relu6_backward(live: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient dx, of the shape and dtype of dy: dy where the unit is between 0 and 6, 0 elsewhere.

    Args:
        live: the mask that `relu6_forward` gave.
        dy: the gradient of the output, of the mask's shape.

    Example:
        >>> _, live = relu6_forward(jnp.array([0.0, 2.0, 6.0]))
        >>> print(relu6_backward(live, jnp.array([5.0, 5.0, 5.0])))  # at both kinks the slope is 0
        [0. 5. 0.]
    """
    return jnp.where(live, dy, 0)


def hard_sigmoid(x: jax.Array, *, alpha: float = 1 / 6, beta: float = 0.5) -> jax.Array:
    """A sigmoid of three straight pieces: αx + β, held between 0 and 1.

    Args:
        x: any shape, floating point.
        alpha: α, the slope of the middle piece, above 0. 1/6 is MobileNet's and PyTorch's; ONNX has 0.2.
        beta: β, the value at 0.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.
        ValueError: alpha is not above 0.

    Example:
        >>> print(hard_sigmoid(jnp.array([-4.0, 0.0, 1.5, 3.0])))
        [0.   0.5  0.75 1.  ]
    """
    x, below, above = _hard_sigmoid_pieces(x, alpha, beta)
    line = jnp.asarray(alpha, wide(x).dtype) * wide(x) + jnp.asarray(beta, wide(x).dtype)
    return jnp.where(below, 0, jnp.where(above, 1, line)).astype(x.dtype)


def hard_sigmoid_forward(x: jax.Array, *, alpha: float = 1 / 6, beta: float = 0.5) -> tuple[jax.Array, jax.Array]:
    """The output y and the mask of units on the middle piece, both of x's shape; the mask is boolean.

    Example:
        >>> y, live = hard_sigmoid_forward(jnp.array([-4.0, 0.0, 3.0]))
        >>> print(y, live)
        [0.  0.5 1. ] [False  True False]
    """
    _, below, above = _hard_sigmoid_pieces(x, alpha, beta)
    return hard_sigmoid(x, alpha=alpha, beta=beta), ~(below | above)


def hard_sigmoid_backward(live: jax.Array, dy: jax.Array, *, alpha: float = 1 / 6, beta: float = 0.5) -> jax.Array:
    """The gradient dx, of the shape and dtype of dy: α dy on the middle piece, 0 elsewhere.

    Args:
        live: the mask that `hard_sigmoid_forward` gave.
        dy: the gradient of the output, of the mask's shape.
        alpha: α, as in forward.
        beta: as in forward; the mask holds it already.

    Example:
        >>> _, live = hard_sigmoid_forward(jnp.array([-4.0, 0.0, 3.0]), alpha=0.25)
        >>> print(hard_sigmoid_backward(live, jnp.ones(3), alpha=0.25))
        [0.   0.25 0.  ]
    """
    dy = jnp.asarray(dy)
    return jnp.where(live, (jnp.asarray(alpha, wide(dy).dtype) * wide(dy)).astype(dy.dtype), 0)


def hardswish(x: jax.Array) -> jax.Array:
    """The input times its hard sigmoid: 0 up to -3, x from 3 on, a parabola between.

    Args:
        x: any shape, floating point.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.

    Example:
        >>> print(hardswish(jnp.array([-4.0, -1.5, 0.0, 3.0])))
        [ 0.    -0.375  0.     3.   ]
    """
    check.floating("hardswish", x=x)
    x = jnp.asarray(x)
    bent = wide(jnp.where((x <= -3) | (x >= 3), 0, x))  # the square of a far x would overflow, and 0 · inf be NaN
    return jnp.where(x <= -3, 0, jnp.where(x >= 3, wide(x), bent * (bent + 3) / 6)).astype(x.dtype)


def hardswish_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The output y, and x as the residual: two x have one y.

    Example:
        >>> y, x = hardswish_forward(jnp.array([-2.0, -1.0, 4.0]))
        >>> print(y.round(3), x)  # -2 and -1 have one y
        [-0.333 -0.333  4.   ] [-2. -1.  4.]
    """
    return hardswish(x), x


def hardswish_backward(x: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient dx, of the shape and dtype of dy: 0 up to -3, dy from 3 on, dy (2x + 3)/6 between.

    Args:
        x: the residual that `hardswish_forward` gave.
        dy: the gradient of the output, of x's shape.

    Example:
        >>> print(hardswish_backward(jnp.array([-4.0, -1.5, 0.0, 3.0]), jnp.ones(4)))  # y is least at -1.5
        [0.  0.  0.5 1. ]
    """
    far = wide(dy)
    return jnp.where(x <= -3, 0, jnp.where(x >= 3, far, far * (2 * wide(x) + 3) / 6)).astype(dy.dtype)


def _hard_sigmoid_pieces(x: jax.Array, alpha: float, beta: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """X as an array, where y is 0, and where it is 1.

    Told from x and not from αx + β, whose rounding would move the kinks.
    """
    check.floating("hard_sigmoid", x=x)
    if isinstance(alpha, (int, float)) and not alpha > 0:
        raise ValueError(f"hard_sigmoid: alpha, the slope, must be above 0, got {alpha}")
    x = jnp.asarray(x)
    low, high = (jnp.asarray(edge, wide(x).dtype) for edge in (-beta / alpha, (1 - beta) / alpha))
    return x, wide(x) <= low, wide(x) >= high

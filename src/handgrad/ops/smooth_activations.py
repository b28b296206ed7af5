"""Smooth activations: one function of one number, made of exponentials, applied to every element.

tanh      y = (eˣ - e⁻ˣ)/(eˣ + e⁻ˣ)          dx = dy (1 + y)(1 - y)                residual: y
sigmoid   y = σ(x) = 1/(1 + e⁻ˣ)             dx = dy y (1 - y)                     residual: y
softplus  y = log(1 + eˣ)                    dx = dy (1 - e⁻ʸ)                     residual: y
elu       y = x if x > 0 else α (eˣ - 1)     dx = dy (1 if y > 0 else y + α)       residual: y
selu      y = λ elu(x), with SELU's α        dx = dy (λ if y > 0 else y + λα)      residual: y
silu      y = x σ(x)                         dx = dy σ (1 + x (1 - σ))             residual: x
gelu      y = x Φ(x)                         dx = dy (Φ + x φ)                     residual: x
          or, approximate, y = x σ(2u)       dx = dy s (1 + x (1 - s) 2u'), s = σ(2u)
          Φ(x) = ½ erfc(-x/√2), φ = e^(-x²/2)/√(2π), u = √(2/π) (x + 0.044715 x³), u' = √(2/π) (1 + 0.134145 x²)

Backward multiplies dy by the slope. Five slopes follow from y alone, which the next layer often keeps anyway:
tanh' = 1 - tanh², written as (1 + y)(1 - y), which keeps the digits that y² loses near 1;
σ' = e⁻ˣ/(1 + e⁻ˣ)² = σ (1 - σ); softplus' = σ(x) = 1 - 1/(1 + eˣ) = 1 - e⁻ʸ, by expm1; (α (eˣ - 1))' = α eˣ = y + α.
silu and gelu fall and rise again, so two x have one y: they keep x. The usual ½ (1 + tanh u) is σ(2u), which keeps its
digits where it is small.
Near 0 and far out: elu by expm1, softplus as max(x, 0) + log1p(e^-|x|), so no digits are lost and nothing overflows.
A slope taken from y is right to the rounding of y: where y is within it of -1 (tanh), 1 or -α, the slope is 0.
At 0: elu has the slope α and selu λα, as jax.nn and torch have: with α ≠ 1 it is a kink, and 0 lies on the left of it.
±inf: y is the limit, and so is the slope: elu(-inf) = -α, softplus(-inf) = silu(-inf) = gelu(-inf) = 0 with slope 0 (in
jax.nn and torch the last two are NaN), and inf at inf with slope 1 (λ).
NaN: passes through forward, and through backward too, but for elu and selu, where it is a live unit with slope 1 (λ).
Shapes: x, y, dx, dy and the residuals have one shape, any. bfloat16 and float16 are computed in float32.
Source: Clevert, Unterthiner and Hochreiter 2016 (elu); Klambauer, Unterthiner, Mayr and Hochreiter 2017 (selu);
Hendrycks and Gimpel 2016 (gelu, silu); Ramachandran, Zoph and Le 2017 (silu as swish); Dugas et al. 2001 (softplus).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.ops import check
from handgrad.ops.activations import relu
from handgrad.ops.precision import wide

SELU_SCALE = 1.0507009873554804934193349852946
"""λ of selu; with its α, activations of mean 0 and variance 1 stay so from layer to layer."""
SELU_ALPHA = 1.6732632423543772848170429916717
"""α of selu."""
FAR = 1000.0
"""Beyond this, σ, Φ and σ(2u) are 0 or 1 in every dtype, to the left and to the right."""


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
    """The output y, and y again as the residual.

    Example:
        >>> print(*tanh_forward(jnp.array([-jnp.inf, 0.0, jnp.inf])))
        [-1.  0.  1.] [-1.  0.  1.]
    """
    y = tanh(x)
    return y, y


def tanh_backward(y: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient dx = dy (1 + y)(1 - y), of the shape and dtype of dy.

    Example:
        >>> print(tanh_backward(jnp.array([-1.0, 0.0, 0.5]), jnp.ones(3)))
        [0.   1.   0.75]
    """
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
    """The output y, and y again as the residual.

    Example:
        >>> print(*sigmoid_forward(jnp.array([-jnp.inf, 0.0, jnp.inf])))
        [0.  0.5 1. ] [0.  0.5 1. ]
    """
    y = sigmoid(x)
    return y, y


def sigmoid_backward(y: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient dx = dy y (1 - y), of the shape and dtype of dy.

    Example:
        >>> print(sigmoid_backward(jnp.array([0.0, 0.5, 1.0]), jnp.ones(3)))
        [0.   0.25 0.  ]
    """
    return dy * y * (1 - y)


def softplus(x: jax.Array) -> jax.Array:
    """A smooth relu, log(1 + eˣ): above 0 everywhere, close to x where x is large.

    Args:
        x: any shape, floating point.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.

    Example:
        >>> [round(y, 4) for y in softplus(jnp.array([-jnp.inf, 0.0, 1000.0])).tolist()]
        [0.0, 0.6931, 1000.0]
    """
    check.floating("softplus", x=x)
    x = jnp.asarray(x)
    return jax.nn.softplus(wide(x)).astype(x.dtype)


def softplus_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The output y, and y again as the residual.

    Example:
        >>> print(*softplus_forward(jnp.array([-jnp.inf, 1000.0])))
        [   0. 1000.] [   0. 1000.]
    """
    y = softplus(x)
    return y, y


def softplus_backward(y: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient dx = dy (1 - e⁻ʸ), of the shape and dtype of dy.

    Example:
        >>> print(softplus_backward(jnp.array([0.0, math.log(2), math.log(4)]), jnp.ones(3)).round(4))
        [0.   0.5  0.75]
    """
    return (wide(dy) * -jnp.expm1(-wide(y))).astype(dy.dtype)


def elu(x: jax.Array, *, alpha: float = 1.0) -> jax.Array:
    """The input where it is positive, elsewhere an exponential that levels off at -α.

    Args:
        x: any shape, floating point.
        alpha: α, at least 0, where the left side levels off; 1 makes the slope continuous.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.
        ValueError: alpha is negative.

    Example:
        >>> print(elu(jnp.array([-jnp.inf, 0.0, 2.0]), alpha=0.5))
        [-0.5  0.   2. ]
    """
    check.floating("elu", x=x)
    if isinstance(alpha, (int, float)) and not alpha >= 0:
        raise ValueError(f"elu: alpha must not be negative, got {alpha}")
    return _elu(x, 1.0, alpha)


def elu_forward(x: jax.Array, *, alpha: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """The output y, and y again as the residual.

    Example:
        >>> print(*elu_forward(jnp.array([-jnp.inf, 0.0, 2.0]), alpha=0.5))
        [-0.5  0.   2. ] [-0.5  0.   2. ]
    """
    y = elu(x, alpha=alpha)
    return y, y


def elu_backward(y: jax.Array, dy: jax.Array, *, alpha: float = 1.0) -> jax.Array:
    """The gradient dx, of the shape and dtype of dy: dy where y is positive, dy (y + α) elsewhere.

    Example:
        >>> print(elu_backward(jnp.array([-0.5, -0.25, 2.0]), jnp.ones(3), alpha=0.5))
        [0.   0.25 1.  ]
    """
    return _elu_backward(y, dy, 1.0, alpha)


def selu(x: jax.Array) -> jax.Array:
    """The elu that normalises itself: λ x where x is positive, λα (eˣ - 1) elsewhere, with fixed λ and α.

    Args:
        x: any shape, floating point.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.

    Example:
        >>> [round(y, 4) for y in selu(jnp.array([-jnp.inf, 0.0, 1.0])).tolist()]
        [-1.7581, 0.0, 1.0507]
    """
    check.floating("selu", x=x)
    return _elu(x, SELU_SCALE, SELU_ALPHA)


def selu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The output y, and y again as the residual.

    Example:
        >>> [round(float(array), 4) for array in selu_forward(jnp.array(1.0))]
        [1.0507, 1.0507]
    """
    y = selu(x)
    return y, y


def selu_backward(y: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient dx, of the shape and dtype of dy: λ dy where y is positive, dy (y + λα) elsewhere.

    Example:
        >>> print(selu_backward(jnp.array([-1.0, 1.0]), jnp.ones(2)).round(4))
        [0.7581 1.0507]
    """
    return _elu_backward(y, dy, SELU_SCALE, SELU_ALPHA)


def silu(x: jax.Array) -> jax.Array:
    """The input times its sigmoid, also called swish: 0 far to the left, x far to the right, a dip between.

    Args:
        x: any shape, floating point.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point.

    Example:
        >>> [round(y, 4) for y in silu(jnp.array([-jnp.inf, -1.0, 0.0, 1.0])).tolist()]
        [0.0, -0.2689, 0.0, 0.7311]
    """
    check.floating("silu", x=x)
    return _gated(x, jax.nn.sigmoid)


def silu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The output y, and x as the residual: two x have one y.

    Example:
        >>> [round(float(array), 4) for array in silu_forward(jnp.array(-1.0))]
        [-0.2689, -1.0]
    """
    return silu(x), x


def silu_backward(x: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient dx = dy σ (1 + x (1 - σ)), of the shape and dtype of dy.

    Example:
        >>> print(silu_backward(jnp.array([-jnp.inf, 0.0, jnp.inf]), jnp.ones(3)))
        [0.  0.5 1. ]
    """

    def slope(x: jax.Array) -> jax.Array:
        gate = jax.nn.sigmoid(x)
        return gate * (1 + x * (1 - gate))

    return _gated_backward(x, dy, slope)


def gelu(x: jax.Array, *, approximate: bool = False) -> jax.Array:
    """The input times the probability that a normal number is smaller.

    Args:
        x: any shape, floating point.
        approximate: False for the exact Φ, True for the tanh form, which is within 0.0005 of it and was faster once.

    Returns:
        y, of the shape and dtype of x.

    Raises:
        TypeError: x is not floating point, or approximate no bool.

    Example:
        >>> [round(y, 4) for y in gelu(jnp.array([-jnp.inf, -1.0, 0.0, 1.0])).tolist()]
        [0.0, -0.1587, 0.0, 0.8413]
        >>> [round(y, 4) for y in gelu(jnp.array([-1.0, 1.0]), approximate=True).tolist()]
        [-0.1588, 0.8412]
    """
    check.floating("gelu", x=x)
    _check_approximate(approximate)
    return _gated(x, _tanh_gate if approximate else _normal_gate)


def gelu_forward(x: jax.Array, *, approximate: bool = False) -> tuple[jax.Array, jax.Array]:
    """The output y, and x as the residual: two x have one y.

    Example:
        >>> [round(float(array), 4) for array in gelu_forward(jnp.array(-1.0))]
        [-0.1587, -1.0]
    """
    return gelu(x, approximate=approximate), x


def gelu_backward(x: jax.Array, dy: jax.Array, *, approximate: bool = False) -> jax.Array:
    """The gradient dx = dy (Φ + x φ), or that of the tanh form; of the shape and dtype of dy.

    Example:
        >>> print(gelu_backward(jnp.array([-jnp.inf, 0.0, 1.0]), jnp.ones(3)).round(4))
        [0.     0.5    1.0833]
    """

    def exact(x: jax.Array) -> jax.Array:
        return _normal_gate(x) + x * jnp.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    def of_tanh_form(x: jax.Array) -> jax.Array:
        gate = _tanh_gate(x)
        bend = math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * x * x)
        return gate * (1 + x * (1 - gate) * bend)

    _check_approximate(approximate)
    return _gated_backward(x, dy, of_tanh_form if approximate else exact)


def _elu(x: jax.Array, scale: float, alpha: float) -> jax.Array:
    x = jnp.asarray(x)
    left = wide(jnp.where(x <= 0, x, 0))  # a far x on the right would overflow, and 0 · inf be NaN in its gradient
    negative = _constant(scale * alpha, left) * jnp.expm1(left)
    return jnp.where(x <= 0, negative, _constant(scale, left) * wide(x)).astype(x.dtype)


def _elu_backward(y: jax.Array, dy: jax.Array, scale: float, alpha: float) -> jax.Array:
    level, dy = wide(y), jnp.asarray(dy)
    slope = jnp.where(level <= 0, level + _constant(scale * alpha, level), _constant(scale, level))
    return (wide(dy) * slope).astype(dy.dtype)


def _gated(x: jax.Array, gate: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """X times a gate that goes from 0 to 1; the limits far out, where 0 · inf would be NaN."""
    x = jnp.asarray(x)
    far = jnp.abs(x) > FAR
    near = wide(jnp.where(far, 0, x))
    return jnp.where(far, wide(relu(x)), near * gate(near)).astype(x.dtype)


def _gated_backward(x: jax.Array, dy: jax.Array, slope: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Dy times the slope of a gated x: that of relu far out."""
    far = jnp.abs(x) > FAR
    slopes = jnp.where(far, (x > 0).astype(wide(x).dtype), slope(wide(jnp.where(far, 0, x))))
    return (wide(dy) * slopes).astype(dy.dtype)


def _normal_gate(x: jax.Array) -> jax.Array:
    """Φ(x), by erfc: 1 + erf would lose its digits on the left."""
    return lax.erfc(-x * math.sqrt(0.5)) / 2


def _tanh_gate(x: jax.Array) -> jax.Array:
    """σ(2u) = ½ (1 + tanh u), with u = √(2/π) (x + 0.044715 x³)."""
    return jax.nn.sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x * x * x))


def _constant(value: float | jax.Array, x: jax.Array) -> jax.Array:
    return jnp.asarray(value, x.dtype)


def _check_approximate(approximate: bool) -> None:
    if not isinstance(approximate, bool):
        raise TypeError(f"gelu: approximate must be True (the tanh form) or False (exact), got {approximate!r}")

"""Starting values of parameters: random kernels whose signal neither grows nor fades with depth, and constants.

Forward     y[o]  = Σ_i W[i, o] x[i]      Var y  = fan_in  · Var W · E[x²]
Backward    dx[i] = Σ_o W[i, o] dy[o]     Var dx = fan_out · Var W · E[dy²]

Each output sums fan_in products of independent factors of mean 0, so the variances add. To keep Var y at that of x:

    LeCun     Var W = 1 / fan_in               a linear or tanh-like layer, forward
    Glorot    Var W = 2 / (fan_in + fan_out)   forward and backward at once, by the mean of the two fans
    He        Var W = 2 / fan_in               ReLU sets half of its input to 0, so E[x²] is half as large

Normal: a plain normal with that variance, not truncated. Uniform: U(-a, a), whose variance is a²/3, so a = √(3 Var W).
Fans: a kernel is (spatial..., I, O) with receptive field R, the product of its spatial sizes. fan_in = R·I and
fan_out = R·O. A grouped kernel is (spatial..., I/groups, O); each output sees R·I/groups numbers, which is its fan_in.
Type: the draws are made in float32 at least and rounded once to dtype, which comes out as it was asked for.
Shapes: a kernel (spatial..., I, O), rank 2 at least; zeros, ones and constant take any shape.
Source: LeCun et al., Efficient BackProp, 1998; Glorot and Bengio, AISTATS 2010; He et al., arXiv:1502.01852, 2015.
"""

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

__all__ = [
    "Constant",
    "constant",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "ones",
    "zeros",
]


def he_normal(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Normal (untruncated) of variance 2 / fan_in: for kernels in front of a ReLU.

    Args:
        key: a random key.
        shape: the kernel's shape (spatial..., I, O), rank 2 at least.
        dtype: a floating-point type.

    Returns:
        The kernel, of `shape` and `dtype`.

    Raises:
        ValueError: a shape of rank below 2, or with a size below 1.
        TypeError: a dtype that is not floating point.

    Source: He et al., Delving Deep into Rectifiers, arXiv:1502.01852, 2015.

    Example:
        >>> kernel = he_normal(jax.random.key(0), (3, 3, 8, 16), jnp.float32)
        >>> kernel.shape, f"variance {kernel.var():.3f}, in the mean {2 / (3 * 3 * 8):.3f}"
        ((3, 3, 8, 16), 'variance 0.027, in the mean 0.028')
    """
    fan_in, _ = _fans("he_normal", shape)
    return _normal("he_normal", key, shape, dtype, 2 / fan_in)


def he_uniform(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Uniform of variance 2 / fan_in, U(-a, a) with a = √(6 / fan_in). Errors as for `he_normal`.

    Args:
        key: a random key.
        shape: the kernel's shape (spatial..., I, O), rank 2 at least.
        dtype: a floating-point type.

    Example:
        >>> he_uniform(jax.random.key(0), (6, 4), jnp.float32).max() < 1  # a = 1
        Array(True, dtype=bool)
    """
    fan_in, _ = _fans("he_uniform", shape)
    return _uniform("he_uniform", key, shape, dtype, 2 / fan_in)


def glorot_normal(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Normal (untruncated) of variance 2 / (fan_in + fan_out). Errors as for `he_normal`.

    Args:
        key: a random key.
        shape: the kernel's shape (spatial..., I, O), rank 2 at least.
        dtype: a floating-point type.

    Source: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.

    Example:
        >>> glorot_normal(jax.random.key(0), (5, 5, 1, 6)).shape
        (5, 5, 1, 6)
    """
    return _normal("glorot_normal", key, shape, dtype, 2 / sum(_fans("glorot_normal", shape)))


def glorot_uniform(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Uniform of variance 2 / (fan_in + fan_out), a = √(6 / (fan_in + fan_out)). Errors as for `he_normal`.

    Args:
        key: a random key.
        shape: the kernel's shape (spatial..., I, O), rank 2 at least.
        dtype: a floating-point type.

    Example:
        >>> glorot_uniform(jax.random.key(0), (2, 4), jnp.float32).max() < 1  # a = 1
        Array(True, dtype=bool)
    """
    return _uniform("glorot_uniform", key, shape, dtype, 2 / sum(_fans("glorot_uniform", shape)))


def lecun_normal(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Normal (untruncated) of variance 1 / fan_in. Errors as for `he_normal`.

    Args:
        key: a random key.
        shape: the kernel's shape (spatial..., I, O), rank 2 at least.
        dtype: a floating-point type.

    Source: LeCun, Bottou, Orr and Müller, Efficient BackProp, section 4.6, 1998.

    Example:
        >>> lecun_normal(jax.random.key(0), (64, 10), jnp.bfloat16).dtype
        dtype(bfloat16)
    """
    fan_in, _ = _fans("lecun_normal", shape)
    return _normal("lecun_normal", key, shape, dtype, 1 / fan_in)


def lecun_uniform(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Uniform of variance 1 / fan_in, U(-a, a) with a = √(3 / fan_in). Errors as for `he_normal`.

    Args:
        key: a random key.
        shape: the kernel's shape (spatial..., I, O), rank 2 at least.
        dtype: a floating-point type.

    Example:
        >>> lecun_uniform(jax.random.key(0), (3, 4), jnp.float32).max() < 1  # a = 1
        Array(True, dtype=bool)
    """
    fan_in, _ = _fans("lecun_uniform", shape)
    return _uniform("lecun_uniform", key, shape, dtype, 1 / fan_in)


def zeros(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """All 0, of any shape; the key is not used. For biases: a kernel of zeros never learns, its units stay equal.

    Args:
        key: not used.
        shape: any.
        dtype: of the array.

    Example:
        >>> zeros(jax.random.key(0), (3,), jnp.float32)
        Array([0., 0., 0.], dtype=float32)
    """
    return jnp.zeros(shape, dtype)


def ones(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """All 1, of any shape; the key is not used.

    Args:
        key: not used.
        shape: any.
        dtype: of the array.

    Example:
        >>> ones(jax.random.key(0), (3,), jnp.float32)
        Array([1., 1., 1.], dtype=float32)
    """
    return jnp.ones(shape, dtype)


@dataclass(frozen=True)
class Constant:
    """The initializer that `constant` gives: equal values make equal initializers, so equal layers stay equal.

    Args:
        value: of every number.

    Example:
        >>> Constant(0.5)(jax.random.key(0), (2,), jnp.float32)
        Array([0.5, 0.5], dtype=float32)
    """

    value: float

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        """An array of `shape` and `dtype`, all of it `value`; the key is not used."""
        return jnp.full(shape, self.value, dtype)


def constant(value: float) -> Constant:
    """An initializer that fills any shape with one number.

    Args:
        value: a Python or NumPy number.

    Returns:
        A hashable callable (key, shape, dtype) -> array. Two with equal values are equal.

    Raises:
        TypeError: a value that is no real number.

    Example:
        >>> constant(0.5)(jax.random.key(0), (2,), jnp.float32)
        Array([0.5, 0.5], dtype=float32)
        >>> constant(0.5) == constant(0.5)
        True
    """
    if not isinstance(value, numbers.Real):
        raise TypeError(f"constant: value must be a real number, got {type(value).__name__} {value!r}")
    return Constant(float(value))


def _fans(name: str, shape: Sequence[int]) -> tuple[int, int]:
    """fan_in and fan_out of a kernel (spatial..., I, O)."""
    if len(shape) < 2:
        raise ValueError(
            f"{name}: shape must be (spatial..., in, out), rank 2 at least, got {tuple(shape)}; "
            f"use zeros, ones or constant for a bias or a scale"
        )
    if min(shape) < 1:
        raise ValueError(f"{name}: every size of shape must be at least 1, got {tuple(shape)}")
    *receptive_field, size_in, size_out = shape
    return math.prod(receptive_field) * size_in, math.prod(receptive_field) * size_out


def _normal(name: str, key: jax.Array, shape: Sequence[int], dtype: DTypeLike, variance: float) -> jax.Array:
    draws = jax.random.normal(key, shape, _wide(name, dtype))
    return (math.sqrt(variance) * draws).astype(dtype)


def _uniform(name: str, key: jax.Array, shape: Sequence[int], dtype: DTypeLike, variance: float) -> jax.Array:
    a = math.sqrt(3 * variance)
    return jax.random.uniform(key, shape, _wide(name, dtype), -a, a).astype(dtype)


def _wide(name: str, dtype: DTypeLike) -> DTypeLike:
    """The type to draw in: dtype, or float32 where dtype is narrower."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name}: dtype must be floating point, got {jnp.dtype(dtype)}")
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype

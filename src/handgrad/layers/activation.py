"""Activations. Their mathematics stands in ops/activations.py and ops/softmax.py."""

from dataclasses import dataclass
from typing import ClassVar

from handgrad.layers.op_layer import OpLayer


@dataclass(frozen=True, repr=False)
class Relu(OpLayer):
    """max(x, 0), with gradient 0 at 0. No parameters.

    Source: Nair and Hinton, Rectified linear units improve restricted Boltzmann machines, 2010.

    Example:
        >>> import jax.numpy as jnp
        >>> y, _, residuals = Relu().forward({}, jnp.array([-1.0, 0.0, 2.0]))
        >>> Relu().backward({}, residuals, jnp.ones(3))[0].tolist()
        [0.0, 0.0, 1.0]
    """

    kind: ClassVar[str] = "relu"
    op: ClassVar[str] = "relu"


@dataclass(frozen=True, repr=False)
class LeakyRelu(OpLayer):
    """x where it is positive, negative_slope x elsewhere. No parameters.

    Args:
        negative_slope: the slope at and below 0.

    Source: Maas, Hannun and Ng, Rectifier nonlinearities improve neural network acoustic models, 2013.

    Example:
        >>> import jax.numpy as jnp
        >>> LeakyRelu(0.5).apply({}, jnp.array([-2.0, 2.0])).tolist()
        [-1.0, 2.0]
    """

    kind: ClassVar[str] = "leakyrelu"
    op: ClassVar[str] = "leaky_relu"
    negative_slope: float = 0.01


@dataclass(frozen=True, repr=False)
class Tanh(OpLayer):
    """The hyperbolic tangent, with gradient 1 - y². No parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> Tanh().apply({}, jnp.zeros(1)).tolist()
        [0.0]
    """

    kind: ClassVar[str] = "tanh"
    op: ClassVar[str] = "tanh"


@dataclass(frozen=True, repr=False)
class Sigmoid(OpLayer):
    """The logistic function 1 / (1 + e^{-x}), with gradient y (1 - y). No parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> Sigmoid().apply({}, jnp.zeros(1)).tolist()
        [0.5]
    """

    kind: ClassVar[str] = "sigmoid"
    op: ClassVar[str] = "sigmoid"


@dataclass(frozen=True, repr=False)
class Softmax(OpLayer):
    """Probabilities p_k = e^{x_k} / Σ_j e^{x_j} along an axis. No parameters.

    `SoftmaxCrossEntropy` wants logits and has its own softmax; do not put this layer before it.

    Args:
        axis: the axis that sums to one.

    Example:
        >>> import jax.numpy as jnp
        >>> Softmax().apply({}, jnp.zeros((1, 2))).tolist()
        [[0.5, 0.5]]
    """

    kind: ClassVar[str] = "softmax"
    op: ClassVar[str] = "softmax"
    axis: int = -1


@dataclass(frozen=True, repr=False)
class LogSoftmax(OpLayer):
    """The logarithm of the softmax along an axis, x_k - log Σ_j e^{x_j}. No parameters.

    Args:
        axis: the axis whose exponentials sum to one.

    Example:
        >>> import jax.numpy as jnp
        >>> LogSoftmax().apply({}, jnp.zeros((1, 1))).tolist()
        [[0.0]]
    """

    kind: ClassVar[str] = "logsoftmax"
    op: ClassVar[str] = "log_softmax"
    axis: int = -1

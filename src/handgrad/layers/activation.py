"""Activations. Their mathematics stands in ops/activations.py, smooth_activations.py, prelu.py and softmax.py."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from handgrad import initializers
from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State, parameter
from handgrad.layers.op_layer import OpLayer
from handgrad.ops.prelu import prelu, prelu_backward, prelu_forward


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
class Relu6(OpLayer):
    """min(max(x, 0), 6), with gradient 0 at 0 and at 6. No parameters.

    Source: Howard et al., MobileNets, 2017.

    Example:
        >>> import jax.numpy as jnp
        >>> Relu6().apply({}, jnp.array([-1.0, 2.0, 7.0])).tolist()
        [0.0, 2.0, 6.0]
    """

    kind: ClassVar[str] = "relu6"
    op: ClassVar[str] = "relu6"


@dataclass(frozen=True, repr=False)
class PRelu(Layer):
    """x where it is positive, a x elsewhere, with a slope a that is learned. See `ops.prelu`.

    Parameters: slope (C,), or (1,) where it is shared. It is no kernel, so `Objective`'s l2 leaves it alone, as the
    paper does: decay would pull it to 0, towards relu.

    Args:
        shared: one slope for all channels, as PyTorch's default has it, or one for each.
        slope_init: how the slope is drawn, (key, shape, dtype) -> array; 0.25 by default, as in the paper.

    Source: He, Zhang, Ren and Sun, Delving deep into rectifiers, 2015.

    Example:
        >>> import jax
        >>> params, state = PRelu().init(jax.random.key(0), (4, 4, 3))
        >>> params["slope"].tolist(), PRelu().apply(params, jax.numpy.full(3, -4.0, "float32")).tolist()
        ([0.25, 0.25, 0.25], [-1.0, -1.0, -1.0])
    """

    kind: ClassVar[str] = "prelu"
    shared: bool = False
    slope_init: Callable[..., Array] = initializers.constant(0.25)

    def init(self, key: Array, in_shape: Shape, dtype: Any = jnp.float32) -> tuple[dict[str, Any], dict[str, Any]]:
        """The slope for inputs whose last axis is in_shape[-1]."""
        if not in_shape:
            raise ValueError("PRelu: in_shape must have a channel axis, got ()")
        return {"slope": self.slope_init(key, (1,) if self.shared else (in_shape[-1],), dtype)}, {}

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """X with its negative part scaled."""
        return prelu(x, parameter(self, params, "slope"))

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The same, keeping x."""
        y, x = prelu_forward(x, parameter(self, params, "slope"))
        return y, state, {"x": x}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """Dx and dslope."""
        dx, dslope = prelu_backward(residuals["x"], parameter(self, params, "slope"), dy)
        return dx, {"slope": dslope}


@dataclass(frozen=True, repr=False)
class HardSigmoid(OpLayer):
    """A sigmoid of three straight pieces: αx + β, held between 0 and 1. No parameters.

    Args:
        alpha: α, the slope of the middle piece, above 0.
        beta: β, the value at 0.

    Source: Courbariaux, Bengio and David, BinaryConnect, 2015; with these settings Howard et al., MobileNetV3, 2019.

    Example:
        >>> import jax.numpy as jnp
        >>> HardSigmoid().apply({}, jnp.array([-4.0, 0.0, 1.5])).tolist()
        [0.0, 0.5, 0.75]
    """

    kind: ClassVar[str] = "hardsigmoid"
    op: ClassVar[str] = "hard_sigmoid"
    alpha: float = 1 / 6
    beta: float = 0.5


@dataclass(frozen=True, repr=False)
class Hardswish(OpLayer):
    """x times its hard sigmoid: 0 up to -3, x (x + 3)/6, and x from 3 on. No parameters.

    Source: Howard et al., Searching for MobileNetV3, 2019.

    Example:
        >>> import jax.numpy as jnp
        >>> Hardswish().apply({}, jnp.array([-4.0, -1.5, 3.0])).tolist()
        [0.0, -0.375, 3.0]
    """

    kind: ClassVar[str] = "hardswish"
    op: ClassVar[str] = "hardswish"


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
class Softplus(OpLayer):
    """log(1 + e^x), a smooth relu, with gradient 1 - e^{-y}. No parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> Softplus().apply({}, jnp.array([-jnp.inf, 1000.0])).tolist()
        [0.0, 1000.0]
    """

    kind: ClassVar[str] = "softplus"
    op: ClassVar[str] = "softplus"


@dataclass(frozen=True, repr=False)
class Elu(OpLayer):
    """x where it is positive, α (e^x - 1) elsewhere. No parameters.

    Args:
        alpha: α, at least 0; the left side levels off at -α.

    Source: Clevert, Unterthiner and Hochreiter, Fast and accurate deep network learning by ELUs, 2016.

    Example:
        >>> import jax.numpy as jnp
        >>> Elu(0.5).apply({}, jnp.array([-jnp.inf, 2.0])).tolist()
        [-0.5, 2.0]
    """

    kind: ClassVar[str] = "elu"
    op: ClassVar[str] = "elu"
    alpha: float = 1.0


@dataclass(frozen=True, repr=False)
class Selu(OpLayer):
    """λ times an elu with a fixed α, which keeps mean 0 and variance 1 from layer to layer. No parameters.

    The layers between want `initializers.lecun_normal`.

    Source: Klambauer, Unterthiner, Mayr and Hochreiter, Self-normalizing neural networks, 2017.

    Example:
        >>> import jax.numpy as jnp
        >>> Selu().apply({}, jnp.array([0.0])).tolist()
        [0.0]
    """

    kind: ClassVar[str] = "selu"
    op: ClassVar[str] = "selu"


@dataclass(frozen=True, repr=False)
class Silu(OpLayer):
    """x times its sigmoid, also called swish. No parameters.

    Source: Ramachandran, Zoph and Le, Searching for activation functions, 2017.

    Example:
        >>> import jax.numpy as jnp
        >>> Silu().apply({}, jnp.array([-jnp.inf, 0.0, 1000.0])).tolist()
        [0.0, 0.0, 1000.0]
    """

    kind: ClassVar[str] = "silu"
    op: ClassVar[str] = "silu"


@dataclass(frozen=True, repr=False)
class Gelu(OpLayer):
    """x times the probability that a normal number is smaller, x Φ(x). No parameters.

    Args:
        approximate: False for the exact Φ, as in PyTorch; True for the tanh form, which is jax.nn.gelu's default.

    Source: Hendrycks and Gimpel, Gaussian error linear units, 2016.

    Example:
        >>> import jax.numpy as jnp
        >>> Gelu().apply({}, jnp.array([-jnp.inf, 0.0, 100.0])).tolist()
        [0.0, 0.0, 100.0]
    """

    kind: ClassVar[str] = "gelu"
    op: ClassVar[str] = "gelu"
    approximate: bool = False


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

"""LeNet-5, as it is taught today and as its paper has it."""

from dataclasses import dataclass
from typing import Any, ClassVar

from handgrad import initializers
from handgrad.layers import AvgPool, Chain, Conv, Dense, Flatten, Layer, Tanh
from handgrad.layers.layer import Array, Params, Residuals, State
from handgrad.models.width import scaled
from handgrad.ops import tanh, tanh_backward, tanh_forward


@dataclass(frozen=True, repr=False)
class ScaledTanh(Layer):
    """f(x) = A tanh(S x), with f'(x) = A S (1 - tanh²(S x)). No parameters.

    With the paper's A and S, f(1) = 1 and f(-1) = -1, and the curvature is largest there: targets of ±1 are reached
    where the unit is most sensitive, not where it is flat.

    Args:
        amplitude: A.
        slope: S.

    Source: LeCun et al., Gradient-based learning applied to document recognition, 1998, appendix A.

    Example:
        >>> import jax.numpy as jnp
        >>> [round(y, 4) for y in ScaledTanh().apply({}, jnp.array([-1.0, 0.0, 1.0])).tolist()]
        [-1.0, 0.0, 1.0]
    """

    kind: ClassVar[str] = "scaledtanh"
    amplitude: float = 1.7159
    slope: float = 2 / 3

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """A tanh(S x)."""
        return self.amplitude * tanh(self.slope * x)

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The same, keeping what tanh keeps."""
        y, kept = tanh_forward(self.slope * x)
        return self.amplitude * y, state, {"y": kept}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """A S times the gradient of tanh."""
        return self.slope * tanh_backward(residuals["y"], self.amplitude * dy), {}


def lenet5(classes: int = 10, padding: int = 0, original: bool = False, width: float = 1.0) -> Chain:
    """LeNet-5: two 5x5 convolutions with average pools and tanh, three dense layers.

    61,706 parameters and 416,520 multiply-adds at 32x32x1 and 10 classes, which is the paper's size: the 28x28 digits
    lie within a margin of two. Images of 28x28 want `padding=2`, which gives the first convolution that margin.

    With `original=True` a pool is the paper's subsampling layer, squash(coefficient · mean + bias) with a learned
    coefficient and bias for each map (a 1x1 convolution in as many groups as maps is just that), and the units squash
    by 1.7159 tanh(2x/3): 61,750 parameters. The paper's sum of four in the place of the mean is a coefficient four
    times as large. Two things are as all have them today: each map of the second convolution sees all six maps before
    it, not the subset in the paper's table I, and the outputs are logits, not distances to drawn letters.

    Args:
        classes: the number of outputs.
        padding: zeros around the image, 0 for 32x32 and 2 for 28x28.
        original: the paper's subsampling and squashing.
        width: a factor on the number of features of all layers but the last.

    Source: LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998, section
    II.B.

    Example:
        >>> lenet5()
        Chain(Conv(6, 5, padding=0), Tanh(), AvgPool(2), Conv(16, 5, padding=0), Tanh(), AvgPool(2), Flatten(),
            Dense(120), Tanh(), Dense(84), Tanh(), Dense(10))
    """
    squash = ScaledTanh() if original else Tanh()
    layers: list[Layer] = []
    for i, (maps, margin) in enumerate([(scaled(6, width), padding), (scaled(16, width), 0)], start=1):
        layers += [Conv(maps, 5, padding=margin, name=f"conv{i}" if original else None), squash, AvgPool(2)]
        if original:
            layers += [_coefficient(maps, f"subsample{i}"), squash]
    head = (Flatten(), Dense(scaled(120, width)), squash, Dense(scaled(84, width)), squash, Dense(classes))
    return Chain(*layers, *head)


def _coefficient(maps: int, name: str) -> Conv:
    """A learned factor and bias for each map, (1, 1, 1, maps) and (maps,)."""
    return Conv(maps, 1, groups=maps, kernel_init=initializers.constant(1.0), name=name)

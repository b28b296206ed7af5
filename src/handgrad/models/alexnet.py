"""AlexNet: the net of 2012 in its two groups, and the one without groups that PyTorch's weights are for."""

from handgrad.layers import (
    AdaptiveAvgPool,
    Chain,
    Conv,
    Dense,
    Dropout,
    Flatten,
    LocalResponseNorm,
    MaxPool,
    Relu,
)
from handgrad.models.width import scaled

NORM_SIZE = 5


def alexnet(classes: int = 1000, dropout: float = 0.5, width: float = 1.0) -> Chain:
    """AlexNet as its paper has it: two groups, local response norm, overlapping pools, dropout before two dense layers.

    60,965,224 parameters and 724,406,816 multiply-adds at 227x227x3 and 1000 classes. (The paper says 224; its own
    count of 55x55 places in the first layer wants 227.)

    The paper divides by (k + α Σ x²)^β with k = 2, α = 1e-4 and β = 0.75 over five channels. `LocalResponseNorm`
    divides alpha by its size, as PyTorch does and the paper does not, so it is given five times the paper's.

    Args:
        classes: the number of outputs.
        dropout: the rate behind the two hidden dense layers. At 0 the layers stay, and training still wants a key.
        width: a factor on the number of features of all layers but the last.

    Source: Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks, 2012.

    Example:
        >>> [layer.groups for layer in alexnet().layers if isinstance(layer, Conv)]
        [1, 2, 1, 2, 2]
    """
    c1, c2, c3, c4, c5 = (scaled(features, width, 2) for features in (96, 256, 384, 384, 256))
    hidden = scaled(4096, width)
    norm = LocalResponseNorm(NORM_SIZE, alpha=1e-4 * NORM_SIZE, beta=0.75, k=2.0)
    return Chain(
        *(Conv(c1, 11, 4, padding=0), Relu(), norm, MaxPool(3, 2)),
        *(Conv(c2, 5, padding=2, groups=2), Relu(), norm, MaxPool(3, 2)),
        *(Conv(c3, 3, padding=1), Relu()),
        *(Conv(c4, 3, padding=1, groups=2), Relu()),
        *(Conv(c5, 3, padding=1, groups=2), Relu(), MaxPool(3, 2)),
        *(Flatten(), Dense(hidden), Relu(), Dropout(dropout), Dense(hidden), Relu(), Dropout(dropout)),
        Dense(classes),
    )


def alexnet_one_tower(classes: int = 1000, dropout: float = 0.5, width: float = 1.0) -> Chain:
    """AlexNet without groups and norms, the net of torchvision's `alexnet`, whose weights `models.from_torch` takes.

    61,100,840 parameters at 224x224x3 and 1000 classes. An adaptive pool before the dense layers lets other sizes in,
    from 63x63 on.

    Args:
        classes: the number of outputs.
        dropout: the rate before the two hidden dense layers. At 0 the layers stay, and training still wants a key.
        width: a factor on the number of features of all layers but the last.

    Source: Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014.

    Example:
        >>> [layer.features for layer in alexnet_one_tower().layers if isinstance(layer, Conv)]
        [64, 192, 384, 256, 256]
    """
    c1, c2, c3, c4, c5 = (scaled(features, width) for features in (64, 192, 384, 256, 256))
    hidden = scaled(4096, width)
    return Chain(
        *(Conv(c1, 11, 4, padding=2), Relu(), MaxPool(3, 2)),
        *(Conv(c2, 5, padding=2), Relu(), MaxPool(3, 2)),
        *(Conv(c3, 3, padding=1), Relu(), Conv(c4, 3, padding=1), Relu()),
        *(Conv(c5, 3, padding=1), Relu(), MaxPool(3, 2)),
        *(AdaptiveAvgPool(6), Flatten()),
        *(Dropout(dropout), Dense(hidden), Relu(), Dropout(dropout), Dense(hidden), Relu(), Dense(classes)),
    )

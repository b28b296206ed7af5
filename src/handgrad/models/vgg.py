"""VGG: only 3x3 convolutions, in five stages that a pool ends each."""

from collections.abc import Sequence

from handgrad.layers import AdaptiveAvgPool, BatchNorm, Chain, Conv, Dense, Dropout, Flatten, Layer, MaxPool, Relu
from handgrad.models.width import scaled

FEATURES = (64, 128, 256, 512, 512)


def vgg11(classes: int = 1000, dropout: float = 0.5, batch_norm: bool = False, width: float = 1.0) -> Chain:
    """The paper's net A, 8 convolutions and 3 dense layers: 132,863,336 parameters at 224x224x3. See `vgg`.

    Args:
        classes: the number of outputs.
        dropout: the rate behind the two hidden dense layers.
        batch_norm: whether a batch norm follows each convolution.
        width: a factor on the number of features of all layers but the last.

    Example:
        >>> sum(isinstance(layer, Conv) for layer in vgg11().layers)
        8
    """
    return vgg((1, 1, 2, 2, 2), classes, dropout, batch_norm, width)


def vgg13(classes: int = 1000, dropout: float = 0.5, batch_norm: bool = False, width: float = 1.0) -> Chain:
    """The paper's net B, 10 convolutions and 3 dense layers: 133,047,848 parameters at 224x224x3. See `vgg`.

    Args:
        classes: the number of outputs.
        dropout: the rate behind the two hidden dense layers.
        batch_norm: whether a batch norm follows each convolution.
        width: a factor on the number of features of all layers but the last.

    Example:
        >>> sum(isinstance(layer, Conv) for layer in vgg13().layers)
        10
    """
    return vgg((2, 2, 2, 2, 2), classes, dropout, batch_norm, width)


def vgg16(classes: int = 1000, dropout: float = 0.5, batch_norm: bool = False, width: float = 1.0) -> Chain:
    """The paper's net D, 13 convolutions and 3 dense layers: 138,357,544 parameters at 224x224x3. See `vgg`.

    Args:
        classes: the number of outputs.
        dropout: the rate behind the two hidden dense layers.
        batch_norm: whether a batch norm follows each convolution.
        width: a factor on the number of features of all layers but the last.

    Example:
        >>> sum(isinstance(layer, Conv) for layer in vgg16().layers)
        13
    """
    return vgg((2, 2, 3, 3, 3), classes, dropout, batch_norm, width)


def vgg19(classes: int = 1000, dropout: float = 0.5, batch_norm: bool = False, width: float = 1.0) -> Chain:
    """The paper's net E, 16 convolutions and 3 dense layers: 143,667,240 parameters at 224x224x3. See `vgg`.

    Args:
        classes: the number of outputs.
        dropout: the rate behind the two hidden dense layers.
        batch_norm: whether a batch norm follows each convolution.
        width: a factor on the number of features of all layers but the last.

    Example:
        >>> sum(isinstance(layer, Conv) for layer in vgg19().layers)
        16
    """
    return vgg((2, 2, 4, 4, 4), classes, dropout, batch_norm, width)


def vgg(
    convolutions: Sequence[int],
    classes: int = 1000,
    dropout: float = 0.5,
    batch_norm: bool = False,
    width: float = 1.0,
) -> Chain:
    """3x3 convolutions with ReLU, a 2x2 pool behind each stage, three dense layers.

    An adaptive pool to 7x7 before the dense layers, as in torchvision, changes nothing at 224x224 and lets other sizes
    in, from 32x32 on. `models.from_torch` takes torchvision's weights.

    Args:
        convolutions: how many a stage has, for each of at most five stages of 64, 128, 256, 512 and 512 features.
        classes: the number of outputs.
        dropout: the rate behind the two hidden dense layers. At 0 the layers stay, and training still wants a key.
        batch_norm: whether a batch norm follows each convolution, which the paper did not have yet.
        width: a factor on the number of features of all layers but the last.

    Raises:
        ValueError: more than five stages, or none.

    Source: Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition, 2014.

    Example:
        >>> vgg((1,), 10, batch_norm=True, width=0.25)
        Chain(Conv(16, 3, padding=1), BatchNorm(), Relu(), MaxPool(2), AdaptiveAvgPool(7), Flatten(),
            Dense(1024), Relu(), Dropout(0.5), Dense(1024), Relu(), Dropout(0.5), Dense(10))
    """
    if not 1 <= len(convolutions) <= len(FEATURES):
        raise ValueError(f"vgg: convolutions must have one to five stages, got {convolutions!r}")
    layers: list[Layer] = []
    for features, count in zip(FEATURES, convolutions, strict=False):
        norm = [BatchNorm()] if batch_norm else []
        layers += [Conv(scaled(features, width), 3, padding=1), *norm, Relu()] * count + [MaxPool(2)]
    hidden = scaled(4096, width)
    return Chain(
        *(*layers, AdaptiveAvgPool(7), Flatten()),
        *(Dense(hidden), Relu(), Dropout(dropout), Dense(hidden), Relu(), Dropout(dropout), Dense(classes)),
    )

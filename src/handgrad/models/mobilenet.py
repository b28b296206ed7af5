"""MobileNet: each convolution in two, one within the channels and one across them."""

from handgrad.layers import BatchNorm, Chain, Conv, Dense, GlobalAvgPool, Layer, Relu
from handgrad.models.width import scaled

BLOCKS = (  # features, strides
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *[(512, 1)] * 5,
    *((1024, 2), (1024, 1)),
)


def mobilenet_v1(classes: int = 1000, width: float = 1.0) -> Chain:
    """A strided convolution, thirteen depthwise separable ones, the mean over all places, a dense layer.

    4,231,976 parameters and 568,740,352 multiply-adds at 224x224x3 and 1000 classes, the paper's 4.2 and 569 million.
    A 3x3 convolution within each channel (as many groups as channels), then one of 1x1 across them, take
    1/features + 1/9 of the products of a full 3x3 convolution.

    Args:
        classes: the number of outputs.
        width: the paper's α, a factor on the number of features of all layers but the last.

    Source: Howard et al., MobileNets: efficient convolutional neural networks for mobile vision applications, 2017.

    Example:
        >>> mobilenet_v1(width=0.25).layers[3:9]
        (Conv(8, 3, padding=1, groups=8, use_bias=False), BatchNorm(), Relu(),
            Conv(16, 1, padding=0, use_bias=False), BatchNorm(), Relu())
    """
    channels = scaled(32, width)
    layers = _normed(Conv(channels, 3, 2, padding=1, use_bias=False))
    for full, strides in BLOCKS:
        features = scaled(full, width)
        layers += _normed(Conv(channels, 3, strides, padding=1, groups=channels, use_bias=False))
        layers += _normed(Conv(features, 1, padding=0, use_bias=False))
        channels = features
    return Chain(*layers, GlobalAvgPool(), Dense(classes))


def _normed(conv: Conv) -> list[Layer]:
    return [conv, BatchNorm(), Relu()]

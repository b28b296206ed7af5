"""ResNet-9: the residual net that learns in few epochs."""

from collections.abc import Sequence

from handgrad.layers import BatchNorm, Chain, Conv, Dense, GlobalMaxPool, Layer, MaxPool, Relu, Residual


def resnet9(classes: int = 10, widths: Sequence[int] = (64, 128, 256, 512)) -> Chain:
    """Eight convolutions in four stages, two of them with a residual block, and a dense layer; for 28x28 to 32x32.

    Every stage but the first halves the image behind its convolution; the second and the last add y = x + body(x) with
    two convolutions more. The maximum over all places goes to the classes. Full width has 6,573,130 parameters at
    32x32x3 and 10 classes, widths (24, 48, 96, 192) at 28x28x1 have 926,578.

    Args:
        classes: the number of outputs.
        widths: the features of the four stages.

    Source: Page, How to train your ResNet, Myrtle.ai, 2018; without its scaling of the logits by 1/8.

    Example:
        >>> [name for name, _ in resnet9().items()]
        ['stage1', 'stage2', 'stage3', 'stage4', 'globalmaxpool1', 'dense1']
    """
    if len(widths) != 4:
        raise ValueError(f"resnet9: widths must be the features of four stages, got {widths!r}")
    first, second, third, fourth = widths
    return Chain(
        Chain(*_unit(first), name="stage1"),
        Chain(*_unit(second), MaxPool(2), _block(second), name="stage2"),
        Chain(*_unit(third), MaxPool(2), name="stage3"),
        Chain(*_unit(fourth), MaxPool(2), _block(fourth), name="stage4"),
        GlobalMaxPool(),
        Dense(classes),
    )


def _unit(features: int) -> list[Layer]:
    return [Conv(features, 3, use_bias=False), BatchNorm(), Relu()]


def _block(features: int) -> Residual:
    return Residual(Chain(*_unit(features), *_unit(features)))

"""ResNets: for ImageNet as torchvision builds them, and the small ones of the paper for CIFAR.

A block is y = relu(body(x) + shortcut(x)); the shortcut is the identity, or a strided 1x1 convolution where the shape
changes (the paper's option B). Paddings are numbers, the same at both ends, for "SAME" with stride 2 differs from
library to library. No convolution has a bias, since a batch norm follows that would take it out again.

Source: He, Zhang, Ren and Sun, Deep residual learning for image recognition, 2015.
"""

from collections.abc import Sequence

from handgrad.layers import BatchNorm, Chain, Conv, Dense, GlobalAvgPool, Layer, MaxPool, Relu, Residual
from handgrad.models.width import scaled


def resnet18(classes: int = 1000, width: float = 1.0) -> Chain:
    """Two basic blocks a stage: 11,689,512 parameters at 224x224x3 and 1000 classes. See `resnet`.

    Args:
        classes: the number of outputs.
        width: a factor on the number of features of all layers but the last.

    Example:
        >>> [name for name, _ in resnet18().items()]
        ['conv1', 'batchnorm1', 'relu1', 'maxpool1', 'stage1', 'stage2', 'stage3', 'stage4', 'globalavgpool1', 'dense1']
    """
    return resnet((2, 2, 2, 2), classes, width)


def resnet34(classes: int = 1000, width: float = 1.0) -> Chain:
    """3, 4, 6 and 3 basic blocks: 21,797,672 parameters at 224x224x3 and 1000 classes. See `resnet`.

    Args:
        classes: the number of outputs.
        width: a factor on the number of features of all layers but the last.

    Example:
        >>> from handgrad.insight.leaves import leaf_layers
        >>> sum(isinstance(layer, Conv) for path, layer in leaf_layers(resnet34()) if "shortcut" not in path)
        33
    """
    return resnet((3, 4, 6, 3), classes, width)


def resnet50(classes: int = 1000, width: float = 1.0) -> Chain:
    """3, 4, 6 and 3 bottlenecks: 25,557,032 parameters at 224x224x3 and 1000 classes. See `resnet`.

    Args:
        classes: the number of outputs.
        width: a factor on the number of features of all layers but the last.

    Example:
        >>> from handgrad.insight.leaves import leaf_layers
        >>> sum(isinstance(layer, Conv) for path, layer in leaf_layers(resnet50()) if "shortcut" not in path)
        49
    """
    return resnet((3, 4, 6, 3), classes, width, bottleneck=True)


def resnet(blocks: Sequence[int], classes: int = 1000, width: float = 1.0, bottleneck: bool = False) -> Chain:
    """A ResNet for ImageNet: a strided 7x7 convolution and pool, four stages of blocks, the mean over all places.

    The bottleneck strides in its 3x3 convolution, as torchvision's does ("v1.5"); the paper's strides in the first 1x1.
    `models.from_torch` takes torchvision's weights.

    Args:
        blocks: how many a stage has; stage s has 64 · 2^(s-1) features, four times as many where bottlenecks end.
        classes: the number of outputs.
        width: a factor on the number of features of all layers but the last.
        bottleneck: blocks of 1x1, 3x3 and 1x1 convolutions, not of two 3x3.

    Example:
        >>> resnet((1,), 10, width=0.25).layers[4].layers[0]
        Residual(Chain(Conv(16, 3, padding=1, use_bias=False), BatchNorm(), Relu(), Conv(16, 3, padding=1,
            use_bias=False), BatchNorm()))
    """
    stem = (_conv(scaled(64, width), 7, 2), BatchNorm(), Relu(), MaxPool(3, 2, padding=1))
    features = [scaled(64 * 2**stage, width) for stage in range(len(blocks))]
    return Chain(*stem, *_stages(features, blocks, features[0], bottleneck), GlobalAvgPool(), Dense(classes))


def resnet20(classes: int = 10, width: float = 1.0) -> Chain:
    """Three blocks a stage: 272,474 parameters at 32x32x3 and 10 classes, the paper's 0.27 M. See `cifar_resnet`.

    Args:
        classes: the number of outputs.
        width: a factor on the number of features of all layers but the last.

    Example:
        >>> [name for name, _ in resnet20().items()]
        ['conv1', 'batchnorm1', 'relu1', 'stage1', 'stage2', 'stage3', 'globalavgpool1', 'dense1']
    """
    return cifar_resnet(3, classes, width)


def resnet32(classes: int = 10, width: float = 1.0) -> Chain:
    """Five blocks a stage: 466,906 parameters at 32x32x3 and 10 classes, the paper's 0.46 M. See `cifar_resnet`.

    Args:
        classes: the number of outputs.
        width: a factor on the number of features of all layers but the last.

    Example:
        >>> resnet32() == cifar_resnet(5)
        True
    """
    return cifar_resnet(5, classes, width)


def resnet56(classes: int = 10, width: float = 1.0) -> Chain:
    """Nine blocks a stage: 855,770 parameters at 32x32x3 and 10 classes, the paper's 0.85 M. See `cifar_resnet`.

    Args:
        classes: the number of outputs.
        width: a factor on the number of features of all layers but the last.

    Example:
        >>> resnet56() == cifar_resnet(9)
        True
    """
    return cifar_resnet(9, classes, width)


def cifar_resnet(blocks: int, classes: int = 10, width: float = 1.0) -> Chain:
    """A ResNet for CIFAR of 6 · blocks + 2 layers: three stages of 16, 32 and 64 features at 32x32, 16x16 and 8x8.

    Where the shape changes, twice in a net, the shortcut is the 1x1 convolution of option B, with 2,752 parameters; the
    paper's own for CIFAR, option A, has none, and fills the new channels with zeros.

    Args:
        blocks: how many a stage has.
        classes: the number of outputs.
        width: a factor on the number of features of all layers but the last.

    Source: He, Zhang, Ren and Sun, Deep residual learning for image recognition, 2015, section 4.2.

    Example:
        >>> len(cifar_resnet(1, width=0.5).layers)
        8
    """
    features = [scaled(size, width) for size in (16, 32, 64)]
    stem = (_conv(features[0], 3), BatchNorm(), Relu())
    return Chain(*stem, *_stages(features, [blocks] * 3, features[0], False), GlobalAvgPool(), Dense(classes))


def _stages(features: Sequence[int], blocks: Sequence[int], channels: int, bottleneck: bool) -> list[Chain]:
    """The stages, each of which but the first halves the image in its first block; `channels` enter the first."""
    stages = []
    for stage, (size, count) in enumerate(zip(features, blocks, strict=True), start=1):
        out, layers = 4 * size if bottleneck else size, []
        for block in range(count):
            strides = 2 if stage > 1 and block == 0 else 1
            body = _bottleneck(size, strides) if bottleneck else _basic(size, strides)
            shortcut = None if (channels, strides) == (out, 1) else Chain(_conv(out, 1, strides), BatchNorm())
            layers += [Residual(body, shortcut), Relu()]
            channels = out
        stages.append(Chain(*layers, name=f"stage{stage}"))
    return stages


def _basic(features: int, strides: int) -> Chain:
    return Chain(_conv(features, 3, strides), BatchNorm(), Relu(), _conv(features, 3), BatchNorm())


def _bottleneck(features: int, strides: int) -> Chain:
    layers: list[Layer] = [_conv(features, 1), BatchNorm(), Relu(), _conv(features, 3, strides), BatchNorm(), Relu()]
    return Chain(*layers, _conv(4 * features, 1), BatchNorm())


def _conv(features: int, kernel_size: int, strides: int = 1) -> Conv:
    return Conv(features, kernel_size, strides, padding=kernel_size // 2, use_bias=False)

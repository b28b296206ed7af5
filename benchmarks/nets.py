"""The nets of the training step's benchmark, each written once, as handgrad layers; peers are translated from these."""

import handgrad as hg
from handgrad.benchmark.steps import Case


def vgg_like(batch_norm: bool = False, widths: tuple[int, ...] = (64, 128, 256)) -> hg.Chain:
    """Two 3x3 convolutions and a pool for each width, then a dense layer.

    Source: Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition, 2014.
    """
    layers: list[hg.Layer] = []
    for width in widths:
        for _ in range(2):
            layers += [hg.Conv(width, 3), *([hg.BatchNorm()] if batch_norm else []), hg.Relu()]
        layers.append(hg.MaxPool(2))
    return hg.Chain(*layers, hg.Flatten(), hg.Dense(10))


def alexnet() -> hg.Chain:
    """AlexNet in one column, its two groups kept, without local response norm and dropout; for 227x227x3.

    Source: Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks, 2012.
    """
    return hg.Chain(
        *(hg.Conv(96, 11, 4, padding="VALID"), hg.Relu(), hg.MaxPool(3, 2)),
        *(hg.Conv(256, 5, groups=2), hg.Relu(), hg.MaxPool(3, 2)),
        *(hg.Conv(384, 3), hg.Relu()),
        *(hg.Conv(384, 3, groups=2), hg.Relu()),
        *(hg.Conv(256, 3, groups=2), hg.Relu(), hg.MaxPool(3, 2)),
        *(hg.Flatten(), hg.Dense(4096), hg.Relu(), hg.Dense(4096), hg.Relu(), hg.Dense(1000)),
    )


CASES = {
    "lenet": Case("LeNet-like, batch 128", hg.models.lenet(dropout=0), (28, 28, 1), 128, 0.005, 1e-4),
    "vgg": Case("VGG-like, batch 64", vgg_like(), (32, 32, 3), 64, 0.0005, 1e-4),
    "vgg_bn": Case("VGG-like with batch norm, batch 64", vgg_like(batch_norm=True), (32, 32, 3), 64, 0.002, 1e-3),
    "alexnet": Case("AlexNet 2012, batch 16", alexnet(), (227, 227, 3), 16, 0.0001, 1e-3, classes=1000),
    "resnet20": Case("ResNet-20, batch 64", hg.models.resnet20(), (32, 32, 3), 64, 0.01, 1e-3),
}

QUICK_CASES = {
    "lenet": Case("LeNet-like, batch 8", hg.models.lenet(dropout=0), (28, 28, 1), 8, 0.01, 1e-4),
    "vgg_bn": Case("VGG-like of an eighth of the width, batch 8", vgg_like(True, (8, 16)), (16, 16, 3), 8, 0.01, 1e-3),
    "resnet20": Case("ResNet-8, batch 8", hg.models.cifar_resnet(1), (32, 32, 3), 8, 0.01, 1e-3),
}

"""Small convolutional nets for images of 8x8 to 32x32."""

from handgrad.layers import BatchNorm, Chain, Conv, Dense, Dropout, Flatten, GlobalAvgPool, Layer, MaxPool, Relu


def lenet(classes: int = 10, dropout: float = 0.5) -> Chain:
    """The LeNet-like net of the README, for images of about 28x28: two 5x5 convolutions with pools, two dense layers.

    857,738 parameters at 28x28x1 and 10 classes. `dropout` is the rate before the last layer, 0 for none.

    Args:
        classes: the number of outputs.
        dropout: the rate before the last layer, 0 for none.

    Source: after LeCun et al., Gradient-based learning applied to document recognition, 1998; with ReLU, max pools and
    more features.

    Example:
        >>> lenet(dropout=0)
        Chain(Conv(32, 5), Relu(), MaxPool(2), Conv(64, 5), Relu(), MaxPool(2), Flatten(), Dense(256), Relu(),
            Dense(10))
    """
    features = (Conv(32, 5), Relu(), MaxPool(2), Conv(64, 5), Relu(), MaxPool(2))
    head = (Flatten(), Dense(256), Relu(), *((Dropout(dropout),) if dropout else ()), Dense(classes))
    return Chain(*features, *head)


def digits_cnn(classes: int = 10, dropout: float = 0.5) -> Chain:
    """A net for the 8x8 digits: two 3x3 convolutions with pools, one dense layer.

    79,626 parameters at 8x8x1 and 10 classes. `dropout` is the rate before the last layer, 0 for none.

    Args:
        classes: the number of outputs.
        dropout: the rate before the last layer, 0 for none.

    Example:
        >>> digits_cnn(dropout=0)
        Chain(Conv(64, 3), Relu(), MaxPool(2), Conv(128, 3), Relu(), MaxPool(2), Flatten(), Dense(10))
    """
    features = (Conv(64, 3), Relu(), MaxPool(2), Conv(128, 3), Relu(), MaxPool(2))
    return Chain(*features, Flatten(), *((Dropout(dropout),) if dropout else ()), Dense(classes))


def fashion_cnn(classes: int = 10) -> Chain:
    """A net for 28x28 images with fewer than 100,000 parameters: four 3x3 convolutions with batch norm, and their mean.

    93,546 parameters at 28x28x1 and 10 classes. docs/fashion_mnist.md has what it reaches on Fashion-MNIST.

    Args:
        classes: the number of outputs.

    Source: after Simonyan and Zisserman, 2014 (3x3 convolutions), Ioffe and Szegedy, 2015 (batch norm), and Lin, Chen
    and Yan, 2013 (the mean over all places).

    Example:
        >>> [name for name, _ in fashion_cnn().items()][-2:]
        ['globalavgpool1', 'dense1']
    """
    layers: list[Layer] = []
    for features, pool in ((32, True), (64, False), (64, True), (64, False)):
        layers += [Conv(features, 3, use_bias=False), BatchNorm(), Relu(), *([MaxPool(2)] if pool else [])]
    return Chain(*layers, GlobalAvgPool(), Dense(classes))

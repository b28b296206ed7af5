"""Dense nets: a layer of perceptrons, and several layers with ReLU between them."""

from collections.abc import Sequence

from handgrad.layers import Chain, Dense, Dropout, Flatten, Layer, Relu


def perceptron(classes: int = 10) -> Chain:
    """One layer of soft perceptrons, one a class: logits = x W + b.

    Args:
        classes: the number of outputs.

    Source: Rosenblatt, The perceptron, 1958; with softmax in the place of his threshold, which has no useful gradient.

    Example:
        >>> perceptron(3)
        Chain(Flatten(), Dense(3))
    """
    return Chain(Flatten(), Dense(classes))


def mlp(classes: int = 10, hidden: Sequence[int] = (128, 64), dropout: float = 0.0) -> Chain:
    """Dense layers with ReLU between them.

    Args:
        classes: the number of outputs.
        hidden: the width of each hidden layer.
        dropout: the rate of dropout behind each hidden layer, 0 for none.

    Source: Rumelhart, Hinton and Williams, Learning representations by back-propagating errors, 1986.

    Example:
        >>> mlp(3, hidden=(8,))
        Chain(Flatten(), Dense(8), Relu(), Dense(3))
    """
    layers: list[Layer] = [Flatten()]
    for width in hidden:
        layers += [Dense(width), Relu(), *([Dropout(dropout)] if dropout else [])]
    return Chain(*layers, Dense(classes))

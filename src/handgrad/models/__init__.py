"""Nets by name: each function gives a layer, to be initialised with `net.init(key, in_shape)`."""

from handgrad.models.names import NAMES, by_name
from handgrad.models.small import digits_cnn, lenet, mlp, perceptron

__all__ = ["NAMES", "by_name", "digits_cnn", "lenet", "mlp", "perceptron"]

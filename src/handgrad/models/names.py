"""The nets that can be asked for by name, as the command line does."""

import inspect
from collections.abc import Callable
from typing import Any

from handgrad.layers import Chain
from handgrad.models.alexnet import alexnet, alexnet_one_tower
from handgrad.models.lenet import lenet5
from handgrad.models.mlp import mlp, perceptron
from handgrad.models.mobilenet import mobilenet_v1
from handgrad.models.resnet import resnet18, resnet20, resnet32, resnet34, resnet50, resnet56
from handgrad.models.resnet9 import resnet9
from handgrad.models.small import digits_cnn, fashion_cnn, lenet
from handgrad.models.vgg import vgg11, vgg13, vgg16, vgg19

NAMES: dict[str, Callable[..., Chain]] = {
    "perceptron": perceptron,
    "mlp": mlp,
    "lenet": lenet,
    "digits_cnn": digits_cnn,
    "fashion_cnn": fashion_cnn,
    "lenet5": lenet5,
    "alexnet": alexnet,
    "alexnet_one_tower": alexnet_one_tower,
    "vgg11": vgg11,
    "vgg13": vgg13,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet9": resnet9,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet56": resnet56,
    "mobilenet_v1": mobilenet_v1,
}

IMAGENET = (224, 224, 3)
CIFAR = (32, 32, 3)
IN_SHAPES: dict[str, tuple[int, ...]] = {
    "perceptron": (28, 28, 1),
    "mlp": (28, 28, 1),
    "lenet": (28, 28, 1),
    "digits_cnn": (8, 8, 1),
    "fashion_cnn": (28, 28, 1),
    "lenet5": (32, 32, 1),
    "alexnet": (227, 227, 3),
    "alexnet_one_tower": IMAGENET,
    "vgg11": IMAGENET,
    "vgg13": IMAGENET,
    "vgg16": IMAGENET,
    "vgg19": IMAGENET,
    "resnet18": IMAGENET,
    "resnet34": IMAGENET,
    "resnet50": IMAGENET,
    "resnet9": CIFAR,
    "resnet20": CIFAR,
    "resnet32": CIFAR,
    "resnet56": CIFAR,
    "mobilenet_v1": IMAGENET,
}


def by_name(name: str, **settings: Any) -> Chain:
    """The net of that name.

    Args:
        name: one of `NAMES`.
        **settings: what its function takes, such as `classes` and `dropout`.

    Returns:
        The net, to be initialised with `net.init(key, in_shape)`.

    Raises:
        ValueError: an unknown name, or a setting that this net does not have.

    Example:
        >>> by_name("perceptron", classes=3)
        Chain(Flatten(), Dense(3))
    """
    if name not in NAMES:
        raise ValueError(f"models: there is no net named {name!r}; take one of {', '.join(NAMES)}")
    known = inspect.signature(NAMES[name]).parameters
    for setting in settings:
        if setting not in known:
            raise ValueError(f"models: {name} has no setting {setting!r}; it has {', '.join(known)}")
    return NAMES[name](**settings)

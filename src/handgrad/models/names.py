"""The nets that can be asked for by name, as the command line does."""

import inspect
from collections.abc import Callable
from typing import Any

from handgrad.layers import Chain
from handgrad.models.small import digits_cnn, lenet, mlp, perceptron

NAMES: dict[str, Callable[..., Chain]] = {
    "perceptron": perceptron,
    "mlp": mlp,
    "lenet": lenet,
    "digits_cnn": digits_cnn,
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

"""Wrong backward passes, put into a net on purpose, to see a gradient check find them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import jax.numpy as jnp

from handgrad.insight.leaves import Wrapped, leaf_layers, wrap_leaves
from handgrad.layers.affine import Affine
from handgrad.layers.container import Chain
from handgrad.layers.layer import Array, Params, Residuals

Wrong = Callable[[Array, dict[str, Array]], tuple[Array, dict[str, Array]]]


def _transposed(dkernel: Array) -> Array:
    return jnp.swapaxes(dkernel, 0, 1).reshape(dkernel.shape)


ERRORS: dict[str, tuple[str, Wrong]] = {
    "sign": ("dx has the wrong sign", lambda dx, d: (-dx, d)),
    "factor": ("dkernel is twice what it should be", lambda dx, d: (dx, d | {"kernel": 2 * d["kernel"]})),
    "transpose": (
        "dkernel has its first two axes swapped",
        lambda dx, d: (dx, d | {"kernel": _transposed(d["kernel"])}),
    ),
    "bias": ("dbias is forgotten, so 0", lambda dx, d: (dx, d | {"bias": jnp.zeros_like(d["bias"])})),
}


@dataclass(frozen=True, repr=False)
class Planted(Wrapped):
    """A layer whose backward has one of `ERRORS`."""

    error: str

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """The layer's own gradients, made wrong."""
        dx, dparams = self.layer.backward(params, residuals, dy)
        return ERRORS[self.error][1](dx, dict(dparams))


def plant(net: Chain, error: str) -> tuple[Chain, str]:
    """The net with an error in its second layer that can have it, or in its only one, and that layer's name.

    Example:
        >>> import handgrad as hg
        >>> plant(hg.Chain(hg.Dense(4), hg.Relu(), hg.Dense(2)), "sign")[1]
        'dense2'
    """
    layers = [(path, layer) for path, layer in leaf_layers(net) if isinstance(layer, Affine)]
    place = [path for path, layer in layers if error != "bias" or getattr(layer, "use_bias", True)][:2][-1]
    wrong = wrap_leaves(lambda layer, path: Planted(layer, path, error) if path == place else layer, net)
    return cast(Chain, wrong), place  # other leaves leave a chain a chain

"""Dropout. Its mathematics stands in ops/dropout.py."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State
from handgrad.ops.dropout import dropout, dropout_backward, dropout_forward, dropout_inference


@dataclass(frozen=True, repr=False)
class Dropout(Layer):
    """In training sets each element to zero with probability `rate`. No parameters; training wants a key.

    `inverted=True` divides what is kept by 1 - rate in training, and inference changes nothing. `inverted=False` is the
    classic form: training scales nothing, inference multiplies by 1 - rate ("halve the outgoing weights").

    Args:
        rate: the probability of dropping, at least 0 and below 1; a traced number is accepted too.
        inverted: which of the two forms.

    Raises:
        ValueError: a rate out of range, or no key in training.

    Source: Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014.

    Example:
        >>> x = jax.numpy.ones(1000)
        >>> y, _, _ = Dropout(0.5).forward({}, x, key=jax.random.key(0))
        >>> sorted(set(y.tolist())), Dropout(0.5).apply({}, x).mean().item()
        ([0.0, 2.0], 1.0)
    """

    kind: ClassVar[str] = "dropout"
    rate: float
    inverted: bool = True

    def __post_init__(self) -> None:
        """Check the rate."""
        if isinstance(self.rate, int | float) and not 0 <= self.rate < 1:
            name = type(self).__name__
            raise ValueError(f"{name}: rate is the probability of dropping, at least 0 and below 1, got {self.rate}")

    def keep(self, x: Array, key: Array | None) -> Array:
        """The mask of what is kept, boolean."""
        if key is None:
            name = type(self).__name__
            raise ValueError(f"{name}: training needs a key; pass key=jax.random.key(...), or use hg.inference(net)")
        return jax.random.bernoulli(key, 1 - self.rate, self.mask_shape(x))

    def mask_shape(self, x: Array) -> Shape:
        """The shape of the mask: one decision for each element."""
        return x.shape

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """X itself, or (1 - rate) x in the classic form."""
        return dropout_inference(x, rate=self.rate, inverted=self.inverted)

    def apply_train(self, params: Params, x: Array, state: State = (), key: Array | None = None) -> tuple[Array, State]:
        """X with a random mask."""
        return dropout(x, self.keep(x, key), rate=self.rate, inverted=self.inverted), state

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """X with the same random mask, which is kept."""
        y, keep = dropout_forward(x, self.keep(x, key), rate=self.rate, inverted=self.inverted)
        return y, state, {"keep": keep}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """Dy with the mask of forward."""
        return dropout_backward(residuals["keep"], dy, rate=self.rate, inverted=self.inverted), {}

    def inference(self) -> Layer:
        """Dropout that stays off."""
        return FrozenDropout(self.rate, self.inverted, name=self.name)


@dataclass(frozen=True, repr=False)
class FrozenDropout(Dropout):
    """Dropout as in inference, in training too: the map is a constant factor and its own transpose. Wants no key.

    Example:
        >>> FrozenDropout(0.5, inverted=False).forward({}, jax.numpy.ones(2))[0].tolist()
        [0.5, 0.5]
    """

    def apply_train(self, params: Params, x: Array, state: State = (), key: Array | None = None) -> tuple[Array, State]:
        """The same as apply."""
        return self.apply(params, x, state), state

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The same as apply, keeping nothing."""
        return self.apply(params, x, state), state, {}

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """The same factor on dy."""
        return dropout_inference(dy, rate=self.rate, inverted=self.inverted), {}

    def inference(self) -> Layer:
        """Itself."""
        return self


@dataclass(frozen=True, repr=False)
class SpatialDropout(Dropout):
    """In training sets whole channels of an example to zero with probability `rate`. No parameters; wants a key.

    Neighbouring places of a channel say nearly the same, so an element that `Dropout` drops is still told by those
    beside it; here a channel goes at all its places, and each example draws its own. x is (N, *A, C).

    Args:
        rate: the probability of dropping, at least 0 and below 1; a traced number is accepted too.
        inverted: which of the two forms, as in `Dropout`.

    Raises:
        ValueError: a rate out of range, an x without spatial axes, or no key in training.

    Source: Tompson et al., Efficient object localization using convolutional networks, 2015.

    Example:
        >>> y, _, _ = SpatialDropout(0.5).forward({}, jax.numpy.ones((1, 8, 8, 64)), key=jax.random.key(0))
        >>> bool((y == y[:, :1, :1]).all()), sorted(set(y.ravel().tolist()))
        (True, [0.0, 2.0])
    """

    kind: ClassVar[str] = "spatialdropout"

    def mask_shape(self, x: Array) -> Shape:
        """One decision for each channel of each example: (N, 1.., C)."""
        if x.ndim < 3:
            raise ValueError(f"SpatialDropout: x must be (N, *spatial, C), got shape {x.shape}; use hg.Dropout")
        return (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])

    def inference(self) -> Layer:
        """Dropout that stays off."""
        return FrozenSpatialDropout(self.rate, self.inverted, name=self.name)


@dataclass(frozen=True, repr=False)
class FrozenSpatialDropout(FrozenDropout):
    """Spatial dropout as in inference, which is that of dropout by element.

    Example:
        >>> FrozenSpatialDropout(0.5, inverted=False).forward({}, jax.numpy.ones((1, 1, 2)))[0].tolist()
        [[[0.5, 0.5]]]
    """

    kind: ClassVar[str] = "spatialdropout"

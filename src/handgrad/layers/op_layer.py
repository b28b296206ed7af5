"""A layer that is one op of one array, without parameters: activations and pools."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from handgrad.layers.layer import Array, Layer, Params, Residuals, State
from handgrad.ops.rules import RULES


@dataclass(frozen=True, repr=False)
class OpLayer(Layer):
    """A layer of one op: its fields are the op's settings."""

    op: ClassVar[str]

    def settings(self) -> dict[str, Any]:
        """The keyword settings of the op."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "name"}

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """The op by its plain formula."""
        return RULES[self.op].op(x, **self.settings())

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The op, with what its backward keeps."""
        y, residuals = RULES[self.op].forward(x, **self.settings())
        return y, state, residuals

    def backward(self, params: Params, residuals: Residuals, dy: Array) -> tuple[Array, Any]:
        """The op's gradient; there are no parameters."""
        (dx,) = RULES[self.op].backward(residuals, dy, **self.settings())
        return dx, {}

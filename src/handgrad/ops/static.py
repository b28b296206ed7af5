"""Static: the one kind of residual that is no array."""

from dataclasses import dataclass
from typing import Any

import jax


@jax.tree_util.register_static
@dataclass(frozen=True)
class Static:
    """A residual that is no array, such as a shape. It has no leaves, so jit, vmap and scan leave it alone.

    Args:
        value: anything hashable.

    Example:
        >>> jax.tree.leaves({"in_shape": Static((2, 3))})
        []
    """

    value: Any

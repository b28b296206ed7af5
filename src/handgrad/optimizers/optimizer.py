"""What all optimizers share: the pair Optimizer, the types they compute in, and their checks."""

import inspect
import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Tree = Any


class Optimizer(NamedTuple):
    """A pair of pure functions: init(params) -> opt_state; update(grads, opt_state, params=None) -> updates, opt_state.

    An update that has an argument `at` besides, such as that of `hg.kfac`, is told where the gradients were taken: the
    arguments (params, x, y, state, key, weights) of the objective.

    Attributes:
        init: the state before the first update.
        update: what is to be added to params, and the new state.

    Example:
        >>> from handgrad.optimizers import chain, sgd
        >>> def update(grads, state, params=None):
        ...     return jax.tree.map(jnp.sign, grads), state
        >>> sign = Optimizer(lambda params: (), update)
        >>> optimizer = chain(sign, sgd(0.5))
        >>> g = jnp.float32(-3.0)
        >>> updates, _ = optimizer.update(g, optimizer.init(g))
        >>> print(updates)
        0.5
    """

    init: Callable[[Tree], Tree]
    update: Callable[..., tuple[Tree, Tree]]


def update_at(optimizer: Any, grads: Tree, state: Tree, params: Tree | None, at: Any) -> tuple[Tree, Tree]:
    """The optimizer's update, with `at` if it takes that: the arguments of the objective whose gradients these are."""
    takes_it = "at" in inspect.signature(optimizer.update).parameters
    return optimizer.update(grads, state, params, **({"at": at} if takes_it else {}))


def as_type_of(number: ArrayLike, like: jax.Array) -> jax.Array:
    """The number as an array () of like's type, so that a float64 rate does not widen float32 parameters."""
    return jnp.asarray(number, like.dtype)


def wide(a: jax.Array) -> jax.Array:
    """The array in float32 at least."""
    a = jnp.asarray(a)
    return a.astype(jnp.float32) if jnp.finfo(a.dtype).bits < 32 else a


def decayed(name: str, direction: Tree, params: Tree | None, weight_decay: ArrayLike) -> Tree:
    """The direction + λ θ, leaf by leaf."""
    if params is None:
        raise ValueError(f"{name}: weight decay needs params, got None; call update(grads, opt_state, params)")
    return jax.tree.map(lambda d, p: d + as_type_of(weight_decay, d) * jnp.asarray(p, d.dtype), direction, params)


def check_number(name: str, argument: str, value: ArrayLike, below: float = math.inf) -> None:
    """A scalar, and if it is a number, not a traced or concrete array: 0 <= value < below."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real | np.ndarray | jax.Array):
        raise TypeError(f"{name}: {argument} must be a number or a scalar array, got {type(value).__name__} {value!r}")
    if jnp.ndim(value) != 0:
        raise ValueError(f"{name}: {argument} must be a scalar, got shape {jnp.shape(value)}; use jax.vmap for several")
    if isinstance(value, numbers.Real) and not 0 <= value < below:
        limits = "finite and at least 0" if below == math.inf else f"at least 0 and below {below}"
        raise ValueError(f"{name}: {argument} must be {limits}, got {value!r}")


def check_floating(name: str, params: Tree) -> None:
    """Each parameter is a real floating-point array."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"{name}: parameters must be floating point, got {jnp.result_type(leaf)} at "
                f"params{jax.tree_util.keystr(path)}; leave other numbers out of params"
            )


def check_optimizer(name: str, optimizer: Any) -> None:
    """Something with init and update."""
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        hint = f"; write {optimizer.__name__}(...)" if hasattr(optimizer, "__name__") else ""
        raise TypeError(f"{name}: an optimizer must have init and update, got {optimizer!r}{hint}")

"""Optimizers made from optimizers, and what acts on gradients before one: chain, masked, clipping, decay.

    chain                    u = f_n( ... f_2(f_1(g)))
    masked                   u[leaf] = inner's where mask[leaf], else 0
    clip_by_global_norm      g · min(1, c / ‖g‖)       ‖g‖² = Σ over all leaves and elements of g²
    add_decayed_weights      g + λ θ
    apply_updates            θ + u

At 0: a gradient of norm 0 passes clipping as it is, for the factor is computed as c / max(c, ‖g‖).
NaN: one NaN anywhere makes the norm, and so every gradient, NaN.
Oracle: optax, but for `masked`, whose docstring says where it differs.
"""

import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from handgrad.optimizers.optimizer import (
    Optimizer,
    Tree,
    as_type_of,
    check_number,
    check_optimizer,
    decayed,
    update_at,
    wide,
)

LARGE, PARTS = 1 << 18, 32  # numbers from which on an array's squares are added up in parts, and how many


def chain(*optimizers: Any) -> Optimizer:
    """Each optimizer's updates are the next one's gradients. Ours and optax's may be mixed.

    Args:
        optimizers: one or more pairs with `init` and `update`, in the order in which they act.

    Returns:
        The optimizer; its state is the tuple of their states.

    Raises:
        ValueError: no optimizer at all.
        TypeError: something without `init` and `update`.

    Example:
        >>> from handgrad.optimizers import sgd
        >>> optimizer, g = chain(clip_by_global_norm(1.0), sgd(0.5)), jnp.asarray([3.0, 4.0], jnp.float32)
        >>> updates, _ = optimizer.update(g, optimizer.init(g))
        >>> print(updates)
        [-0.3 -0.4]
    """
    if not optimizers:
        raise ValueError("chain: at least one optimizer must be given, got none")
    for optimizer in optimizers:
        check_optimizer("chain", optimizer)

    def init(params: Tree) -> tuple[Tree, ...]:
        return tuple(optimizer.init(params) for optimizer in optimizers)

    def update(
        grads: Tree, state: tuple[Tree, ...], params: Tree | None = None, at: Any = None
    ) -> tuple[Tree, tuple[Tree, ...]]:
        new_states = []
        for optimizer, its_state in zip(optimizers, state, strict=True):
            grads, its_state = update_at(optimizer, grads, its_state, params, at)
            new_states.append(its_state)
        return grads, tuple(new_states)

    return Optimizer(init, update)


def clip_by_global_norm(max_norm: ArrayLike) -> Optimizer:
    """Scales all gradients by one factor, min(1, max_norm / ‖g‖), with ‖g‖ the root of the sum of all squares.

    Args:
        max_norm: the largest norm that passes unchanged, above 0.

    Returns:
        The optimizer, without state: put it before another one in a `chain`.

    Raises:
        ValueError: a max_norm that is not above 0 and finite.

    Source: Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013.

    Example:
        >>> g = {"a": jnp.asarray([3.0], jnp.float32), "b": jnp.asarray([4.0], jnp.float32)}
        >>> clip_by_global_norm(1.0).update(g, ())[0]
        {'a': Array([0.6], dtype=float32), 'b': Array([0.8], dtype=float32)}
    """
    check_number("clip_by_global_norm", "max_norm", max_norm)
    if isinstance(max_norm, numbers.Real) and max_norm == 0:
        raise ValueError("clip_by_global_norm: max_norm must be above 0, got 0")

    def update(grads: Tree, state: tuple[()], params: Tree | None = None) -> tuple[Tree, tuple[()]]:
        gs = jax.tree.map(wide, grads)
        norm = global_norm(gs)
        scale = as_type_of(max_norm, norm) / jnp.maximum(norm, as_type_of(max_norm, norm))
        return jax.tree.map(lambda w, g: (as_type_of(scale, w) * w).astype(g.dtype), gs, grads), state

    return Optimizer(lambda params: (), update)


def global_norm(tree: Tree) -> jax.Array:
    """The square root of the sum of all squares, of the widest dtype in the tree and float32 at least.

    Example:
        >>> float(global_norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])}))
        5.0
    """
    leaves = [wide(leaf) for leaf in jax.tree.leaves(tree)]
    dtype = max((leaf.dtype for leaf in leaves), key=lambda d: d.itemsize, default=jnp.float32)
    return jnp.sqrt(sum((_sum_of_squares(leaf).astype(dtype) for leaf in leaves), jnp.zeros((), dtype)))


def _sum_of_squares(x: jax.Array) -> jax.Array:
    """Σ x², for a large array as the sum of its parts' squares, place by place, before they are added up.

    XLA's CPU loops add arrays ten times as fast as they add up the numbers of one.
    """
    parts = x.reshape(PARTS, -1) if x.size >= LARGE and x.size % PARTS == 0 else x[None]
    return jnp.sum(sum(part * part for part in parts))


def add_decayed_weights(weight_decay: ArrayLike) -> Optimizer:
    """Weight decay, g ← g + λ θ: before an optimizer in a `chain`, adds the gradient of λ/2 ‖θ‖² to that of the loss.

    Args:
        weight_decay: λ, at least 0. It acts on every parameter; `Objective(l2=...)` acts on kernels only.

    Returns:
        The optimizer, without state; its update needs params.

    Raises:
        ValueError: a negative or non-finite weight_decay, or an update without params.

    Example:
        >>> params, g = jnp.asarray([2.0], jnp.float32), jnp.asarray([1.0], jnp.float32)
        >>> print(add_decayed_weights(0.5).update(g, (), params)[0])
        [2.]
    """
    check_number("add_decayed_weights", "weight_decay", weight_decay)

    def update(grads: Tree, state: tuple[()], params: Tree | None = None) -> tuple[Tree, tuple[()]]:
        sums = decayed("add_decayed_weights", jax.tree.map(wide, grads), params, weight_decay)
        return jax.tree.map(lambda s, g: s.astype(g.dtype), sums, grads), state

    return Optimizer(lambda params: (), update)


def masked(inner: Any, mask: Tree | Callable[[Tree], Tree]) -> Optimizer:
    """Trains the leaves of the mask by `inner` and freezes the others: their updates are 0.

    `masked(adam(1e-3), {"conv1": False, "dense1": True})` trains the head only. optax.masked differs: it hands a leaf
    that is masked out through unchanged, so its *gradient* would be added to it; optax.partition freezes. Because of
    this, `masked` goes around a whole optimizer, not around one link of a `chain`. `inner` sees and remembers the
    masked leaves only, so frozen ones take no memory and do not count in its norms.

    Args:
        inner: an optimizer, ours or optax's.
        mask: True (train) or False (freeze) for each leaf or subtree of params: a tree prefix of params, or a function
            params -> such a tree. The function is called with the gradients in update, so it may look at names,
            shapes and types only.

    Returns:
        The optimizer; its state is inner's.

    Raises:
        ValueError: in init and update, a mask that is no tree prefix of params.
        TypeError: `inner` without `init` and `update`; a mask whose leaves are not bools.

    Example:
        >>> from handgrad.optimizers import sgd
        >>> g = {"body": jnp.ones(2, jnp.float32), "head": jnp.ones(2, jnp.float32)}
        >>> optimizer = masked(sgd(0.5), {"body": False, "head": True})
        >>> updates, _ = optimizer.update(g, optimizer.init(g))
        >>> updates
        {'body': Array([0., 0.], dtype=float32), 'head': Array([-0.5, -0.5], dtype=float32)}
    """
    check_optimizer("masked", inner)

    def init(params: Tree) -> Tree:
        return inner.init(_only(_trained(mask, params), params))

    def update(grads: Tree, state: Tree, params: Tree | None = None, at: Any = None) -> tuple[Tree, Tree]:
        trained = _trained(mask, grads)
        params = None if params is None else _only(trained, params)
        updates, state = update_at(inner, _only(trained, grads), state, params, at)
        leaves, tree = jax.tree.flatten(grads)
        its_updates = iter(jax.tree.leaves(updates))
        every = [next(its_updates) if t else jnp.zeros_like(g) for t, g in zip(trained, leaves, strict=True)]
        return tree.unflatten(every), state

    return Optimizer(init, update)


def apply_updates(params: Tree, updates: Tree) -> Tree:
    """θ + u, leaf by leaf, in the parameters' types.

    Args:
        params: a tree of arrays.
        updates: a tree of the same structure and shapes.

    Returns:
        The new parameters, of the old ones' types. In bfloat16 and float16 an update smaller than the type's step
        around the parameter is lost: train in float32 and convert afterwards where that matters.

    Raises:
        ValueError: trees or shapes that differ.

    Example:
        >>> apply_updates({"w": jnp.ones(2, jnp.float32)}, {"w": jnp.full(2, -0.5, jnp.float32)})
        {'w': Array([0.5, 0.5], dtype=float32)}
    """
    of_params, of_updates = jax.tree.map(jnp.shape, params), jax.tree.map(jnp.shape, updates)
    if of_params != of_updates:
        raise ValueError(
            f"apply_updates: updates must have the structure and shapes of params, got shapes {of_updates} "
            f"for params {of_params}"
        )
    return jax.tree.map(lambda p, u: p + jnp.asarray(u, jnp.result_type(p)), params, updates)


def _trained(mask: Tree | Callable[[Tree], Tree], tree: Tree) -> list[bool]:
    """The mask as one bool for each leaf of the tree."""
    prefix = mask(tree) if callable(mask) else mask
    for leaf in jax.tree.leaves(prefix):
        if not isinstance(leaf, bool | np.bool_):
            raise TypeError(f"masked: mask must hold True and False only, got {type(leaf).__name__} {leaf!r}")
    try:
        return jax.tree.leaves(jax.tree.broadcast(prefix, tree))
    except ValueError as error:
        names = jax.tree.map(jnp.shape, tree)
        raise ValueError(
            f"masked: mask must be a tree prefix of params, got {prefix} for params of shapes {names}; "
            f"say True or False for each branch"
        ) from error


def _only(trained: list[bool], tree: Tree) -> Tree:
    """The tree with None, which has no leaves, in place of each leaf that is frozen."""
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten([leaf if t else None for t, leaf in zip(trained, leaves, strict=True)])

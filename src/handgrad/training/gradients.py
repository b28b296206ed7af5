"""Two ways to a gradient that stand in the place of `hg.value_and_grad`: in parts of the batch, and in half precision.

Parts: a mean over a batch is a mean of means, each weighted by what it was divided by,

    L = Σ_m D_m L_m / Σ_m D_m,      ∇L = Σ_m D_m ∇L_m / Σ_m D_m         (D_m: the examples of part m, or their weights)

so that only one part's residuals are in memory at a time. Half precision: parameters are kept in float32, and rounded
for each pass; the gradient comes back in float32, where a small update is not lost against a large weight.
Source: Micikevicius et al., Mixed precision training, 2018, section 3.1 (float32 masters).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.gradient import Aux, Objective, on_its_mesh, with_penalty
from handgrad.gradient import value_and_grad as by_hand
from handgrad.layers.layer import Array, Params, State

PRECISIONS = {"float32": None, "bf16": jnp.bfloat16, "bfloat16": jnp.bfloat16}


def gradient_accumulation(n: int, value_and_grad: Callable = by_hand) -> Callable:
    """A `value_and_grad` that takes the batch in n parts, one after the other, and gives the whole batch's gradient.

    Equal to the whole batch's for every loss, with weights, ignored labels and l2. Where a layer looks across the batch
    it sees its part: batch norm takes the part's statistics, one part after the other; dropout draws a mask for each.

    Args:
        n: how many parts; they must be of one size.
        value_and_grad: whose gradients.

    Returns:
        A function for `make_train_step(..., value_and_grad=gradient_accumulation(8))`, of the call of
        `hg.value_and_grad(objective, has_aux=True)`, for the parameters alone.

    Raises:
        ValueError: n below 1; at the call, a batch that n does not divide.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(3))
        >>> params, state = net.init(jax.random.key(0), (2,), jnp.float64)
        >>> objective = hg.Objective(net, hg.SoftmaxCrossEntropy(), l2=0.1)
        >>> batch = jax.random.normal(jax.random.key(1), (6, 2), jnp.float64), jnp.arange(6) % 3
        >>> (whole, _), (parts, _) = (f(objective)(params, *batch)[0] for f in (by_hand, gradient_accumulation(3)))
        >>> bool(abs(whole - parts) < 1e-12)
        True
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"gradient_accumulation: n must be an int of at least 1, got {n!r}")

    def in_parts(objective: Objective, argnums: int = 0, has_aux: bool = True) -> Callable:
        if argnums != 0:
            raise ValueError(f"gradient_accumulation: argnums must be 0, the parameters, got {argnums!r}")
        gradient = value_and_grad(Objective(objective.net, objective.loss), has_aux=has_aux)

        def accumulated(
            params: Params, x: Array, y: Array, state: State, key: Array | None, weights: Any
        ) -> tuple[tuple[Array, Aux], Any]:
            parts = jax.tree.map(lambda array: _in_parts(n, jnp.asarray(array)), (x, y, weights))
            first = jax.tree.map(lambda part: part[0], parts)
            (loss, _), grads = jax.eval_shape(gradient, params, *first[:2], state, key, first[2])
            nothing = jax.tree.map(lambda like: jnp.zeros(like.shape, _wide(like.dtype)), (loss, loss, grads))

            def one(carry: Any, part: Any) -> Any:
                state, total = carry
                i, (x, y, weights) = part
                part_key = None if key is None else jax.random.fold_in(key, i)
                (loss, aux), grads = gradient(params, x, y, state, part_key, weights)
                d = _divided_by(objective, aux.logits, y, weights).astype(loss.dtype)
                wide = jax.tree.map(lambda term: term.astype(_wide(term.dtype)), (loss, grads))
                terms = jax.tree.map(lambda term: d.astype(term.dtype) * term, wide)
                return (aux.state, jax.tree.map(jnp.add, total, (d, *terms))), aux.logits

            (state, (d, loss, grads)), logits = jax.lax.scan(one, (state, nothing), (jnp.arange(n), parts))
            d = jnp.where(d == 0, 1, d)
            grads = jax.tree.map(lambda g, p: (g / d.astype(g.dtype)).astype(p.dtype), grads, params)
            grads = with_penalty(grads, params, objective.l2)
            loss = loss / d + objective.penalty(params, loss.dtype)
            return (loss, Aux(_whole(logits), state)), grads

        return on_its_mesh(accumulated)

    return in_parts


def mixed_precision(dtype: Any = jnp.bfloat16, value_and_grad: Callable = by_hand) -> Callable:
    """A `value_and_grad` that computes in a narrow dtype, for parameters that stay in float32.

    Parameters and input are rounded to dtype; logits, and with them the loss, are widened to float32 again; the
    gradient comes back in the dtype of each parameter. State, such as running statistics, keeps its dtype.

    Args:
        dtype: bfloat16, whose range is that of float32, so that no loss scaling is needed; float16 is refused.
        value_and_grad: whose gradients.

    Returns:
        A function of the call of `hg.value_and_grad(objective, has_aux=True)`.

    Raises:
        ValueError: a dtype other than bfloat16.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(3))
        >>> params, state = net.init(jax.random.key(0), (2,), jnp.float32)
        >>> gradient = mixed_precision()(hg.Objective(net, hg.SoftmaxCrossEntropy()))
        >>> (loss, aux), grads = gradient(params, jnp.ones((4, 2), "float32"), jnp.array([0, 1, 2, 0]), state)
        >>> loss.dtype, aux.logits.dtype, grads["dense1"]["kernel"].dtype
        (dtype('float32'), dtype(bfloat16), dtype('float32'))
    """
    if jnp.dtype(dtype) != jnp.bfloat16:
        raise ValueError(f"mixed_precision: dtype must be bfloat16, got {jnp.dtype(dtype)}; float16 would want scaling")

    def narrow(objective: Objective, argnums: int = 0, has_aux: bool = True) -> Callable:
        if argnums != 0:
            raise ValueError(f"mixed_precision: argnums must be 0, the parameters, got {argnums!r}")
        gradient = value_and_grad(Objective(objective.net, objective.loss), has_aux=has_aux)

        def computed(
            params: Params, x: Array, y: Array, state: State = (), key: Array | None = None, weights: Any = None
        ) -> tuple[tuple[Array, Aux], Any]:
            (loss, aux), grads = gradient(_rounded(params, dtype), _rounded(x, dtype), y, state, key, weights)
            state = jax.tree.map(lambda new, old: new.astype(old.dtype), aux.state, state)
            grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)
            loss = loss + objective.penalty(params, loss.dtype)
            return (loss, Aux(aux.logits, state)), with_penalty(grads, params, objective.l2)

        return computed

    return narrow


def in_precision(precision: str | None, value_and_grad: Callable) -> Callable:
    """The value_and_grad in a precision by name: "float32" or None as it is, "bf16" by `mixed_precision`."""
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"make_train_step: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    dtype = None if precision is None else PRECISIONS[precision]
    return value_and_grad if dtype is None else mixed_precision(dtype, value_and_grad)


def _wide(dtype: Any) -> Any:
    """Sums of parts are made in float32 at least."""
    return jnp.float32 if jnp.dtype(dtype).itemsize < 4 else dtype


def _rounded(tree: Any, dtype: Any) -> Any:
    """Floating leaves in the dtype, others as they are."""
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating) else leaf, tree
    )


def _divided_by(objective: Objective, logits: Array, y: Array, weights: Any) -> Array:
    """What the mean loss of a part was divided by."""
    counts = objective.loss.divisor(logits, y)
    return counts.sum() if weights is None else (counts * weights.astype(counts.dtype)).sum()


def _in_parts(n: int, array: Array) -> Array:
    """(N, ...) as (n, N/n, ...): part m has the rows m, m + n, ..., some of each device's where a batch is spread."""
    if array.shape[0] % n:
        raise ValueError(f"gradient_accumulation: a batch of {array.shape[0]} does not divide into {n} parts")
    return jnp.swapaxes(array.reshape(array.shape[0] // n, n, *array.shape[1:]), 0, 1)


def _whole(parts: Array) -> Array:
    """The rows of all parts in their order: the way back."""
    return jnp.swapaxes(parts, 0, 1).reshape(-1, *parts.shape[2:])

"""Gradients of each example by itself: as arrays, as norms that need no such arrays, and clipped and summed.

The batch's gradient is a sum over examples; one backward pass has all that its terms are made of, each layer's input
x_i and the gradient δ_i in its output. Example i's gradient in a dense kernel is x_iᵀ δ_i; its norm needs no kernel:

    |Σ_t x_it δ_itᵀ|² = Σ_ts (x_it · x_is)(δ_it · δ_is)             the ghost norm; t: the places a kernel is used at

A convolution is a sum of dense layers. And where no layer mixes examples, scaling example i's loss by c_i scales its
δ_i in every layer, so that the sum Σ_i c_i g_i is each layer's backward on c_i δ_i, without another pass.

g_i is the gradient of the objective on example i alone, its penalty included, as `jax.vmap` of `jax.grad` gives it;
each example has the dropout mask that the whole batch gave it.
Sources: Goodfellow, Efficient per-example gradient computations, 2015 (norms); Li, Tramèr, Liang and Hashimoto, Large
language models can be strong differentially private learners, 2022 (ghost norms); Bu, Mao and Xu, Scalable and
efficient training of large convolutional neural networks with differential privacy, 2022 (the form by shape); Bu, Wang,
Zha and Karypis, Differentially private optimization on large model at small cost, 2022 (no second pass); Abadi et al.,
Deep learning with differential privacy, 2016, algorithm 1 (clipping).
"""

import math
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.gradient import Objective, is_kernel, is_off, with_penalty
from handgrad.insight.ghost import ghost_products, is_affine, per_example_kernels, sum_each, sum_squares
from handgrad.insight.leaves import innermost, leaf_layers, with_leaves
from handgrad.insight.tap import Seen, open_passes
from handgrad.layers.container import Container
from handgrad.layers.layer import Array, Layer, Params, State
from handgrad.layers.norm import BatchNorm, FrozenBatchNorm
from handgrad.ops.precision import wide


def per_example_grads(objective: Objective) -> Callable[..., Any]:
    """The gradient of each example, with an axis of N in front of every parameter's.

    Args:
        objective: what is differentiated.

    Returns:
        A function of (params, x, y, state=(), key=None) that gives a tree like params, of arrays (N, ...).

    Raises:
        TypeError: something that is no Objective.
        ValueError: a net with a BatchNorm in training, whose output mixes the examples; say hg.inference(net).

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(3))
        >>> params, _ = net.init(jax.random.key(0), (2,), jnp.float64)
        >>> x, y = jax.random.normal(jax.random.key(1), (4, 2), jnp.float64), jnp.array([0, 1, 2, 0])
        >>> objective = hg.Objective(net, hg.SoftmaxCrossEntropy())
        >>> each, whole = per_example_grads(objective)(params, x, y), hg.grad(objective)(params, x, y)[0]
        >>> each, whole = each["dense1"]["kernel"], whole["dense1"]["kernel"]
        >>> each.shape, bool(jnp.allclose(each.mean(0), whole))
        ((4, 2, 3), True)
    """
    layers = _checked("per_example_grads", objective)

    def each(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> Any:
        seen = _seen(objective, params, x, y, state, key)
        grads = {name: layer_grads(layer, seen[name]) for name, layer in layers.items()}
        grads = with_leaves(objective.net, params, grads)
        return with_penalty(grads, jax.tree.map(lambda p: p[None], params), objective.l2)

    return each


def per_example_norms(objective: Objective) -> Callable[..., Array]:
    """The length of each example's gradient over all parameters, √Σ |g_i|², without the gradients of dense and conv.

    Their kernels' part is a ghost norm, in the form that is cheaper by shape: the Gram form above, T²(I + O) products
    an example for T places, I inputs and O features; or the direct one, |xᵀδ|², T·I·O. Other layers' gradients, such as
    those of a norm's scale, are small, and are made.

    Args:
        objective: what is differentiated.

    Returns:
        A function of (params, x, y, state=(), key=None) that gives the norms (N,).

    Raises:
        TypeError, ValueError: as `per_example_grads`.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(1, use_bias=False))
        >>> params = {"dense1": {"kernel": jnp.zeros((2, 1))}}
        >>> objective = hg.Objective(net, hg.MeanSquaredError())
        >>> x, y = jnp.array([[3.0, 4.0], [0.0, 1.0]]), jnp.array([[1.0], [2.0]])
        >>> per_example_norms(objective)(params, x, y).tolist()
        [10.0, 4.0]
    """
    layers = _checked("per_example_norms", objective)

    def norms(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> Array:
        return _norms(objective, layers, _seen(objective, params, x, y, state, key))

    return norms


def clipped_grad(objective: Objective, max_norm: float | Array, noise: float | Array = 0.0) -> Callable[..., Any]:
    """The sum of the examples' gradients, each scaled down to a length of max_norm if it is longer.

    Σ_i g_i min(1, max_norm / |g_i|) + noise · max_norm · N(0, 1)

    Divided by N it is the gradient of differentially private SGD. One forward pass, one backward pass, the ghost norms,
    and then each layer's parameters alone, by its backward on scaled δ_i: never N gradients.

    Args:
        objective: what is differentiated.
        max_norm: the longest that one example's gradient may be, above 0.
        noise: standard deviation of the noise, in units of max_norm.

    Returns:
        A function of (params, x, y, state=(), key=None) that gives a tree like params: the sum, not the mean, and no
        aux. With noise it needs a key; the noise's own key is derived from it, and the masks of dropout are those that
        the key gives without noise.

    Raises:
        TypeError: as `per_example_grads`; a max_norm or noise that is no number.
        ValueError: as `per_example_grads`; a max_norm that is not above 0, noise below 0, noise
            without a key or with an infinite max_norm.

    Source: Abadi et al., Deep learning with differential privacy, 2016, algorithm 1.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(1, use_bias=False))
        >>> params = {"dense1": {"kernel": jnp.zeros((2, 1))}}
        >>> objective = hg.Objective(net, hg.MeanSquaredError())
        >>> x, y = jnp.array([[3.0, 4.0], [0.0, 1.0]]), jnp.array([[1.0], [2.0]])
        >>> clipped_grad(objective, max_norm=5.0)(params, x, y)["dense1"]["kernel"].ravel().tolist()
        [-3.0, -8.0]
    """
    layers = _checked("clipped_grad", objective)
    for name, value, fits, wanted in (
        ("max_norm", max_norm, lambda v: v > 0, "above 0"),
        ("noise", noise, lambda v: 0 <= v < math.inf, "at least 0 and finite"),
    ):
        if not isinstance(value, int | float | np.number | Array) or isinstance(value, bool):
            raise TypeError(f"clipped_grad: {name} must be a number, got {value!r}")
        if isinstance(value, Array) and value.ndim:
            raise TypeError(f"clipped_grad: {name} must be a number, got an array of shape {value.shape}")
        if not isinstance(value, Array) and not fits(value):
            raise ValueError(f"clipped_grad: {name} must be {wanted}, got {value}")
    noisy = isinstance(noise, Array) or noise > 0
    if noisy and not isinstance(max_norm, Array) and max_norm == math.inf:
        raise ValueError("clipped_grad: noise is in units of max_norm, which must be finite, got inf")

    def clipped(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> Any:
        if noisy and key is None:
            raise ValueError("clipped_grad: noise needs a key; pass key=jax.random.key(...)")
        seen = _seen(objective, params, x, y, state, key)
        norms = _norms(objective, layers, seen)
        bound = jnp.asarray(max_norm, norms.dtype)
        scale = jnp.where(norms > bound, bound / jnp.where(norms == 0, 1, norms), 1)
        grads = with_leaves(objective.net, params, {n: _scaled_sum(layers[n], seen[n], scale) for n in layers})
        if not is_off(objective.l2):
            grads = with_penalty(grads, params, jnp.asarray(objective.l2, scale.dtype) * scale.sum())
        return grads if not noisy else _with_noise(grads, jnp.asarray(noise, norms.dtype) * bound, key)

    return clipped


def _scaled_sum(layer: Layer, seen: Seen, scale: Array) -> Any:
    """Σ_i scale_i g_i of one layer: the gradient of its parameters for scale_i δ_i."""
    if not jax.tree.leaves(seen.params):
        return seen.dparams
    return layer.backward(seen.params, seen.residuals, seen.dy * _like(scale, seen.dy))[1]


def _checked(tool: str, objective: Objective) -> dict[str, Layer]:
    """The leaf layers by path, once none of them is known to mix the examples of a batch."""
    if not isinstance(objective, Objective):
        raise TypeError(f"{tool}: wants an hg.Objective, got {objective!r}; write hg.Objective(net, loss)")
    check_apart(tool, objective.net)
    return dict(leaf_layers(objective.net))


def check_apart(tool: str, net: Layer) -> None:
    """Raise a ValueError for a BatchNorm in training, which mixes the examples of a batch.

    A layer of the user's own that mixes them cannot be told from one that does not.
    """
    for leaf, layer in leaf_layers(net):
        for path in _batch_norms(leaf, layer):
            raise ValueError(
                f"{tool}: {path} is a BatchNorm in training, whose output mixes the examples of a batch, so that none "
                f"has a gradient of its own; use hg.inference(net), with running statistics"
            )


def _batch_norms(path: str, layer: Layer) -> Iterator[str]:
    """The paths of those in training, also inside a container that is differentiated whole."""
    inner = innermost(layer)
    if isinstance(inner, BatchNorm) and not isinstance(inner, FrozenBatchNorm):
        yield path
    for name, child in inner.items() if isinstance(inner, Container) else ():
        yield from _batch_norms(f"{path}/{name}", child)


def _seen(objective: Objective, params: Params, x: Array, y: Array, state: State, key: Array | None) -> dict[str, Seen]:
    """What each layer meets in one forward and one backward pass, δ from the loss of each example as a batch of one."""
    loss = objective.loss

    def of_each(logits: Array) -> tuple[Array, Array]:
        jax.eval_shape(lambda logits: loss(logits, y), logits)  # are these labels for these logits?
        one = jax.vmap(lambda row, label: loss.value_and_grad(row[None], label[None]))
        losses, dlogits = one(logits, jnp.asarray(y))
        return losses.sum(), dlogits[:, 0]

    return open_passes(objective.net, params, x, state, key, of_each).layers


def layer_grads(layer: Layer, seen: Seen) -> Any:
    """The gradients of one layer's parameters for each example, (N, ...).

    Dense and Conv have them in their rows. Others by their own forward and backward on each example by itself; where
    forward draws random numbers, on the whole batch's residuals, with δ of one example at a time: the same masks.
    """
    if not jax.tree.leaves(seen.params):
        return seen.dparams
    if is_affine(layer):
        return per_example_kernels(layer, seen)
    if uses_key(layer, seen):
        n = seen.x.shape[0]

        def of_one(i: Array) -> Any:
            alone = jnp.where(_like(jnp.arange(n) == i, seen.dy), seen.dy, 0)
            return layer.backward(seen.params, seen.residuals, alone)[1]

        return jax.vmap(of_one)(jnp.arange(n))

    def of_example(x: Array, dy: Array) -> Any:
        _, _, residuals = layer.forward(seen.params, x[None], seen.state, seen.key)
        return layer.backward(seen.params, residuals, dy[None])[1]

    return jax.vmap(of_example)(seen.x, seen.dy)


def uses_key(layer: Layer, seen: Seen) -> bool:
    """Whether the layer's output depends on its key, as the jaxpr of its forward tells."""
    if seen.key is None:
        return False

    def forward(key: Array) -> Any:
        return layer.forward(seen.params, seen.x, seen.state, key)[0]

    jaxpr = jax.make_jaxpr(forward)(seen.key).jaxpr
    needed = {id(variable) for variable in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(variable) in needed for variable in equation.outvars):
            needed |= {id(variable) for variable in equation.invars}
    return id(jaxpr.invars[0]) in needed


def _norms(objective: Objective, layers: dict[str, Layer], seen: dict[str, Seen]) -> Array:
    """|g_i| over all layers, (N,); with a penalty |g + 2λW|² = |g|² + 4λ g·W + 4λ²|W|²."""
    total = jnp.zeros(len(next(iter(seen.values())).x), jnp.float32)
    for name, layer in layers.items():
        if not jax.tree.leaves(seen[name].params):
            continue
        squares, along = (ghost_products if is_affine(layer) else _made_products)(layer, seen[name])
        kernels = [p for path, p in jax.tree.leaves_with_path(seen[name].params) if is_kernel(path)]
        if kernels and not is_off(objective.l2):
            penalty = jnp.asarray(objective.l2, squares.dtype)
            size = sum(jnp.sum(jnp.square(wide(kernel))) for kernel in kernels)
            squares = squares + 4 * penalty * along + 4 * jnp.square(penalty) * size
        total = total.astype(squares.dtype) + squares
    some = total > 0  # rounding may take a sum of products below; at 0 the root has no derivative
    return jnp.where(some, jnp.sqrt(jnp.where(some, total, 1)), jnp.where(jnp.isnan(total), total, 0))


def _made_products(layer: Layer, seen: Seen) -> tuple[Array, Array]:
    """|g_i|² and g_i · W over kernels, by gradients that are made."""
    grads = layer_grads(layer, seen)
    pairs = zip(jax.tree.leaves_with_path(seen.params), jax.tree.leaves(grads), strict=True)
    along = [sum_each(g * jnp.broadcast_to(p, g.shape)) for (path, p), g in pairs if is_kernel(path)]
    squares = [sum_squares(g) for g in jax.tree.leaves(grads)]
    return reduce(jnp.add, squares), reduce(jnp.add, along, jnp.zeros_like(squares[0]))


def _with_noise(tree: Any, deviation: Any, key: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.fold_in(key, jnp.uint32(2**32 - 1)), len(leaves))  # no child's key
    noise = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return structure.unflatten(
        [leaf + jnp.asarray(deviation, leaf.dtype) * n for leaf, n in zip(leaves, noise, strict=True)]
    )


def _like(per_example: Array, array: Array) -> Array:
    """(N,) with the axes of (N, ...), and its dtype where it is no mask."""
    shaped = per_example.reshape(-1, *(1,) * (array.ndim - 1))
    return jnp.broadcast_to(shaped if shaped.dtype == bool else shaped.astype(array.dtype), array.shape)

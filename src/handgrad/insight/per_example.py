"""Gradients of each example by itself: as arrays, as norms that need no such arrays, and clipped and summed.

The batch's gradient is a sum over examples; one backward pass has all that its terms are made of, each layer's input
x_i and the gradient δ_i in its output. Example i's gradient in a dense kernel is x_iᵀ δ_i; its norm needs no kernel:

    |Σ_t x_it δ_itᵀ|² = Σ_ts (x_it · x_is)(δ_it · δ_is)             the ghost norm; t: the places a kernel is used at

A convolution is a sum of dense layers. g_i is the gradient of the objective on example i alone, its penalty included,
as `jax.vmap` of `jax.grad` gives it; each example has the dropout mask that the whole batch gave it.
Sources: Goodfellow, Efficient per-example gradient computations, 2015 (norms); Li, Tramèr, Liang and Hashimoto, Large
language models can be strong differentially private learners, 2022 (ghost norms); Abadi et al., Deep learning with
differential privacy, 2016, algorithm 1 (clipping).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.gradient import Objective, is_kernel
from handgrad.insight.ghost import ghost_products, is_affine, per_example_kernels
from handgrad.insight.leaves import innermost, leaf_layers, with_leaves
from handgrad.insight.tap import Seen, opened
from handgrad.layers.layer import Array, Layer, Params, State
from handgrad.layers.norm import BatchNorm, FrozenBatchNorm
from handgrad.losses import Loss


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
        seen = _opened(objective)(params, x, y, state, key).layers
        grads = {name: layer_grads(layer, seen[name]) for name, layer in layers.items()}
        grads = with_leaves(objective.net, params, grads)
        return jax.tree.map_with_path(lambda path, g, p: g + _penalty_gradient(objective, path, p)[None], grads, params)

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
        seen = _opened(objective)(params, x, y, state, key).layers
        return jnp.sqrt(_squares(objective, layers, seen))

    return norms


def clipped_grad(objective: Objective, max_norm: float | Array, noise: float | Array = 0.0) -> Callable[..., Any]:
    """The sum of the examples' gradients, each scaled down to a length of max_norm if it is longer.

    Σ_i g_i min(1, max_norm / |g_i|) + noise · max_norm · N(0, 1)

    Divided by N it is the gradient of differentially private SGD. One forward pass, the ghost norms, and a second
    backward pass in which the loss's gradient of example i is scaled: never N gradients.

    Args:
        objective: what is differentiated.
        max_norm: the longest that one example's gradient may be, above 0.
        noise: standard deviation of the noise, in units of max_norm.

    Returns:
        A function of (params, x, y, state=(), key=None) that gives a tree like params. With noise it needs a key; the
        noise's own key is derived from it, and the masks of dropout are those that the key gives without noise.

    Raises:
        TypeError: as `per_example_grads`.
        ValueError: as `per_example_grads`; a max_norm that is not above 0, noise below 0, noise without a key.

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
    if isinstance(max_norm, int | float) and not max_norm > 0:
        raise ValueError(f"clipped_grad: max_norm must be above 0, got {max_norm}")
    if isinstance(noise, int | float) and not noise >= 0:
        raise ValueError(f"clipped_grad: noise must be at least 0, got {noise}")
    noisy = not isinstance(noise, int | float) or noise > 0

    def clipped(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> Any:
        if noisy and key is None:
            raise ValueError("clipped_grad: noise needs a key; pass key=jax.random.key(...)")
        found = _opened(objective)(params, x, y, state, key)
        norms = jnp.sqrt(_squares(objective, layers, found.layers))
        scale = jnp.where(norms > max_norm, max_norm / jnp.where(norms == 0, 1, norms), 1)
        logits, _, residuals = objective.net.forward(params, x, state, key)  # what _opened did: one pass after jit
        dlogits = _each_dlogits(objective.loss)(logits, y)[1]
        _, grads = objective.net.backward(params, residuals, dlogits * _like(scale, dlogits))
        total = scale.sum()

        def finished(path: tuple, g: Array, p: Array) -> Array:
            return g + total.astype(p.dtype) * _penalty_gradient(objective, path, p)

        grads = jax.tree.map_with_path(finished, grads, params)
        return grads if not noisy else _with_noise(grads, noise * max_norm, key)

    return clipped


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
    for name, layer in leaf_layers(net):
        inner = innermost(layer)
        if isinstance(inner, BatchNorm) and not isinstance(inner, FrozenBatchNorm):
            raise ValueError(
                f"{tool}: {name} is a BatchNorm in training, whose output mixes the examples of a batch, so that none "
                f"has a gradient of its own; use hg.inference(net), with running statistics"
            )


def _opened(objective: Objective) -> Callable:
    """The passes with the loss of each example by itself, and no penalty."""
    return opened(Objective(objective.net, objective.loss), _each_dlogits(objective.loss))


def _each_dlogits(loss: Loss) -> Callable[[Array, Array], tuple[Array, Array]]:
    """The sum of the losses of the examples, each a batch of one, and its gradient in the logits."""

    def of_each(logits: Array, y: Array) -> tuple[Array, Array]:
        one = jax.vmap(lambda row, label: loss.value_and_grad(row[None], label[None]))
        losses, dlogits = one(logits, jnp.asarray(y))
        return losses.sum(), dlogits[:, 0]

    return of_each


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
        _, _, residuals = layer.forward(seen.params, x[None], seen.state, None)
        return layer.backward(seen.params, residuals, dy[None])[1]

    return jax.vmap(of_example)(seen.x, seen.dy)


def uses_key(layer: Layer, seen: Seen) -> bool:
    """Whether the layer's forward depends on its key, as its jaxpr tells."""
    if seen.key is None:
        return False

    def forward(key: Array) -> Any:
        return layer.forward(seen.params, seen.x, seen.state, key)[0]

    jaxpr = jax.make_jaxpr(forward)(seen.key).jaxpr
    (key,) = jaxpr.invars
    return any(key is variable for equation in jaxpr.eqns for variable in equation.invars)


def _squares(objective: Objective, layers: dict[str, Layer], seen: dict[str, Seen]) -> Array:
    """|g_i|² over all layers, (N,); with a penalty |g + 2λW|² = |g|² + 4λ g·W + 4λ²|W|²."""
    total = jnp.zeros(next(iter(seen.values())).x.shape[0])
    for name, layer in layers.items():
        if not jax.tree.leaves(seen[name].params):
            continue
        squares, along = ghost_products(layer, seen[name]) or _made_products(layer, seen[name])
        kernels = [p for path, p in jax.tree.leaves_with_path(seen[name].params) if is_kernel(path)]
        if kernels:
            penalty = jnp.asarray(objective.l2, squares.dtype)
            size = sum(jnp.sum(jnp.square(kernel)) for kernel in kernels)
            squares = squares + 4 * penalty * along + 4 * jnp.square(penalty) * size
        total = total.astype(squares.dtype) + squares
    return jnp.maximum(total, 0)  # a Gram sum may round below


def _made_products(layer: Layer, seen: Seen) -> tuple[Array, Array]:
    """|g_i|² and g_i · W over kernels, by gradients that are made."""
    grads, along = layer_grads(layer, seen), jnp.zeros(())
    terms = [jnp.sum(jnp.square(g.reshape(g.shape[0], -1)), 1) for g in jax.tree.leaves(grads)]
    pairs = zip(jax.tree.leaves_with_path(seen.params), jax.tree.leaves(grads), strict=True)
    for (path, p), g in pairs:
        if is_kernel(path):
            along = along + jnp.sum((g * p[None]).reshape(g.shape[0], -1), 1)
    return sum(terms[1:], start=terms[0]), along


def _penalty_gradient(objective: Objective, path: tuple, p: Array) -> Array:
    """2λW for a kernel, 0 for all else."""
    return jnp.asarray(2 * objective.l2, p.dtype) * p if is_kernel(path) else jnp.zeros_like(p)


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

"""Kronecker-factored curvature: for each dense or convolutional layer, G ≈ A ⊗ Γ, and a step that is divided by it.

The gradient of a dense layer in example i is a_i g_iᵀ (a: its input and a 1 for the bias, g: the gradient in its
output), so its block of the curvature is E (a aᵀ) ⊗ (g gᵀ), with g for the columns of the root of the loss's Hessian in
the logits. K-FAC takes the mean of the product for the product of the means. A convolution's gradient is a sum over its
T places, which are taken to be independent and alike:

    dense   A = E a aᵀ             Γ = E g gᵀ
    conv    A = E Σ_t a_t a_tᵀ     Γ = E (1/T) Σ_t g_t g_tᵀ

    preconditioned   (A + π√γ I)⁻¹ dW (Γ + √γ/π I)⁻¹,     π² = (tr A / dim A) / (tr Γ / dim Γ)      γ: the damping

Sources: Martens and Grosse, Optimizing neural networks with Kronecker-factored approximate curvature, 2015, sections 3
and 6.3; Grosse and Martens, A Kronecker-factored approximate Fisher matrix for convolution layers, 2016, section 3.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.gradient import Objective, value_and_grad
from handgrad.insight.curvature import logit_roots
from handgrad.insight.ghost import deltas, is_affine, rows
from handgrad.insight.leaves import by_path, leaf_layers, with_leaves
from handgrad.insight.per_example import check_apart
from handgrad.insight.tap import Seen, open_passes
from handgrad.layers.affine import Conv, Dense
from handgrad.layers.layer import Array, Layer, Params, State, check_is_layer
from handgrad.optimizers import Optimizer


class Factors(NamedTuple):
    """Of one layer: `inputs` A, a row and column for each input of the kernel and one for the bias; `outputs` Γ."""

    inputs: Array
    outputs: Array


class Curved(NamedTuple):
    """A gradient and the factors of its curvature, by layer's path: what `kfac` divides the one by the other of."""

    grads: Any
    factors: dict[str, Factors]


class KfacState(NamedTuple):
    """How many steps there were, and the running means of the factors."""

    step: Array
    factors: dict[str, Factors]


def kfac_factors(objective: Objective, samples: int | None = None) -> Callable[..., dict[str, Factors]]:
    """The Kronecker factors of every dense and convolutional layer without groups; other layers have none.

    Args:
        objective: a net with logits (N, K) and a loss.
        samples: None goes through all K columns of the root of the loss's Hessian; a number takes so many random
            combinations of them, whose mean is right, in as many backward passes.

    Returns:
        A function of (params, x, y, state=(), key=None) that gives {path: Factors}; samples need a key.

    Raises:
        TypeError: something that is no Objective.
        ValueError: a BatchNorm in training (say hg.inference(net)), samples below 1, or samples without a key.

    Example:
        >>> import handgrad as hg
        >>> objective = hg.Objective(hg.Chain(hg.Dense(1)), hg.MeanSquaredError())
        >>> params = {"dense1": {"kernel": jnp.zeros((2, 1)), "bias": jnp.zeros(1)}}
        >>> factors = kfac_factors(objective)(params, jnp.array([[3.0, 1.0]]), jnp.ones((1, 1)))["dense1"]
        >>> factors.inputs.tolist(), factors.outputs.round(4).tolist()
        ([[9.0, 3.0, 3.0], [3.0, 1.0, 1.0], [3.0, 1.0, 1.0]], [[2.0]])
    """
    if not isinstance(objective, Objective):
        raise TypeError(f"kfac_factors: wants an hg.Objective, got {objective!r}; write hg.Objective(net, loss)")
    check_apart("kfac_factors", objective.net)
    if samples is not None and samples < 1:
        raise ValueError(f"kfac_factors: samples must be at least 1, got {samples}")
    net, layers = objective.net, _covered(objective.net)

    def factors(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> dict[str, Factors]:
        if samples is not None and key is None:
            raise ValueError("kfac_factors: samples need a key; pass key=jax.random.key(...)")
        logits = net.forward(params, x, state, key)[0]
        columns = logit_roots(objective.loss, logits, y)
        if samples is not None and key is not None:
            draw = jax.random.fold_in(key, jnp.uint32(2**32 - 2))  # no child's key
            signs = jax.random.rademacher(draw, (samples, *logits.shape), columns.dtype)
            columns = jnp.einsum("snk,knj->snj", signs, columns) / jnp.sqrt(jnp.asarray(samples, columns.dtype))

        def one(total: dict[str, Array], column: Array) -> tuple[dict[str, Array], dict[str, Array]]:
            seen = open_passes(
                net, params, x, state, key, lambda _: (jnp.zeros(()), column.astype(logits.dtype))
            ).layers
            found = {name: _outputs(layer, seen[name]) for name, layer in layers.items()}
            inputs = {name: _inputs(layer, seen[name]) for name, layer in layers.items()}
            return jax.tree.map(jnp.add, total, found), inputs

        shapes = {name: (layer.features,) * 2 for name, layer in layers.items()}
        nothing = {name: jnp.zeros(shape, logits.dtype) for name, shape in shapes.items()}
        outputs, inputs = lax.scan(one, nothing, columns)
        return {name: Factors(inputs[name][0], outputs[name]) for name in layers}

    return factors


def kfac_value_and_grad(samples: int | None = 1) -> Callable:
    """A `value_and_grad` for `make_train_step` whose gradient brings the factors of its curvature along, for `kfac`.

    Args:
        samples: as in `kfac_factors`: 1 costs one more forward and backward pass.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(3))
        >>> optimizer = hg.optimizers.chain(kfac(net), hg.sgd(0.5))
        >>> step = hg.make_train_step(
        ...     hg.Objective(net, hg.SoftmaxCrossEntropy()), optimizer, value_and_grad=kfac_value_and_grad()
        ... )
        >>> train_state = hg.init_train_state(net, optimizer, jax.random.key(0), (2,))
        >>> train_state, metrics = step(train_state, jnp.ones((4, 2), "float32"), jnp.array([0, 1, 2, 0]))
        >>> int(train_state.step)
        1
    """

    def curved(objective: Objective, argnums: int = 0, has_aux: bool = True) -> Callable:
        if argnums != 0:
            raise ValueError(f"kfac_value_and_grad: argnums must be 0, the parameters, got {argnums!r}")
        gradient, curvature = value_and_grad(objective, has_aux=has_aux), kfac_factors(objective, samples)

        def both(
            params: Params, x: Array, y: Array, state: State = (), key: Array | None = None, weights: Any = None
        ) -> tuple[Any, Curved]:
            value, grads = gradient(params, x, y, state, key, weights)
            return value, Curved(grads, curvature(params, x, y, state, key))

        return both

    return curved


def kfac(net: Layer, damping: float = 1e-2, decay: float = 0.95) -> Optimizer:
    """Divides the gradient by its curvature, layer by layer: an optimizer to put before another in a `chain`.

    Takes the gradients of `kfac_value_and_grad`. Layers without factors keep their gradient.

    Args:
        net: whose parameters.
        damping: γ, added to the curvature: large makes it gradient descent with the rate lr / γ, small trusts the
            factors.
        decay: of the running means of the factors, which are corrected for their start at 0.

    Returns:
        The optimizer; its updates are preconditioned gradients.

    Raises:
        TypeError: a net that is no layer; at the update, gradients without factors.
        ValueError: a damping that is not above 0, or a decay outside 0 to 1.

    Source: Martens and Grosse, 2015, sections 5 and 6.3.
    """
    check_is_layer(net, "kfac, net")
    if not damping > 0 or not 0 <= decay < 1:
        raise ValueError(f"kfac: damping must be above 0 and decay from 0 to 1, got {damping} and {decay}")
    layers = _covered(net)

    def init(params: Params) -> KfacState:
        parts = by_path(net, params)
        return KfacState(jnp.zeros((), jnp.int32), {name: _nothing(parts[name]) for name in layers})

    def update(grads: Any, state: KfacState, params: Params | None = None) -> tuple[Any, KfacState]:
        if not isinstance(grads, Curved):
            raise TypeError(
                "kfac: the gradient must bring its factors; make the step with value_and_grad=hg.kfac_value_and_grad()"
            )
        step = state.step + 1
        means = jax.tree.map(lambda mean, new: decay * mean + (1 - decay) * new, state.factors, grads.factors)
        parts = dict(by_path(net, grads.grads))
        for name, (inputs, outputs) in means.items():
            correction = 1 - jnp.asarray(decay, inputs.dtype) ** step.astype(inputs.dtype)
            parts[name] = _divided(parts[name], Factors(inputs / correction, outputs / correction), damping)
        return with_leaves(net, grads.grads, parts), KfacState(step, means)

    return Optimizer(init, update)


def _covered(net: Layer) -> dict[str, Any]:
    """The layers that have factors, by path."""
    found = {name: layer for name, layer in leaf_layers(net) if is_affine(layer) and isinstance(layer, Dense | Conv)}
    return {name: layer for name, layer in found.items() if getattr(layer, "groups", 1) == 1}


def _inputs(layer: Any, seen: Seen) -> Array:
    """The mean over examples of Σ_t a_t a_tᵀ, with a 1 for the bias."""
    a = jnp.concatenate(rows(layer, seen.params, seen.x), -1)
    if "bias" in seen.params:
        a = jnp.concatenate([a, jnp.ones_like(a[..., :1])], -1)
    flat = a.reshape(-1, a.shape[-1])
    return flat.T @ flat / a.shape[0]


def _outputs(layer: Any, seen: Seen) -> Array:
    """Σ_i (1/T) Σ_t g_t g_tᵀ; the mean over examples is in g, which comes from the mean loss."""
    g = deltas(layer, seen.dy)
    flat = g.reshape(-1, g.shape[-1])
    return flat.T @ flat / g.shape[2]


def _nothing(params: Any) -> Factors:
    kernel = params["kernel"]
    inputs, outputs = kernel.size // kernel.shape[-1] + ("bias" in params), kernel.shape[-1]
    return Factors(jnp.zeros((inputs, inputs), kernel.dtype), jnp.zeros((outputs, outputs), kernel.dtype))


def _divided(grads: Any, factors: Factors, damping: float) -> Any:
    """One layer's gradient by its damped factors."""
    kernel = grads["kernel"]
    matrix = kernel.reshape(-1, kernel.shape[-1])
    if "bias" in grads:
        matrix = jnp.concatenate([matrix, grads["bias"][None]])
    a, g = factors
    size_a, size_g = jnp.trace(a) / a.shape[0], jnp.trace(g) / g.shape[0]
    tiny = jnp.finfo(a.dtype).tiny
    ratio, root = (
        jnp.sqrt(jnp.maximum(size_a, tiny) / jnp.maximum(size_g, tiny)),
        jnp.sqrt(jnp.asarray(damping, a.dtype)),
    )
    solve = partial(jax.scipy.linalg.solve, assume_a="pos")
    left = solve(a + ratio * root * jnp.eye(a.shape[0], dtype=a.dtype), matrix)
    divided = solve(g + root / ratio * jnp.eye(g.shape[0], dtype=g.dtype), left.T).T
    whole = {"kernel": divided[: kernel.size // kernel.shape[-1]].reshape(kernel.shape)}
    return whole | {"bias": divided[-1]} if "bias" in grads else whole

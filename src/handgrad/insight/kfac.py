"""Kronecker-factored curvature: for each dense or convolutional layer, G ≈ A ⊗ Γ, and a step that is divided by it.

The gradient of a dense layer in example i is a_i g_iᵀ (a: its input and a 1 for the bias, g: the gradient in its
output), so its block of the curvature is E (a aᵀ) ⊗ (g gᵀ), with g for each column of the root of the loss's Hessian in
the logits. K-FAC takes the mean of the product for the product of the means. A convolution's gradient is a sum over its
T places, which are taken to be independent and alike:

    dense   A = E a aᵀ             Γ = E g gᵀ
    conv    A = E Σ_t a_t a_tᵀ     Γ = E (1/T) Σ_t g_t g_tᵀ

    preconditioned   (A + π√γ I)⁻¹ dW (Γ + √γ/π I)⁻¹,     π² = (tr A / dim A) / (tr Γ / dim Γ)      γ: the damping

With both γ's the product is A ⊗ Γ + γ I + π√γ I ⊗ Γ + √γ/π A ⊗ I: for the price of the last two terms the inverse is a
product again, and π makes them alike. For softmax cross-entropy G is the exact Fisher matrix: its root needs no labels.
Sources: Martens and Grosse, Optimizing neural networks with Kronecker-factored approximate curvature, 2015, sections 3,
5 (the running means) and 6.3 (π); Grosse and Martens, A Kronecker-factored approximate Fisher matrix for convolution
layers, 2016, section 3; Botev, Ritter and Barber, Practical Gauss-Newton optimisation for deep learning, 2017 (Γ by all
columns of the root).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from handgrad.gradient import Objective
from handgrad.insight.curvature import check_samples, logit_columns
from handgrad.insight.ghost import deltas, is_affine, rows
from handgrad.insight.leaves import by_path, leaf_layers, with_leaves
from handgrad.insight.tap import Seen, open_forward
from handgrad.layers.affine import Conv, Dense
from handgrad.layers.layer import Array, Layer, Params, State, check_is_layer
from handgrad.ops.precision import wide
from handgrad.optimizers import Optimizer
from handgrad.optimizers.optimizer import check_number


class Factors(NamedTuple):
    """Of one layer: `inputs` A, a row and column for each input of the kernel and one for the bias; `outputs` Γ."""

    inputs: Array
    outputs: Array


class KfacState(NamedTuple):
    """What `kfac` remembers.

    Attributes:
        updates: how often factors came.
        damping: γ, which may be changed between steps; inverses are made with it when factors come.
        decay: of the running means.
        factors: the running means by layer's path.
        inverses: (A + π√γ I)⁻¹ and (Γ + √γ/π I)⁻¹; the identity before any factors came.
    """

    updates: Array
    damping: Array
    decay: Array
    factors: dict[str, Factors]
    inverses: dict[str, Factors]


def kfac_factors(objective: Objective, samples: int | None = None) -> Callable[..., dict[str, Factors]]:
    """The Kronecker factors of every dense and convolutional layer without groups; other layers have none.

    Args:
        objective: a net and a loss.
        samples: None goes through all K columns of the root of the loss's Hessian for K logits an example, in K
            backward passes; a number draws so many for each example, as `gauss_newton_diagonal` does.

    Returns:
        A function of (params, x, y, state=(), key=None, weights=None) that gives {path: Factors}, float32 at least;
        samples need a key.

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
    check_samples("kfac_factors", objective, samples)
    net, layers = objective.net, covered(objective.net)

    def factors(
        params: Params, x: Array, y: Array, state: State = (), key: Array | None = None, weights: Any = None
    ) -> dict[str, Factors]:
        logits, _, back = open_forward(net, params, x, state, key)
        columns = logit_columns("kfac_factors", objective.loss, logits, y, weights, samples, key)

        def one(total: dict[str, Array], column: tuple[Array, Array]) -> tuple[dict[str, Array], None]:
            direction, weight = column
            root = direction * jnp.sqrt(jnp.maximum(weight, 0)).reshape(-1, *(1,) * (direction.ndim - 1))
            seen = back(root.astype(logits.dtype))[1]
            return {name: total[name] + _outputs(layer, seen[name]) for name, layer in layers.items()}, None

        seen = back(jnp.zeros_like(logits))[1]  # for the inputs alone: under jit nothing else of this pass is computed
        inputs = {name: _inputs(layer, seen[name], weights) for name, layer in layers.items()}
        nothing = {name: jnp.zeros((layer.features,) * 2, wide(seen[name].dy).dtype) for name, layer in layers.items()}
        outputs, _ = lax.scan(one, nothing, columns)
        return {name: Factors(inputs[name], outputs[name]) for name in layers}

    return factors


def kfac(net: Layer, damping: ArrayLike = 1e-2, decay: ArrayLike = 0.95) -> Optimizer:
    """Divides the gradient by its curvature, layer by layer: an optimizer to put before another in a `chain`.

    It divides by the factors that `kfac_update` has put into its state, and `make_kfac_step` calls that every so many
    steps. Layers without factors (all but Dense and Conv without groups) keep their gradient, as all do before the
    first factors.

    Args:
        net: whose parameters.
        damping: γ, added to the curvature: large makes it gradient descent with the rate lr / γ, small trusts the
            factors. The penalty of an objective is not in the factors: it adds 2·l2 here.
        decay: the share that a running mean keeps of the old factors, once they are many: min(1 - 1/k, decay) the k-th
            time, so that the first are a plain mean.

    Returns:
        The optimizer; its updates are preconditioned gradients, and its state is a `KfacState`.

    Raises:
        TypeError: a net that is no layer.
        ValueError: a damping that is not above 0, or a decay that is not from 0 to below 1.

    Source: Martens and Grosse, 2015, sections 5 and 6.3.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(1, use_bias=False))
        >>> params, x = {"dense1": {"kernel": jnp.zeros((2, 1))}}, jnp.array([[3.0, 0.0], [0.0, 0.1]])
        >>> objective = hg.Objective(net, hg.MeanSquaredError())  # steep in one weight, flat in the other
        >>> optimizer = hg.optimizers.chain(kfac(net, damping=1e-12), hg.sgd(1.0))
        >>> opt_state = kfac_update(optimizer.init(params), kfac_factors(objective)(params, x, x.sum(1, keepdims=True)))
        >>> grads, _ = hg.grad(objective)(params, x, x.sum(1, keepdims=True))
        >>> print(optimizer.update(grads, opt_state, params)[0]["dense1"]["kernel"].ravel().round(2))  # Newton's step
        [1. 1.]
    """
    check_is_layer(net, "kfac, net")
    check_number("kfac", "damping", damping)
    check_number("kfac", "decay", decay, below=1)
    if not isinstance(damping, jax.Array) and damping == 0:
        raise ValueError("kfac: damping must be above 0, got 0")
    layers = covered(net)

    def init(params: Params) -> KfacState:
        parts = by_path(net, params)
        kernels = {name: kernel for name in layers if (kernel := _kernel(parts[name])) is not None}
        sizes = {name: (w.size // w.shape[-1] + ("bias" in parts[name]), w.shape[-1]) for name, w in kernels.items()}
        dtypes = {name: wide(w).dtype for name, w in kernels.items()}
        zeros, ones = (
            {name: Factors(*(make(size, dtypes[name]) for size in sizes[name])) for name in kernels}
            for make in (lambda n, dtype: jnp.zeros((n, n), dtype), lambda n, dtype: jnp.eye(n, dtype=dtype))
        )
        numbers = (jnp.array(number, jnp.float32) for number in (damping, decay))
        return KfacState(jnp.zeros((), jnp.int32), *numbers, zeros, ones)

    def update(grads: Any, state: KfacState, params: Params | None = None) -> tuple[Any, KfacState]:
        parts = by_path(net, grads)
        return with_leaves(net, grads, parts | {n: _product(f, parts[n]) for n, f in state.inverses.items()}), state

    return Optimizer(init, update)


def kfac_update(opt_state: Any, factors: dict[str, Factors]) -> Any:
    """The state of an optimizer that has a `kfac` somewhere in it, with new factors taken in and inverses made anew.

    Args:
        opt_state: the optimizer's state, such as that of a chain.
        factors: what `kfac_factors` gives.

    Returns:
        The new state.

    Raises:
        TypeError: a state without a `KfacState` in it.
        ValueError: no factors for one of its layers, or factors of another shape.
    """
    found = []

    def taken_in(state: Any) -> Any:
        if not isinstance(state, KfacState):
            return state
        found.append(state)
        _check_factors(state.factors, factors)
        updates = state.updates + 1
        keep = jnp.minimum(1 - 1 / updates.astype(jnp.float32), state.decay)

        def mean(old: Array, new: Array) -> Array:
            share = keep.astype(old.dtype)
            return share * old + (1 - share) * new.astype(old.dtype)

        means = jax.tree.map(mean, state.factors, {name: factors[name] for name in state.factors})
        inverses = {name: _inverses(each, state.damping) for name, each in means.items()}
        return KfacState(updates, state.damping, state.decay, means, inverses)

    new = jax.tree.map(taken_in, opt_state, is_leaf=lambda node: isinstance(node, KfacState))
    if not found:
        raise TypeError(
            f"kfac_update: opt_state must be that of an optimizer with hg.kfac in it, got {type(opt_state).__name__}"
        )
    return new


def covered(net: Layer) -> dict[str, Any]:
    """The layers that have factors, by path."""
    found = {name: layer for name, layer in leaf_layers(net) if is_affine(layer) and isinstance(layer, Dense | Conv)}
    return {name: layer for name, layer in found.items() if getattr(layer, "groups", 1) == 1}


def _kernel(params: Any) -> Array | None:
    """The kernel of a layer that is trained; None where `masked` has taken it, or its bias, away."""
    missing = params == () or any(leaf is None for leaf in params.values())
    return None if missing else params["kernel"]


def _check_factors(wanted: dict[str, Factors], factors: dict[str, Factors]) -> None:
    missing = [name for name in wanted if name not in factors]
    if missing:
        raise ValueError(f"kfac_update: factors must have the layers of the state, {', '.join(missing)} is missing")
    for name, each in wanted.items():
        shapes = [jnp.shape(part) for part in factors[name]]
        if shapes != [part.shape for part in each]:
            raise ValueError(f"kfac_update: {name} must have factors of {[p.shape for p in each]}, got {shapes}")


def _inputs(layer: Any, seen: Seen, weights: Any) -> Array:
    """The mean over examples, by weight where there is one, of Σ_t a_t a_tᵀ, with a 1 for the bias."""
    a = wide(jnp.concatenate(rows(layer, seen.params, seen.x), -1))[:, 0]  # (N, T, I)
    if "bias" in seen.params:
        a = jnp.concatenate([a, jnp.ones_like(a[..., :1])], -1)
    if weights is None:
        return jnp.tensordot(a, a, ((0, 1), (0, 1))) / a.shape[0]
    shares = jnp.asarray(weights, a.dtype)
    total = jnp.where(shares.sum() == 0, 1, shares.sum())
    return jnp.tensordot(a * (shares / total)[:, None, None], a, ((0, 1), (0, 1)))


def _outputs(layer: Any, seen: Seen) -> Array:
    """Σ_i (1/T) Σ_t g_t g_tᵀ; the mean over examples is in g, which comes from the mean loss."""
    g = wide(deltas(layer, seen.dy))[:, 0]  # (N, T, O)
    return jnp.tensordot(g, g, ((0, 1), (0, 1))) / g.shape[1]


def _inverses(factors: Factors, damping: Array) -> Factors:
    """(A + π√γ I)⁻¹ and (Γ + √γ/π I)⁻¹, by Cholesky."""
    a, g = factors
    mean_a, mean_g = jnp.trace(a) / a.shape[0], jnp.trace(g) / g.shape[0]
    some = (mean_a > 0) & (mean_g > 0)
    pi = jnp.where(some, jnp.sqrt(jnp.where(some, mean_a, 1) / jnp.where(some, mean_g, 1)), 1)
    root = jnp.sqrt(damping.astype(a.dtype))

    def inverse(matrix: Array, added: Array) -> Array:
        one = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
        return jax.scipy.linalg.solve(matrix + added * one, one, assume_a="pos")

    return Factors(inverse(a, pi * root), inverse(g, root / pi))


def _product(inverses: Factors, grads: Any) -> Any:
    """One layer's gradient between the two inverses, the bias as one more row of the kernel."""
    kernel = grads["kernel"]
    matrix = kernel.reshape(-1, kernel.shape[-1])
    if "bias" in grads:
        matrix = jnp.concatenate([matrix, grads["bias"][None]])
    product = (inverses.inputs @ matrix.astype(inverses.inputs.dtype) @ inverses.outputs).astype(kernel.dtype)
    whole = {"kernel": product[: kernel.size // kernel.shape[-1]].reshape(kernel.shape)}
    return whole | {"bias": product[-1]} if "bias" in grads else whole

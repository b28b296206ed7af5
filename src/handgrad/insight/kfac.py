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

from handgrad import mesh
from handgrad.gradient import Objective
from handgrad.insight.curvature import check_samples, logit_columns
from handgrad.insight.ghost import deltas, is_affine, rows
from handgrad.insight.leaves import by_path, leaf_layers, with_leaves
from handgrad.insight.tap import Seen, open_forward
from handgrad.layers.affine import Conv, Dense
from handgrad.layers.layer import Array, Layer, Params, State
from handgrad.ops.precision import wide
from handgrad.optimizers import Optimizer
from handgrad.optimizers.optimizer import check_number


class Factors(NamedTuple):
    """Of one layer: `inputs` A, a row and column for each input of the kernel and one for the bias; `outputs` Γ.

    Attributes:
        inputs: A, a row and column for each input of the kernel and one for the bias.
        outputs: Γ, a row and column for each output.

    Example:
        >>> import handgrad as hg
        >>> objective = hg.Objective(hg.Chain(hg.Conv(4, 3)), hg.MeanSquaredError())
        >>> params = {"conv1": {"kernel": jnp.zeros((3, 3, 2, 4)), "bias": jnp.zeros(4)}}
        >>> found = jax.jit(kfac_factors(objective))(params, jnp.ones((1, 2, 2, 2)), jnp.zeros((1, 2, 2, 4)))["conv1"]
        >>> found.inputs.shape, found.outputs.shape  # 3·3·2 + 1, and 4
        ((19, 19), (4, 4))
    """

    inputs: Array
    outputs: Array


class KfacState(NamedTuple):
    """What `kfac` remembers: updates so far, the running means of the factors, and the inverses made of them, by path.

    Attributes:
        step: how many updates there were.
        factors: running means of A and Γ.
        inverses: (A + π√γ I)⁻¹ and (Γ + √γ/π I)⁻¹.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(3))
        >>> optimizer = kfac(hg.Objective(net, hg.SoftmaxCrossEntropy()))
        >>> state = optimizer.init(net.init(jax.random.key(0), (5,))[0])
        >>> int(state.step), jax.tree.map(jnp.shape, state.factors["dense1"])
        (0, Factors(inputs=(6, 6), outputs=(3, 3)))
    """

    step: Array
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


def kfac(
    objective: Objective,
    damping: ArrayLike = 1e-2,
    decay: ArrayLike = 0.95,
    *,
    every: int = 10,
    samples: int | None = None,
) -> Optimizer:
    """Divides the gradient by its curvature, layer by layer: an optimizer to put before another in a `chain`.

    Every so many steps it takes the Kronecker factors of the batch at hand into its running means, and inverts those. A
    step of `make_train_step` shows it the batch. Layers without factors (all but Dense and Conv without groups) keep
    their gradient.

    Args:
        objective: whose curvature: that which is made small, or for a net with BatchNorm
            `hg.Objective(hg.inference(net), loss)`, whose parameters and state are those of the net.
        damping: γ, added to the curvature: large makes it gradient descent with the rate lr / γ, small trusts the
            factors. The penalty of an objective is not in the factors: it adds 2·l2 here.
        decay: the share that a running mean keeps of the old factors, once they are many: min(1 - 1/k, decay) the k-th
            time, so that the first are a plain mean.
        every: updates from one look at the curvature to the next; the first one looks.
        samples: as in `kfac_factors`: None for K backward passes a look, a number for so many.

    Returns:
        The optimizer; its updates are preconditioned gradients, and its state is a `KfacState`.

    Raises:
        TypeError: something that is no Objective; at the update, a call without `at`, as by hand or in optax's chain.
        ValueError: a damping that is not above 0, a decay that is not from 0 to below 1, `every` below 1, or what
            `kfac_factors` refuses.

    Source: Martens and Grosse, 2015, sections 5 and 6.3.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(1, use_bias=False, kernel_init=hg.initializers.zeros))
        >>> objective = hg.Objective(net, hg.MeanSquaredError())
        >>> step = hg.make_train_step(objective, hg.optimizers.chain(kfac(objective, damping=1e-12), hg.sgd(1.0)))
        >>> train_state = hg.init_train_state(net, step.optimizer, jax.random.key(0), (2,))
        >>> x = jnp.array([[3.0, 0.0], [0.0, 0.1]], "float32")  # steep in one weight, flat in the other
        >>> train_state, _ = step(train_state, x, x.sum(1, keepdims=True))
        >>> print(train_state.params["dense1"]["kernel"].ravel().round(2))  # Newton's step
        [1. 1.]
    """
    check_samples("kfac", objective, samples)
    check_number("kfac", "damping", damping)
    check_number("kfac", "decay", decay, below=1)
    if not isinstance(damping, jax.Array) and damping == 0:
        raise ValueError("kfac: damping must be above 0, got 0")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"kfac: every must be an int of at least 1, got {every!r}")
    net, look = objective.net, kfac_factors(objective, samples)

    def init(params: Params) -> KfacState:
        parts = by_path(net, params)
        nothing = {name: _nothing(parts[name]) for name in covered(net) if _is_whole(parts[name])}
        return KfacState(jnp.zeros((), jnp.int32), nothing, jax.tree.map(jnp.zeros_like, nothing))

    def looked(state: KfacState, at: Any) -> KfacState:
        new, k = look(*at), state.step // every + 1
        keep = jnp.minimum(1 - 1 / k.astype(jnp.float32), jnp.asarray(decay, jnp.float32))

        def mean(old: Array, new: Array) -> Array:
            share = keep.astype(old.dtype)
            return share * old + (1 - share) * new.astype(old.dtype)

        means = jax.tree.map(mean, state.factors, {name: new[name] for name in state.factors})
        return KfacState(state.step, means, {name: _inverses(each, damping) for name, each in means.items()})

    def divided(grads: Any, state: KfacState, at: Any) -> tuple[Any, KfacState]:
        state = lax.cond(state.step % every == 0, looked, lambda state, at: state, state, at)
        parts = by_path(net, grads)
        products = {name: _product(inverses, parts[name]) for name, inverses in state.inverses.items()}
        return with_leaves(net, grads, parts | products), state._replace(step=state.step + 1)

    def update(grads: Any, state: KfacState, params: Params | None = None, at: Any = None) -> tuple[Any, KfacState]:
        if at is None:
            raise TypeError(
                "kfac: update needs at=(params, x, y, state, key, weights), where to look at the curvature; a step of "
                "hg.make_train_step gives it, also through hg.optimizers.chain and masked"
            )
        explicit = mesh.explicit_mesh(grads, at)
        if explicit is None:
            return divided(grads, state, at)
        return mesh.on_mesh(divided, explicit, mesh.shardings_of((grads, state), explicit))(grads, state, at)

    return Optimizer(init, update)


def covered(net: Layer) -> dict[str, Any]:
    """The layers that have factors, by path."""
    found = {name: layer for name, layer in leaf_layers(net) if is_affine(layer) and isinstance(layer, Dense | Conv)}
    return {name: layer for name, layer in found.items() if getattr(layer, "groups", 1) == 1}


def _is_whole(params: Any) -> bool:
    """Whether a layer is trained: `masked` may have taken its kernel or its bias away."""
    return params != () and all(leaf is not None for leaf in params.values())


def _nothing(params: Any) -> Factors:
    """Zeros of the sizes of a layer's factors."""
    kernel = wide(params["kernel"])
    inputs, outputs = kernel.size // kernel.shape[-1] + ("bias" in params), kernel.shape[-1]
    return Factors(*(jnp.zeros((n, n), kernel.dtype) for n in (inputs, outputs)))


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


def _inverses(factors: Factors, damping: ArrayLike) -> Factors:
    """(A + π√γ I)⁻¹ and (Γ + √γ/π I)⁻¹, by Cholesky."""
    a, g = factors
    mean_a, mean_g = (jnp.maximum(jnp.trace(f) / f.shape[0], jnp.finfo(f.dtype).tiny) for f in factors)  # 0 has none
    pi = jnp.sqrt(mean_a / mean_g)
    root = jnp.sqrt(jnp.asarray(damping, a.dtype))

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

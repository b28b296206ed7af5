"""The loss's curvature without its matrix: products with the Hessian and with the Gauss-Newton matrix, and more.

With the net f, logits o = f(θ), loss ℓ, J = do/dθ and H_ℓ = d²ℓ/do²,

    H v = d/dt ∇L(θ + t v)                    forward over the reverse pass that is written by hand
    G v = Jᵀ H_ℓ J v                          the Hessian without Σ_k dℓ/do_k ∇²o_k; never negative for a convex loss
    diag G = Σ_i Σ_k λ_ik (J_iᵀ u_ik)²        λ_ik, u_ik: eigenvalues and eigenvectors of example i's H_ℓ, squared by
                                              element; J_iᵀ u is a layer's backward on example i alone

Where the net is linear in θ, G is H. The penalty λ|W|² adds 2λ to each on kernels.
Sources: Pearlmutter, Fast exact multiplication by the Hessian, 1994; Schraudolph, Fast curvature matrix-vector
products, 2002; Botev, Ritter and Barber, Practical Gauss-Newton optimisation for deep learning, 2017; Dangel, Kunstner
and Hennig, BackPACK, 2020 (the diagonal).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from handgrad.gradient import Objective, grad, is_kernel
from handgrad.insight.contract import check_like
from handgrad.insight.leaves import leaf_layers, with_leaves
from handgrad.insight.per_example import check_apart, layer_grads
from handgrad.insight.tap import open_forward
from handgrad.layers.layer import Array, Params, State
from handgrad.losses import Loss
from handgrad.ops.precision import wide

CLOSED = 1e-6  # the share of H v that is new, from which on it is taken for rounding


def hvp(objective: Objective) -> Callable[..., Any]:
    """The Hessian of the objective times a vector, without the Hessian: about two gradients' time.

    Args:
        objective: what is differentiated twice.

    Returns:
        A function of (params, x, y, state, key, v) with v like params, that gives H v, like params.

    Raises:
        TypeError: something that is no Objective, or a v that is not built like params.

    Example:
        >>> import handgrad as hg
        >>> objective = hg.Objective(hg.Chain(hg.Dense(1, use_bias=False)), hg.MeanSquaredError())
        >>> params = {"dense1": {"kernel": jnp.zeros((1, 1))}}
        >>> x = jnp.array([[3.0]])  # L = (3w - y)²
        >>> product = hvp(objective)(params, x, jnp.ones((1, 1)), (), None, jax.tree.map(jnp.ones_like, params))
        >>> product["dense1"]["kernel"].item()
        18.0
    """
    _check_objective("hvp", objective)
    gradient = grad(objective)

    def product(params: Params, x: Array, y: Array, state: State, key: Array | None, v: Any) -> Any:
        check_like("hvp: v must be like params", v, params)
        return jax.jvp(lambda p: gradient(p, x, y, state, key)[0], (params,), (v,))[1]

    return product


def gauss_newton_product(objective: Objective) -> Callable[..., Any]:
    """The generalised Gauss-Newton matrix of the objective times a vector, G v.

    J v comes forward through the plain formula, H_ℓ is the derivative of the loss's gradient by hand, and Jᵀ is the
    net's backward by hand.

    Args:
        objective: a net and a loss.

    Returns:
        A function of (params, x, y, state, key, v) with v like params, that gives G v, like params.

    Raises:
        TypeError: something that is no Objective, or a v that is not built like params.

    Example:
        >>> import handgrad as hg
        >>> objective = hg.Objective(hg.Chain(hg.Dense(1, use_bias=False)), hg.MeanSquaredError())
        >>> params = {"dense1": {"kernel": jnp.zeros((1, 1))}}
        >>> v = jax.tree.map(jnp.ones_like, params)
        >>> product = gauss_newton_product(objective)(params, jnp.array([[3.0]]), jnp.ones((1, 1)), (), None, v)
        >>> product["dense1"]["kernel"].item()
        18.0
    """
    _check_objective("gauss_newton_product", objective)
    net, loss = objective.net, objective.loss

    def product(params: Params, x: Array, y: Array, state: State, key: Array | None, v: Any) -> Any:
        check_like("gauss_newton_product: v must be like params", v, params)
        jv = jax.jvp(lambda p: net.apply_train(p, x, state, key)[0], (params,), (v,))[1]
        logits, _, residuals = net.forward(params, x, state, key)
        hjv = jax.jvp(lambda o: loss.value_and_grad(o, y)[1], (logits,), (jv,))[1]
        _, gv = net.backward(params, residuals, hjv)
        return _with_twice_l2(objective, gv, v)

    return product


def gauss_newton_diagonal(objective: Objective, samples: int | None = None) -> Callable[..., Any]:
    """The diagonal of the Gauss-Newton matrix, exact: one forward and K backward passes for K logits an example.

    Each pass goes down from one eigenvector u_ik of every example's H_ℓ; what a layer's parameters get is squared
    example by example, times the eigenvalue λ_ik, and summed. Where a loss is not convex in the logits (Focal) some
    λ_ik, and so some of the diagonal, may be negative.

    Args:
        objective: a net and a loss.
        samples: None takes all K eigenvectors; a number draws so many for each example, k as often as its share in
            Σ_j |λ_ij|, and gives an estimate whose mean is the diagonal, in as many backward passes.

    Returns:
        A function of (params, x, y, state=(), key=None) that gives a tree like params; samples need a key.

    Raises:
        TypeError: something that is no Objective.
        ValueError: a BatchNorm in training, which mixes the examples (say hg.inference(net)); samples below 1, or
            without a key.

    Source: Dangel, Kunstner and Hennig, BackPACK, 2020 (DiagGGN, exact and by Monte Carlo).

    Example:
        >>> import handgrad as hg
        >>> objective = hg.Objective(hg.Chain(hg.Dense(1, use_bias=False)), hg.MeanSquaredError())
        >>> params = {"dense1": {"kernel": jnp.zeros((2, 1))}}
        >>> diagonal = gauss_newton_diagonal(objective)(params, jnp.array([[3.0, 1.0]]), jnp.ones((1, 1)))
        >>> diagonal["dense1"]["kernel"].ravel().round(4).tolist()
        [18.0, 2.0]
    """
    tool = "gauss_newton_diagonal"
    check_samples(tool, objective, samples)
    net, layers = objective.net, leaf_layers(objective.net)

    def diagonal(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> Any:
        logits, _, back = open_forward(net, params, x, state, key)
        columns = logit_columns(tool, objective.loss, logits, y, samples=samples, key=key)

        def one(total: Any, column: tuple[Array, Array]) -> tuple[Any, None]:
            direction, weight = column
            seen = back(direction.astype(logits.dtype))[1]
            squares = {name: _weighted_squares(layer_grads(layer, seen[name]), weight) for name, layer in layers}
            return jax.tree.map(jnp.add, total, with_leaves(net, params, squares)), None

        nothing = jax.tree.map(lambda p: jnp.zeros_like(wide(p)), params)
        total, _ = lax.scan(one, nothing, columns)
        total = jax.tree.map(lambda sums, p: sums.astype(p.dtype), total, params)
        return _with_twice_l2(objective, total, jax.tree.map(jnp.ones_like, params))

    return diagonal


def _weighted_squares(grads: Any, weights: Array) -> Any:
    """Σ_i w_i g_i² of gradients by example (N, ...)."""
    return jax.tree.map(lambda g: jnp.tensordot(weights.astype(wide(g).dtype), jnp.square(wide(g)), 1), grads)


class Sharpness(NamedTuple):
    """The ends of the Hessian's spectrum.

    Attributes:
        largest: its largest eigenvalue.
        smallest: its smallest, found less exactly.
        vector: the unit eigenvector of the largest, like params.
        residual: |H v - largest v|: an eigenvalue lies within so much of `largest`.

    Example:
        >>> import handgrad as hg
        >>> objective = hg.Objective(hg.Chain(hg.Dense(1, use_bias=False)), hg.MeanSquaredError())
        >>> params, x = {"dense1": {"kernel": jnp.zeros((2, 1))}}, jnp.array([[1.0, 0.0], [0.0, 3.0]])
        >>> found = jax.jit(sharpness(objective))(params, x, jnp.zeros((2, 1)))  # L = (u² + 9 v²)/2
        >>> round(float(found.largest), 3), round(float(found.smallest), 3), float(found.residual) < 1e-3
        (9.0, 1.0, True)
    """

    largest: Array
    smallest: Array
    vector: Any
    residual: Array


def sharpness(objective: Objective, iterations: int = 30, seed: int = 0) -> Callable[..., Sharpness]:
    """The largest eigenvalue of the Hessian, by Lanczos' method on products with it.

    The products v, H v, H² v, .. are made orthonormal, twice over against rounding; in that basis H is a small matrix
    whose ends approach those of H's spectrum. Gradient descent with a rate above 2 / largest leaves the minimum.

    Args:
        objective: what is differentiated twice.
        iterations: products, at least 2; no more than there are parameters are made.
        seed: of the first vector.

    Returns:
        A function of (params, x, y, state=(), key=None) that gives a `Sharpness`.

    Raises:
        TypeError: something that is no Objective.
        ValueError: fewer than 2 iterations, or at the call no parameters.

    Source: Lanczos, An iteration method for the solution of the eigenvalue problem, 1950; Golub and Van Loan, Matrix
    Computations, 4th edition, chapter 10; Cohen et al., Gradient descent on neural networks typically occurs at the
    edge of stability, 2021 (what it is for).

    Example:
        >>> import handgrad as hg
        >>> objective = hg.Objective(hg.Chain(hg.Dense(1, use_bias=False)), hg.MeanSquaredError())
        >>> params = {"dense1": {"kernel": jnp.zeros((2, 1))}}
        >>> x = jnp.array([[3.0, 4.0]])  # L = (w·x - y)², with the curvature 2|x|² along x
        >>> found = sharpness(objective)(params, x, jnp.ones((1, 1)))
        >>> round(float(found.largest), 3), bool(jnp.allclose(found.vector["dense1"]["kernel"].ravel(), 0.2 * x[0]))
        (50.0, True)
    """
    _check_objective("sharpness", objective)
    if iterations < 2:
        raise ValueError(f"sharpness: iterations must be at least 2, got {iterations}")
    product = hvp(objective)

    def found(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> Sharpness:
        flat, unravel = ravel_pytree(params)
        if not flat.size:
            raise ValueError("sharpness: the net must have parameters, got none")
        start, count = wide(flat), min(iterations, flat.size)

        def times(v: Array) -> Array:
            return wide(ravel_pytree(product(params, x, y, state, key, unravel(v.astype(flat.dtype))))[0])

        v = jax.random.normal(jax.random.key(seed), start.shape, start.dtype)
        basis, images = krylov(times, v / jnp.linalg.norm(v), count)
        real, small = jnp.any(basis != 0, 1), basis @ images.T
        beyond = jnp.where(real, 0, 1 + jnp.abs(small).sum())  # where the basis is short: eigenvalues above all of H's
        ends, vectors = jnp.linalg.eigh((small + small.T) / 2 + jnp.diag(beyond))
        largest = real.sum() - 1
        vector = vectors[:, largest] @ basis
        vector = vector * jnp.where(vector.sum() < 0, -1, 1).astype(vector.dtype)
        residual = jnp.linalg.norm(times(vector) - ends[largest] * vector)
        return Sharpness(ends[largest], ends[0], unravel(vector.astype(flat.dtype)), residual)

    return found


def krylov(times: Callable[[Array], Array], start: Array, count: int) -> tuple[Array, Array]:
    """An orthonormal basis (count, P) of start, H start, H² start, .., and H times each of its vectors.

    Where it is closed before, in an invariant subspace, zeros follow.
    """

    def one(k: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        basis, images = carry
        image = times(basis[k])
        rest = _orthogonal_to(basis, _orthogonal_to(basis, image))  # twice: once leaves rounding of the large parts
        length = jnp.linalg.norm(rest)
        step = jnp.where(length > CLOSED * jnp.linalg.norm(image), rest / jnp.where(length == 0, 1, length), 0)
        return basis.at[k + 1].set(step), images.at[k].set(image)

    basis = jnp.zeros((count + 1, start.size), start.dtype).at[0].set(start)
    basis, images = lax.fori_loop(0, count, one, (basis, jnp.zeros_like(basis[:-1])))
    return basis[:-1], images


def _check_objective(tool: str, objective: Any) -> None:
    if not isinstance(objective, Objective):
        raise TypeError(f"{tool}: wants an hg.Objective, got {objective!r}; write hg.Objective(net, loss)")


def _with_twice_l2(objective: Objective, tree: Any, v: Any) -> Any:
    """The tree plus 2λ v on kernels."""

    def added(path: tuple, leaf: Array, vector: Array) -> Array:
        return leaf + jnp.asarray(2 * objective.l2, leaf.dtype) * vector if is_kernel(path) else leaf

    return jax.tree.map_with_path(added, tree, v)


def check_samples(tool: str, objective: Any, samples: int | None) -> None:
    """What tools that go down from columns of H_ℓ demand before any compute."""
    _check_objective(tool, objective)
    check_apart(tool, objective.net)
    if samples is not None and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
        raise ValueError(f"{tool}: samples must be None or an int of at least 1, got {samples!r}")


def logit_columns(
    tool: str,
    loss: Loss,
    logits: Array,
    y: Array,
    weights: Any = None,
    samples: int | None = None,
    key: Array | None = None,
) -> tuple[Array, Array]:
    """Directions u (C, N, ...) in the logits and weights λ (C, N) with Σ_c λ_ci u_ci u_ciᵀ = d²L/do_i², or in the mean.

    All eigenvectors and eigenvalues; or `samples` of them, k drawn with the probability |λ_k| / Σ_j |λ_j| and weighted
    by sign(λ_k) Σ_j |λ_j| / samples. The mean over the batch has divided: the weights of n alike examples are 1/n as
    large. No other example's logits occur in d²L/do_i².
    """
    if samples is not None and key is None:
        raise ValueError(f"{tool}: samples need a key; pass key=jax.random.key(...)")
    n, *rest = logits.shape
    o, size = wide(logits), math.prod(rest)

    def times(direction: Array) -> Array:
        along = jnp.broadcast_to(direction.reshape(1, *rest), o.shape)
        return jax.jvp(lambda o: loss.value_and_grad(o, y, weights)[1], (o,), (along,))[1].reshape(n, size)

    hessians = jax.vmap(times, out_axes=2)(jnp.eye(size, dtype=o.dtype))  # (N, K, K)
    values, vectors = jnp.linalg.eigh((hessians + jnp.swapaxes(hessians, 1, 2)) / 2)
    if samples is None or key is None:
        return jnp.moveaxis(vectors, 2, 0).reshape(size, *o.shape), values.T
    draw, sizes = jax.random.fold_in(key, jnp.uint32(2**32 - 2)), jnp.abs(values)  # no child's key
    picked = jax.random.categorical(draw, jnp.log(sizes), shape=(samples, n))
    rows = jnp.broadcast_to(jnp.arange(n)[None], picked.shape)
    share = jnp.broadcast_to(sizes.sum(1)[None] / samples, picked.shape)
    return vectors[rows, :, picked].reshape(samples, *o.shape), jnp.sign(values[rows, picked]) * share


def _orthogonal_to(basis: Array, v: Array) -> Array:
    return v - basis.T @ (basis @ v)

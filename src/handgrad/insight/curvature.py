"""The loss's curvature without its matrix: products with the Hessian and with the Gauss-Newton matrix, and more.

With the net f, logits o = f(θ), loss ℓ, J = do/dθ and H_ℓ = d²ℓ/do²,

    H v = d/dt ∇L(θ + t v)                    forward over the reverse pass that is written by hand
    G v = Jᵀ H_ℓ J v                          the Hessian without Σ_k dℓ/do_k ∇²o_k; never negative for a convex loss
    diag G = Σ_i Σ_k (dθ of s_ik)²            s_i1 .. s_iK: the columns of a square root of example i's H_ℓ

Where the net is linear in θ, G is H. The penalty λ|W|² adds 2λ to each on kernels.
Sources: Pearlmutter, Fast exact multiplication by the Hessian, 1994; Schraudolph, Fast curvature matrix-vector
products, 2002; Dangel, Kunstner and Hennig, BackPACK, 2020, section 2 (the diagonal).
"""

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
from handgrad.insight.tap import open_passes
from handgrad.layers.layer import Array, Params, State
from handgrad.losses import Loss


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


def gauss_newton_diagonal(objective: Objective) -> Callable[..., Any]:
    """The diagonal of the Gauss-Newton matrix, exact: K backward passes for logits (N, K).

    Each pass goes down from one column of a square root of every example's H_ℓ; what a layer's parameters get is
    squared example by example, and summed.

    Args:
        objective: a net and a loss whose H_ℓ has no negative eigenvalue, as that of all our losses but Focal.

    Returns:
        A function of (params, x, y, state=(), key=None) that gives a tree like params.

    Raises:
        TypeError: something that is no Objective.
        ValueError: a BatchNorm in training, which mixes the examples (say hg.inference(net)); logits not (N, K).

    Example:
        >>> import handgrad as hg
        >>> objective = hg.Objective(hg.Chain(hg.Dense(1, use_bias=False)), hg.MeanSquaredError())
        >>> params = {"dense1": {"kernel": jnp.zeros((2, 1))}}
        >>> diagonal = gauss_newton_diagonal(objective)(params, jnp.array([[3.0, 1.0]]), jnp.ones((1, 1)))
        >>> diagonal["dense1"]["kernel"].ravel().round(4).tolist()
        [18.0, 2.0]
    """
    _check_objective("gauss_newton_diagonal", objective)
    check_apart("gauss_newton_diagonal", objective.net)
    net, layers = objective.net, leaf_layers(objective.net)

    def diagonal(params: Params, x: Array, y: Array, state: State = (), key: Array | None = None) -> Any:
        logits = net.forward(params, x, state, key)[0]
        roots = logit_roots(objective.loss, logits, y)  # (K, N, K): column k of each example's root

        def one(total: Any, column: Array) -> tuple[Any, None]:
            def from_column(logits: Array) -> tuple[Array, Array]:
                return jnp.zeros(()), column.astype(logits.dtype)

            seen = open_passes(net, params, x, state, key, from_column).layers
            squares = {
                name: jax.tree.map(lambda g: jnp.sum(jnp.square(g), 0), layer_grads(layer, seen[name]))
                for name, layer in layers
            }
            return jax.tree.map(jnp.add, total, with_leaves(net, params, squares)), None

        total, _ = lax.scan(one, jax.tree.map(jnp.zeros_like, params), roots)
        return _with_twice_l2(objective, total, jax.tree.map(jnp.ones_like, params))

    return diagonal


class Sharpness(NamedTuple):
    """The ends of the Hessian's spectrum.

    Attributes:
        largest: its largest eigenvalue.
        smallest: its smallest, found less exactly.
        vector: the unit eigenvector of the largest, like params.
        residual: |H v - largest v|: an eigenvalue lies within so much of `largest`.
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
        ValueError: fewer than 2 iterations.

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
        start, unravel = ravel_pytree(params)
        count = min(iterations, start.size)

        def times(v: Array) -> Array:
            return ravel_pytree(product(params, x, y, state, key, unravel(v)))[0]

        def one(k: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            basis, images = carry
            image = times(basis[k])
            rest = _orthogonal_to(basis, _orthogonal_to(basis, image))
            length = jnp.linalg.norm(rest)
            # an invariant subspace is closed: zeros span nothing more, and count as the eigenvalue 0 of no direction
            step = jnp.where(length > 1e-6 * jnp.linalg.norm(image), rest / jnp.where(length == 0, 1, length), 0)
            return basis.at[k + 1].set(step), images.at[k].set(image)

        v = jax.random.normal(jax.random.key(seed), start.shape, start.dtype)
        basis = jnp.zeros((count + 1, start.size), start.dtype).at[0].set(v / jnp.linalg.norm(v))
        basis, images = lax.fori_loop(0, count, one, (basis, jnp.zeros_like(basis[:-1])))
        small = basis[:-1] @ images.T
        real = jnp.any(basis[:-1] != 0, 1)
        small = jnp.where(real[:, None] & real[None, :], (small + small.T) / 2, 0)
        ends, vectors = jnp.linalg.eigh(small)
        inside = jnp.sum(jnp.where(real[:, None], jnp.square(vectors), 0), 0) > 0.5
        largest = jnp.argmax(jnp.where(inside, ends, -jnp.inf))
        vector = vectors[:, largest] @ basis[:-1]
        vector = vector * jnp.where(vector.sum() < 0, -1, 1).astype(vector.dtype)
        residual = jnp.linalg.norm(times(vector) - ends[largest] * vector)
        smallest = jnp.min(jnp.where(inside, ends, jnp.inf))
        return Sharpness(ends[largest], smallest, unravel(vector), residual)

    return found


def _check_objective(tool: str, objective: Any) -> None:
    if not isinstance(objective, Objective):
        raise TypeError(f"{tool}: wants an hg.Objective, got {objective!r}; write hg.Objective(net, loss)")


def _with_twice_l2(objective: Objective, tree: Any, v: Any) -> Any:
    """The tree plus 2λ v on kernels."""

    def added(path: tuple, leaf: Array, vector: Array) -> Array:
        return leaf + jnp.asarray(2 * objective.l2, leaf.dtype) * vector if is_kernel(path) else leaf

    return jax.tree.map_with_path(added, tree, v)


def logit_roots(loss: Loss, logits: Array, y: Array) -> Array:
    """Square roots of the examples' parts of H_ℓ, S Sᵀ = H_ℓ for each; (K, N, K), a column of S in front.

    The mean over the batch divides: the part of example i is d²L/do_i², in which no other example's logits occur.
    """
    if logits.ndim != 2:
        raise ValueError(f"curvature: the net must give logits (N, K), got {logits.shape}")

    def part(k: Array) -> Array:
        direction = jnp.broadcast_to(jax.nn.one_hot(k, logits.shape[1], dtype=logits.dtype)[None], logits.shape)
        return jax.jvp(lambda o: loss.value_and_grad(o, y)[1], (logits,), (direction,))[1]

    hessians = jnp.moveaxis(lax.map(part, jnp.arange(logits.shape[1])), 0, 2)  # (N, K, K)
    values, vectors = jnp.linalg.eigh((hessians + jnp.swapaxes(hessians, 1, 2)) / 2)
    return jnp.moveaxis(vectors * jnp.sqrt(jnp.maximum(values, 0))[:, None, :], 2, 0)


def _orthogonal_to(basis: Array, v: Array) -> Array:
    return v - basis.T @ (basis @ v)

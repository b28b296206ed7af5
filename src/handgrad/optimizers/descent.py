"""Optimizers: from gradients to updates u that are added to the parameters, θ ← θ + u.

With the gradient g_t = dL/dθ at step t = 0, 1, ..., the learning rate η (η_t if it is a schedule) and m_{-1} = 0:

    sgd                           u = -η g_t
    momentum                      m_t = β m_{t-1} + g_t             u = -η m_t                 (heavy ball)
    momentum, nesterov            m_t = β m_{t-1} + g_t             u = -η (g_t + β m_t)
    previous_gradient_momentum    u = -η (α g_{t-1} + g_t)          with g_{-1} = 0
    adam                          m_t = β₁ m_{t-1} + (1-β₁) g_t     v_t = β₂ v_{t-1} + (1-β₂) g_t²
                                  m̂ = m_t / (1 - β₁^{t+1})          v̂ = v_t / (1 - β₂^{t+1})
                                  u = -η m̂ / (√v̂ + ε)
    adamw                         u = -η (m̂ / (√v̂ + ε) + λ θ)

Heavy ball sums all past gradients, m_t = Σ_k β^k g_{t-k}: a constant gradient moves 1/(1-β) times as far. The previous
gradient's form remembers one step, so a constant gradient moves 1+α times as far. m̂ and v̂: started from 0, m_t is
Σ_k (1-β₁) β₁^k g_{t-k}, whose weights add up to 1 - β₁^{t+1}; the division makes them add up to 1.

An optimizer is a pair of pure functions over trees, `init(params) -> opt_state` and
`update(grads, opt_state, params=None) -> updates, opt_state`: the interface of optax, so each side's `chain` takes the
other's. States are trees of arrays for jit, scan, vmap and donation; no two of their arrays share a buffer.
Learning rate: a number, a (traced) scalar array, or a schedule step -> rate, first called with step 0. The other
numbers may be traced too. Only numbers are checked, for the value of a traced array cannot be read.
Types: updates have the gradients' type. Memories and sums are float32 at least; each update is rounded once.
Oracle: optax, for all but the previous gradient's form, which is the lecture's.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from handgrad.optimizers.optimizer import Optimizer, Tree, as_type_of, check_floating, check_number, decayed, wide

Memory = dict[str, Tree]
LearningRate = ArrayLike | Callable[[jax.Array], ArrayLike]
Direction = Callable[[Tree, Memory, jax.Array], tuple[Tree, Memory]]


class OptState(NamedTuple):
    """The number of updates so far, () int32, and what is remembered by name: trees like params, float32 at least.

    Attributes:
        step: how many updates there were, () int32.
        memory: trees like params by name, such as the velocity of `momentum`.

    Example:
        >>> optimizer, g = momentum(0.1, beta=0.5), jnp.float32(1.0)
        >>> _, state = optimizer.update(g, optimizer.init(g))
        >>> _, state = optimizer.update(g, state)
        >>> int(state.step), {name: float(tree) for name, tree in state.memory.items()}  # 1 + 0.5
        (2, {'velocity': 1.5})
    """

    step: jax.Array
    memory: Memory


def sgd(lr: LearningRate) -> Optimizer:
    """Gradient descent, θ ← θ - η g.

    Args:
        lr: the learning rate η: a number, a scalar array, or a schedule step -> rate.

    Returns:
        The optimizer.

    Raises:
        ValueError: a negative or non-finite rate, or an array that is no scalar.
        TypeError: a rate that is none of the three; in init, parameters that are not floating point.

    Source: Robbins and Monro, A Stochastic Approximation Method, 1951.

    Example:
        >>> from handgrad.optimizers import apply_updates
        >>> params, optimizer = {"w": jnp.asarray([1.0, 2.0], jnp.float32)}, sgd(0.5)
        >>> updates, _ = optimizer.update({"w": jnp.ones(2, jnp.float32)}, optimizer.init(params))
        >>> apply_updates(params, updates)
        {'w': Array([0.5, 1.5], dtype=float32)}
    """

    def direction(g: Tree, memory: Memory, step: jax.Array) -> tuple[Tree, Memory]:
        return g, memory

    return _descent("sgd", lr, (), direction)


def momentum(lr: LearningRate, beta: ArrayLike = 0.9, nesterov: bool = False) -> Optimizer:
    """Heavy ball, m ← β m + g, θ ← θ - η m; Nesterov's form steps by g + β m instead, with the new m.

    Args:
        lr: the learning rate η, as in `sgd`. It multiplies the sum m, so a schedule's new rate holds for the past
            gradients too (as in PyTorch and optax).
        beta: the factor β by which past gradients fade, 0 <= β < 1.
        nesterov: step by g + β m.

    Returns:
        The optimizer.

    Raises:
        ValueError: a bad rate, or beta out of range.
        TypeError: as for `sgd`.

    Source: Polyak, 1964; Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.

    Example:
        >>> optimizer, g = momentum(1.0, beta=0.5), jnp.float32(1.0)
        >>> first, state = optimizer.update(g, optimizer.init(g))
        >>> second, state = optimizer.update(g, state)
        >>> print(first, second)
        -1.0 -1.5
    """
    check_number("momentum", "beta", beta, below=1)

    def direction(g: Tree, memory: Memory, step: jax.Array) -> tuple[Tree, Memory]:
        m = jax.tree.map(lambda g, m: as_type_of(beta, m) * m + g, g, memory["velocity"])
        ahead = jax.tree.map(lambda g, m: g + as_type_of(beta, m) * m, g, m) if nesterov else m
        return ahead, {"velocity": m}

    return _descent("momentum", lr, ("velocity",), direction)


def previous_gradient_momentum(lr: LearningRate, alpha: ArrayLike) -> Optimizer:
    """The lecture's momentum, θ ← θ - η (α g_{t-1} + g_t): it remembers one gradient, not a running sum.

    Args:
        lr: the learning rate η, as in `sgd`.
        alpha: the weight α of the previous gradient, at least 0. At the first step there is none.

    Returns:
        The optimizer.

    Raises:
        ValueError: a bad rate, or a negative or non-finite alpha.
        TypeError: as for `sgd`.

    Example:
        >>> optimizer, g = previous_gradient_momentum(1.0, alpha=0.5), jnp.float32(1.0)
        >>> state, moves = optimizer.init(g), []
        >>> for _ in range(3):
        ...     move, state = optimizer.update(g, state)
        ...     moves.append(float(move))
        >>> moves
        [-1.0, -1.5, -1.5]
    """
    check_number("previous_gradient_momentum", "alpha", alpha)

    def direction(g: Tree, memory: Memory, step: jax.Array) -> tuple[Tree, Memory]:
        both = jax.tree.map(lambda g, previous: as_type_of(alpha, g) * previous + g, g, memory["previous"])
        return both, {"previous": jax.tree.map(jnp.copy, g)}  # a copy: donating the state must not delete the gradient

    return _descent("previous_gradient_momentum", lr, ("previous",), direction)


def adam(lr: LearningRate, beta1: ArrayLike = 0.9, beta2: ArrayLike = 0.999, eps: ArrayLike = 1e-8) -> Optimizer:
    """Adam: the mean of the gradient over the root of the mean of its square, so each step is of about size η.

    Args:
        lr: the learning rate η, as in `sgd`.
        beta1: the factor β₁ by which the mean of g fades, 0 <= β₁ < 1.
        beta2: the factor β₂ by which the mean of g² fades, 0 <= β₂ < 1.
        eps: the ε added to the root, at least 0.

    Returns:
        The optimizer.

    Raises:
        ValueError: a bad rate, or beta1, beta2 or eps out of range.
        TypeError: as for `sgd`.

    Source: Kingma and Ba, Adam, arXiv:1412.6980, 2014, Algorithm 1.

    Example:
        >>> optimizer, g = adam(0.1), jnp.asarray([1e-3, -1e3], jnp.float32)
        >>> updates, _ = optimizer.update(g, optimizer.init(g))
        >>> [round(float(update), 4) for update in updates]
        [-0.1, 0.1]
    """
    return _descent("adam", lr, ("mean", "square"), _adam_direction("adam", beta1, beta2, eps))


def adamw(
    lr: LearningRate,
    beta1: ArrayLike = 0.9,
    beta2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    weight_decay: ArrayLike = 1e-2,
) -> Optimizer:
    """Adam with decoupled weight decay: λ θ joins the step after the division by √v̂, so all weights decay alike.

    Args:
        lr: the learning rate η, as in `sgd`. It multiplies the decay too (as in PyTorch and optax).
        beta1: as in `adam`.
        beta2: as in `adam`.
        eps: as in `adam`.
        weight_decay: λ, at least 0. It acts on every parameter, biases and scales too.

    Returns:
        The optimizer; its update needs params.

    Raises:
        ValueError: as for `adam`, a bad weight_decay, or an update without params.
        TypeError: as for `sgd`.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv:1711.05101, 2017.

    Example:
        >>> params, optimizer = jnp.asarray([1.0], jnp.float32), adamw(0.1, weight_decay=0.5)
        >>> updates, _ = optimizer.update(jnp.zeros(1, jnp.float32), optimizer.init(params), params)
        >>> print(updates)
        [-0.05]
    """
    check_number("adamw", "weight_decay", weight_decay)
    direction = _adam_direction("adamw", beta1, beta2, eps)
    return _descent("adamw", lr, ("mean", "square"), direction, weight_decay)


def _adam_direction(name: str, beta1: ArrayLike, beta2: ArrayLike, eps: ArrayLike) -> Direction:
    """m̂ / (√v̂ + ε) and the new means."""
    check_number(name, "beta1", beta1, below=1)
    check_number(name, "beta2", beta2, below=1)
    check_number(name, "eps", eps)

    def running_mean(beta: ArrayLike, old: Tree, new: Tree) -> Tree:
        return jax.tree.map(lambda a, b: as_type_of(beta, a) * a + (1 - as_type_of(beta, a)) * b, old, new)

    def corrected(beta: ArrayLike, mean: jax.Array, step: jax.Array) -> jax.Array:
        return mean / (1 - as_type_of(beta, mean) ** as_type_of(step + 1, mean))

    def direction(g: Tree, memory: Memory, step: jax.Array) -> tuple[Tree, Memory]:
        m = running_mean(beta1, memory["mean"], g)
        v = running_mean(beta2, memory["square"], jax.tree.map(jnp.square, g))
        steps = jax.tree.map(
            lambda m, v: corrected(beta1, m, step) / (jnp.sqrt(corrected(beta2, v, step)) + as_type_of(eps, v)), m, v
        )
        return steps, {"mean": m, "square": v}

    return direction


def _descent(
    name: str,
    lr: LearningRate,
    remembered: tuple[str, ...],
    direction: Direction,
    weight_decay: ArrayLike | None = None,
) -> Optimizer:
    """The optimizer u = -η (direction + λ θ), with one tree of zeros for each name remembered to start with."""
    if not callable(lr):
        check_number(name, "lr", lr)

    def init(params: Tree) -> OptState:
        check_floating(name, params)
        memory = {key: jax.tree.map(lambda p: jnp.zeros_like(wide(p)), params) for key in remembered}
        return OptState(jnp.zeros((), jnp.int32), memory)

    def update(grads: Tree, state: OptState, params: Tree | None = None) -> tuple[Tree, OptState]:
        d, memory = direction(jax.tree.map(wide, grads), state.memory, state.step)
        if weight_decay is not None:
            d = decayed(name, d, params, weight_decay)
        rate = lr(state.step) if callable(lr) else lr
        updates = jax.tree.map(lambda d, g: (-as_type_of(rate, d) * d).astype(g.dtype), d, grads)
        return updates, OptState(state.step + 1, memory)

    return Optimizer(init, update)

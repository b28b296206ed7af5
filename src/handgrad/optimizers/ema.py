"""An average of the parameters along the way, for evaluation: less noisy than the last ones.

With the parameters θ_t after update t = 1, 2, ... and the decay d,

    Ā_t = d Ā_{t-1} + (1-d) θ_t,  Ā_0 = θ_0       so       Ā_t = d^t θ_0 + (1-d) Σ_{k=1}^t d^{t-k} θ_k

in which the start θ_0, which has learned nothing, has a weight for the first 1/(1-d) updates. With debias it has none:
a sum A_t begun at 0 has weights that add up to 1 - d^t, and Ā_t = A_t / (1 - d^t). As A_t = d A_{t-1} + (1-d) θ_t and
d (1 - d^{t-1}) = (1 - d^t) - (1-d), that is a step towards θ_t again, only longer at first:

    Ā_t = Ā_{t-1} + r_t (θ_t - Ā_{t-1}),      r_t = (1-d) / (1 - d^t),  r_1 = 1           (r_t = 1-d without debias)

so what is kept is the average itself. 1 - d^t is computed as -expm1(t log d), which keeps its digits for d near 1.
Types: the average is float32 at least. Oracle: the sums above.
Source: Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992 (averages of parameters);
Kingma and Ba, Adam, 2014, section 3 (the correction).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from handgrad.optimizers.descent import OptState
from handgrad.optimizers.optimizer import Optimizer, Tree, as_type_of, check_floating, check_number, wide
from handgrad.optimizers.transforms import apply_updates


def ema(decay: ArrayLike, debias: bool = True) -> Optimizer:
    """Keeps the exponential moving average of the parameters, and hands updates on as they are.

    It stands last in a `chain`, where the updates are those that are applied: `chain(momentum(0.1), ema(0.99))`.
    `averaged(opt_state)` gives the parameters to evaluate. (optax.ema is another thing: it averages the updates.)

    The average has seen 1/(1-d) updates, more or less; the parameters before that hardly count.

    Batch norm: its running statistics are those of the activations under the last parameters, not the averaged ones.
    Use them as they are where both are near; otherwise take them anew, by `apply_train` with the averaged parameters on
    one large batch, of the net with BatchNorm(momentum=0): see docs/many_nets.md.

    Args:
        decay: d, 0 <= d < 1; 0 keeps the last parameters.
        debias: leave the parameters before the first update out of the average.

    Returns:
        The optimizer; its update needs params. Its state has the size of the parameters.

    Raises:
        ValueError: a decay out of range, or an update without params.
        TypeError: in init, parameters that are not floating point.

    Example:
        >>> from handgrad.optimizers import chain, sgd
        >>> optimizer, params = chain(sgd(1.0), ema(0.5)), jnp.float32(0.0)
        >>> state, found = optimizer.init(params), []
        >>> for _ in range(3):
        ...     updates, state = optimizer.update(jnp.float32(-1.0), state, params)
        ...     params = apply_updates(params, updates)
        ...     found.append(round(float(averaged(state)), 4))
        >>> found  # 1, (1/2 + 2)/(3/2), (1/4 + 2/2 + 3)/(7/4)
        [1.0, 1.6667, 2.4286]
    """
    check_number("ema", "decay", decay, below=1)

    def init(params: Tree) -> OptState:
        check_floating("ema", params)
        return OptState(jnp.zeros((), jnp.int32), {"average": jax.tree.map(lambda p: jnp.array(wide(p)), params)})

    def update(updates: Tree, state: OptState, params: Tree | None = None) -> tuple[Tree, OptState]:
        if params is None:
            raise ValueError("ema: the average needs params, got None; call update(grads, opt_state, params)")
        t = state.step + 1

        def moved(average: jax.Array, p: jax.Array) -> jax.Array:
            return average + _rate(decay, t, debias, average) * (p.astype(average.dtype) - average)

        average = jax.tree.map(moved, state.memory["average"], apply_updates(params, updates))
        return updates, OptState(t, {"average": average})

    return Optimizer(init, update)


def averaged(opt_state: Any) -> Tree:
    """The averaged parameters in the state of an optimizer that has an `ema`.

    Args:
        opt_state: such as `train_state.opt_state`.

    Returns:
        A tree like params, float32 at least; before the first update the parameters themselves.

    Raises:
        ValueError: no `ema` in it, or several.

    Example:
        >>> from handgrad.optimizers import chain, sgd
        >>> averaged(chain(sgd(0.1), ema(0.9)).init({"w": jnp.ones(2, jnp.float32)}))
        {'w': Array([1., 1.], dtype=float32)}
    """
    found = [node for node in jax.tree.leaves(opt_state, is_leaf=_is_average) if _is_average(node)]
    if len(found) != 1:
        raise ValueError(
            f"averaged: the optimizer's state must have one ema, got {len(found)}; "
            f"make the optimizer as hg.optimizers.chain(hg.momentum(0.1), hg.optimizers.ema(0.99))"
        )
    return found[0].memory["average"]


def _is_average(node: Any) -> bool:
    return isinstance(node, OptState) and "average" in node.memory


def _rate(decay: ArrayLike, t: jax.Array, debias: bool, like: jax.Array) -> jax.Array:
    """r_t, of like's type; of a Python number 1 - d and log d are computed in its own precision."""
    if isinstance(decay, int | float):
        rate, log = 1 - decay, math.log(decay) if decay > 0 else -math.inf
    else:
        d = as_type_of(decay, like)
        rate, log = 1 - d, jnp.log(d)
    weights = -jnp.expm1(as_type_of(t, like) * as_type_of(log, like)) if debias else as_type_of(1, like)
    return as_type_of(rate, like) / weights

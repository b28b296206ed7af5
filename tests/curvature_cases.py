"""Small nets with the whole matrices of their second order, by jax.hessian: the oracle of curvature and K-FAC."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import handgrad as hg
from handgrad.gradient import is_kernel


@dataclass(frozen=True, repr=False)
class Scale(hg.Layer):
    """No backward of its own."""

    def init(self, key, in_shape, dtype=jnp.float32):
        return {"scale": jnp.ones(in_shape[-1:], dtype)}, {}

    def apply(self, params: Any, x, state=()):
        return x * jnp.broadcast_to(params["scale"], x.shape) ** 2


class Waves(hg.Loss):
    """With every sign of curvature, and without a backward of its own."""

    def per_example(self, logits, y):
        return jnp.cos(3 * logits).sum(1)


SOFTMAX, SQUARES = hg.SoftmaxCrossEntropy(0.1), hg.MeanSquaredError()
MIXED = hg.Chain(
    hg.Conv(2, 2, strides=2, groups=2), hg.Residual(hg.LayerNorm()), hg.Parallel(Scale(), hg.Conv(1, 1)),
    hg.Dropout(0.4), hg.Flatten(), hg.Dense(3),
)  # fmt: skip
CASES = {  # net, loss, input, batch
    "mixed": (MIXED, SOFTMAX, (4, 3, 2), 3),
    "one example": (hg.Chain(hg.Dense(2), hg.Tanh(), hg.Dense(3, use_bias=False)), SQUARES, (2,), 1),
    "leaf": (hg.Dense(3), SOFTMAX, (2,), 4),
    "images": (hg.Chain(hg.Conv(2, 2)), SQUARES, (2, 2, 1), 2),
    "not convex": (hg.Dense(3), Waves(), (2,), 4),
    "batch norm": (hg.Chain(hg.Dense(2), hg.BatchNorm(), hg.Tanh(), hg.Dense(3)), SOFTMAX, (2,), 4),
}


def case(net, loss, in_shape, batch):
    """Params, x, y, state and key; numbers by NumPy, for each shape that JAX draws is a program to compile."""
    rng = np.random.default_rng(0)
    params, state = jax.eval_shape(lambda key: net.init(key, in_shape, jnp.float64), jax.random.key(0))
    params = jax.tree.map(lambda p: jnp.asarray(0.7 * rng.normal(size=p.shape)), params)
    state = jax.tree.map(lambda s: jnp.asarray(rng.uniform(0.5, 1.5, s.shape)), state)
    x = jnp.asarray(rng.normal(size=(batch, *in_shape)))
    logits = jax.eval_shape(net.apply, params, x, state)
    y = rng.normal(size=logits.shape) if loss == SQUARES else np.arange(batch) % 3
    return params, x, jnp.asarray(y), state, jax.random.key(4)


def flat(tree):
    """A tree's numbers in the order of `ravel_pytree`."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@functools.cache
def matrices(name):
    """Objective, arguments, the Hessian, the Gauss-Newton matrix, and a vector like params."""
    net, loss, in_shape, batch = CASES[name]
    objective, args = hg.Objective(net, loss, l2=0.03), case(net, loss, in_shape, batch)
    params, x, y, state, key = args
    rng = np.random.default_rng(1)

    @jax.jit
    def parts(params):
        vector, unravel = ravel_pytree(params)

        def logits(vector):
            return net.apply_train(unravel(vector), x, state, key)[0]

        hessian = jax.hessian(lambda vector: objective(unravel(vector), x, y, state, key)[0])(vector)
        return hessian, jax.jacfwd(logits)(vector), jax.hessian(lambda o: loss(o, y))(logits(vector))

    hessian, jacobian, inner = map(np.asarray, parts(params))
    jacobian = jacobian.reshape(-1, hessian.shape[1])
    penalty = jax.tree.map_with_path(lambda path, p: np.full(p.shape, 0.06 * is_kernel(path)), params)
    gauss_newton = jacobian.T @ inner.reshape(len(jacobian), -1) @ jacobian + np.diag(flat(penalty))
    return objective, args, hessian, gauss_newton, jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)

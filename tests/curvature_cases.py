"""Small nets with the whole matrices of their second order, by jax.hessian: the oracle of curvature and K-FAC."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

import handgrad as hg


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
    hg.Conv(4, 2, strides=2, groups=2), hg.Tanh(),
    hg.Residual(hg.Chain(hg.LayerNorm(), hg.Conv(4, 1))), hg.Parallel(Scale(), hg.Conv(2, 1)),
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
    params, state = net.init(jax.random.key(0), in_shape, jnp.float64)
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(1), p.shape, p.dtype), params)
    x = jax.random.normal(jax.random.key(2), (batch, *in_shape))
    logits = jax.eval_shape(net.apply, params, x, state)
    y = jax.random.normal(jax.random.key(3), logits.shape) if loss == SQUARES else jnp.arange(batch) % 3
    return params, x, y, state, jax.random.key(4)


@functools.cache
def matrices(name):
    """Objective, arguments, the Hessian and the Gauss-Newton matrix, a vector, and that vector like params."""
    net, loss, in_shape, batch = CASES[name]
    objective, args = hg.Objective(net, loss, l2=0.03), case(net, loss, in_shape, batch)
    params, x, y, state, key = args
    flat, unravel = ravel_pytree(params)

    def logits(flat):
        return net.apply_train(unravel(flat), x, state, key)[0]

    @jax.jit
    def both(flat):
        o = logits(flat)
        jacobian = jax.jacfwd(logits)(flat).reshape(o.size, -1)
        inner = jax.hessian(lambda o: loss(o, y))(o).reshape(o.size, o.size)
        penalty = jax.hessian(lambda flat: objective.penalty(unravel(flat), flat.dtype))(flat)
        hessian = jax.hessian(lambda flat: objective(unravel(flat), x, y, state, key)[0])(flat)
        return hessian, jacobian.T @ inner @ jacobian + penalty

    v = jax.random.normal(jax.random.key(9), flat.shape)
    return objective, args, *both(flat), v, unravel(v)

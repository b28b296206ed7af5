"""Every op in one form: forward keeps residuals, backward takes them. For tools that treat all ops alike.

`vjp(name, *arrays, **settings)` has the call of `jax.vjp` with the rule written by hand.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.ops.activations import (
    hard_sigmoid,
    hard_sigmoid_backward,
    hard_sigmoid_forward,
    hardswish,
    hardswish_backward,
    hardswish_forward,
    leaky_relu,
    leaky_relu_backward,
    leaky_relu_forward,
    relu,
    relu6,
    relu6_backward,
    relu6_forward,
    relu_backward,
    relu_forward,
)
from handgrad.ops.adaptive_pool import (
    adaptive_avg_pool,
    adaptive_avg_pool_backward,
    adaptive_avg_pool_forward,
    adaptive_max_pool,
    adaptive_max_pool_backward,
    adaptive_max_pool_forward,
)
from handgrad.ops.avg_pool import (
    avg_pool,
    avg_pool_backward,
    avg_pool_forward,
    global_avg_pool,
    global_avg_pool_backward,
    global_avg_pool_forward,
)
from handgrad.ops.batch_norm import batch_norm, batch_norm_backward, batch_norm_forward
from handgrad.ops.conv import conv, conv_backward, conv_forward
from handgrad.ops.conv_transpose import conv_transpose, conv_transpose_backward, conv_transpose_forward
from handgrad.ops.dense import dense, dense_backward, dense_forward
from handgrad.ops.dropout import dropout, dropout_backward, dropout_forward
from handgrad.ops.global_max_pool import global_max_pool, global_max_pool_backward, global_max_pool_forward
from handgrad.ops.group_norm import (
    group_norm,
    group_norm_backward,
    group_norm_forward,
    instance_norm,
    instance_norm_backward,
    instance_norm_forward,
)
from handgrad.ops.join import (
    add,
    add_backward,
    add_forward,
    concatenate,
    concatenate_backward,
    concatenate_forward,
    multiply,
    multiply_backward,
    multiply_forward,
)
from handgrad.ops.layer_norm import layer_norm, layer_norm_backward, layer_norm_forward
from handgrad.ops.local_response_norm import (
    local_response_norm,
    local_response_norm_backward,
    local_response_norm_forward,
)
from handgrad.ops.max_pool import max_pool, max_pool_backward, max_pool_forward
from handgrad.ops.max_unpool import max_unpool, max_unpool_backward, max_unpool_forward
from handgrad.ops.pad import pad, pad_backward, pad_forward
from handgrad.ops.prelu import prelu, prelu_backward, prelu_forward
from handgrad.ops.smooth_activations import (
    elu,
    elu_backward,
    elu_forward,
    gelu,
    gelu_backward,
    gelu_forward,
    selu,
    selu_backward,
    selu_forward,
    sigmoid,
    sigmoid_backward,
    sigmoid_forward,
    silu,
    silu_backward,
    silu_forward,
    softplus,
    softplus_backward,
    softplus_forward,
    tanh,
    tanh_backward,
    tanh_forward,
)
from handgrad.ops.softmax import (
    log_softmax,
    log_softmax_backward,
    log_softmax_forward,
    softmax,
    softmax_backward,
    softmax_forward,
)
from handgrad.ops.static import Static
from handgrad.ops.upsample import upsample, upsample_backward, upsample_forward


class Rule(NamedTuple):
    """An op in the form that all ops share.

    Attributes:
        op: op(*arrays, **settings) -> y, the plain formula.
        forward: forward(*arrays, **settings) -> y, residuals; a tree of arrays and Static.
        backward: backward(residuals, dy, **settings) -> the gradients, one for each array given.

    Example:
        >>> rule = RULES["relu"]
        >>> y, residuals = rule.forward(jnp.array([-1.0, 2.0]))
        >>> print(y, *rule.backward(residuals, jnp.array([5.0, 6.0])))
        [0. 2.] [0. 6.]
    """

    op: Callable[..., jax.Array]
    forward: Callable[..., tuple[jax.Array, Any]]
    backward: Callable[..., tuple[jax.Array, ...]]


def vjp(name: str, *arrays: jax.Array, **settings: Any) -> tuple[jax.Array, Callable[..., tuple[jax.Array, ...]]]:
    """The output of an op and its hand-derived vector-Jacobian product.

    Args:
        name: an op of `handgrad.ops`, such as "conv".
        *arrays: its array arguments, in order; they may be given by keyword as well.
        **settings: its settings.

    Returns:
        y, and backward(dy) -> tuple of gradients, one for each array given. A mask of booleans or an array of winners
        gets a gradient of dtype float0, as in `jax.vjp`.

    Raises:
        ValueError: an unknown op; and whatever the op itself raises.

    Example:
        >>> y, backward = vjp("dense", jax.numpy.ones((1, 2)), jax.numpy.ones((2, 3)))
        >>> [g.shape for g in backward(y)]
        [(1, 2), (2, 3)]
    """
    rule = rule_of(name)
    arrays, settings = bind(name, arrays, settings)
    y, residuals = rule.forward(*arrays, **settings)
    return y, lambda dy: rule.backward(residuals, jnp.asarray(dy), **settings)


def rule_of(name: str) -> Rule:
    """The rule of that name, or a ValueError that lists all."""
    if name not in RULES:
        raise ValueError(f"ops: no op is named {name!r}; there are {', '.join(sorted(RULES))}")
    return RULES[name]


def bind(name: str, arrays: tuple, settings: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Sort a call into its array arguments, as JAX has them, in order and without None, and its settings."""
    try:
        bound = inspect.signature(RULES[name].op).bind(*arrays, **settings)
    except TypeError as error:
        arguments = ", ".join(inspect.signature(RULES[name].op).parameters)
        raise TypeError(f"{name}: {error}; its arguments are {arguments}") from None
    return tuple(jnp.asarray(array) for array in bound.args if array is not None), bound.kwargs


def _of_one_array(op: Callable, forward: Callable, backward: Callable) -> Rule:
    """The rule of an op whose one gradient is backward(residual, dy, **settings)."""
    return Rule(op, forward, lambda residual, dy, **settings: (backward(residual, dy, **settings),))


def _pool(op: Callable, forward: Callable, backward: Callable) -> Rule:
    """The rule of a pool and the like, whose backward needs the shape of x beside its residual."""

    def rule_forward(x, **settings):
        y, residual = forward(x, **settings)
        return y, (residual, Static(x.shape))

    def rule_backward(residuals, dy, **settings):
        residual, in_shape = residuals
        kept = () if residual is None else (residual,)
        return (backward(*kept, dy, in_shape=in_shape.value, **settings),)

    return Rule(op, rule_forward, rule_backward)


def _affine(op: Callable, forward: Callable, backward: Callable) -> Rule:
    """The rule of an op of (x, kernel, bias=None) that keeps x and is given the kernel again."""

    def rule_forward(x, kernel, bias=None, **settings):
        y, x = forward(x, kernel, bias, **settings)
        return y, (x, kernel, Static(2 if bias is None else 3))

    def rule_backward(residuals, dy, **settings):
        x, kernel, count = residuals
        return backward(x, kernel, dy, **settings)[: count.value]

    return Rule(op, rule_forward, rule_backward)


def _norm(op: Callable, forward: Callable, backward: Callable) -> Rule:
    """The rule of an op of (x, scale, bias) whose backward needs the scale beside its residuals."""

    def rule_forward(x, scale, bias, **settings):
        y, kept = forward(x, scale, bias, **settings)
        return y, (kept, scale)

    def rule_backward(residuals, dy, **settings):
        kept, scale = residuals
        return backward(kept, scale, dy, **settings)

    return Rule(op, rule_forward, rule_backward)


def _batch_norm_forward(x, scale, bias, mask=None, **settings):
    y, residuals = batch_norm_forward(x, scale, bias, mask, **settings)
    return y, (residuals, scale, mask)


def _batch_norm_backward(residuals, dy, **settings) -> tuple[Any, ...]:
    kept, scale, mask = residuals
    gradients = batch_norm_backward(kept, scale, dy, mask, **settings)
    return gradients if mask is None else (*gradients, _of_mask(mask))


def _prelu_forward(x, slope):
    y, x = prelu_forward(x, slope)
    return y, (x, slope)


def _prelu_backward(residuals, dy):
    x, slope = residuals
    return prelu_backward(x, slope, dy)


def _dropout_backward(keep, dy, **settings) -> tuple[Any, ...]:
    return dropout_backward(keep, dy, **settings), _of_mask(keep)


def _of_mask(mask: jax.Array) -> Any:
    """The gradient of a mask or of winners, as `jax.vjp` has it: float0 where it is of booleans or ints, else zeros."""
    return np.zeros(mask.shape, mask.dtype if jnp.issubdtype(mask.dtype, jnp.floating) else jax.dtypes.float0)


def _max_unpool_backward(winner, dy, **settings) -> tuple[Any, ...]:
    return max_unpool_backward(winner, dy, **settings), _of_mask(winner)


RULES: dict[str, Rule] = {
    "conv": _affine(conv, conv_forward, conv_backward),
    "conv_transpose": _affine(conv_transpose, conv_transpose_forward, conv_transpose_backward),
    "dense": _affine(dense, dense_forward, dense_backward),
    "max_pool": _pool(max_pool, max_pool_forward, max_pool_backward),
    "avg_pool": _pool(avg_pool, avg_pool_forward, avg_pool_backward),
    "global_avg_pool": _pool(global_avg_pool, global_avg_pool_forward, global_avg_pool_backward),
    "upsample": _pool(upsample, upsample_forward, upsample_backward),
    "pad": _pool(pad, pad_forward, pad_backward),
    "concatenate": Rule(concatenate, concatenate_forward, concatenate_backward),
    "add": Rule(add, add_forward, add_backward),
    "multiply": Rule(multiply, multiply_forward, multiply_backward),
    "global_max_pool": _pool(global_max_pool, global_max_pool_forward, global_max_pool_backward),
    "adaptive_avg_pool": _pool(adaptive_avg_pool, adaptive_avg_pool_forward, adaptive_avg_pool_backward),
    "adaptive_max_pool": _pool(adaptive_max_pool, adaptive_max_pool_forward, adaptive_max_pool_backward),
    "max_unpool": Rule(max_unpool, max_unpool_forward, _max_unpool_backward),
    "relu": _of_one_array(relu, relu_forward, relu_backward),
    "leaky_relu": _of_one_array(leaky_relu, leaky_relu_forward, leaky_relu_backward),
    "relu6": _of_one_array(relu6, relu6_forward, relu6_backward),
    "hard_sigmoid": _of_one_array(hard_sigmoid, hard_sigmoid_forward, hard_sigmoid_backward),
    "hardswish": _of_one_array(hardswish, hardswish_forward, hardswish_backward),
    "prelu": Rule(prelu, _prelu_forward, _prelu_backward),
    "tanh": _of_one_array(tanh, tanh_forward, tanh_backward),
    "sigmoid": _of_one_array(sigmoid, sigmoid_forward, sigmoid_backward),
    "softplus": _of_one_array(softplus, softplus_forward, softplus_backward),
    "elu": _of_one_array(elu, elu_forward, elu_backward),
    "selu": _of_one_array(selu, selu_forward, selu_backward),
    "silu": _of_one_array(silu, silu_forward, silu_backward),
    "gelu": _of_one_array(gelu, gelu_forward, gelu_backward),
    "softmax": _of_one_array(softmax, softmax_forward, softmax_backward),
    "log_softmax": _of_one_array(log_softmax, log_softmax_forward, log_softmax_backward),
    "dropout": Rule(dropout, dropout_forward, _dropout_backward),
    "batch_norm": Rule(batch_norm, _batch_norm_forward, _batch_norm_backward),
    "layer_norm": _norm(layer_norm, layer_norm_forward, layer_norm_backward),
    "group_norm": _norm(group_norm, group_norm_forward, group_norm_backward),
    "instance_norm": _norm(instance_norm, instance_norm_forward, instance_norm_backward),
    "local_response_norm": _of_one_array(
        local_response_norm, local_response_norm_forward, local_response_norm_backward
    ),
}

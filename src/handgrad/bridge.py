"""Hand-written backward rules inside other people's `jax.grad`: in Flax, Equinox, Haiku or plain JAX.

Each function here is an op of `handgrad.ops` whose derivative is the hand-derived one, as a `jax.custom_vjp`:
`hg.bridge.max_pool(x, window=2)` in the place of `flax.linen.max_pool`, say. `hg.bridge.layer` does so for a whole
layer or net. Of a custom_vjp the first derivative must be one in reverse mode: `jax.jvp` and `jax.jacfwd` raise. What
`jax.grad` gives is ordinary code, so that `jax.hessian`, forward over reverse, works.

Example:
    >>> import jax, jax.numpy as jnp, handgrad as hg
    >>> jax.grad(lambda x: hg.bridge.max_pool(x, window=2).sum())(jnp.arange(4.0).reshape(1, 4, 1)).ravel().tolist()
    [0.0, 1.0, 0.0, 1.0]
"""

from collections.abc import Callable
from typing import Any

import jax

from handgrad import mesh
from handgrad.layers.layer import Array, Layer, Params, State, Static, check_is_layer
from handgrad.ops.rules import RULES, bind


def _op(name: str) -> Callable[..., Array]:
    """The op of that name with its hand-written rule as a custom_vjp."""
    rule = RULES[name]

    def bridged(*arrays: Any, **settings: Any) -> Array:
        arrays, settings = bind(name, arrays, settings)

        @jax.custom_vjp
        def op(*arrays: Array) -> Array:
            return rule.forward(*arrays, **settings)[0]

        def forward(*arrays: Array) -> Any:
            y, residuals = rule.forward(*arrays, **settings)
            return y, (residuals, Static(mesh.varying(arrays)))

        def backward(kept: Any, dy: Array) -> Any:
            residuals, axes = kept
            return mesh.summed(rule.backward(residuals, dy, **settings), axes.value)

        op.defvjp(forward, backward)
        return op(*arrays)

    bridged.__name__ = bridged.__qualname__ = name
    bridged.__doc__ = f"`handgrad.ops.{name}` with its hand-derived backward, for use under `jax.grad`; same arguments."
    return bridged


conv = _op("conv")
conv_transpose = _op("conv_transpose")
dense = _op("dense")
max_pool = _op("max_pool")
avg_pool = _op("avg_pool")
global_avg_pool = _op("global_avg_pool")
upsample = _op("upsample")
pad = _op("pad")
concatenate = _op("concatenate")
add = _op("add")
multiply = _op("multiply")
global_max_pool = _op("global_max_pool")
adaptive_avg_pool = _op("adaptive_avg_pool")
adaptive_max_pool = _op("adaptive_max_pool")
max_unpool = _op("max_unpool")
relu = _op("relu")
leaky_relu = _op("leaky_relu")
relu6 = _op("relu6")
hard_sigmoid = _op("hard_sigmoid")
hardswish = _op("hardswish")
prelu = _op("prelu")
tanh = _op("tanh")
sigmoid = _op("sigmoid")
softplus = _op("softplus")
elu = _op("elu")
selu = _op("selu")
silu = _op("silu")
gelu = _op("gelu")
softmax = _op("softmax")
log_softmax = _op("log_softmax")
dropout = _op("dropout")
batch_norm = _op("batch_norm")
layer_norm = _op("layer_norm")
group_norm = _op("group_norm")
instance_norm = _op("instance_norm")
local_response_norm = _op("local_response_norm")


def layer(layer: Layer) -> Callable[..., tuple[Array, Any]]:
    """A layer or a whole net as a function that `jax.grad` differentiates by the layer's own `backward`.

    Args:
        layer: any layer, such as a `Chain`.

    Returns:
        A function (params, x, state=(), key=None) -> y, state, in training mode; wrap the layer in `hg.inference` for
        inference. Gradients flow to params and x; state and key have none.

    Raises:
        TypeError: something that is no layer.

    Example:
        >>> import jax.numpy as jnp, handgrad as hg
        >>> net = hg.bridge.layer(hg.Chain(hg.Dense(2), hg.Relu()))
        >>> params = {"dense1": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}
        >>> jax.grad(lambda params: net(params, jnp.ones((1, 3)))[0].sum())(params)["dense1"]["bias"].tolist()
        [1.0, 1.0]
    """
    check_is_layer(layer, "bridge.layer")

    @jax.custom_vjp
    def run(params: Params, x: Array, state: State, key: Array | None) -> tuple[Array, Any]:
        return layer.forward(params, x, state, key)[:2]

    def forward(params: Params, x: Array, state: State, key: Array | None):
        y, new_state, residuals = layer.forward(params, x, state, key)
        return (y, new_state), (params, residuals, Static(mesh.varying((params, x))))

    def backward(kept: Any, cotangents: Any):
        params, residuals, axes = kept
        dx, dparams = layer.backward(params, residuals, cotangents[0])
        return *mesh.summed((dparams, dx), axes.value), None, None

    run.defvjp(forward, backward)

    def bridged(params: Params, x: Array, state: State = (), key: Array | None = None) -> tuple[Array, Any]:
        return run(params, x, state, key)

    return bridged

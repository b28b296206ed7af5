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

import inspect
from collections.abc import Callable
from typing import Any

import jax

from handgrad import mesh
from handgrad.layers.layer import Array, Layer, Params, State, Static, check_is_layer
from handgrad.ops.rules import RULES, bind

__all__ = [
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "add",
    "avg_pool",
    "batch_norm",
    "concatenate",
    "conv",
    "conv_transpose",
    "dense",
    "dropout",
    "elu",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "group_norm",
    "hard_sigmoid",
    "hardswish",
    "instance_norm",
    "layer",
    "layer_norm",
    "leaky_relu",
    "local_response_norm",
    "log_softmax",
    "max_pool",
    "max_unpool",
    "multiply",
    "pad",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
    "upsample",
]

ROW = "jnp.array([1.0, 4.0, 3.0, 2.0]).reshape(1, 4, 1)"
LINE = "jnp.array([-jnp.inf, 0.0, jnp.inf])"
EXAMPLES = {  # for each docstring a gradient to be checked by eye: x, a function of it, and its gradient
    "conv": ("jnp.ones((1, 3, 1))", "conv(x, jnp.ones((2, 1, 1)), padding='VALID').sum()", [1.0, 2.0, 1.0]),
    "conv_transpose": (
        *("jnp.ones((1, 2, 1))", "conv_transpose(x, jnp.array([[[1.0]], [[2.0]]]), strides=2).sum()"),
        [3.0, 3.0],
    ),
    "dense": ("jnp.array([[3.0, 4.0]])", "dense(x, jnp.array([[1.0], [10.0]])).sum()", [1.0, 10.0]),
    "max_pool": (ROW, "max_pool(x, window=2).sum()", [0.0, 1.0, 1.0, 0.0]),
    "avg_pool": (ROW, "avg_pool(x, window=2).sum()", [0.5, 0.5, 0.5, 0.5]),
    "global_avg_pool": (ROW, "global_avg_pool(x).sum()", [0.25, 0.25, 0.25, 0.25]),
    "upsample": (ROW, "upsample(x, factor=2).sum()", [2.0, 2.0, 2.0, 2.0]),
    "pad": (ROW, "pad(x, padding=((2, 1),), mode='reflect').sum()", [1.0, 2.0, 3.0, 1.0]),
    "concatenate": ("jnp.array([[3.0, 4.0]])", "concatenate(jnp.ones((1, 1)), x)[0, 1]", [1.0, 0.0]),
    "add": ("jnp.array([3.0, 4.0])", "add(x, x).sum()", [2.0, 2.0]),
    "multiply": ("jnp.array([3.0, 4.0])", "multiply(x, x).sum()", [6.0, 8.0]),
    "global_max_pool": (ROW, "global_max_pool(x).sum()", [0.0, 1.0, 0.0, 0.0]),
    "adaptive_avg_pool": (ROW, "adaptive_avg_pool(x, output_size=3).sum()", [0.5, 1.0, 1.0, 0.5]),
    "adaptive_max_pool": (ROW, "adaptive_max_pool(x, output_size=3).sum()", [0.0, 2.0, 1.0, 0.0]),
    "max_unpool": (
        *("jnp.ones((1, 2, 1))", "max_unpool(x, jnp.zeros((1, 2, 1), 'uint8'), output_size=4, window=2)[0, 2, 0]"),
        [0.0, 1.0],
    ),
    "relu": ("jnp.array([-1.0, 0.0, 2.0])", "relu(x).sum()", [0.0, 0.0, 1.0]),
    "leaky_relu": ("jnp.array([-1.0, 0.0, 2.0])", "leaky_relu(x, negative_slope=0.25).sum()", [0.25, 0.25, 1.0]),
    "relu6": ("jnp.array([-1.0, 2.0, 7.0])", "relu6(x).sum()", [0.0, 1.0, 0.0]),
    "hard_sigmoid": ("jnp.array([-4.0, 0.0, 4.0])", "hard_sigmoid(x, alpha=0.25).sum()", [0.0, 0.25, 0.0]),
    "hardswish": ("jnp.array([-4.0, 0.0, 4.0])", "hardswish(x).sum()", [0.0, 0.5, 1.0]),
    "prelu": ("jnp.array([-1.0, 0.0, 2.0])", "prelu(x, jnp.array(0.25)).sum()", [0.25, 0.25, 1.0]),
    "tanh": (LINE, "tanh(x).sum()", [0.0, 1.0, 0.0]),
    "sigmoid": (LINE, "sigmoid(x).sum()", [0.0, 0.25, 0.0]),
    "softplus": (LINE, "softplus(x).sum()", [0.0, 0.5, 1.0]),
    "elu": (LINE, "elu(x).sum()", [0.0, 1.0, 1.0]),
    "selu": ("jnp.array([-jnp.inf])", "selu(x).sum()", [0.0]),
    "silu": (LINE, "silu(x).sum()", [0.0, 0.5, 1.0]),
    "gelu": (LINE, "gelu(x).sum()", [0.0, 0.5, 1.0]),
    "softmax": ("jnp.zeros(2)", "softmax(x)[0]", [0.25, -0.25]),
    "log_softmax": ("jnp.zeros(2)", "log_softmax(x)[0]", [0.5, -0.5]),
    "dropout": ("jnp.ones(3)", "dropout(x, jnp.array([True, False, True]), rate=0.5).sum()", [2.0, 0.0, 2.0]),
    "batch_norm": ("jnp.array([[1.0], [3.0]])", "batch_norm(x, jnp.ones(1), jnp.zeros(1)).sum()", [0.0, 0.0]),
    "layer_norm": ("jnp.array([[1.0, 3.0]])", "layer_norm(x, jnp.ones(2), jnp.zeros(2)).sum()", [0.0, 0.0]),
    "group_norm": (
        *("jnp.array([[1.0, 3.0]])", "group_norm(x, jnp.ones(2), jnp.zeros(2), num_groups=1).sum()"),
        [0.0, 0.0],
    ),
    "instance_norm": ("jnp.array([[[1.0], [3.0]]])", "instance_norm(x, jnp.ones(1), jnp.zeros(1)).sum()", [0.0, 0.0]),
    "local_response_norm": (
        *("jnp.array([2.0])", "local_response_norm(x, size=1, alpha=1.0, beta=1.0, k=0.0).sum()"),
        [-0.25],
    ),
}


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
    bridged.__doc__ = _doc(name)
    return bridged


def _doc(name: str) -> str:
    """The docstring of an op here."""
    x, function, gradient = EXAMPLES[name]
    parameters = inspect.signature(RULES[name].op).parameters.values()
    arrays = ", ".join(f"`{p.name}`" for p in parameters if p.kind is not p.KEYWORD_ONLY)
    settings = ", ".join(f"`{p.name}`" for p in parameters if p.kind is p.KEYWORD_ONLY)
    return f"""`handgrad.ops.{name}` with its hand-derived backward, for use under `jax.grad`; same arguments.

    Args:
        *arrays: of `handgrad.ops.{name}`: {arrays}.
        **settings: {f"as there: {settings}" if settings else "it has none"}.

    Returns:
        y, as `handgrad.ops.{name}` gives it.

    Example:
        >>> import jax, jax.numpy as jnp, handgrad as hg
        >>> x = {x}
        >>> jax.grad(lambda x: hg.bridge.{function})(x).ravel().tolist()
        {gradient}
    """


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

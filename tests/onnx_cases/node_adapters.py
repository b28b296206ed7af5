"""ONNX's nodes said in handgrad's ops: one adapter a node type, `adapter(run, attributes, *inputs) -> outputs`.

An adapter moves axes (ONNX has channels behind the batch axis), reads attributes with ONNX's defaults, and may reshape,
broadcast, crop or scale; the op itself is handgrad's, by `run(name, *arrays, **settings)`, which the test makes the
plain op or its forward by hand.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import handgrad as hg
from handgrad import ops
from handgrad.ops.spatial import pad_pairs, span

Run = Callable[..., jax.Array]
Attributes = dict[str, Any]
Outputs = tuple[Any, ...]


def last(x: Any) -> jax.Array:
    """(N, A.., C) from (N, C, A..)."""
    return jnp.moveaxis(jnp.asarray(x), 1, -1)


def first(x: jax.Array) -> jax.Array:
    """(N, C, A..) from (N, A.., C)."""
    return jnp.moveaxis(x, -1, 1)


def pairs(pads: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(low, high) for each axis of ONNX's list of all lows and then all highs."""
    return tuple(
        (int(low), int(high)) for low, high in zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True)
    )


def steps(a: Attributes, ndim: int) -> dict[str, tuple[int, ...]]:
    """Strides and dilation, 1 on each axis by default: a pool's too."""
    return {name: tuple(a.get(f"{name.rstrip('s')}s", [1] * ndim)) for name in ("strides", "dilation")}


def geometry(a: Attributes, in_sizes: Sequence[int], window: Sequence[int]) -> dict[str, Any]:
    """Strides, dilation and padding of a convolution or pool."""
    walk, auto = steps(a, len(window)), a.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return {**walk, "padding": pairs(a.get("pads", [0] * 2 * len(window)))}
    if auto != "SAME_LOWER":
        return {**walk, "padding": {"SAME_UPPER": "SAME", "VALID": "VALID"}[auto]}
    upper = pad_pairs("onnx", "SAME", tuple(in_sizes), tuple(window), walk["strides"], walk["dilation"])
    return {**walk, "padding": tuple(pair[::-1] for pair in upper)}


def conv(run: Run, a: Attributes, x, w, b=None) -> Outputs:
    kernel = jnp.moveaxis(jnp.asarray(w), (0, 1), (-1, -2))
    settings = geometry(a, x.shape[2:], w.shape[2:])
    return (first(run("conv", last(x), kernel, *optional(b), groups=a.get("group", 1), **settings)),)


def conv_transpose(run: Run, a: Attributes, x, w, b=None) -> Outputs:
    kernel = jnp.moveaxis(jnp.asarray(w), (0, 1), (-2, -1))
    ndim = len(w.shape) - 2
    walk, extra, auto = steps(a, ndim), tuple(a.get("output_padding", [0] * ndim)), a.get("auto_pad", "NOTSET")
    padding = pairs(a.get("pads", [0] * 2 * ndim))
    wanted = a.get("output_shape")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(x.shape[2:], walk["strides"], strict=True)]
    if wanted is not None:
        spans = span(w.shape[2:], walk["dilation"])
        whole = [(n - 1) * s + e for n, s, e in zip(x.shape[2:], walk["strides"], spans, strict=True)]
        surplus = [full + more - size for full, more, size in zip(whole, extra, wanted, strict=True)]
        # A size that the full output falls short of is reached by zeros behind it: that is output_padding.
        extra = tuple(more + max(-total, 0) for more, total in zip(extra, surplus, strict=True))
        halves = [(max(total, 0) // 2, max(total, 0) - max(total, 0) // 2) for total in surplus]
        padding = tuple(half if auto == "SAME_UPPER" else half[::-1] for half in halves)
    settings = {**walk, "padding": padding, "output_padding": extra, "groups": a.get("group", 1)}
    return (first(run("conv_transpose", last(x), kernel, *optional(b), **settings)),)


def matmul(run: Run, a: Attributes, x, w) -> Outputs:
    """By dense: a vector is a matrix of one row or column, and each matrix of a stack is a call, by vmap."""
    x, w = jnp.asarray(x), jnp.asarray(w)
    left, right = (x[None] if x.ndim == 1 else x), (w[:, None] if w.ndim == 1 else w)
    if right.ndim == 2:
        y = run("dense", left, right)
    else:
        stack = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        lefts, rights = (jnp.broadcast_to(m, stack + m.shape[-2:]).reshape(-1, *m.shape[-2:]) for m in (left, right))
        y = jax.vmap(lambda x, w: run("dense", x, w))(lefts, rights)
        y = y.reshape(*stack, *y.shape[1:])
    y = y[..., 0] if w.ndim == 1 else y
    return (y[..., 0, :] if x.ndim == 1 and w.ndim > 1 else y[0] if x.ndim == 1 else y,)


def gemm(run: Run, a: Attributes, x, w, c=None) -> Outputs:
    """α x w + β c: α joins the kernel and β the bias. A bias that differs from row to row is dense of one row each."""
    x, w = (jnp.asarray(m).T if a.get(f"trans{side}", 0) else jnp.asarray(m) for side, m in (("A", x), ("B", w)))
    kernel = w * jnp.float32(a.get("alpha", 1.0))
    if c is None:
        return (run("dense", x, kernel),)
    bias = jnp.broadcast_to(jnp.asarray(c * np.float32(a.get("beta", 1.0))), (len(x), w.shape[1]))
    if len(c.shape) < 2 or len(c) == 1:
        return (run("dense", x, kernel, bias[0]),)
    return (jnp.stack([run("dense", row, kernel, b) for row, b in zip(x, bias, strict=True)]),)


def max_pool(run: Run, a: Attributes, x) -> Outputs:
    """With ONNX's second output, the place of each maximum in x laid out flat, read off the residual of backward."""
    ceil_mode = bool(a.get("ceil_mode", 0))
    settings = {"window": tuple(a["kernel_shape"]), **geometry(a, x.shape[2:], a["kernel_shape"])}
    floats, whole = whole_as_floats(x)
    y = first(run("max_pool", last(floats), ceil_mode=ceil_mode, **settings)).astype(whole)
    if a["outputs"] == 1:
        return (y,)
    _, winner = ops.max_pool_forward(last(floats), ceil_mode=ceil_mode, **settings)
    return y, flat_places(np.asarray(first(winner)), a, x.shape, settings)


def flat_places(winner: np.ndarray, a: Attributes, in_shape: Sequence[int], settings: dict[str, Any]) -> np.ndarray:
    """The flat index in x (N, C, A..) of tap `winner` of each window (N, C, P..); storage_order 1: of its transpose."""
    sizes, window, strides, dilation = (
        tuple(in_shape[2:]),
        settings["window"],
        settings["strides"],
        settings["dilation"],
    )
    padding = pad_pairs("onnx", settings["padding"], sizes, window, strides, dilation)
    taps, starts = np.unravel_index(winner, window), np.indices(winner.shape)
    geometry = zip(taps, starts[2:], strides, dilation, padding, strict=True)
    places = [start * s + tap * d - low for tap, start, s, d, (low, _) in geometry]
    order = "F" if a.get("storage_order", 0) else "C"
    image = np.ravel_multi_index(places, sizes, order=order, mode="clip")
    return (starts[0] * in_shape[1] + starts[1]) * prod(sizes) + image


def max_unpool(run: Run, a: Attributes, x, places, out_shape=None) -> Outputs:
    """ONNX's places are flat indices in the smallest input that the pool can have had; ours are taps of each window."""
    window = tuple(a["kernel_shape"])
    settings = {"window": window, **geometry(a, (), window)}
    walk = zip(x.shape[2:], settings["strides"], window, settings["padding"], strict=True)
    sizes = tuple((n - 1) * s + k - low - high for n, s, k, (low, high) in walk)
    found, starts = np.unravel_index(places % prod(sizes), sizes), np.indices(places.shape)[2:]
    walk = zip(found, starts, settings["strides"], settings["padding"], strict=True)
    winner = np.ravel_multi_index([place + low - start * s for place, start, s, (low, _) in walk], window)
    output_size = sizes if out_shape is None else tuple(map(int, out_shape[2:]))
    return (first(run("max_unpool", last(x), last(winner.astype(np.uint8)), output_size=output_size, **settings)),)


def avg_pool(run: Run, a: Attributes, x) -> Outputs:
    settings = {"window": tuple(a["kernel_shape"]), **geometry(a, x.shape[2:], a["kernel_shape"])}
    flags = {name: bool(a.get(name, 0)) for name in ("ceil_mode", "count_include_pad")}
    return (first(run("avg_pool", last(x), **flags, **settings)),)


def global_pool(name: str) -> Callable[..., Outputs]:
    def adapter(run: Run, a: Attributes, x) -> Outputs:
        return (run(name, last(x)).reshape(*x.shape[:2], *[1] * (len(x.shape) - 2)),)

    return adapter


def batch_norm(run: Run, a: Attributes, x, scale, bias, mean, var) -> Outputs:
    """In training mode also the running statistics, which are the layer's business; the same share is kept."""
    eps = a.get("epsilon", 1e-5)
    vectors = [jnp.asarray(v) for v in (scale, bias, mean, var)]
    if not a.get("training_mode", 0):
        return (first(run("batch_norm_inference", last(x), *vectors, eps=eps)),)
    y = run("batch_norm", last(x), *vectors[:2], eps=eps)
    layer = hg.BatchNorm(momentum=a.get("momentum", 0.9), eps=eps)
    params, state = {"scale": vectors[0], "bias": vectors[1]}, {"mean": vectors[2], "var": vectors[3]}
    _, state, _ = layer.forward(params, last(x), state)
    return first(y), state["mean"], state["var"]


def mean_variance_norm(run: Run, a: Attributes, x) -> Outputs:
    """Over batch and space in each channel, without scale and shift: batch norm with 1 and 0. ONNX's ε is 1e-9."""
    assert "axes" not in a
    return (first(run("batch_norm", last(x), jnp.ones(x.shape[1], x.dtype), jnp.zeros(x.shape[1], x.dtype), eps=1e-9)),)


def layer_norm(run: Run, a: Attributes, x, scale, bias) -> Outputs:
    """Over all axes from `axis` on, laid out as one. Mean and 1/√(v + ε), for training, are in the residual."""
    axis, eps = a.get("axis", -1) % x.ndim, a.get("epsilon", 1e-5)
    rows = jnp.asarray(x).reshape(*x.shape[:axis], -1)
    vectors = [jnp.asarray(v).reshape(-1) for v in (scale, bias)]
    y = run("layer_norm", rows, *vectors, eps=eps).reshape(x.shape)
    _, (_, mean, var) = ops.layer_norm_forward(rows, *vectors, eps=eps)
    kept = x.shape[:axis] + (1,) * (x.ndim - axis)
    return y, mean.reshape(kept), (1 / jnp.sqrt(var + eps)).reshape(kept)


def group_norm(run: Run, a: Attributes, x, scale, bias) -> Outputs:
    settings = {"num_groups": a["num_groups"], "eps": a.get("epsilon", 1e-5)}
    return (first(run("group_norm", last(x), jnp.asarray(scale), jnp.asarray(bias), **settings)),)


def instance_norm(run: Run, a: Attributes, x, scale, bias) -> Outputs:
    vectors = jnp.asarray(scale), jnp.asarray(bias)
    return (first(run("instance_norm", last(x), *vectors, eps=a.get("epsilon", 1e-5))),)


def local_response_norm(run: Run, a: Attributes, x) -> Outputs:
    settings = {"alpha": a.get("alpha", 1e-4), "beta": a.get("beta", 0.75), "k": a.get("bias", 1.0)}
    return (first(run("local_response_norm", last(x), size=a["size"], **settings)),)


def elementwise(name: str, **defaults: tuple[str, float]) -> Callable[..., Outputs]:
    """An op of each number; `defaults` gives each setting's name in ONNX and its default there."""

    def adapter(run: Run, a: Attributes, x) -> Outputs:
        settings = {setting: a.get(theirs, default) for setting, (theirs, default) in defaults.items()}
        return (run(name, jnp.asarray(x), **settings),)

    return adapter


def prelu(run: Run, a: Attributes, x, slope) -> Outputs:
    """A slope for each number is one for each channel of x laid out as one row."""
    x, slope = jnp.asarray(x), jnp.asarray(slope)
    if slope.ndim == 1:
        return (run("prelu", x, slope),)
    return (run("prelu", x.reshape(1, -1), jnp.broadcast_to(slope, x.shape).reshape(-1)).reshape(x.shape),)


def selu(run: Run, a: Attributes, x) -> Outputs:
    """γ elu(x): ours has the γ and α of the paper, which are ONNX's default; other ones are asked of elu."""
    if "alpha" not in a:
        return (run("selu", jnp.asarray(x)),)
    return (jnp.float32(a["gamma"]) * run("elu", jnp.asarray(x), alpha=a["alpha"]),)


def swish(run: Run, a: Attributes, x) -> Outputs:
    """x σ(αx); silu has α = 1."""
    assert a.get("alpha", 1.0) == 1.0
    return (run("silu", jnp.asarray(x)),)


def gelu(run: Run, a: Attributes, x) -> Outputs:
    return (run("gelu", jnp.asarray(x), approximate=a.get("approximate", "none") == "tanh"),)


def softmax(name: str) -> Callable[..., Outputs]:
    def adapter(run: Run, a: Attributes, x) -> Outputs:
        return (run(name, jnp.asarray(x), axis=a.get("axis", -1)),)

    return adapter


def dropout(run: Run, a: Attributes, x, ratio=None, training=None) -> Outputs:
    """The mask comes from outside: in training the one that ONNX draws, from NumPy's generator and the seed."""
    rate = float(a.get("ratio", 0.5) if ratio is None else ratio)
    if training is None or not training:
        return run("dropout_inference", jnp.asarray(x), rate=rate), np.ones(x.shape, bool)
    keep = np.random.RandomState(a["seed"]).uniform(0, 1, x.shape) >= rate  # noqa: NPY002 - the generator of the case
    return run("dropout", jnp.asarray(x), jnp.asarray(keep), rate=rate), keep


def optional(array: Any) -> tuple[Any, ...]:
    return () if array is None else (jnp.asarray(array),)


def whole_as_floats(x: Any) -> tuple[Any, Any]:
    """x in float32 if it holds whole numbers, and its dtype. Exact, for ops that only compare and move numbers."""
    return (x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float32)), x.dtype


OPS: dict[str, Callable[..., Outputs]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MatMul": matmul,
    "Gemm": gemm,
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
    "AveragePool": avg_pool,
    "GlobalAveragePool": global_pool("global_avg_pool"),
    "GlobalMaxPool": global_pool("global_max_pool"),
    "BatchNormalization": batch_norm,
    "MeanVarianceNormalization": mean_variance_norm,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LRN": local_response_norm,
    "Relu": elementwise("relu"),
    "LeakyRelu": elementwise("leaky_relu", negative_slope=("alpha", 0.01)),
    "PRelu": prelu,
    "HardSigmoid": elementwise("hard_sigmoid", alpha=("alpha", 0.2), beta=("beta", 0.5)),
    "HardSwish": elementwise("hardswish"),
    "Sigmoid": elementwise("sigmoid"),
    "Tanh": elementwise("tanh"),
    "Softplus": elementwise("softplus"),
    "Elu": elementwise("elu", alpha=("alpha", 1.0)),
    "Selu": selu,
    "Swish": swish,
    "Gelu": gelu,
    "Softmax": softmax("softmax"),
    "LogSoftmax": softmax("log_softmax"),
    "Dropout": dropout,
}

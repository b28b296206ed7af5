"""What a net says of examples it is not trained on: predictions, and how good they are.

    accuracy = Σ_i [argmax_k o_ik = y_i] / n,      loss = Σ_i ℓ_i / Σ_i d_i        (d as in losses.py; 1 by default)

over all n examples, whatever the batch size. The last batch is filled up with copies of an example, so that one shape
is compiled; what the copies give is cut off. Sums over batches are made in float64 on the host.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.layers.layer import Array, Layer, Params, State, check_is_layer
from handgrad.losses import BinaryCrossEntropy, Focal, KLDivergence, Loss, NegativeLogLikelihood, SoftmaxCrossEntropy
from handgrad.mesh import along_batch, explicit_mesh, mesh_of, on_host, on_mesh, place, spread
from handgrad.metrics import accuracy
from handgrad.training.inputs import check_examples, check_labels, logits_shape

# the losses whose labels are classes, soft ones too
OF_CLASSES = SoftmaxCrossEntropy | Focal | NegativeLogLikelihood | KLDivergence | BinaryCrossEntropy


def evaluate(
    net: Layer, params: Params, state: State, x: Any, y: Any, *, loss: Loss | None = None, batch_size: int = 256
) -> dict[str, float]:
    """Accuracy, and loss if one is given, of the net in inference over a whole data set.

    Args:
        net: a layer.
        params: its parameters.
        state: its state.
        x: examples (n, ...), NumPy or jax arrays, floating point.
        y: labels (n, ...): int classes (n,), or what the loss wants.
        loss: a loss, or None; its penalty-free mean is computed, without an objective's l2.
        batch_size: how many examples at once; the result does not depend on it.

    Returns:
        {"accuracy": float}, NaN where the labels are no classes, and "loss": float if a loss is given. Labels that the
        loss ignores count in neither.

    Raises:
        ValueError: shapes that do not fit, no examples, a label out of range (the first one is named).
        TypeError: x that is not floating point, a net or loss that is none.

    Example:
        >>> from handgrad.layers import Chain, Lambda
        >>> x = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], "float32")
        >>> result = evaluate(Chain(Lambda(jnp.positive)), {}, {}, x, np.array([1, 0, 0]))
        >>> round(result["accuracy"], 4)
        0.6667
    """
    check_is_layer(net, "evaluate, net")
    if loss is not None and not isinstance(loss, Loss):
        raise TypeError(f"evaluate: loss must be an hg.losses.Loss, got {loss!r}")
    check_examples("evaluate", x, batch_size)
    shape = logits_shape(net, params, state, x)
    check_labels("evaluate", x, y, shape, getattr(loss, "ignore_index", None))
    sums = np.zeros(4)
    for n, inputs, labels in _full_batches(batch_size, mesh_of(params), x, y):
        logits = _logits(net, params, state, inputs)
        hits, counted = (np.asarray(a, np.float64)[:n] for a in right(loss, logits, labels))
        sums[:2] += (hits * counted).sum(), counted.sum()
        if loss is not None:
            terms = loss.per_example(logits, labels), loss.divisor(logits, labels)
            sums[2:] += [np.asarray(a, np.float64)[:n].sum() for a in terms]
    result = {"accuracy": _ratio(sums[0], sums[1])}
    return result if loss is None else result | {"loss": _ratio(sums[2], sums[3], nothing=0.0)}


def predict(net: Layer, params: Params, state: State, x: Any, batch_size: int = 256) -> np.ndarray:
    """The net's outputs in inference for a whole data set.

    Args:
        net: a layer.
        params: its parameters.
        state: its state.
        x: examples (n, ...), NumPy or jax arrays, floating point.
        batch_size: how many examples at once.

    Returns:
        The logits (n, ...), a NumPy array of the net's output dtype.

    Raises:
        ValueError: shapes that do not fit, or no examples.
        TypeError: x that is not floating point, or a net that is none.

    Example:
        >>> from handgrad.layers import Chain, Relu
        >>> predict(Chain(Relu()), {}, {}, np.array([[-1.0], [2.0], [3.0]]), batch_size=2).tolist()
        [[0.0], [2.0], [3.0]]
    """
    check_is_layer(net, "predict, net")
    check_examples("predict", x, batch_size)
    logits_shape(net, params, state, x)
    batches = _full_batches(batch_size, mesh_of(params), x)
    return np.concatenate([np.asarray(_logits(net, params, state, inputs))[:n] for n, inputs in batches])


def right(loss: Loss | None, logits: Array, y: Array) -> tuple[Array, Array]:
    """For each example 1 if its prediction is right, else 0, and whether it counts at all; both (n,).

    Labels are classes if they are ints (n,), or (n, K) as the logits and the loss is None or one of classes. Where
    they are not, NaN stands in the place of 1 and 0.
    """
    soft = y.ndim == 2 and (loss is None or isinstance(loss, OF_CLASSES))
    ints = y.ndim == 1 and jnp.issubdtype(y.dtype, jnp.integer)
    if logits.ndim != 2 or not (soft or ints):
        return jnp.full(logits.shape[0], jnp.nan, jnp.float32), jnp.ones(logits.shape[0], bool)
    ignored = getattr(loss, "ignore_index", None)
    return _hits(logits, y), jnp.ones(y.shape[0], bool) if ignored is None else y != ignored


@jax.jit
def _hits(logits: Array, y: Array) -> Array:
    return jax.vmap(lambda row, label: accuracy(row[None], label[None]))(logits, y)


@functools.partial(jax.jit, static_argnums=0)
def _apply(net: Layer, params: Params, state: State, x: Array) -> Array:
    explicit = explicit_mesh((params, x))
    if explicit is None:
        return net.apply(params, x, state)
    return on_mesh(net.apply, explicit, along_batch(x, explicit))(params, x, state)


def _logits(net: Layer, params: Params, state: State, x: Array) -> Array:
    """The net's outputs; where params lie on a mesh, x is spread over it and each process gets all outputs."""
    mesh = mesh_of(params)
    if mesh is None:
        return _apply(net, params, state, x)
    return jnp.asarray(np.asarray(on_host(_apply(net, params, state, place(x, spread(mesh))))))


def _full_batches(batch_size: int, mesh: Any, *arrays: Any) -> Iterator[tuple]:
    """(n, batches): batch_size rows of each array, in order, of which the first n are new ones; the rest are copies.

    The first axis of a mesh divides the batch_size.
    """
    examples, parts = arrays[0].shape[0], 1 if mesh is None else mesh.shape[mesh.axis_names[0]]
    batch_size = -(-min(batch_size, examples) // parts) * parts
    for start in range(0, examples, batch_size):
        rows = [array[start : start + batch_size] for array in arrays]
        n = rows[0].shape[0]
        if n < batch_size:
            rows = [row[np.arange(batch_size) % n] for row in rows]
        yield n, *map(jnp.asarray, rows)


def _ratio(total: float, count: float, nothing: float = float("nan")) -> float:
    return float(total / count) if count else nothing

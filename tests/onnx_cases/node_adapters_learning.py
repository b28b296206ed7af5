"""ONNX's losses and optimizers said in handgrad's, in the form of `node_adapters`."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from node_adapters import Attributes, Outputs, Run, last

import handgrad as hg
from handgrad.optimizers.descent import OptState

FOREVER = np.int32(np.iinfo(np.int32).max - 1)
"""A step so late that Adam's bias correction 1/(1 - β^(t+1)) is 1."""


def class_loss(a: Attributes, loss: type, scores, labels, weight) -> jax.Array:
    """Scores (N, C, A..) and labels (N, A..) are so many examples of C classes, read place by place."""
    settings = {
        "ignore_index": a.get("ignore_index"),
        "class_weights": None if weight is None else tuple(map(float, weight)),
    }
    rows = last(scores).reshape(-1, scores.shape[1])
    reduction = a.get("reduction", "mean")
    value = loss(**settings)(rows, labels.reshape(-1), reduction=reduction)
    return value.reshape(labels.shape) if reduction == "none" else value


def softmax_cross_entropy(run: Run, a: Attributes, scores, labels, weight=None) -> Outputs:
    """The second output, where asked for, is the logarithm of softmax."""
    return class_loss(a, hg.SoftmaxCrossEntropy, scores, labels, weight), run(
        "log_softmax", jnp.asarray(scores), axis=1
    )


def negative_log_likelihood(run: Run, a: Attributes, scores, labels, weight=None) -> Outputs:
    return (class_loss(a, hg.NegativeLogLikelihood, scores, labels, weight),)


def momentum(run: Run, a: Attributes, rate, step, *arrays) -> Outputs:
    """V <- α V + G + λ X, X <- X - R V. ONNX's β damps G from the second step on, which none of the cases reaches."""
    assert step == 0
    params, grads, velocity = parts(arrays, 3)
    decay = hg.optimizers.add_decayed_weights(a["norm_coefficient"])
    descent = hg.momentum(jnp.asarray(rate), beta=a["alpha"], nesterov=a["mode"] == "nesterov")
    optimizer = hg.optimizers.chain(decay, descent)
    decay_state, descent_state = optimizer.init(params)
    state = decay_state, descent_state._replace(memory={"velocity": velocity})
    updates, (_, descent_state) = optimizer.update(grads, state, params)
    return *hg.apply_updates(params, updates), *descent_state.memory["velocity"]


def adam(run: Run, a: Attributes, rate, step, *arrays) -> Outputs:
    """At step 0 ONNX corrects no bias, as Adam does when it has run forever."""
    assert step == 0 and a.get("norm_coefficient_post", 0.0) == 0
    params, grads, mean, square = parts(arrays, 4)
    decay = hg.optimizers.add_decayed_weights(a["norm_coefficient"])
    descent = hg.adam(jnp.asarray(rate), beta1=a["alpha"], beta2=a["beta"], eps=a["epsilon"])
    optimizer = hg.optimizers.chain(decay, descent)
    decay_state, _ = optimizer.init(params)
    state = decay_state, OptState(jnp.asarray(FOREVER), {"mean": mean, "square": square})
    updates, (_, moved) = optimizer.update(grads, state, params)
    return *hg.apply_updates(params, updates), *moved.memory["mean"], *moved.memory["square"]


def parts(arrays: Sequence[np.ndarray], count: int) -> list[list[jax.Array]]:
    """ONNX lists all parameters, then all gradients, and so on: one list of each."""
    each = len(arrays) // count
    return [[jnp.asarray(array) for array in arrays[i * each : (i + 1) * each]] for i in range(count)]


LEARNING: dict[str, Callable[..., Outputs]] = {
    "SoftmaxCrossEntropyLoss": softmax_cross_entropy,
    "NegativeLogLikelihoodLoss": negative_log_likelihood,
    "Momentum": momentum,
    "Adam": adam,
}

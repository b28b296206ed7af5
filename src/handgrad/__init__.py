"""handgrad: convolutional networks in JAX with hand-derived gradients.

import handgrad as hg

net = hg.Chain(hg.Conv(32, 5), hg.Relu(), hg.MaxPool(2), hg.Flatten(), hg.Dense(10))
params, state = net.init(jax.random.key(0), (28, 28, 1))
objective = hg.Objective(net, hg.SoftmaxCrossEntropy())
(loss, aux), grads = hg.value_and_grad(objective)(params, x, y, state, key)
"""

from handgrad import bridge, data, initializers, losses, metrics, models, ops, optimizers, schedules, viz
from handgrad.compile import jit
from handgrad.gradient import Aux, Objective, grad, value_and_grad
from handgrad.insight import check_gradients, check_layer, summary
from handgrad.layers import (
    AvgPool,
    BatchNorm,
    Chain,
    Container,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Lambda,
    Layer,
    LeakyRelu,
    LogSoftmax,
    MaxPool,
    Parallel,
    Relu,
    Residual,
    Sigmoid,
    Softmax,
    Static,
    Tanh,
    inference,
    map_layers,
)
from handgrad.losses import BinaryCrossEntropy, Hinge, Huber, Loss, MeanSquaredError, SoftmaxCrossEntropy
from handgrad.memory import keep_memory
from handgrad.metrics import accuracy, confusion_matrix, top_k_accuracy, zero_one_loss
from handgrad.optimizers import (
    Optimizer,
    adam,
    adamw,
    apply_updates,
    momentum,
    previous_gradient_momentum,
    sgd,
)
from handgrad.training import (
    Metrics,
    TrainState,
    checkpoint,
    evaluate,
    fit,
    init_train_state,
    make_train_step,
    predict,
)

__version__ = "0.1.0"

__all__ = [
    "Aux",
    "AvgPool",
    "BatchNorm",
    "BinaryCrossEntropy",
    "Chain",
    "Container",
    "Conv",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "Hinge",
    "Huber",
    "Lambda",
    "Layer",
    "LeakyRelu",
    "LogSoftmax",
    "Loss",
    "MaxPool",
    "MeanSquaredError",
    "Metrics",
    "Objective",
    "Optimizer",
    "Parallel",
    "Relu",
    "Residual",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Static",
    "Tanh",
    "TrainState",
    "accuracy",
    "adam",
    "adamw",
    "apply_updates",
    "bridge",
    "check_gradients",
    "check_layer",
    "checkpoint",
    "confusion_matrix",
    "data",
    "evaluate",
    "fit",
    "grad",
    "inference",
    "init_train_state",
    "initializers",
    "jit",
    "keep_memory",
    "losses",
    "make_train_step",
    "map_layers",
    "metrics",
    "models",
    "momentum",
    "ops",
    "optimizers",
    "predict",
    "previous_gradient_momentum",
    "schedules",
    "sgd",
    "summary",
    "top_k_accuracy",
    "value_and_grad",
    "viz",
    "zero_one_loss",
]

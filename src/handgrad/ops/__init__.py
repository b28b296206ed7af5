"""The mathematics: one family of ops a file, each with op, op_forward and op_backward on arrays.

`op` is the plain formula; `op_forward` gives the same value and what `op_backward` needs. `vjp` treats all alike.
"""

from handgrad.ops.activations import (
    leaky_relu,
    leaky_relu_backward,
    leaky_relu_forward,
    relu,
    relu_backward,
    relu_forward,
    sigmoid,
    sigmoid_backward,
    sigmoid_forward,
    tanh,
    tanh_backward,
    tanh_forward,
)
from handgrad.ops.avg_pool import (
    avg_pool,
    avg_pool_backward,
    avg_pool_forward,
    global_avg_pool,
    global_avg_pool_backward,
    global_avg_pool_forward,
)
from handgrad.ops.batch_norm import (
    batch_norm,
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference,
    batch_norm_inference_backward,
    batch_norm_inference_forward,
)
from handgrad.ops.conv import conv, conv_backward, conv_forward
from handgrad.ops.dense import dense, dense_backward, dense_forward
from handgrad.ops.dropout import dropout, dropout_backward, dropout_forward, dropout_inference
from handgrad.ops.max_pool import max_pool, max_pool_backward, max_pool_forward
from handgrad.ops.rules import RULES, Rule, vjp
from handgrad.ops.softmax import (
    log_softmax,
    log_softmax_backward,
    log_softmax_forward,
    softmax,
    softmax_backward,
    softmax_forward,
)

__all__ = [
    "RULES",
    "Rule",
    "avg_pool",
    "avg_pool_backward",
    "avg_pool_forward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_norm_inference",
    "batch_norm_inference_backward",
    "batch_norm_inference_forward",
    "conv",
    "conv_backward",
    "conv_forward",
    "dense",
    "dense_backward",
    "dense_forward",
    "dropout",
    "dropout_backward",
    "dropout_forward",
    "dropout_inference",
    "global_avg_pool",
    "global_avg_pool_backward",
    "global_avg_pool_forward",
    "leaky_relu",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "log_softmax",
    "log_softmax_backward",
    "log_softmax_forward",
    "max_pool",
    "max_pool_backward",
    "max_pool_forward",
    "relu",
    "relu_backward",
    "relu_forward",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_forward",
    "softmax",
    "softmax_backward",
    "softmax_forward",
    "tanh",
    "tanh_backward",
    "tanh_forward",
    "vjp",
]

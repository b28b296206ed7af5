"""Layers: init, apply, forward and backward over a dict of parameters, thin on top of ops."""

from handgrad.layers.activation import (
    Elu,
    Gelu,
    HardSigmoid,
    Hardswish,
    LeakyRelu,
    LogSoftmax,
    PRelu,
    Relu,
    Relu6,
    Selu,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Tanh,
)
from handgrad.layers.affine import Conv, Dense
from handgrad.layers.branches import Parallel, Residual
from handgrad.layers.container import Chain, Container, inference, map_layers
from handgrad.layers.dropout import Dropout, SpatialDropout
from handgrad.layers.layer import Layer, Static
from handgrad.layers.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LocalResponseNorm
from handgrad.layers.pool import AvgPool, GlobalAvgPool, MaxPool
from handgrad.layers.norm import BatchNorm
from handgrad.layers.pool import AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool
from handgrad.layers.shape import Flatten, Lambda

__all__ = [
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool",
    "BatchNorm",
    "Chain",
    "Container",
    "Conv",
    "Dense",
    "Dropout",
    "Elu",
    "Flatten",
    "Gelu",
    "GlobalAvgPool",
    "GroupNorm",
    "GlobalMaxPool",
    "HardSigmoid",
    "Hardswish",
    "InstanceNorm",
    "Lambda",
    "Layer",
    "LayerNorm",
    "LeakyRelu",
    "LocalResponseNorm",
    "LogSoftmax",
    "MaxPool",
    "PRelu",
    "Parallel",
    "Relu",
    "Relu6",
    "Residual",
    "Selu",
    "Sigmoid",
    "Silu",
    "Softmax",
    "Softplus",
    "SpatialDropout",
    "Static",
    "Tanh",
    "inference",
    "map_layers",
]

"""Layers: init, apply, forward and backward over a dict of parameters, thin on top of ops."""

from handgrad.layers.activation import LeakyRelu, LogSoftmax, Relu, Sigmoid, Softmax, Tanh
from handgrad.layers.affine import Conv, Dense
from handgrad.layers.branches import Parallel, Residual
from handgrad.layers.container import Chain, Container, inference, map_layers
from handgrad.layers.dropout import Dropout
from handgrad.layers.layer import Layer, Static
from handgrad.layers.norm import BatchNorm
from handgrad.layers.pool import AvgPool, GlobalAvgPool, MaxPool
from handgrad.layers.shape import Flatten, Lambda

__all__ = [
    "AvgPool",
    "BatchNorm",
    "Chain",
    "Container",
    "Conv",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "Lambda",
    "Layer",
    "LeakyRelu",
    "LogSoftmax",
    "MaxPool",
    "Parallel",
    "Relu",
    "Residual",
    "Sigmoid",
    "Softmax",
    "Static",
    "Tanh",
    "inference",
    "map_layers",
]

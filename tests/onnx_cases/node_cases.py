"""The node tests that the onnx wheel generates: one node, its inputs and the outputs that ONNX wants.

A module of `onnx.backend.test.case.node` generates its cases when it is imported, from its own seed. So the modules of
the ops asked for are enough, which give the same cases in half of `load_model_tests(kind="node")`'s time.
Left out by rule are the `_expanded` twins: they put the same numbers to ONNX's own decomposition of an op.
"""

import importlib
import warnings
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

MODULES = {  # the ops asked for, each with the module that generates its cases
    "Conv": "conv",
    "ConvTranspose": "convtranspose",
    "MatMul": "matmul",
    "Gemm": "gemm",
    "MaxPool": "maxpool",
    "MaxUnpool": "maxunpool",
    "AveragePool": "averagepool",
    "GlobalAveragePool": "globalaveragepool",
    "GlobalMaxPool": "globalmaxpool",
    "BatchNormalization": "batch_normalization",
    "MeanVarianceNormalization": "meanvariancenormalization",
    "LayerNormalization": "layernormalization",
    "GroupNormalization": "groupnormalization",
    "InstanceNormalization": "instance_normalization",
    "LRN": "lrn",
    "Relu": "relu",
    "LeakyRelu": "leakyrelu",
    "PRelu": "prelu",
    "HardSigmoid": "hardsigmoid",
    "HardSwish": "hardswish",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Elu": "elu",
    "Selu": "selu",
    "Swish": "swish",
    "Gelu": "gelu",
    "Softmax": "softmax",
    "LogSoftmax": "logsoftmax",
    "Dropout": "dropout",
    "Flatten": "flatten",
    "Concat": "concat",
    "Add": "add",
    "Sum": "sum",
    "Mul": "mul",
    "Pad": "pad",
    "Resize": "resize",
    "Upsample": "upsample",
    "SoftmaxCrossEntropyLoss": "softmax_cross_entropy_loss",
    "NegativeLogLikelihoodLoss": "negativeloglikelihoodloss",
    "Momentum": "momentum",
    "Adam": "adam",
}


class Case(NamedTuple):
    """A test of one node."""

    name: str
    op: str
    attributes: dict[str, Any]
    """The node's own, and under "outputs" how many outputs it has."""
    inputs: list[np.ndarray | None]
    """In the node's order, None where one is omitted."""
    outputs: list[np.ndarray | None]
    """In the node's order, None where one is not asked for."""


@cache
def cases() -> dict[str, Case]:
    """All cases of the ops asked for, by name."""
    from onnx.backend.test.case import node

    state = np.random.get_state()  # noqa: NPY002 - ONNX seeds NumPy's global generator: give it back as it was
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, in ONNX's modules
        for module in MODULES.values():
            importlib.import_module(f"onnx.backend.test.case.node.{module}")
    np.random.set_state(state)  # noqa: NPY002
    return {case.name: _read(case) for case in asked_for(node._NodeTestCases)}


def asked_for(every: Iterable[Any]) -> list[Any]:
    """Those of ONNX's test cases that are one node, and of an op asked for."""
    alone = [case for case in every if len(case.model.graph.node) == 1 and "_expanded" not in case.name]
    return [case for case in alone if case.model.graph.node[0].op_type in MODULES]


def _read(case: Any) -> Case:
    from onnx.helper import get_attribute_value

    (node,) = case.model.graph.node
    attributes = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
    attributes = {name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()}
    attributes["outputs"] = len(node.output)
    ((inputs, outputs),) = case.data_sets
    return Case(case.name, node.op_type, attributes, _placed(node.input, inputs), _placed(node.output, outputs))


def _placed(names: Any, values: Any) -> list[np.ndarray | None]:
    """The values, one for each name that is not empty, in the order of the names."""
    values = iter(values)
    return [np.asarray(next(values)) if name else None for name in names]

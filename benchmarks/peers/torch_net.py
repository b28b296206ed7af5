"""A handgrad net in PyTorch's modules, N C H W, trained eagerly in either memory layout or by torch.compile.

Kernels turn from H W I O to O I H W, and the rows of a dense layer behind a flatten from H W C order to C H W.
"""

# pyright: reportMissingImports=false

import math
import os
import shutil
from typing import Any

import numpy as np
import torch
from torch import nn

import handgrad as hg
from benchmarks.peers import no_counterpart, pairs_of, rows_by_channel, walked, window_of
from handgrad.benchmark.steps import Start
from handgrad.ops.spatial import per_axis

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

torch.set_num_threads(os.cpu_count() or 1)


class Sum(nn.Module):
    """A residual block."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.shortcut(x)


class Mean(nn.Module):
    """Global average pooling."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def chain(net: hg.Layer, params: Any, stats: Any, in_shape: tuple[int, ...]) -> nn.Sequential:
    """The modules of a chain, which both paths of a residual block are here too."""
    if not isinstance(net, hg.Chain):
        raise no_counterpart("PyTorch", net)
    return nn.Sequential(*(module(*each) for each in walked(net, params, stats, in_shape)))


def module(layer: hg.Layer, params: Any, stats: Any, shape: tuple[int, ...], flat: tuple[int, ...] | None) -> nn.Module:
    """The counterpart of one layer with our parameters; `flat` is the shape that a flatten before it was given."""
    match layer:
        case hg.Chain():
            return chain(layer, params, stats, shape)
        case hg.Residual():
            paths = {name: chain(path, p, s, shape) for name, path, p, s, _ in layer.walk(params, stats)}
            return Sum(paths["body"], paths.get("shortcut", nn.Identity()))
        case hg.Conv():
            return _conv(layer, params, shape)
        case hg.Dense():
            return _dense(layer, params, flat)
        case hg.BatchNorm():
            return nn.BatchNorm2d(shape[-1], layer.eps, momentum=1 - layer.momentum)
        case hg.Relu():
            return nn.ReLU()
        case hg.MaxPool():
            window, strides = window_of(layer)
            return nn.MaxPool2d(window, strides)
        case hg.AvgPool():
            window, strides = window_of(layer)
            return nn.AvgPool2d(window, strides)
        case hg.GlobalAvgPool():
            return Mean()
        case hg.Flatten():
            return nn.Flatten()
    raise no_counterpart("PyTorch", layer)


def _conv(layer: hg.Conv, params: Any, shape: tuple[int, ...]) -> nn.Conv2d:
    pairs = pairs_of(layer, shape)
    size, strides = (per_axis("conv", name, getattr(layer, name), 2) for name in ("kernel_size", "strides"))
    if any(low != high for low, high in pairs):
        raise TypeError(f"benchmarks: PyTorch pads both ends alike, not as {layer!r} does on {shape}")
    conv = nn.Conv2d(
        *(shape[-1], layer.features, (size[0], size[1]), (strides[0], strides[1]), (pairs[0][0], pairs[1][0])),
        groups=layer.groups,
        bias=layer.use_bias,
    )
    return _filled(conv, np.asarray(params["kernel"]).transpose(3, 2, 0, 1), params.get("bias"))


def _dense(layer: hg.Dense, params: Any, flat: tuple[int, ...] | None) -> nn.Linear:
    kernel = rows_by_channel(np.asarray(params["kernel"]), flat)
    return _filled(nn.Linear(*kernel.shape, bias=layer.use_bias), kernel.T, params.get("bias"))


def _filled(made: Any, weight: np.ndarray, bias: Any) -> Any:
    """The module with our weight and bias."""
    with torch.no_grad():
        made.weight.copy_(torch.tensor(weight))
        if bias is not None:
            made.bias.copy_(torch.tensor(np.asarray(bias)))
    return made


class TorchTrainer:
    """A net and its optimizer on one batch; a call is one step, waited for."""

    def __init__(self, start: Start, layout: str, compiled: bool = False) -> None:
        case, ours = start.case, start.train_state
        layout_of: Any = {"memory_format": LAYOUTS[layout]}  # which torch's own types do not know
        self.net = chain(case.net, ours.params, ours.state, case.in_shape).to(device(), **layout_of)
        self.run = torch.compile(self.net) if compiled else self.net
        self.optimizer = torch.optim.SGD(self.net.parameters(), case.learning_rate, momentum=0.9)
        self.x = images(np.asarray(start.x), layout)
        self.y = torch.tensor(np.asarray(start.y), dtype=torch.int64).to(device())
        self.loss = math.nan

    def __call__(self) -> None:
        """One step of training."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(self.run(self.x), self.y)
        loss.backward()
        self.optimizer.step()
        wait()
        self.loss = loss.item()


def images(array: np.ndarray, layout: str) -> torch.Tensor:
    """An array N H W C as a tensor N C H W in that memory layout, on the device."""
    return torch.tensor(array).permute(0, 3, 1, 2).contiguous().to(device()).to(memory_format=LAYOUTS[layout])


def device() -> torch.device:
    """The GPU that JAX computes on where torch sees it too, or the CPU."""
    import jax

    on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def reason_absent() -> str | None:
    """Why PyTorch cannot be compared with here, or None where it can."""
    import jax

    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        return "PyTorch was left out: JAX computes on a GPU, and this PyTorch has none."
    return None


def wait() -> None:
    """Let the GPU come to the end of its work."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def cannot_compile() -> str | None:
    """Why torch.compile does not work here, or None where it should."""
    if device().type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        return "torch.compile was left out: it needs a C++ compiler, and there is neither g++ nor clang++."
    return None

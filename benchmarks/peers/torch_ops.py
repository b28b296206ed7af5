"""PyTorch's pools and convolutions, forward and backward, in both memory layouts."""

# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.nn import grad as gradients

from benchmarks.peers.torch_net import LAYOUTS, device, images, wait
from handgrad.benchmark.pools import PoolCase


def pool_contenders(case: PoolCase) -> dict[str, Callable[[], Any]]:
    """Forward and backward of a pool, by layout; each gives y and dx as N H W C."""
    x, dy = case.arrays()
    return {layout: _pool_runner(case, tensor(x, layout), tensor(dy, layout)) for layout in LAYOUTS}


def _pool_runner(case: PoolCase, x: torch.Tensor, dy: torch.Tensor) -> Callable[[], Any]:
    x.requires_grad_()

    def pool() -> torch.Tensor:
        if case.kind == "global":
            return functional.adaptive_avg_pool2d(x, 1).flatten(1)
        op = functional.max_pool2d if case.kind == "max" else functional.avg_pool2d
        return op(x, case.window, case.strides)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        y = pool()
        (dx,) = torch.autograd.grad(y, x, dy)
        wait()
        return y, dx

    return run


def conv_contenders(
    x: np.ndarray, kernel: np.ndarray, dy: np.ndarray, strides: int, padding: int, groups: int
) -> dict[tuple[str, str], Callable[[], Any]]:
    """Forward, input gradient and kernel gradient of a convolution, each alone, by (which, layout)."""
    runs = {}
    for layout in LAYOUTS:
        inputs, cotangent = tensor(x, layout), tensor(dy, layout)
        weight = torch.tensor(kernel.transpose(3, 2, 0, 1)).to(device()).to(memory_format=LAYOUTS[layout])
        settings = {"stride": strides, "padding": padding, "groups": groups}
        for which, run in _conv_runs(inputs, weight, cotangent, settings).items():
            runs[which, layout] = _waited(run)
    return runs


def _conv_runs(
    x: torch.Tensor, weight: torch.Tensor, dy: torch.Tensor, settings: dict[str, Any]
) -> dict[str, Callable[[], Any]]:
    return {
        "forward": lambda: functional.conv2d(x, weight, **settings),
        "input gradient": lambda: gradients.conv2d_input(x.shape, weight, dy, **settings),
        "kernel gradient": lambda: gradients.conv2d_weight(x, weight.shape, dy, **settings),
    }


def _waited(run: Callable[[], Any]) -> Callable[[], Any]:
    def waited() -> Any:
        result = run()
        wait()
        return result

    return waited


def tensor(array: np.ndarray, layout: str) -> torch.Tensor:
    """An array N H W C as a tensor N C H W in that memory layout; other arrays as they are."""
    if array.ndim != 4:
        return torch.tensor(array).to(device())
    return images(array, layout)


def as_images(value: torch.Tensor) -> np.ndarray:
    """A tensor N C H W as an array N H W C; others as they are."""
    found = value.detach().cpu()
    return (found.permute(0, 2, 3, 1) if found.ndim == 4 else found).numpy()


def as_kernel(value: torch.Tensor) -> np.ndarray:
    """A kernel O I H W as an array H W I O."""
    return value.detach().cpu().permute(2, 3, 1, 0).numpy()

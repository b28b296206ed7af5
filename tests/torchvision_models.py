"""torchvision's own classes, narrowed so that a test can hold them, with random weights and running statistics."""

import importlib
from typing import Any

import torch
from torch import nn

from handgrad.models.width import scaled


def _imported() -> Any:
    """torchvision.models; beside a torch of another build its operators are missing, and it asks for two of them."""
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError:
        for name in ("nms", "qnms"):
            LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module("torchvision.models")


LIBRARY = torch.library.Library("torchvision", "FRAGMENT")  # kept, for its definitions go with it
models = _imported()


def model(make: Any, width: float = 1.0, classes: int = 1000, seed: int = 0, **settings: Any) -> Any:
    """What `make(**settings)` builds, all of it `width` times as wide, in float64 and with weights drawn anew.

    Args:
        make: such as `models.resnet18`.
        width: as in `handgrad.models`.
        classes: the number of outputs.
        seed: of the weights.
        **settings: of `make`.
    """
    with torch.device("meta"):
        net = make(**settings)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if (narrow := _narrowed(child, width, classes)) is not None:
                setattr(parent, name, narrow)
    torch.manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            statistics: Any = layer  # which may be None where a batch norm tracks none
            nn.init.uniform_(statistics.running_var, 0.5, 2)
            nn.init.normal_(statistics.running_mean)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.normal_(layer.bias, 0, 0.1)
    return net


def _narrowed(layer: nn.Module, width: float, classes: int) -> nn.Module | None:
    """The layer with fewer features, in float64; None for one without weights."""
    if isinstance(layer, nn.Conv2d):
        settings: Any = (layer.kernel_size, layer.stride, layer.padding)
        channels = 3 if layer.in_channels == 3 else scaled(layer.in_channels, width)
        bias = layer.bias is not None
        return nn.Conv2d(channels, scaled(layer.out_channels, width), *settings, bias=bias, dtype=torch.float64)
    if isinstance(layer, nn.BatchNorm2d):
        return nn.BatchNorm2d(scaled(layer.num_features, width), dtype=torch.float64)
    if isinstance(layer, nn.Linear):
        places = {256 * 36: 36, 512 * 49: 49}.get(layer.in_features, 1)  # behind the flatten of AlexNet and VGG
        features = classes if layer.out_features == 1000 else scaled(layer.out_features, width)
        return nn.Linear(places * scaled(layer.in_features // places, width), features, dtype=torch.float64)
    return None

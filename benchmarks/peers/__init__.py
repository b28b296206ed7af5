"""The same nets in other libraries: each file walks a handgrad net and builds it of its library's own modules.

Every peer starts from our parameters, so all contenders compute the same losses.
"""

import importlib
from types import ModuleType
from typing import Any

import jax

from handgrad.layers import Layer
from handgrad.ops.spatial import pad_pairs, per_axis

MODULES = {"Flax": "flax_net", "Equinox": "equinox_net", "Haiku": "haiku_net"}
TORCH_MODULE = "torch_net"


def load(module: str) -> ModuleType:
    """A file of this folder, by name.

    Raises:
        ImportError: its library is missing; the message names the extra.
    """
    try:
        return importlib.import_module(f"benchmarks.peers.{module}")
    except ImportError as error:
        raise ImportError(f"benchmarks: {error}; install the peers with pip install 'handgrad[bench]'") from error


def no_counterpart(library: str, layer: Layer) -> TypeError:
    """The error for a layer that a peer's file does not translate."""
    return TypeError(f"benchmarks: {library} has no counterpart of {layer!r} here; add it to benchmarks/peers/")


def out_shape(layer: Layer, params: Any, state: Any, in_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one example behind a layer."""
    x = jax.ShapeDtypeStruct((1, *in_shape), "float32")
    return jax.eval_shape(layer.apply, params, x, state).shape[1:]


def pairs_of(layer: Any, in_shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The padding of a convolution in pairs (low, high), one an axis."""
    size, strides, dilation = (
        per_axis("conv", name, getattr(layer, name), 2) for name in ("kernel_size", "strides", "dilation")
    )
    return pad_pairs("conv", layer.padding, in_shape[:-1], size, strides, dilation)


def window_of(layer: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Window and strides of a pool that covers whole windows only, which is all that the peers here are asked for."""
    window = per_axis("pool", "window", layer.window, 2)
    strides = window if layer.strides is None else per_axis("pool", "strides", layer.strides, 2)
    if layer.padding != "VALID" or layer.ceil_mode or getattr(layer, "dilation", 1) != 1:
        raise TypeError(f"benchmarks: peers know pools without padding, dilation and ceil_mode alone, got {layer!r}")
    return (window[0], window[1]), (strides[0], strides[1])

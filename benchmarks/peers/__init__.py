"""The same nets in other libraries: each file walks a handgrad net and builds it of its library's own modules.

Every peer starts from our parameters, so all contenders compute the same losses.
"""

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jax

from handgrad.layers import Chain, Dense, Flatten, Layer
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


def walked(
    net: Chain, params: Any, state: Any, in_shape: tuple[int, ...]
) -> Iterator[tuple[Layer, Any, Any, tuple[int, ...], tuple[int, ...] | None]]:
    """Each layer of a chain with its params, its state, the shape of one example before it, and the shape flattened.

    The last one is None but from a flatten to the dense layer behind it.
    """
    shape, flat = in_shape, None
    for _, layer, p, s, _ in net.walk(params, state):
        yield layer, p, s, shape, flat
        if isinstance(layer, Flatten | Dense):
            flat = shape if isinstance(layer, Flatten) else None
        shape = out_shape(layer, p, s, shape)


def rows_by_channel(kernel: Any, flat: tuple[int, ...] | None) -> Any:
    """A dense kernel behind a flatten of H W C, for a library that flattens C H W; any other as it is."""
    if flat is None or len(flat) != 3:
        return kernel
    return kernel.reshape(*flat, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)


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

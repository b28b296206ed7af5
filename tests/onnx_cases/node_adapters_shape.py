"""ONNX's nodes that move numbers said in handgrad's ops, in the form of `node_adapters`."""

from collections.abc import Callable, Sequence
from math import floor, prod

import jax.numpy as jnp
import numpy as np
from node_adapters import Attributes, Outputs, Run, first, last, pairs, whole_as_floats

import handgrad as hg


def flatten(run: Run, a: Attributes, x) -> Outputs:
    """ONNX puts the axes before `axis` in one too; ours has one batch axis."""
    axis = a.get("axis", 1)
    axis += len(x.shape) if axis < 0 else 0
    return (hg.Flatten().apply({}, jnp.asarray(x).reshape(prod(x.shape[:axis]), *x.shape[axis:])),)


def concatenate(run: Run, a: Attributes, *arrays) -> Outputs:
    return (run("concatenate", *map(jnp.asarray, arrays), axis=a["axis"]),)


def join(name: str) -> Callable[..., Outputs]:
    """ONNX puts missing axes in front; ours wants them there, of size 1."""

    def adapter(run: Run, a: Attributes, *arrays) -> Outputs:
        ndim = max(array.ndim for array in arrays)
        return (run(name, *(jnp.asarray(x).reshape((1,) * (ndim - x.ndim) + x.shape) for x in arrays)),)

    return adapter


def pad(run: Run, a: Attributes, x, pads, value=None, axes=None) -> Outputs:
    """Channels are padded as one more spatial axis, with an axis of one channel behind."""
    axes = range(x.ndim) if axes is None else axes
    around = [(0, 0)] * x.ndim
    for axis, pair in zip(axes, pairs(pads), strict=True):
        around[axis] = pair
    assert around[0] == (0, 0), "the batch is not padded"
    floats, whole = whole_as_floats(x)
    settings = {"mode": a["mode"], "value": 0.0 if value is None else float(value)}
    return (run("pad", jnp.asarray(floats)[..., None], padding=tuple(around[1:]), **settings)[..., 0].astype(whole),)


def resize(run: Run, a: Attributes, x, box=None, scales=None, sizes=None) -> Outputs:
    """The spatial axes alone: no case resizes batch or channels. `box` is for crops."""
    axes = list(a.get("axes", range(x.ndim)))
    factor, extent = np.ones(x.ndim), np.asarray(x.shape)
    if sizes is None:
        factor[axes] = scales
        target = {"factor": tuple(map(float, factor[2:]))}
    else:
        extent[axes] = fitted(x, axes, sizes, a.get("keep_aspect_ratio_policy", "stretch"))
        target = {"output_size": tuple(map(int, extent[2:]))}
    settings = {"method": a["mode"], "coordinates": a.get("coordinate_transformation_mode", "half_pixel")}
    if a["mode"] == "nearest":
        settings["rounding"] = a.get("nearest_mode", "round_prefer_floor")
    return (first(run("upsample", last(x), **target, **settings)),)


def fitted(x: np.ndarray, axes: Sequence[int], sizes: np.ndarray, policy: str) -> np.ndarray:
    """The sizes along the axes: those given, or by the one ratio that keeps them all in or fills them all."""
    if policy == "stretch":
        return sizes
    own = np.asarray([x.shape[axis] for axis in axes])
    ratio = {"not_larger": min, "not_smaller": max}[policy](sizes / own)
    return np.asarray([floor(size * ratio + 0.5) for size in own])


def upsample(run: Run, a: Attributes, x, scales) -> Outputs:
    """The node that Resize replaced: nearest, each place copied from the one at or below it."""
    settings = {"method": a["mode"], "coordinates": "asymmetric", "rounding": "floor"}
    return (first(run("upsample", last(x), factor=tuple(map(float, scales[2:])), **settings)),)


SHAPE: dict[str, Callable[..., Outputs]] = {
    "Flatten": flatten,
    "Concat": concatenate,
    "Add": join("add"),
    "Sum": join("add"),
    "Mul": join("multiply"),
    "Pad": pad,
    "Resize": resize,
    "Upsample": upsample,
}

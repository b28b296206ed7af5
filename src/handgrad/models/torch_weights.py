"""Weights from PyTorch and back to it: names matched, layouts turned, every tensor's shape checked.

Layouts             PyTorch                           handgrad
convolution         weight (O, I/groups, K..)         kernel (K.., I/groups, O)
transposed          weight (I, O/groups, K..)         kernel (K.., I, O/groups)
dense               weight (O, I)                     kernel (I, O)
norms               weight, bias (C,)                 scale, bias (C,)
running statistics  running_mean, running_var (C,)    mean, var (C,) in the state
behind a flatten    features in the order C, H, W     in the order H, W, C

Names are torchvision's. A net without residual blocks is `features.I` up to its first adaptive pool, global pool or
flatten and `classifier.J` behind it, where I and J count all layers, those without weights too. A net of
`models.resnet` is `conv1`, `bn1`, `layerS.B.convI`, `layerS.B.bnI`, `layerS.B.downsample.0` and `.1`, and `fc`. Any
other net needs `names`.

Batch norms differ in two ways that weights do not carry. Their momentum is the share of the new batch in PyTorch (0.1)
and the share of the old statistics here (0.9). The variance that moves into the running one is the unbiased one there,
divided by n - 1, the biased one here; inference computes the same from it.
"""

import re
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.data.extra import imported
from handgrad.insight.leaves import leaf_layers
from handgrad.layers import AdaptiveAvgPool, Chain, Container, Flatten, GlobalAvgPool, Layer
from handgrad.layers.layer import Array, Shape
from handgrad.ops.precision import wide

IN_SHAPE = (224, 224, 3)
SUFFIXES = {
    "kernel": "weight",
    "scale": "weight",
    "slope": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
KERNEL_AXES = {"conv": (-1, -2), "convtranspose": (-2, -1), "dense": (-1, -2)}  # those that come first in PyTorch
RESNET_STEM = {"conv1": "conv1", "batchnorm1": "bn1", "dense1": "fc"}
RESNET_BLOCK = re.compile(r"stage(\d+)/residual(\d+)/(body|shortcut)/(conv|batchnorm)(\d+)")


def from_torch(
    net: Layer,
    state_dict: Mapping[str, Any],
    *,
    in_shape: Shape = IN_SHAPE,
    names: Mapping[str, str] | None = None,
) -> tuple[Any, Any]:
    """The params and state of a net from the weights of its twin in PyTorch.

    For torchvision's models that is `models.from_torch(models.resnet18(), torchvision_model.state_dict())`, and
    likewise `models.alexnet_one_tower` (torchvision's alexnet), `models.vgg11` to `vgg19` with and without batch norm,
    and the other resnets. PyTorch's weights in a safetensors file come in by way of `models.read_safetensors(path)`,
    or of `safetensors.numpy.load_file(path)`.

    Args:
        net: a container of layers that compute what the PyTorch model computes.
        state_dict: arrays by name: tensors of PyTorch, on any device, or NumPy arrays, bfloat16 among them.
        in_shape: the shape of an input, without the batch axis. It matters for the order of features behind a flatten;
            with an adaptive or global pool before it any that fits will do.
        names: the PyTorch module of each layer with weights, by its path, such as {"conv1": "conv1", "dense1": "fc1"};
            torchvision's where none are given, as the head of this file lists them.

    Returns:
        params and state as `net.init` would give them, in the dtypes of the tensors; running statistics are float32 at
        least. `num_batches_tracked` is passed over.

    Raises:
        ValueError: a tensor that is missing, left over, or of the wrong shape, named; a layer whose name in PyTorch is
            not known; float64 tensors where JAX holds none.
        TypeError: a tensor that is not floating; a net that is no container.

    Example:
        >>> import handgrad as hg
        >>> weights = {"fc1.weight": np.ones((3, 2), "float32"), "fc1.bias": np.zeros(3, "float32")}
        >>> params, state = from_torch(hg.Chain(hg.Dense(3)), weights, in_shape=(2,), names={"dense1": "fc1"})
        >>> params["dense1"]["kernel"].shape
        (2, 3)
        >>> from_torch(hg.Chain(hg.Dense(3)), weights, in_shape=(5,), names={"dense1": "fc1"})
        Traceback (most recent call last):
        ValueError: from_torch: 'fc1.weight' must have shape (3, 5) for in_shape (5,), got (3, 2)
    """
    twins = _twins("from_torch", net, in_shape, names)
    for twin in twins:
        if twin.torch_name not in state_dict:
            path = "/".join(twin.path)
            hint = "; give names= if its modules are not torchvision's" if names is None else ""
            raise ValueError(
                f"from_torch: the state_dict has no {twin.torch_name!r}, which {path} of the net wants{hint}"
            )
    known = {twin.torch_name for twin in twins}
    left_over = [name for name in state_dict if name not in known and not name.endswith("num_batches_tracked")]
    if left_over:
        raise ValueError(f"from_torch: {left_over[0]!r} of the state_dict is left over; the net has no layer for it")
    arrays = {twin.path: _ours(twin, state_dict[twin.torch_name], in_shape) for twin in twins}
    like = _shapes(net, in_shape)
    tree = jax.tree.unflatten(jax.tree.structure(like), [arrays[path] for path in _by_path(like)])
    return tree["params"], tree["state"]


def to_torch(
    net: Layer,
    params: Any,
    state: Any = (),
    *,
    in_shape: Shape = IN_SHAPE,
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The state_dict of a net's twin in PyTorch, for `model.load_state_dict`: what `from_torch` took, back again.

    Args:
        net: as in `from_torch`.
        params: of the net.
        state: of the net.
        in_shape: as in `from_torch`.
        names: as in `from_torch`.

    Returns:
        Tensors of PyTorch on the CPU, copies, by name, in the dtypes of the arrays. Each batch norm's
        `num_batches_tracked` is 0: PyTorch counts by it only where its momentum is None.

    Raises:
        ImportError: torch is missing; the message names the extra.
        ValueError: an array that is missing, left over, or of the wrong shape, named; a layer whose name in PyTorch is
            not known.
        TypeError: a net that is no container.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(3))
        >>> params, state = net.init(jax.random.key(0), (2,))
        >>> to_torch(net, params, in_shape=(2,), names={"dense1": "fc1"})["fc1.weight"].shape
        torch.Size([3, 2])
    """
    torch = imported("torch", "to_torch", "interop")
    twins = _twins("to_torch", net, in_shape, names)
    arrays = _by_path({"params": params, "state": state})
    state_dict = {}
    for twin in twins:
        path = "/".join(twin.path)
        if twin.path not in arrays:
            raise ValueError(f"to_torch: {path} is missing; pass the params and the state of this net")
        array = np.asarray(arrays.pop(twin.path))
        if array.shape != twin.shape:
            raise ValueError(
                f"to_torch: {path} must have shape {twin.shape} for in_shape {in_shape}, got {array.shape}"
            )
        state_dict[twin.torch_name] = _tensor(torch, _torch_layout(array, twin))
        if twin.path[-1] == "var":
            state_dict[twin.module + ".num_batches_tracked"] = torch.tensor(0)
    if arrays:
        raise ValueError(f"to_torch: {'/'.join(next(iter(arrays)))} is left over; the net has no such array")
    return state_dict


class Twin(NamedTuple):
    """An array of ours and its tensor in PyTorch.

    Attributes:
        path: ours, such as ("params", "conv1", "kernel").
        shape: ours.
        kind: of the layer.
        module: PyTorch's name of the layer.
        flat: (H, W, C) where its first axis, in our layout, counts what a flatten of that shape gave.
    """

    path: tuple[str, ...]
    shape: Shape
    kind: str
    module: str
    flat: Shape | None

    @property
    def torch_name(self) -> str:
        """PyTorch's name of the tensor."""
        return f"{self.module}.{SUFFIXES[self.path[-1]]}"

    @property
    def torch_shape(self) -> Shape:
        """PyTorch's shape of the tensor."""
        if self.path[-1] != "kernel":
            return self.shape
        first, second = KERNEL_AXES[self.kind]
        return (self.shape[first], self.shape[second], *self.shape[:-2])


class Leaf(NamedTuple):
    """A layer that is no container, with the shapes of its params and state, and the flatten before it."""

    path: tuple[str, ...]
    layer: Layer
    params: Any
    state: Any
    flat: Shape | None


def _twins(op: str, net: Layer, in_shape: Shape, names: Mapping[str, str] | None) -> list[Twin]:
    """Each array of the net with its tensor, in the order in which a module of PyTorch registers them."""
    if not isinstance(net, Container):
        raise TypeError(f"{op}: net must be a container such as hg.Chain, got {net!r}")
    like = _shapes(net, in_shape)
    x = jax.ShapeDtypeStruct((1, *in_shape), jnp.float32)
    leaves = [leaf for leaf in _leaves(net, like["params"], like["state"], x, None) if leaf.params]
    modules = _torchvision_names(net) if names is None else names
    twins = []
    for path, layer, params, state, flat in leaves:
        name = "/".join(path)
        if name not in modules:
            raise ValueError(f"{op}: {name} has no name in PyTorch; give names={{{name!r}: ...}} for all layers")
        for tree, arrays in (("params", params), ("state", state or {})):
            unknown = [array for array in arrays if array not in SUFFIXES]
            if unknown or ("kernel" in arrays and layer.kind not in KERNEL_AXES):
                raise ValueError(f"{op}: {name} is {layer!r}, whose {unknown or 'kernel'} PyTorch has no twin of")
            for key in (key for key in SUFFIXES if key in arrays):
                rows = None if (layer.kind, key) == ("dense", "bias") or arrays[key].shape == (1,) else flat
                twins.append(Twin((tree, *path, key), arrays[key].shape, layer.kind, modules[name], rows))
    return twins


def _leaves(
    net: Layer, params: Any, state: Any, x: Any, flat: Shape | None, path: tuple[str, ...] = ()
) -> Generator[Leaf, None, Shape | None]:
    """The leaves of a net in order; what it returns is the flatten whose order of features its output still has."""
    if not isinstance(net, Container):
        yield Leaf(path, net, params, state, flat)
        if isinstance(net, Flatten) and x.ndim > 2:
            return x.shape[1:]
        return None if net.kind == "dense" else flat
    behind = []
    for name, layer, p, s, _ in net.walk(params, state):
        behind.append((yield from _leaves(layer, p, s, x, flat, (*path, name))))
        if isinstance(net, Chain):  # other containers give all their children the same x
            x, flat = jax.eval_shape(layer.apply, p, x, s), behind[-1]
    return behind[0] if behind and not isinstance(net, Chain) else flat


def _torchvision_names(net: Container) -> dict[str, str]:
    """The module of each layer that has a name in torchvision, by its path."""
    leaves = leaf_layers(net)
    if any("residual" in path for path, _ in leaves):
        return {path: name for path, _ in leaves if (name := _resnet_name(path))}
    modules, part, count = {}, "features", 0
    for path, layer in leaves:
        if isinstance(layer, AdaptiveAvgPool | GlobalAvgPool | Flatten):
            part, count = "classifier", 0
        else:
            modules[path], count = f"{part}.{count}", count + 1
    return modules


def _resnet_name(path: str) -> str | None:
    """`layer2.0.bn1` of `stage2/residual1/body/batchnorm1`; None where it is no layer of a ResNet with weights."""
    block = RESNET_BLOCK.fullmatch(path)
    if block is None:
        return RESNET_STEM.get(path)
    stage, number, branch, kind, count = block.groups()
    if branch == "body":
        module = ("conv" if kind == "conv" else "bn") + count
    else:
        module = f"downsample.{0 if kind == 'conv' else 1}"
    return f"layer{stage}.{int(number) - 1}.{module}"


def _shapes(net: Layer, in_shape: Shape) -> dict[str, Any]:
    """The shapes of the net's params and state."""
    params, state = jax.eval_shape(lambda key: net.init(key, tuple(in_shape)), jax.random.key(0))
    return {"params": params, "state": state}


def _by_path(tree: Any) -> dict[tuple[str, ...], Any]:
    """The leaves of nested dicts by the keys that lead to them, in the order of `jax.tree.leaves`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {tuple(str(getattr(step, "key", step)) for step in path): leaf for path, leaf in leaves}


def _ours(twin: Twin, value: Any, in_shape: Shape) -> Array:
    """A tensor of PyTorch, checked, in our layout; a copy, for PyTorch changes its tensors in place."""
    array, name = _as_numpy(value), twin.torch_name
    if array.shape != twin.torch_shape:
        raise ValueError(
            f"from_torch: {name!r} must have shape {twin.torch_shape} for in_shape {tuple(in_shape)}, got {array.shape}"
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"from_torch: {name!r} must be floating, got {array.dtype}")
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise ValueError(f"from_torch: {name!r} is {array.dtype}, which JAX holds only under jax.enable_x64; narrow it")
    array = jnp.asarray(np.array(_our_layout(array, twin), order="C"))
    return wide(array) if twin.path[0] == "state" else array


def _our_layout(array: np.ndarray, twin: Twin) -> np.ndarray:
    """An array of PyTorch with its axes as we have them, and the features behind a flatten from C H W to H W C."""
    if twin.path[-1] == "kernel":
        array = np.moveaxis(array, (0, 1), KERNEL_AXES[twin.kind])
    if twin.flat is None:
        return array
    *sizes, channels = twin.flat
    return np.moveaxis(array.reshape(channels, *sizes, *array.shape[1:]), 0, len(sizes)).reshape(array.shape)


def _torch_layout(array: np.ndarray, twin: Twin) -> np.ndarray:
    """The same from us to PyTorch."""
    if twin.flat is not None:
        array = np.moveaxis(array.reshape(*twin.flat, *array.shape[1:]), len(twin.flat) - 1, 0).reshape(array.shape)
    return np.moveaxis(array, KERNEL_AXES[twin.kind], (0, 1)) if twin.path[-1] == "kernel" else array


def _as_numpy(value: Any) -> np.ndarray:
    """A tensor of PyTorch or anything that NumPy takes, as an array; bfloat16, which NumPy lacks, through float32."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    value = value.detach().cpu()
    return value.float().numpy().astype(jnp.bfloat16) if str(value.dtype) == "torch.bfloat16" else value.numpy()


def _tensor(torch: Any, array: np.ndarray) -> Any:
    """An array as a tensor of its own memory."""
    if array.dtype == jnp.bfloat16:
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array, order="C"))

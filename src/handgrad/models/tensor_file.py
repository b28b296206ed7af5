"""Parameters and state in a safetensors file, a format that most libraries read and that holds no code.

The file is a JSON header (name, dtype, shape and place of each tensor) and the tensors' bytes. Ours are named by their
path, `params/conv1/kernel` and `state/batchnorm1/mean`, in our own layouts. The format itself has no checksum, so a
sha256 of each tensor's name, dtype, shape and bytes stands in the header's metadata; files of other libraries, without
one, are taken as they are.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.data.extra import imported
from handgrad.layers.layer import Layer, check_is_layer
from handgrad.training import npz
from handgrad.training.structure import leaf_names

DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def save_safetensors(path: str | os.PathLike, params: Any, state: Any = ()) -> None:
    """Write params and state to a safetensors file; what was there before is replaced once the new file is safe.

    Args:
        path: the file, by custom ending in .safetensors; its folder is made if need be.
        params: nested dicts of arrays, as `net.init` gives them.
        state: likewise.

    Raises:
        ImportError: the safetensors package is missing; the message names the extra.
        TypeError: a leaf that is no array, or of a dtype that the format has not.

    Example:
        >>> import tempfile, handgrad as hg
        >>> path = Path(tempfile.mkdtemp()) / "net.safetensors"
        >>> save_safetensors(path, {"dense1": {"bias": jnp.zeros(3, jnp.bfloat16)}})
        >>> {name: (array.shape, str(array.dtype)) for name, array in read_safetensors(path).items()}
        {'params/dense1/bias': ((3,), 'bfloat16')}
    """
    numpy_format = imported("safetensors.numpy", "save_safetensors", "interop")
    arrays = {name: _storable(name, leaf) for name, leaf in leaf_names({"params": params, "state": state}).items()}
    checksums = {name: _sha256(name, array) for name, array in arrays.items()}
    data = numpy_format.save(arrays, metadata={"sha256": json.dumps(checksums)})
    with npz.replacing(Path(path)) as file:
        file.write(data)


def load_safetensors(
    path: str | os.PathLike, net: Layer, in_shape: tuple[int, ...], dtype: Any = jnp.float32
) -> tuple[Any, Any]:
    """Read the params and state of a net that `save_safetensors` wrote, and check each tensor.

    Args:
        path: the file.
        net: the net that it is for.
        in_shape: the shape of an input, without the batch axis.
        dtype: of the params, as given to `net.init`.

    Returns:
        params and state, as `net.init(key, in_shape, dtype)` would give them.

    Raises:
        ImportError: the safetensors package is missing; the message names the extra.
        FileNotFoundError: no such file.
        ValueError: a file that is damaged or no safetensors file; a tensor that is missing, left over, or not of the
            shape and dtype that the net wants. File and tensor are named.

    Example:
        >>> import tempfile, handgrad as hg
        >>> path, net = Path(tempfile.mkdtemp()) / "net.safetensors", hg.Chain(hg.Dense(3), hg.BatchNorm())
        >>> save_safetensors(path, *net.init(jax.random.key(0), (2,)))
        >>> params, state = load_safetensors(path, net, (2,))
        >>> load_safetensors(path, net, (4,))
        Traceback (most recent call last):
        ValueError: ...: tensor 'params/dense1/kernel' must be float32 (4, 3), the file has float32 (2, 3)
    """
    check_is_layer(net, "load_safetensors")
    trees = jax.eval_shape(lambda key: net.init(key, tuple(in_shape), dtype), jax.random.key(0))
    like = dict(zip(("params", "state"), trees, strict=True))
    wanted, arrays = leaf_names(like), read_safetensors(path)
    for name, leaf in wanted.items():
        if name not in arrays:
            raise ValueError(f"{path}: tensor {name!r} is missing; the file is of another net")
        array = arrays[name]
        if (array.dtype, array.shape) != (leaf.dtype, leaf.shape):
            raise ValueError(
                f"{path}: tensor {name!r} must be {leaf.dtype} {leaf.shape}, the file has {array.dtype} {array.shape}"
            )
    left_over = [name for name in arrays if name not in wanted]
    if left_over:
        raise ValueError(f"{path}: tensor {left_over[0]!r} is left over; the file is of another net")
    leaves = [jnp.asarray(arrays[name]) for name in wanted]
    tree = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return tree["params"], tree["state"]


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file by name, bfloat16 among them; `models.from_torch` takes those of PyTorch.

    Args:
        path: the file, of any library.

    Returns:
        Arrays by name.

    Raises:
        ImportError: the safetensors package is missing; the message names the extra.
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, cut off, or no safetensors file, or a tensor of a dtype that NumPy and JAX
            do not have.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "net.safetensors"
        >>> save_safetensors(path, {"dense1": {"kernel": jnp.ones((2, 3), "float32")}})
        >>> path.write_bytes(path.read_bytes()[:-1]) > 0
        True
        >>> read_safetensors(path)
        Traceback (most recent call last):
        ValueError: ...net.safetensors: it is no safetensors file, or a damaged one (...); use another copy
    """
    format_ = imported("safetensors", "read_safetensors", "interop")
    data = Path(path).read_bytes()
    try:
        tensors = format_.deserialize(data)
    except Exception as error:  # whatever the library makes of broken bytes
        raise ValueError(f"{path}: it is no safetensors file, or a damaged one ({error}); use another copy") from error
    checksums, arrays = _checksums(data), {}
    for name, tensor in tensors:
        if tensor["dtype"] not in DTYPES:
            raise ValueError(f"{path}: tensor {name!r} is of dtype {tensor['dtype']}; known are {', '.join(DTYPES)}")
        with npz.blaming(path, f"tensor {name!r}"):
            arrays[name] = np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        if checksums and checksums.get(name) != _sha256(name, arrays[name]):
            raise ValueError(
                f"{path}: tensor {name!r} is damaged: its sha256 is not that in the header; use another copy"
            )
    lost = [name for name in checksums if name not in arrays]
    if lost:
        raise ValueError(f"{path}: tensor {lost[0]!r} is lost: the header has its sha256 alone; use another copy")
    return arrays


def _storable(name: str, leaf: Any) -> np.ndarray:
    """A leaf as an array in row-major order, which is all that the format knows."""
    if not hasattr(leaf, "dtype") or leaf.dtype not in [np.dtype(known) for known in DTYPES.values()]:
        got = f"dtype {leaf.dtype}" if hasattr(leaf, "dtype") else type(leaf).__name__
        raise TypeError(f"save_safetensors: leaf {name!r} must be an array of a dtype that the format has, got {got}")
    return np.array(leaf, order="C")


def _checksums(data: bytes) -> Mapping[str, str]:
    """Those that `save_safetensors` put into the header, by tensor, or none."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    try:
        checksums = json.loads(header.get("__metadata__", {}).get("sha256", "{}"))
    except ValueError:
        return {}  # of another writer, with a meaning of its own
    return checksums if isinstance(checksums, dict) else {}


def _sha256(name: str, array: np.ndarray) -> str:
    said = hashlib.sha256(f"{name} {array.dtype} {array.shape} ".encode())
    said.update(array.reshape(-1).view(np.uint8).data)
    return said.hexdigest()

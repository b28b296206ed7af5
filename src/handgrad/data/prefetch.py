"""The next batches, made ready while the step runs on this one.

One thread makes batches in their order: it takes the next one from the source, transforms it and puts it on the device.
At most `size` are made or in the making beside the one in use:

    step     | batch 1 | batch 2 | batch 3 |        without:  | make 1 | batch 1 | make 2 | batch 2 |
    thread | make 1 | make 2 | make 3 |

An array that the source or the transform gives is copied before the thread goes on, so a buffer that is filled anew for
each batch changes none that was given out: `jax.device_put` alone may share an array's memory with NumPy on CPU.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

END = object()
SETTINGS = ("enable_x64", "default_device", "default_matmul_precision", "default_prng_impl")


def prefetch(
    batches: Iterable[Any],
    size: int = 2,
    *,
    transform: Callable[..., Any] | None = None,
    device: Any = None,
) -> Generator[Any, None, None]:
    """The same batches in the same order, made ready ahead of their use by a thread, and put on the device.

    An error of the source or the transform comes after the batches before it, with the traceback of its place. The
    thread ends with the iterator: at the last batch, at an error, at `close()`, and when the loop over it is left; what
    ends it waits for the batch in the making. The thread takes over the settings of JAX in force where the first batch
    is asked for (`jax.enable_x64`, `default_device`, `default_matmul_precision`, `default_prng_impl`).

    Args:
        batches: any iterable, such as `data.batches(...)`; only the thread touches it. Most give tuples (x, y), but any
            tree of arrays will do.
        size: how many batches may be ready beside the one in use; 0 makes each when it is asked for, without a thread.
        transform: called with the parts of a batch that is a tuple, `transform(x, y)`, or with the batch itself; gives
            the new batch. Decoding and augmentation belong here; `data.augment` runs jitted on the device.
        device: where to, as in `jax.device_put`: a device, a sharding, or a tree of them that begins as a batch does.
            None is JAX's default, and leaves arrays that are on a device where they are.

    Returns:
        An iterator (a generator) of the batches; arrays of numbers are jax arrays, all else is as it was.

    Raises:
        TypeError: at the call: batches that cannot be iterated over, a size that is no int, a transform that cannot be
            called, a device that is none.
        ValueError: a size below 0.

    Example:
        >>> from handgrad.data import batches, prefetch
        >>> x = np.arange(6, dtype="float32")
        >>> for half, label in prefetch(batches(x, x, 3, seed=0, epoch=0), transform=lambda x, y: (x / 2, y)):
        ...     print(half, label, type(half).__name__)
        [0.  1.  0.5] [0. 2. 1.] ArrayImpl
        [2.5 2.  1.5] [5. 4. 3.] ArrayImpl
    """
    if not isinstance(batches, Iterable):
        raise TypeError(f"prefetch: batches must be an iterable, got {type(batches).__name__}")
    if isinstance(size, bool) or not isinstance(size, int | np.integer):
        raise TypeError(f"prefetch: size must be an int, got {type(size).__name__} {size!r}")
    if size < 0:
        raise ValueError(f"prefetch: size must be at least 0, got {size}; 0 makes each batch when it is asked for")
    if transform is not None and not callable(transform):
        raise TypeError(f"prefetch: transform must be a function, got {type(transform).__name__}")
    for where in jax.tree.leaves(device):
        if not isinstance(where, jax.Device | jax.sharding.Sharding):
            raise TypeError(
                f"prefetch: device must be a jax.Device, a sharding, or a tree of them, got {type(where).__name__}"
            )
    source = iter(batches)

    def make() -> Any:
        batch = next(source, END)
        if batch is END:
            return END
        if transform is not None:
            batch = transform(*batch) if isinstance(batch, tuple) else transform(batch)
        return on_device(batch, device)

    return _ahead(make, size) if size else _one_by_one(make)


def on_device(batch: Any, device: Any = None) -> Any:
    """The batch with a copy of each NumPy array of numbers on the device, and its jax arrays there if it is named."""

    def put(leaf: Any, where: Any) -> Any:
        if isinstance(leaf, np.ndarray) and (jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == bool):
            return jax.device_put(np.array(leaf), where)
        return leaf if where is None or not isinstance(leaf, jax.Array) else jax.device_put(leaf, where)

    def put_all(where: Any, part: Any) -> Any:
        return jax.tree.map(lambda leaf: put(leaf, where), part)

    return jax.tree.map(put_all, device, batch, is_leaf=lambda where: where is None)


def _one_by_one(make: Callable[[], Any]) -> Generator[Any, None, None]:
    while (batch := make()) is not END:
        yield batch


def _ahead(make: Callable[[], Any], size: int) -> Generator[Any, None, None]:
    """What `make` gives call by call up to END, `size` calls ahead in a thread of its own."""
    own = threading.local()
    settings = [getattr(jax, name)(getattr(jax.config, f"jax_{name}")) for name in SETTINGS]

    def begin() -> None:
        own.is_ours = True
        for setting in settings:  # such a setting holds in the thread that made it, here until the thread ends
            setting.__enter__()

    pool = ThreadPoolExecutor(1, "prefetch", begin)
    try:
        made = deque(pool.submit(make) for _ in range(size))
        while (batch := made.popleft().result()) is not END:
            made.append(pool.submit(make))
            yield batch
    finally:
        # Garbage collection may close this in the thread itself, which cannot wait for its own end.
        pool.shutdown(wait=not hasattr(own, "is_ours"), cancel_futures=True)

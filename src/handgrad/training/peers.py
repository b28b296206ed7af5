"""What the processes of one run do together: read as one, agree before they start, and stop at the same step.

All of it is a matter of the same order: whatever is sent over the devices, each process must ask for it.
"""

import json
import signal
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from handgrad.mesh import from_words, on_host, words
from handgrad.training.interrupt import Stop


class Peers(NamedTuple):
    """The processes that train one net, or this one alone.

    Attributes:
        many: whether there are others.
    """

    many: bool

    @classmethod
    def of(cls, step: Any) -> "Peers":
        """Those that take the step together: all, where it is a `data_parallel` one."""
        return cls(jax.process_count() > 1 and hasattr(step, "place_batch"))

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and draws bars."""
        return not self.many or jax.process_index() == 0

    def from_main(self, make: Callable[[], tuple[Any, Any]], like: Any = ()) -> tuple[Any, Any]:
        """What `make` gives in process 0, in all: a tree of arrays of the shapes of `like`, and what JSON can hold.

        Raises:
            ValueError, OSError: in all processes, what it raised in process 0.
        """
        if not self.many:
            return make()
        tree, facts, error = like, None, None
        if self.is_main:
            try:
                tree, facts = make()
            except (ValueError, OSError) as raised:
                error = raised
        problem, facts = json.loads(_text_from_main(json.dumps([error and str(error), facts])))
        if error is not None:
            raise error
        if problem is not None:
            raise ValueError(problem)
        leaves, structure = jax.tree.flatten(tree)
        sent = multihost_utils.broadcast_one_to_all([_bytes(leaf) for leaf in leaves])
        return structure.unflatten([_from_bytes(part, leaf) for part, leaf in zip(sent, leaves, strict=True)]), facts

    def agree(self, facts: dict[str, Any]) -> None:
        """Hold the facts of all processes against those of process 0.

        Raises:
            ValueError: in all processes, with the names of the facts that differ.
        """
        if not self.many:
            return
        facts = json.loads(json.dumps(facts))
        _, wanted = self.from_main(lambda: ((), facts))
        names = sorted(wanted)
        differs = multihost_utils.process_allgather(np.array([facts.get(name) != wanted[name] for name in names]))
        for process, flags in enumerate(differs):
            if flags.any():
                which = ", ".join(name for name, differ in zip(names, flags, strict=True) if differ)
                raise ValueError(
                    f"fit: process {process} has another {which} than process 0; "
                    f"start all with the same script, settings, seeds and data"
                )

    def stopped(self, stop: Stop, i: int) -> bool:
        """Whether to end after step i: the signal has come; of many, to one of them, and all are at this step."""
        if self.many and multihost_utils.reached_preemption_sync_point(i):
            stop.number = signal.SIGTERM
        return stop.number is not None


def checksum(tree: Any) -> int:
    """A CRC-32 over the bytes of all arrays of a tree."""
    total = 0
    for leaf in jax.tree.leaves(on_host(tree)):
        total = zlib.crc32(_bytes(leaf).data, total)
    return total


def _text_from_main(text: str) -> str:
    """Process 0's text."""
    own = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.array(own.size, np.int32)))
    return np.asarray(multihost_utils.broadcast_one_to_all(np.resize(own, size))).tobytes().decode()


def _bytes(leaf: Any) -> np.ndarray:
    """An array's bytes: sums of bytes and zeros, by which JAX sends, are exact, where -0.0 + 0.0 is not -0.0."""
    array = np.asarray(words(on_host(leaf)))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _from_bytes(part: Any, like: Any) -> Any:
    """The array of the shape and dtype of `like` again."""
    data = words(like)
    array = jnp.asarray(np.asarray(part).view(data.dtype).reshape(np.shape(data)))
    return from_words(array, like)

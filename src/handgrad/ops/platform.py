"""The platform for which an operation is traced: that of the default backend, or the one that is exported for.

Which algorithm is fast differs between CPU and accelerators, and is chosen where the operation is traced.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax

_EXPORTED: ContextVar[str | None] = ContextVar("the platform that is exported for", default=None)


def on_cpu() -> bool:
    """Whether the operation in the making will run on CPU."""
    return (_EXPORTED.get() or jax.default_backend()) == "cpu"


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """What is traced here, in this thread, is for that platform.

    Example:
        >>> with traced_for("tpu"):
        ...     on_cpu()
        False
    """
    token = _EXPORTED.set(platform)
    try:
        yield
    finally:
        _EXPORTED.reset(token)

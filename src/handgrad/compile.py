"""A jit with CPU compiler options and donation that may be called anywhere.

`jax.jit(f, compiler_options=...)` is legal at top level alone: inside another jit, scan, vmap or grad it raises. And a
donated argument is deleted under vmap and grad too, where the caller still needs it. So `jit(f)` is more than one jit,
and the trace in force at the call decides which of them runs:

    top level, CPU       options and donation
    top level, others    donation
    inside a trace       neither: the outer jit decides

The choice is made at each call, never at import, when the backend may not be known yet.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import find_top_trace

CPU_OPTIONS: Mapping[str, str] = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
"""XLA's library calls for matrix products alone: not for convolutions, sums or elementwise code.

By default XLA takes them for convolutions too, which it then computes two to twenty times slower. Elementwise code in
the library is up to thirty times slower than XLA's own loops where slices are added up, as in pools that overlap and in
depthwise convolutions; it also saturates 8-bit integers and hides NaN in a ReLU, as a reduction by jnp.max does in the
library. Sums are as fast without it in the form of `handgrad.ops.precision.sum_rows`. The measurements are in
docs/algorithms.md.
"""


class Jitted:
    """A function compiled by `handgrad.compile.jit`."""

    def __init__(self, f: Callable, donate_argnums: int | Sequence[int], static: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, f)
        self._inside = jax.jit(f, **static)
        self._top = jax.jit(f, donate_argnums=donate_argnums, **static)
        self._top_cpu = jax.jit(f, donate_argnums=donate_argnums, compiler_options=dict(CPU_OPTIONS), **static)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The value of the function."""
        return self._chosen()(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """The bound method, where this is an attribute of a class."""
        return self if instance is None else functools.partial(self, instance)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """The lowered computation, as `jax.jit(f).lower` gives it, with the options that a call here would have."""
        return self._chosen().lower(*args, **kwargs)

    def _chosen(self) -> Any:
        if not at_top_level():
            return self._inside
        return self._top_cpu if jax.default_backend() == "cpu" and cpu_options_work() else self._top


def jit(
    f: Callable,
    *,
    donate_argnums: int | Sequence[int] = (),
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Sequence[str] | None = None,
) -> Jitted:
    """`jax.jit` with the compiler options that make convolutional nets fast on CPU; the same as `jax.jit` elsewhere.

    Args:
        f: a function of arrays.
        donate_argnums: arguments whose buffers the result may take over; they are deleted. At top level alone.
        static_argnums: as in `jax.jit`.
        static_argnames: as in `jax.jit`.

    Returns:
        A function of the same call as f, which may be called inside jit, scan, vmap and grad too.

    Raises:
        TypeError: f is not callable.

    Example:
        >>> import jax.numpy as jnp
        >>> norm = jit(lambda x: jnp.sqrt((x * x).sum()))
        >>> print(norm(jnp.array([3.0, 4.0])), jax.vmap(norm)(jnp.array([[3.0, 4.0], [0.0, 2.0]])))
        5.0 [5. 2.]
    """
    if not callable(f):
        raise TypeError(f"jit: wants a function, got {type(f).__name__}")
    return Jitted(f, donate_argnums, {"static_argnums": static_argnums, "static_argnames": static_argnames})


def temporary_bytes(compiled: Any) -> int:
    """The memory that a compiled function needs beside its arguments and results, at its peak, as XLA reports it.

    Args:
        compiled: what `jax.jit(f).lower(...).compile()` or `jit(f).lower(...).compile()` gives.
    """
    return compiled.memory_analysis().temp_size_in_bytes


def at_top_level() -> bool:
    """Whether arrays are computed here and now, outside every jit, scan, vmap and grad."""
    return type(find_top_trace(())).__name__ == "EvalTrace"


@functools.cache
def cpu_options_work() -> bool:
    """Whether this jaxlib takes the options for its CPU, tried once."""
    try:
        jax.jit(lambda: 0, compiler_options=dict(CPU_OPTIONS)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True

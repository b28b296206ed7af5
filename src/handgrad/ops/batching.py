"""Members of an ensemble one after the other: how `jax.vmap` treats an op whose batched form is slow on CPU.

`jax.vmap` of a convolution over kernels makes a grouped convolution, which XLA computes on CPU many times slower than
the members one by one. `custom_vmap` lets an op say what its vmap is; alone it has no reverse mode, so it stands inside
a `custom_jvp` whose tangent is that of the plain formula. Then vmap, jvp, grad and grad of grad all work.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from handgrad.ops.platform import on_cpu

Op = Callable[[jax.Array, jax.Array], jax.Array]
UNROLLED = 16  # members; beyond, the program grows too long to compile


def unrolled(fast: Op, plain: Op, batch: int | None) -> Op:
    """`fast(a, b)` with a vmap that is as fast as a loop over the members on CPU.

    Args:
        fast: the op by its best algorithm.
        plain: the same by the formula; its tangent is the op's, and its vmap is taken above `UNROLLED` members and on
            other platforms than CPU.
        batch: the argument, 0 or 1, whose leading axis is a batch that the result shares; None where there is none.
            A vmap over that argument alone joins the members to one longer batch.

    Returns:
        The op, which may be transformed in every way.

    Example:
        >>> dot = unrolled(jnp.dot, jnp.dot, batch=0)
        >>> jax.vmap(dot, (None, 0))(jnp.ones((2, 3)), jnp.ones((4, 3, 5))).shape
        (4, 2, 5)
    """

    @custom_vmap
    def member(a: jax.Array, b: jax.Array) -> jax.Array:
        return fast(a, b)

    @member.def_vmap
    def all_members(count: int, batched: list[bool], a: jax.Array, b: jax.Array) -> tuple[jax.Array, bool]:
        a, b = jnp.asarray(a), jnp.asarray(b)  # vmap lets NumPy arrays through
        if not any(batched):  # happens under the vmap of a jvp, where only tangents are batched
            return member(a, b), False
        if batch is not None and batched == [number == batch for number in (0, 1)]:
            return _joined(member, batch, count, a, b), True
        if count > UNROLLED or not on_cpu():
            return jax.vmap(plain, [0 if is_batched else None for is_batched in batched])(a, b), True
        all_a, all_b = (
            [arg[m] if over else arg for m in range(count)] for arg, over in zip((a, b), batched, strict=True)
        )
        return jnp.stack([member(*pair) for pair in zip(all_a, all_b, strict=True)]), True

    @jax.custom_jvp
    def op(a: jax.Array, b: jax.Array) -> jax.Array:
        return member(jnp.asarray(a), jnp.asarray(b))  # custom_vmap refuses NumPy arrays under jit

    @op.defjvp
    def tangent(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
        return op(*primals), jax.jvp(plain, primals, tangents)[1]

    return op


def _joined(op: Op, batch: int, count: int, *arrays: jax.Array) -> jax.Array:
    """All members as one: their batches, one after the other, as one batch."""
    joined = [a.reshape(count * a.shape[1], *a.shape[2:]) if number == batch else a for number, a in enumerate(arrays)]
    y = op(*joined)
    return y.reshape(count, len(y) // count, *y.shape[1:])

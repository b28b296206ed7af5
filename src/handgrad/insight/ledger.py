"""What training keeps between forward and backward: by the layers' own rules, and by `jax.grad`'s.

For backward a layer needs some of what went in, came out or was decided: a rule by hand keeps just that (a max pool the
number of each winner), while automatic differentiation keeps what each primitive in the formula needs. Nothing is
computed: shapes are read from the jaxprs of the two forward passes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Var

from handgrad.compile import jit
from handgrad.insight.leaves import Wrapped, innermost, is_by_hand, wrap_leaves
from handgrad.insight.report import table
from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State, check_is_layer


class LedgerRow(NamedTuple):
    """One leaf layer by itself, for the whole batch. Its parameters, which both ways need, are not counted.

    Attributes:
        name: where it lies, `residual1/body/conv1`.
        kind: its class.
        backward: "by hand", or "jax.vjp" where the layer has no backward of its own.
        hand: bytes that its own forward keeps.
        automatic: bytes that jax.vjp of its apply_train keeps.
    """

    name: str
    kind: str
    backward: str
    hand: int
    automatic: int


@dataclass(frozen=True)
class Ledger:
    """The rows and the whole net; as a string a table.

    Attributes:
        rows: one for each leaf layer, in order. An array that two layers keep is counted for each of them.
        hand: bytes that the whole net's forward keeps, each array once, without parameters and input.
        automatic: the same of jax.vjp of the whole net's apply_train.
        temporary: the largest temporary memory of one whole gradient, in bytes, (by hand, automatic), as XLA plans it;
            None where it was not asked for.
        batch: for how many examples.
    """

    rows: tuple[LedgerRow, ...]
    hand: int
    automatic: int
    temporary: tuple[int, int] | None
    batch: int

    def __str__(self) -> str:
        """The table: layers, the net as a whole, and the temporary memory."""
        header = ("layer", "kind", "backward", "by hand", "automatic", "saved")
        body = [
            (row.name, row.kind, row.backward, *_bytes_text(row.hand, row.automatic), _saved(row.hand, row.automatic))
            for row in self.rows
        ]
        net = (
            "net, each array once",
            "",
            "",
            *_bytes_text(self.hand, self.automatic),
            _saved(self.hand, self.automatic),
        )
        lines = [header, *body, net]
        if self.temporary is not None:
            lines.append(("temporary memory", "", "", *_bytes_text(*self.temporary), _saved(*self.temporary)))
        return "\n".join([f"bytes kept for backward, batch of {self.batch}", *table(lines, "<<<>>>")])


def ledger(net: Layer, in_shape: Shape, batch: int = 1, *, temporary: bool = True, dtype: Any = jnp.float32) -> Ledger:
    """Count what each layer keeps for backward, by hand and by jax.vjp, and what XLA needs for the whole gradient.

    Args:
        net: any layer, in training.
        in_shape: the shape of an input, without the batch axis.
        batch: how many examples.
        temporary: whether to compile both gradients and read their temporary memory: seconds, for large nets minutes.
        dtype: of parameters and input.

    Returns:
        A Ledger: `.rows`, `.hand`, `.automatic`, `.temporary`, and as a string a table.

    Raises:
        TypeError: something that is no layer.
        ValueError: a batch below 1, or an in_shape that does not fit the net.

    Example:
        >>> import handgrad as hg
        >>> print(ledger(hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.MaxPool(2)), (8, 8, 1), 2, temporary=False))
        bytes kept for backward, batch of 2
        layer                 kind     backward  by hand  automatic  saved
        conv1                 Conv     by hand       512        512    0 %
        relu1                 Relu     by hand       512      2,560   80 %
        maxpool1              MaxPool  by hand       128      2,048   94 %
        net, each array once                         640      4,608   86 %
    """
    check_is_layer(net, "ledger")
    if batch < 1:
        raise ValueError(f"ledger: batch must be at least 1, got {batch}")
    rows: list[LedgerRow] = []
    metered = wrap_leaves(lambda layer, path: Bookkeeper(layer, path, rows), net)
    x = jax.ShapeDtypeStruct((batch, *in_shape), dtype)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, state = jax.eval_shape(lambda key: net.init(key, tuple(in_shape), dtype), key)
    jax.eval_shape(lambda *args: metered.forward(*args)[0], params, x, state, key)
    hand, automatic = _both(net, params, x, state, key, whole=True)
    planned = _temporary(net, params, x, state, key) if temporary else None
    return Ledger(tuple(rows), hand, automatic, planned, batch)


@dataclass(frozen=True, repr=False)
class Bookkeeper(Wrapped):
    """Adds a row for its layer while forward is traced."""

    rows: list[LedgerRow] = field(compare=False)

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """The layer's forward, after its row."""
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (params, x, state, key))
        backward = "by hand" if is_by_hand(self.layer) else "jax.vjp"
        hand, automatic = _both(self.layer, *like, whole=False)
        self.rows.append(LedgerRow(self.path, type(innermost(self.layer)).__name__, backward, hand, automatic))
        return self.layer.forward(params, x, state, key)


def _both(layer: Layer, params: Any, x: Any, state: Any, key: Any, *, whole: bool) -> tuple[int, int]:
    """Bytes kept by hand and automatically. Of a whole net the input is left out too: it is there anyway."""

    def by_hand(params: Params, x: Array, state: State, key: Array | None) -> Any:
        return layer.forward(params, x, state, key)[2]

    def automatically(params: Params, x: Array, state: State, key: Array | None) -> Any:
        return jax.vjp(lambda params, x: layer.apply_train(params, x, state, key)[0], params, x)[1]

    leaves = [len(jax.tree.leaves(part)) for part in (params, x, state, key)]
    given = {0: leaves[0], 1: leaves[1], 2: leaves[2] + leaves[3]}
    return tuple(_bytes_of(f, (params, x, state, key), given, whole) for f in (by_hand, automatically))  # pyright: ignore[reportReturnType]


def _bytes_of(f: Callable, args: tuple, given: dict[int, int], whole: bool) -> int:
    """Bytes of the different arrays that come out of f, but for parameters, state and key that are handed through."""
    jaxpr = jax.make_jaxpr(f)(*args).jaxpr
    params, inputs = jaxpr.invars[: given[0]], jaxpr.invars[given[0] : given[0] + given[1]]
    others = jaxpr.invars[given[0] + given[1] :]
    free = {*params, *others, *(inputs if whole else ())}
    kept = {variable for variable in jaxpr.outvars if isinstance(variable, Var)} - free
    arrays: list[Any] = [variable.aval for variable in kept]
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in arrays if not _is_key(a))


def _is_key(array: Any) -> bool:
    """A layer's own key, of a few bytes."""
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def _temporary(net: Layer, params: Any, x: Any, state: Any, key: Any) -> tuple[int, int]:
    """Temporary bytes of the gradient of ½|y|², by hand and automatic."""

    def by_hand(params: Params, x: Array, state: State, key: Array) -> Any:
        y, _, residuals = net.forward(params, x, state, key)
        return net.backward(params, residuals, y)[1]

    def automatic(params: Params, x: Array, state: State, key: Array) -> Any:
        return jax.grad(lambda p: jnp.sum(jnp.square(net.apply_train(p, x, state, key)[0])) / 2)(params)

    plans = (jit(f).lower(params, x, state, key).compile().memory_analysis() for f in (by_hand, automatic))
    return tuple(int(plan.temp_size_in_bytes) for plan in plans)  # pyright: ignore[reportReturnType]


def _bytes_text(*counts: int) -> tuple[str, ...]:
    return tuple(f"{count:,}" if count else "-" for count in counts)


def _saved(hand: int, automatic: int) -> str:
    return f"{100 * (1 - hand / automatic):.0f} %" if automatic else ("-" if not hand else "more")

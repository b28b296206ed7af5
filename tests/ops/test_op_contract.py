"""The contract every op keeps: one table of calls, one test a promise. A new op is a line in CALLS, and one in SUMS."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import bridge, ops

HALVES = jnp.dtype("bfloat16"), jnp.dtype("float16")
AS_WRITTEN = {"xla_allow_excess_precision": False}  # or XLA widens sums of halves by itself where it fuses them
MEMBERS = 3  # of an ensemble, and steps of a scan
SMALL = {jnp.dtype(name): float(jnp.finfo(name).eps) for name in ("float32", "bfloat16", "float16")}
IMAGE, KERNEL, GATE = (2, 5, 6, 2), (3, 3, 2, 3), (2, 1, 1, 2)


class Mask(tuple):
    """The shape of an array of booleans."""


class Winners(tuple):
    """The shape of an array of taps, of windows of nine places."""


@dataclass(frozen=True, eq=False)
class Call:
    """An op with arrays of these shapes, drawn, and these settings."""

    name: str
    shapes: tuple
    settings: dict[str, Any]

    def arrays(self, seed: int = 0, draw: Callable = np.random.Generator.normal) -> list[np.ndarray]:
        random = np.random.default_rng(seed)

        def drawn(shape: tuple) -> np.ndarray:
            if isinstance(shape, Mask):
                return random.random(shape) < 0.7
            if isinstance(shape, Winners):
                return random.integers(0, 9, shape, np.uint8)
            return np.asarray(draw(random, size=shape))

        return [drawn(shape) for shape in self.shapes]

    @cached_property
    def out_shape(self) -> tuple[int, ...]:
        return jax.eval_shape(lambda arrays: self.plain(*arrays), self.arrays()).shape

    def cotangent(self, seed: int = 0) -> np.ndarray:
        return np.random.default_rng((7, seed)).normal(size=self.out_shape)

    def plain(self, *arrays) -> jax.Array:
        return getattr(ops, self.name)(*arrays, **self.settings)

    def by_hand(self, arrays, dy) -> list[jax.Array]:
        """The output, and the gradient of each floating array."""
        y, backward = ops.vjp(self.name, *arrays, **self.settings)
        return [y, *real(backward(dy))]

    def automatic(self, op: Callable, arrays, dy) -> list[jax.Array]:
        """The same by JAX, for the plain op or the bridged one."""
        y, vjp = jax.vjp(op, *arrays)
        return [y, *real(vjp(dy))]

    @cached_property
    def all_ways(self) -> Callable:
        """By hand, by jax.vjp of the plain op, and by jax.vjp of the bridged op, in one jit."""

        def bridged(*arrays):
            return getattr(bridge, self.name)(*arrays, **self.settings)

        return jax.jit(
            lambda arrays, dy: (
                self.by_hand(arrays, dy),
                self.automatic(self.plain, arrays, dy),
                self.automatic(bridged, arrays, dy),
            )
        )

    def one(self, arrays, dy) -> list[jax.Array]:
        return self.all_ways(arrays, dy)[0]


def call(name: str, *shapes: tuple[int, ...], id: str | None = None, slow: bool = False, **settings: Any):
    """A row: the op, the shapes of its arrays, the batch on the first axis of the first, and its settings.

    Slow are second rows of an op, elementwise ops, which keep these promises in fast tests of test_activations.py, and
    sums that another row's code adds up.
    """
    return pytest.param(Call(name, shapes, settings), id=id or name, marks=[pytest.mark.slow] if slow else [])


CALLS = [
    call("conv", IMAGE, KERNEL, (3,), strides=2),
    call("conv", IMAGE, KERNEL, padding="VALID", id="conv-without-bias", slow=True),
    call("conv_transpose", IMAGE, KERNEL, (3,), strides=2),
    call("dense", (2, 4), (4, 3), (3,)),
    call("dense", (2, 4), (4, 3), id="dense-without-bias", slow=True),
    call("max_pool", IMAGE, window=3, strides=2),
    call("max_pool", IMAGE, window=2, dilation=2, strides=1, ties="split", id="max_pool-split", slow=True),
    call("avg_pool", IMAGE, window=3, strides=2, padding="SAME"),
    call("avg_pool", IMAGE, window=2, dilation=2, strides=1, id="avg_pool-dilated", slow=True),
    call("global_avg_pool", IMAGE),
    call("global_max_pool", IMAGE),
    call("adaptive_avg_pool", IMAGE, output_size=(3, 4)),
    call("adaptive_max_pool", IMAGE, output_size=(3, 4)),
    call("max_unpool", (2, 2, 3, 2), Winners((2, 2, 3, 2)), output_size=(5, 7), window=3, strides=2),
    call("upsample", IMAGE, factor=2, slow=True),
    call("upsample", IMAGE, output_size=(7, 4), method="linear", id="upsample-linear"),
    call("pad", IMAGE, padding=((1, 2), (0, 3)), value=0.5),
    call("pad", IMAGE, padding=2, mode="reflect", id="pad-reflect", slow=True),
    call("concatenate", IMAGE, IMAGE, IMAGE),
    call("add", IMAGE, IMAGE, GATE),
    call("multiply", IMAGE, GATE, IMAGE),
    call("relu", IMAGE),
    call("leaky_relu", IMAGE, negative_slope=0.2, slow=True),
    call("relu6", IMAGE, slow=True),
    call("hard_sigmoid", IMAGE, alpha=0.2, slow=True),
    call("hardswish", IMAGE, slow=True),
    call("prelu", IMAGE, (2,)),
    call("tanh", IMAGE, slow=True),
    call("sigmoid", IMAGE, slow=True),
    call("softplus", IMAGE, slow=True),
    call("elu", IMAGE, alpha=0.5, slow=True),
    call("selu", IMAGE, slow=True),
    call("silu", IMAGE, slow=True),
    call("gelu", IMAGE, approximate=True),
    call("softmax", (2, 4, 3), axis=1),
    call("log_softmax", (2, 4)),
    call("dropout", IMAGE, Mask(IMAGE), rate=0.3),
    call("batch_norm", IMAGE, (2,), (2,), eps=1e-3),
    call("batch_norm", IMAGE, (2,), (2,), Mask((2,)), eps=1e-3, id="batch_norm-masked", slow=True),
    call("layer_norm", (2, 5, 6), (6,), (6,), eps=1e-3),
    call("group_norm", (2, 5, 6, 4), (4,), (4,), num_groups=2, eps=1e-3),
    call("instance_norm", IMAGE, (2,), (2,), eps=1e-3),
    call("local_response_norm", (2, 3, 2, 5), size=3, alpha=0.5),
]
SUMS = [
    call("conv", (1, 64, 64, 1), (1, 1, 1, 1), (1,), id="conv-over-places"),
    call("conv", (1, 1, 1, 4096), (1, 1, 4096, 1), id="conv-over-channels"),
    call("conv", (1, 1, 1, 1), (1, 1, 1, 4096), id="conv-over-features"),
    call("conv_transpose", (1, 64, 64, 1), (1, 1, 1, 1), (1,), id="conv_transpose-over-places", slow=True),
    call("conv_transpose", (1, 1, 1, 4096), (1, 1, 4096, 1), id="conv_transpose-over-channels", slow=True),
    call("conv_transpose", (1, 1, 1, 1), (1, 1, 1, 4096), id="conv_transpose-over-features", slow=True),
    call("dense", (4096, 1), (1, 1), (1,), id="dense-over-rows"),
    call("dense", (1, 4096), (4096, 1), id="dense-over-inputs"),
    call("dense", (1, 1), (1, 4096), id="dense-over-outputs"),
    call("avg_pool", (1, 64, 64, 1), window=64),
    call("global_avg_pool", (1, 64, 64, 1)),
    call("adaptive_avg_pool", (1, 64, 64, 1), output_size=1),
    call("upsample", (1, 1, 1, 1), factor=64),
    call("upsample", (1, 1, 1), factor=4096, method="linear", id="upsample-linear"),
    call("pad", (1, 1, 1), padding=((2000, 2095),), mode="edge"),
    call("add", (4096, 1), (1, 1)),
    call("multiply", (4096, 1), (1, 1)),
    call("prelu", (4096, 1), (1,)),
    call("softmax", (1, 4096)),
    call("log_softmax", (1, 4096)),
    call("batch_norm", (4096, 1), (1,), (1,)),
    call("layer_norm", (1, 4096), (4096,), (4096,)),
    call("group_norm", (1, 4096, 1), (1,), (1,), num_groups=1),
    call("instance_norm", (1, 4096, 1), (1,), (1,), slow=True),
    call("local_response_norm", (1, 1, 4096), size=4096, alpha=1.0, slow=True),
]
SHORT_SUMS = {"max_pool", "global_max_pool", "adaptive_max_pool", "max_unpool", "concatenate", "dropout"} | {
    *("relu", "leaky_relu", "relu6", "hard_sigmoid", "hardswish", "tanh", "sigmoid", "softplus", "elu", "selu"),
    *("silu", "gelu"),
}
ROUNDINGS = {  # where a long sum may be more than the last one away
    "log_softmax": 8,  # e^y has the rounding of y, which is about -8
    **dict.fromkeys(("batch_norm", "group_norm", "instance_norm"), 8),  # dscale cancels
}
REFUSE_AN_EMPTY_BATCH = {"batch_norm"}


@pytest.mark.core
def test_every_op_has_its_rows():
    def named(rows):
        return {row.values[0].name for row in rows}

    for name in sorted(ops.RULES):
        assert name in named(CALLS), f'add to CALLS: call("{name}", the shape of each array, its settings)'
        assert name in named(SUMS) | SHORT_SUMS, (
            f'add to SUMS: call("{name}", shapes of which 4096 numbers are added, forward or backward), '
            f'or add "{name}" to SHORT_SUMS if it never adds up many'
        )
        assert hasattr(bridge, name), f'add to bridge.py: {name} = _op("{name}")'
        for public in (name, f"{name}_forward", f"{name}_backward"):
            assert public in ops.__all__, f'add "{public}" to ops/__init__.py'
    gone = (named(CALLS) | named(SUMS) | SHORT_SUMS) - set(ops.RULES)
    assert not gone, f"take out the rows of {sorted(gone)}, which are no ops, or add the ops to RULES"


@pytest.fixture(scope="module", params=CALLS)
def op(request) -> Call:
    """One row after the other, so that its tests share what it compiled."""
    return request.param


def real(gradients):
    """The gradients of the floating arrays; a mask has one of float0."""
    return [g for g in gradients if g.dtype != jax.dtypes.float0]


def floating(arrays) -> list[int]:
    return [place for place, a in enumerate(arrays) if np.issubdtype(a.dtype, np.floating)]


def put(arrays, places, new) -> list:
    """The arrays with others in these places."""
    arrays = list(arrays)
    for place, array in zip(places, new, strict=True):
        arrays[place] = array
    return arrays


def assert_close(got, want, rtol=1e-12):
    """Equal to rtol of each number, or of the array's largest where they cancel."""
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
        np.testing.assert_allclose(g, w, rtol=rtol, atol=1e-13 + rtol * np.abs(w[np.isfinite(w)]).max(initial=0))


@pytest.mark.core
def test_by_hand_is_jax_vjp_of_the_formula_and_the_bridge_gives_it_to_jax(op):
    got, plain, bridged = op.all_ways(op.arrays(), op.cotangent())
    assert_close(got, plain)
    assert_close(bridged, got)


def test_residuals_are_arrays_and_cross_jit(op):
    def forward(arrays):
        y, residuals = ops.RULES[op.name].forward(*arrays, **op.settings)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(residuals))
        return y, residuals

    y, residuals = jax.eval_shape(forward, op.arrays())
    gradients = jax.eval_shape(lambda r, dy: real(ops.RULES[op.name].backward(r, dy, **op.settings)), residuals, y)
    arrays = op.arrays()
    assert [g.shape for g in gradients] == [arrays[place].shape for place in floating(arrays)]


def assert_near_in_small_dtypes(op, arrays, dy, dtypes, roundings):
    """The dtype stays, and the result is that of float64 on the same numbers to so many roundings."""
    given = {}
    for dtype in dtypes:
        narrowed = put(arrays, floating(arrays), [arrays[place].astype(dtype) for place in floating(arrays)])
        given[dtype] = narrowed, dy.astype(dtype)
    run = jax.jit(lambda given: [op.by_hand(*each) for each in given], compiler_options=AS_WRITTEN)
    results = run(list(given.values()))
    for (dtype, (narrowed, dy)), got in zip(given.items(), results, strict=True):
        widened = put(narrowed, floating(arrays), [narrowed[p].astype(np.float64) for p in floating(arrays)])
        assert {g.dtype for g in got} == {dtype}
        assert_close(got, op.one(widened, dy.astype(np.float64)), rtol=roundings * SMALL[dtype])


def test_small_dtypes_stay_and_are_near_float64(op):
    assert_near_in_small_dtypes(op, op.arrays(), op.cotangent(), SMALL, 4)


@pytest.mark.parametrize("long", SUMS)
def test_long_sums_of_halves_are_kept_in_float32(long):
    def draw(random, size):  # positive numbers of a few bits, whose sum a small dtype rounds at each step, or stops
        return random.integers(8, 16, size) / 8.0

    arrays = long.arrays(draw=draw)
    if long.name == "prelu":
        arrays[0] = -arrays[0]
    dy = draw(np.random.default_rng(1), long.out_shape)
    assert_near_in_small_dtypes(long, arrays, dy, HALVES, ROUNDINGS.get(long.name, 1))


def test_vmap_over_data_over_parameters_and_over_both_and_a_scan_are_a_loop(op):
    members = [op.arrays(seed) for seed in range(MEMBERS)]
    dys = np.stack([op.cotangent(seed) for seed in range(MEMBERS)])
    stacked, count = [np.stack(each) for each in zip(*members, strict=True)], len(op.shapes)
    batched = {"both": list(range(count))}
    if count > 1:
        batched |= {"data": [0], "parameters": list(range(1, count))}

    def together(stacked, dys):
        results = {}
        for what, places in batched.items():
            arrays = put(members[0], places, [stacked[place] for place in places])
            axes = [0 if place in places else None for place in range(count)]
            results[what] = jax.vmap(op.by_hand, (axes, 0))(arrays, dys)
        results["scan"] = jax.lax.scan(lambda carry, each: (carry, op.by_hand(*each)), 0, (stacked, dys))[1]
        return results

    for what, got in jax.jit(together)(stacked, dys).items():
        places = batched["both" if what == "scan" else what]
        loop = [
            op.one(put(members[0], places, [stacked[place][m] for place in places]), dys[m]) for m in range(MEMBERS)
        ]
        assert_close(got, [np.stack(each) for each in zip(*loop, strict=True)])


@pytest.mark.slow
def test_second_derivatives_are_those_of_the_formula(op):
    arrays, tangents = op.arrays(), op.arrays(1)
    places = floating(arrays)
    points, tangents = [arrays[p] for p in places], [tangents[p] for p in places]

    def by_hand(points):
        y, backward = ops.vjp(op.name, *put(arrays, places, points), **op.settings)
        return real(backward(y**2))

    def automatic(points):
        return jax.grad(lambda points: (op.plain(*put(arrays, places, points)) ** 3).sum() / 3)(points)

    @jax.jit
    def both(points, tangents):
        forward = [jax.jvp(gradient, (points,), (tangents,))[1] for gradient in (by_hand, automatic)]
        reverse = [jax.vjp(gradient, points)[1](tangents)[0] for gradient in (by_hand, automatic)]
        return forward, reverse

    for got, want in both(points, tangents):
        assert_close(got, want)


def test_a_nan_is_never_hidden(op):
    arrays, dy = op.arrays(), op.cotangent()
    spoiled = [(put(arrays, [place], [with_nan(arrays[place])]), dy) for place in floating(arrays)]
    for given in [(arrays, with_nan(dy)), *spoiled]:
        got, want, _ = op.all_ways(*given)
        for g, w in zip(got, want, strict=True):
            np.testing.assert_array_equal(np.isnan(g), np.isnan(w))


def with_nan(array):
    array = array.copy()
    array.flat[array.size // 2] = np.nan
    return array


def test_an_empty_batch_is_taken_or_refused_by_name(op):
    def emptied(shape):
        whole = len(shape) == len(op.shapes[0]) and shape[0] == op.shapes[0][0]
        return type(shape)((0, *shape[1:])) if whole else shape

    empty = Call(op.name, tuple(map(emptied, op.shapes)), op.settings)
    if op.name in REFUSE_AN_EMPTY_BATCH:
        with pytest.raises(ValueError, match=f"{op.name}: .* not empty"):
            empty.plain(*empty.arrays())
        return
    for result in jax.jit(empty.by_hand)(empty.arrays(), empty.cotangent()):
        assert not np.asarray(result).any()


def test_numpy_arrays_are_taken(op):
    assert jax.eval_shape(lambda: op.plain(*op.arrays())).dtype == jnp.dtype("float64")
    results = jax.eval_shape(lambda: op.by_hand(op.arrays(), op.cotangent()))
    assert {result.dtype for result in results} == {jnp.dtype("float64")}
    with jax.enable_x64(False):
        results = jax.eval_shape(lambda: op.by_hand(op.arrays(), op.cotangent()))
    assert {result.dtype for result in results} == {jnp.dtype("float32")}

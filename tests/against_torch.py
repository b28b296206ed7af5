"""PyTorch as the oracle of an op: the same call forward and backward in float64, and settings drawn at random.

Layouts: ours has channels last, torch's has them behind the batch axis; `first` and `last` move them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handgrad import ops

RTOL = 1e-10
ALGORITHMS = ("direct", "product", "taps", "groups", "phases")  # of a convolution
TIERS = pytest.mark.parametrize(
    "examples", [pytest.param(10, id="some"), pytest.param(150, id="many", marks=pytest.mark.slow)]
)


def for_drawn(examples: int, strategy: st.SearchStrategy, check: Callable[[Any], None]) -> None:
    """Run `check` on that many drawn cases, the same ones in every run."""
    plan = settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    plan(given(strategy)(check))()


def first(x: np.ndarray) -> np.ndarray:
    """(N, C, A..) from (N, A.., C)."""
    return np.moveaxis(np.asarray(x), -1, 1)


def last(x: np.ndarray) -> np.ndarray:
    """(N, A.., C) from (N, C, A..)."""
    return np.moveaxis(np.asarray(x), 1, -1)


def kernel_to_torch(kernel: np.ndarray) -> np.ndarray:
    """(O, I, K..) from (K.., I, O)."""
    return np.moveaxis(np.asarray(kernel), (-1, -2), (0, 1))


def kernel_from_torch(kernel: np.ndarray) -> np.ndarray:
    """(K.., I, O) from (O, I, K..)."""
    return np.moveaxis(np.asarray(kernel), (0, 1), (-1, -2))


def drawn_array(seed: int, shape: tuple[int, ...], *, ties: bool = False) -> np.ndarray:
    """Normal numbers; with `ties` small whole ones, many of them equal."""
    random = np.random.default_rng(seed)
    return random.integers(-2, 3, shape).astype(float) if ties else random.normal(size=shape)


def ours(name: str, arrays: list[np.ndarray], dy: np.ndarray | None = None, **settings: Any) -> list[np.ndarray]:
    """The output of an op and the gradient of each array, by hand; dy is drawn where none is given."""

    def run(arrays, dy):
        y, backward = ops.vjp(name, *arrays, **settings)
        return y, backward(cotangent(y.shape) if dy is None else dy)

    y, gradients = jax.jit(run)([jnp.asarray(a) for a in arrays], None if dy is None else jnp.asarray(dy))
    return [np.asarray(y), *map(np.asarray, gradients)]


def by_each_algorithm(name: str, arrays: list[np.ndarray], **settings: Any) -> dict[str, list[np.ndarray]]:
    """What `ours` gives, by each algorithm of a convolution that can take it, and by the "rule"."""

    def run(arrays, algorithm):
        x, kernel, *bias = arrays
        takes = {op: {} if algorithm == "rule" else {"algorithm": algorithm} for op in ("forward", "backward")}
        if algorithm == "phases":  # which the input gradient alone has
            takes["backward" if name == "conv_transpose" else "forward"] = {}
        y, kept = getattr(ops, f"{name}_forward")(x, kernel, *bias, **settings, **takes["forward"])
        dy = jnp.asarray(cotangent(y.shape))
        gradients = getattr(ops, f"{name}_backward")(kept, kernel, dy, **settings, **takes["backward"])
        return [y, *gradients[: len(arrays)]]

    found = {}
    for algorithm in ("rule", *ALGORITHMS):
        try:
            found[algorithm] = [np.asarray(a) for a in jax.jit(run, static_argnums=1)(arrays, algorithm)]
        except ValueError as error:
            if "cannot compute this convolution" not in str(error):
                raise
    return found


def cotangent(shape: tuple[int, ...]) -> np.ndarray:
    """The dy that `ours` draws for an output of that shape, channels last."""
    return np.random.default_rng(7).normal(size=shape)


def theirs(
    fn: Callable[..., torch.Tensor], arrays: list[np.ndarray], to_dy: Callable[[tuple[int, ...]], np.ndarray]
) -> list[np.ndarray]:
    """fn's output and gradients in torch; the arrays are in torch's layout, and so is what to_dy(shape of y) gives."""
    tensors = [torch.tensor(np.ascontiguousarray(a), requires_grad=True) for a in arrays]
    y = fn(*tensors)
    y.backward(torch.tensor(np.ascontiguousarray(to_dy(tuple(y.shape)))))
    return [y.detach().numpy(), *(t.grad.numpy() if t.grad is not None else np.zeros(t.shape) for t in tensors)]


def first_cotangent(shape: tuple[int, ...]) -> np.ndarray:
    """`cotangent` for an output of torch's layout (N, C, P..)."""
    return first(cotangent((shape[0], *shape[2:], shape[1])))


def assert_equal(got: list[np.ndarray], want: list[np.ndarray]) -> None:
    """Equal to 1e-10 of each number, or of the array's largest where they cancel."""
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        finite = np.abs(w[np.isfinite(w)])
        np.testing.assert_allclose(g, w, rtol=RTOL, atol=RTOL * finite.max(initial=1e-3))

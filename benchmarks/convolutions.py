"""Forward, input gradient and kernel gradient of a convolution, each alone, beside lax and PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import handgrad as hg
from benchmarks import peers
from handgrad.benchmark.pools import check_close
from handgrad.benchmark.steps import OURS, takes_our_options
from handgrad.benchmark.table import Table, compared, line_of
from handgrad.compile import CPU_OPTIONS
from handgrad.timing import interleaved

WHICH = ("forward", "input gradient", "kernel gradient")


@dataclass(frozen=True)
class ConvCase:
    """A square convolution, padded alike at both ends."""

    batch: int
    size: int
    channels: int
    kernel: int
    features: int
    strides: int = 1
    groups: int = 1

    @property
    def padding(self) -> int:
        """As much as keeps the size where the stride is 1."""
        return self.kernel // 2

    @property
    def settings(self) -> dict[str, int]:
        """What the op takes beside its arrays."""
        return {"strides": self.strides, "padding": self.padding, "groups": self.groups}

    @property
    def name(self) -> str:
        """Such as "64x14x14x32 k5 o64"."""
        extra = f"{f' s{self.strides}' if self.strides > 1 else ''}{f' g{self.groups}' if self.groups > 1 else ''}"
        return f"{self.batch}x{self.size}x{self.size}x{self.channels} k{self.kernel} o{self.features}{extra}"

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, kernel and a cotangent of y."""
        draw, places = np.random.default_rng(0).standard_normal, (self.size + 2 * self.padding - self.kernel)
        out = places // self.strides + 1
        return (
            draw((self.batch, self.size, self.size, self.channels), np.float32),
            draw((self.kernel, self.kernel, self.channels // self.groups, self.features), np.float32),
            draw((self.batch, out, out, self.features), np.float32),
        )


CASES = (
    ConvCase(128, 28, 1, 5, 32),
    ConvCase(64, 14, 32, 5, 64),
    ConvCase(64, 32, 64, 3, 64),
    ConvCase(64, 16, 128, 3, 128),
    ConvCase(64, 8, 256, 3, 256),
    ConvCase(16, 224, 3, 11, 64, 4),
    ConvCase(16, 27, 64, 5, 192),
    ConvCase(16, 27, 96, 5, 256, 1, 2),
    ConvCase(64, 32, 16, 3, 16),
    ConvCase(64, 32, 16, 3, 32, 2),
    ConvCase(64, 8, 64, 3, 64),
    ConvCase(64, 16, 128, 1, 256),
    ConvCase(64, 32, 16, 1, 32, 2),
    ConvCase(16, 56, 128, 3, 128, 1, 128),
)
QUICK_CASES = (ConvCase(4, 9, 4, 3, 6, 2), ConvCase(4, 8, 4, 3, 4, 1, 4))


def run(quick: bool, say: Callable[[str], None]) -> list[Table]:
    """The table of convolutions."""
    lines = []
    for case in QUICK_CASES if quick else CASES:
        say(case.name)
        x, kernel, dy = case.arrays()
        contenders = jax_contenders(case, *map(jnp.asarray, (x, kernel, dy))) | torch_contenders(case, x, kernel, dy)
        for which in WHICH:
            runs = {name: run for (of, name), run in contenders.items() if of == which}
            times = interleaved(runs, seconds=0.3 if quick else 2.0, at_least=3 if quick else 5)
            lines += compared([line_of(f"{case.name}, {which}", name, times[name]) for name in runs], OURS)
    return [Table("convolutions", "Convolutions, each of the three maps alone", "ms", tuple(lines))]


def ours(which: str, x: jax.Array, kernel: jax.Array, dy: jax.Array, **settings: Any) -> jax.Array:
    """Our convolution or one of its gradients; under jit the others are never computed."""
    if which == "forward":
        return hg.ops.conv_forward(x, kernel, **settings)[0]
    return hg.ops.conv_backward(x, kernel, dy, **settings)[WHICH.index(which) - 1]


def plain(which: str, x: jax.Array, kernel: jax.Array, dy: jax.Array, *, strides: int, padding: int, groups: int):
    """lax's convolution, and its gradients as JAX derives them."""

    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            *(x, kernel, (strides, strides), [(padding, padding)] * 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    return conv(x, kernel) if which == "forward" else jax.vjp(conv, x, kernel)[1](dy)[WHICH.index(which) - 1]


def jax_contenders(case: ConvCase, *arrays: jax.Array) -> dict[tuple[str, str], Callable[[], Any]]:
    """Ours, and lax with both kinds of options, by (which, name). All are checked to compute the same."""
    runs = {}
    for which in WHICH:
        by_hand = hg.jit(lambda *arrays, which=which: ours(which, *arrays, **case.settings))
        automatic: dict[str, Callable] = {OURS: by_hand}
        automatic["lax"] = jax.jit(lambda *arrays, which=which: plain(which, *arrays, **case.settings))
        if takes_our_options():
            options = dict(CPU_OPTIONS)
            automatic["lax, our options"] = jax.jit(
                lambda *arrays, which=which: plain(which, *arrays, **case.settings), compiler_options=options
            )
        wanted = automatic["lax"](*arrays)
        for name, function in automatic.items():
            check_close(f"{name}, {case.name}, {which}", function(*arrays), wanted, rtol=1e-4)
            runs[which, name] = lambda function=function: jax.block_until_ready(function(*arrays))
    return runs


def torch_contenders(case: ConvCase, x: np.ndarray, kernel: np.ndarray, dy: np.ndarray) -> dict[tuple[str, str], Any]:
    """PyTorch's, in both layouts, checked against lax."""
    if peers.load(peers.TORCH_MODULE).reason_absent():
        return {}
    torch_ops = peers.load("torch_ops")
    runs = torch_ops.conv_contenders(x, kernel, dy, **case.settings)
    wanted = {
        which: jax.jit(lambda *a, which=which: plain(which, *a, **case.settings))(x, kernel, dy) for which in WHICH
    }
    for (which, layout), run in runs.items():
        turn = torch_ops.as_kernel if which == "kernel gradient" else torch_ops.as_images
        check_close(f"torch, {layout}, {case.name}, {which}", turn(run()), wanted[which], rtol=1e-4)
    return {(which, f"torch, {layout}"): run for (which, layout), run in runs.items()}

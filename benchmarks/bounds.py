"""What each ratio of ours to theirs is to come to; `make bench` sets it beside what was measured."""

from collections.abc import Sequence

from handgrad.benchmark.steps import AUTOMATIC, AUTOMATIC_RESHAPED
from handgrad.benchmark.table import Bound, Line

JAX_PEERS = ("Flax", "Equinox", "Haiku", AUTOMATIC)
TORCH, TORCH_COMPILE = "torch eager", "torch.compile"


def _step(peers: Bound, torch: Bound, compiled: Bound | None = None, reshaped: Bound | None = None) -> dict[str, Bound]:
    """The bounds of one net's step, by contender."""
    bounds = {**dict.fromkeys(JAX_PEERS, peers), TORCH: torch}
    bounds |= {} if compiled is None else {TORCH_COMPILE: compiled}
    return bounds | ({} if reshaped is None else {AUTOMATIC_RESHAPED: reshaped})


_VGG = _step(Bound(0.7, 0.6), Bound(1.3, 1.0), Bound(1.1))

STEPS: dict[str, dict[str, Bound]] = {
    "lenet": _step(Bound(0.5, 0.4), Bound(1.15, 0.9), Bound(1.0), Bound(0.9)),
    "vgg": _VGG,
    "vgg_bn": _VGG,
    "alexnet": _step(Bound(0.5), Bound(1.3, 1.0)),
    "resnet20": _step(Bound(0.8), Bound(1.3, 1.0)),
}
MEMORY: dict[str, dict[str, Bound]] = {
    "lenet": {AUTOMATIC: Bound(0.33)},
    "vgg": {AUTOMATIC: Bound(0.6)},
    "vgg_bn": {AUTOMATIC: Bound(0.6)},
}
COMPILE: dict[str, Bound] = {peer: Bound(1.0) for peer in JAX_PEERS}
MAX_POOL = {"jax": Bound(0.10), TORCH: Bound(1.3)}
MAX_POOL_LARGE = {"jax": Bound(0.10), TORCH: Bound(1.8)}
AVG_POOL = {"jax": Bound(0.5), TORCH: Bound(1.2)}
ENSEMBLE = {"single steps": Bound(1.2, 1.05), "vmap of jax.grad": Bound(1 / 3.5)}
SWEEP = {"single steps": Bound(1.2)}
DISPATCH = Bound(1.0)
FIT = Bound(1.05)
ACCUMULATION = Bound(0.25)
PER_EXAMPLE_NORMS = Bound(2.2, 1.5)
PREFETCH = Bound(1 / 0.95)


def better_torch(lines: Sequence[Line]) -> str:
    """The faster one of torch's eager contenders, one a memory layout: the bound is with it."""
    eager = [line for line in lines if line.contender.startswith(TORCH)]
    return min(eager, key=lambda line: line.value).contender if eager else TORCH

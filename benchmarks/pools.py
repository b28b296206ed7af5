"""Pools under someone else's `jax.grad`, forward and backward, beside `reduce_window` and PyTorch in both layouts."""

from collections.abc import Callable

from benchmarks import bounds, peers
from handgrad.benchmark.pools import CASES, QUICK_CASES, THEIRS, THEIRS_MEAN, PoolCase, check_close, own_pool_contenders
from handgrad.benchmark.steps import OURS
from handgrad.benchmark.table import Bound, Table, bounded, compared, line_of
from handgrad.timing import interleaved

LARGE = 10_000_000  # numbers in x above which memory traffic, not arithmetic, sets the time


def run(quick: bool, say: Callable[[str], None]) -> list[Table]:
    """The table of pools."""
    torch_ops, absent, lines = peers.load("torch_ops"), peers.load(peers.TORCH_MODULE).reason_absent(), []
    for case in QUICK_CASES if quick else CASES:
        say(case.name)
        contenders = own_pool_contenders(case)
        wanted = contenders[OURS]()
        for layout, contender in ({} if absent else torch_ops.pool_contenders(case)).items():
            contenders[f"{bounds.TORCH}, {layout}"] = contender
            check_close(f"torch, {layout}, {case.name}", tuple(map(torch_ops.as_images, contender())), wanted, 1e-5)
        del wanted
        times = interleaved(contenders, seconds=0.5 if quick else 10.0, at_least=3 if quick else 5)
        found = compared([line_of(case.name, name, timing) for name, timing in times.items()], OURS)
        lines += bounded(found, _bounds(case, bounds.better_torch(found)))
    title = "Pools in hg.bridge under someone else's jax.grad, forward and backward"
    return [Table("pools", title, "ms", tuple(lines), (absent,) if absent else ())]


def _bounds(case: PoolCase, torch: str) -> dict[str, Bound]:
    """The bounds of one pool; of torch's layouts the better one has it."""
    wanted = bounds.MAX_POOL if case.kind == "max" else bounds.AVG_POOL
    n, h, w, c = case.shape
    if case.kind == "max" and case.strides < case.window and n * h * w * c > LARGE:
        wanted = bounds.MAX_POOL_LARGE
    return {THEIRS: wanted["jax"], THEIRS_MEAN: wanted["jax"], torch: wanted[bounds.TORCH]}

"""The training step as a file: traced and lowered here, compiled where it runs, with no Python in between.

    step, state, batch  --trace-->  StableHLO for the platform  --bytes-->  any process with JAX there

The algorithms are those that are fast on the platform that is exported for, whatever this machine is.
"""

from typing import Any

import jax
import jax.export  # a module that jax does not import itself

from handgrad.ops.platform import traced_for
from handgrad.optimizers import OptState
from handgrad.training.step import Metrics, TrainState

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

for kind in (TrainState, Metrics, OptState):
    jax.export.register_namedtuple_serialization(kind, serialized_name=f"handgrad.{kind.__name__}")


def export_step(
    step: Any, train_state: TrainState, x: Any, y: Any, weights: Any = None, *, platform: str
) -> jax.export.Exported:
    """Lower a training step for a platform, which need not be this machine's.

    `exported.call(train_state, x, y, weights)` runs it where that platform is, `exported.mlir_module()` is its text and
    `exported.serialize()` the bytes that `jax.export.deserialize` reads anywhere; these two want the package
    flatbuffers, from the extra `export`. Nothing is donated.

    Args:
        step: from `make_train_step`.
        train_state: a train state, or its shapes as of `jax.eval_shape`.
        x: a batch, or its `jax.ShapeDtypeStruct`; the batch size is fixed by it.
        y: its labels, likewise.
        weights: one weight an example, likewise, or None.
        platform: "cpu", "cuda", "rocm" or "tpu".

    Returns:
        A `jax.export.Exported`.

    Raises:
        TypeError: no step from make_train_step.
        ValueError: another platform.

    Example:
        >>> import handgrad as hg
        >>> net, optimizer = hg.Chain(hg.Dense(2)), hg.sgd(0.5)
        >>> step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), optimizer)
        >>> train_state = hg.init_train_state(net, optimizer, jax.random.key(0), (3,))
        >>> x, y = jax.ShapeDtypeStruct((8, 3), "float32"), jax.ShapeDtypeStruct((8,), "int32")
        >>> export_step(step, train_state, x, y, platform="tpu").platforms
        ('tpu',)
    """
    whole = getattr(getattr(step, "_compiled", None), "__wrapped__", None)
    if whole is None:
        raise TypeError(f"export_step: wants a step from make_train_step, got {type(step).__name__}")
    if platform not in PLATFORMS:
        raise ValueError(f"export_step: platform must be one of {', '.join(PLATFORMS)}, got {platform!r}")

    def fresh(*batch: Any) -> Any:  # of a function known to it JAX would take the trace for another platform
        return whole(*batch)

    with traced_for(platform):
        return jax.export.export(jax.jit(fresh), platforms=[platform])(train_state, x, y, weights)

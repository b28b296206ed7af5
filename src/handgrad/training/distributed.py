"""Training over many devices and many processes, on JAX's own runtime.

Data parallel: the train state is a copy on each device, the batch is spread over the mesh's "data" axis, and a step is
the step of one big batch: loss, gradient and batch-norm statistics are those of all examples. XLA divides the work and
puts the sums over devices in; those of all gradients are one fused all-reduce.

    dL/dθ = Σ_d Σ_{i on d} dL_i/dθ          a copy's gradient is a sum: here over the devices that hold the copies

Every process runs the same script on the same data, and takes the rows of a batch that its own devices want.
"""

import os
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax._src.distributed import global_state  # JAX gives no other way to the coordinator's store
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from handgrad.mesh import on_host, place, spread
from handgrad.training.guard import Guard
from handgrad.training.step import Metrics, TrainState
from handgrad.training.watch import Watch

__all__ = ["ParallelStep", "data_parallel", "global_batch", "initialize", "is_main", "on_host"]

LARGE = 2**20  # numbers in a dense kernel, from which on it is spread over the model axis
COPY = PartitionSpec()


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    patience: float = 30.0,
    **settings: Any,
) -> bool:
    """Join this process with its peers, before anything else is done with JAX.

    Without arguments the cluster says who the peers are (Slurm, Open MPI, a TPU slice, Kubernetes), or the environment
    variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; where neither does, as on a laptop, the
    process stays alone, so that one script runs everywhere.

    A process that finds a peer gone, or failed with an error, says which one and ends with exit code 75: it would wait
    for ever in the next sum over devices. Process 0 keeps the book of that; when it is killed itself, JAX ends the
    others at once, with a message of its own.

    Args:
        coordinator_address: host:port of process 0, which all processes can reach.
        num_processes: how many there are.
        process_id: which of them this is, from 0 on.
        patience: after how many seconds without a sign a peer is taken to be gone.
        **settings: further arguments of `jax.distributed.initialize`, such as heartbeat_timeout_seconds.

    Returns:
        Whether there are peers.

    Raises:
        ValueError: some of the three arguments are given and the others are not known, or a patience not above 0.
        RuntimeError: called twice, or after JAX has been used.

    Example:
        >>> initialize()  # doctest: +SKIP
        False
        >>> initialize(patience=0)
        Traceback (most recent call last):
        ValueError: distributed.initialize: patience must be above 0 seconds, got 0
    """
    if not patience > 0:
        raise ValueError(f"distributed.initialize: patience must be above 0 seconds, got {patience}")
    address = coordinator_address or os.environ.get("JAX_COORDINATOR_ADDRESS")
    num_processes = _number("JAX_NUM_PROCESSES") if num_processes is None else num_processes
    process_id = _number("JAX_PROCESS_ID") if process_id is None else process_id
    given = {"coordinator_address": address, "num_processes": num_processes, "process_id": process_id}
    try:
        jax.distributed.initialize(address, num_processes, process_id, **settings)
    except ValueError as error:
        if any(value is not None for value in given.values()):
            missing = ", ".join(name for name, value in given.items() if value is None)
            raise ValueError(f"distributed.initialize: {error} {f'Not known: {missing}.' * bool(missing)}") from error
        return False
    alone = jax.process_count() == 1
    if not alone and global_state.client is not None:
        Watch(global_state.client, jax.process_index(), jax.process_count(), patience).start()
    return not alone


def is_main() -> bool:
    """Whether this is process 0, the one that writes files and draws bars; True where there is only one.

    Example:
        >>> if is_main():
        ...     print(f"process {jax.process_index()} of {jax.process_count()} writes the files")
        process 0 of 1 writes the files
    """
    return jax.process_index() == 0


@dataclass(frozen=True, eq=False)
class ParallelStep:
    """A train step over a mesh, (train_state, x, y, weights=None) -> (train_state, Metrics).

    Made by `data_parallel`; state and batch are placed where they do not lie yet.

    Args:
        step: from `make_train_step`.
        mesh: of devices.
        axis: over which axis of it the batch is spread.
        model_axis: over which axis large dense kernels are spread, if any.

    Example:
        >>> import handgrad as hg
        >>> net, optimizer = hg.Chain(hg.Dense(2)), hg.sgd(0.5)
        >>> step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), optimizer)
        >>> step = data_parallel(step, jax.make_mesh((2,), ("data",), devices=jax.devices()[:2]))
        >>> x, y = step.place_batch(np.zeros((4, 3), "float32"), np.array([0, 1, 0, 1]))
        >>> [shard.data.tolist() for shard in y.addressable_shards]
        [[0, 1], [0, 1]]
        >>> step.check_batch_size(5)
        Traceback (most recent call last):
        ValueError: data_parallel: a batch of 5 does not divide into the 2 parts of mesh axis 'data'; take ...
    """

    step: Any
    mesh: Mesh
    axis: str = "data"
    model_axis: str | None = None

    @property
    def objective(self) -> Any:
        """That of the step."""
        return self.step.objective

    @property
    def optimizer(self) -> Any:
        """That of the step."""
        return self.step.optimizer

    def __call__(
        self, train_state: TrainState, x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None
    ) -> tuple[TrainState, Metrics]:
        """The train state after one step on the whole batch, and the metrics of the whole batch before it."""
        return self.step(self.place_state(train_state), *self.place_batch(x, y, weights))

    def guarded(
        self, train_state: TrainState, guard: Guard, x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None
    ) -> tuple[TrainState, Guard, Metrics]:
        """The same, but a step that is not finite leaves the train state as it is, see `TrainStep.guarded`."""
        guard = jax.tree.map(lambda leaf: place(leaf, NamedSharding(self.mesh, COPY)), guard)
        return self.step.guarded(self.place_state(train_state), guard, *self.place_batch(x, y, weights))

    def lower(self, train_state: TrainState, x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> Any:
        """The lowered step, to read what is computed and sent."""
        return self.step.lower(self.place_state(train_state), *self.place_batch(x, y, weights))

    def place_state(self, train_state: TrainState) -> TrainState:
        """The train state on the mesh: copies, but for large dense kernels where there is a model axis."""
        return jax.tree.map_with_path(
            lambda path, leaf: place(leaf, NamedSharding(self.mesh, self._spec(path, leaf))), train_state
        )

    def place_batch(self, *arrays: ArrayLike | None) -> tuple[Any, ...]:
        """Arrays of the whole batch (N, ...), the same in each process, spread over the data axis; None stays None.

        Raises:
            ValueError: an N that the axis does not divide.
        """
        for array in arrays:
            if array is not None:
                self.check_batch_size(np.shape(array)[0])
        sharding = spread(self.mesh, self.axis)
        return tuple(None if array is None else place(array, sharding) for array in arrays)

    def check_batch_size(self, size: int) -> None:
        """Raise a ValueError where the data axis does not divide the size."""
        parts = self.mesh.shape[self.axis]
        if size % parts:
            raise ValueError(
                f"data_parallel: a batch of {size} does not divide into the {parts} parts of mesh axis {self.axis!r}; "
                f"take a batch_size that {parts} divides"
            )

    def _spec(self, path: tuple, leaf: Any) -> PartitionSpec:
        """Columns of a large dense kernel (I, O), and of its momentum, over the model axis; all else is copied."""
        is_kernel = getattr(path[-1], "key", None) == "kernel" and np.ndim(leaf) == 2
        if self.model_axis is None or not is_kernel or leaf.size < LARGE:
            return COPY
        return COPY if leaf.shape[1] % self.mesh.shape[self.model_axis] else PartitionSpec(None, self.model_axis)


def data_parallel(step: Any, mesh: Mesh, axis: str = "data", *, model_axis: str | None = None) -> ParallelStep:
    """The step over the devices of a mesh: the batch is spread over one axis, the state is a copy on each device.

    Works on meshes of both axis types (Explicit is `jax.make_mesh`'s default), in one process or many; every process
    gives the same whole batch, of which each device gets its part.

    Args:
        step: from `make_train_step`.
        mesh: such as jax.make_mesh((jax.device_count(),), ("data",)).
        axis: over which axis the batch is spread.
        model_axis: an axis over which the columns of dense kernels of at least 2²⁰ numbers are spread too, with their
            momentum: for AlexNet's two large layers, say.

    Returns:
        A step of the same call, which `fit` takes as it takes any.

    Raises:
        TypeError: a mesh that is none, or a step without objective and optimizer.
        ValueError: an axis that the mesh has not; at the call, a batch that does not divide.

    Example:
        >>> import handgrad as hg
        >>> net, optimizer = hg.Chain(hg.Dense(2)), hg.sgd(0.5)
        >>> step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), optimizer)
        >>> step = data_parallel(step, jax.make_mesh((2,), ("data",), devices=jax.devices()[:2]))
        >>> train_state = hg.init_train_state(net, optimizer, jax.random.key(0), (3,))
        >>> train_state, metrics = step(train_state, np.eye(4, 3, dtype="float32"), np.array([0, 1, 0, 1]))
        >>> len(metrics.loss.sharding.device_set)
        2
    """
    if not isinstance(mesh, Mesh):
        raise TypeError(f"data_parallel: mesh must be a mesh of jax.make_mesh, got {type(mesh).__name__}")
    if not hasattr(step, "objective") or not hasattr(step, "lower"):
        raise TypeError(f"data_parallel: wants a step from make_train_step, got {type(step).__name__}")
    for name in filter(None, (axis, model_axis)):
        if name not in mesh.shape:
            raise ValueError(f"data_parallel: the mesh has no axis {name!r}, it has {tuple(mesh.shape)}")
    if axis == model_axis:
        raise ValueError(f"data_parallel: axis and model_axis must differ, got {axis!r} for both")
    return ParallelStep(step, mesh, axis, model_axis)


def global_batch(mesh: Mesh, *arrays: np.ndarray, axis: str = "data") -> tuple[jax.Array, ...]:
    """Arrays of the whole batch, of which each process has read its own rows alone.

    Args:
        mesh: over the devices of all processes.
        *arrays: this process's rows (N / processes, ...), in the order of the processes.
        axis: the mesh axis over which the batch is spread.

    Returns:
        Arrays (N, ...) for a data-parallel step.

    Example:
        >>> mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
        >>> (x,) = global_batch(mesh, np.arange(4.0).reshape(4, 1))
        >>> x.shape, [shard.data.ravel().tolist() for shard in x.addressable_shards]
        ((4, 1), [[0.0, 1.0], [2.0, 3.0]])
    """
    sharding = spread(mesh, axis)
    return tuple(jax.make_array_from_process_local_data(sharding, np.asarray(array)) for array in arrays)


def _number(variable: str) -> int | None:
    """An environment variable's value as an int."""
    text = os.environ.get(variable)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"distributed.initialize: {variable} must be a number, got {text!r}")
    return int(text)

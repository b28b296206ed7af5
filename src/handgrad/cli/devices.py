"""`--mesh` and `--precision`: over which devices a command trains, in which numbers."""

import argparse
import contextlib
import math
from typing import Any

import jax
from jax.sharding import Mesh

from handgrad.training import distributed
from handgrad.training.gradients import PRECISIONS


def add_devices(command: Any) -> None:
    """The options of a command that trains."""
    devices = command.add_argument_group("devices")
    devices.add_argument(
        "--mesh",
        metavar="N",
        type=_axes,
        help="spread each batch over N devices, or over all; D,M spreads it over D and large dense kernels over M. "
        "Processes that a cluster starts join first; on CPU alone, N pretend devices are made (one device)",
    )
    devices.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="numbers of the gradient's pass (%(default)s)"
    )


def mesh_of(options: argparse.Namespace) -> Mesh | None:
    """The mesh that the options name, once the processes of the cluster have joined; None is one device."""
    if options.mesh is None:
        return None
    if isinstance(options.mesh, tuple) and getattr(jax.config, "jax_num_cpu_devices", 1) < 1:
        with contextlib.suppress(RuntimeError):  # JAX runs already, with the devices that it has
            jax.config.update("jax_num_cpu_devices", math.prod(options.mesh))
    if distributed.initialize() and options.run_dir is None:
        raise ValueError("--mesh in several processes needs --run-dir, one folder for all")
    shape = (jax.device_count(),) if options.mesh == "all" else options.mesh
    wanted, found = math.prod(shape), jax.device_count()
    if wanted > found:
        raise ValueError(f"--mesh {','.join(map(str, shape))} wants {wanted} devices, but JAX has {found}")
    return jax.make_mesh(shape, ("data", "model")[: len(shape)], devices=jax.devices()[:wanted])


def on_mesh(step: Any, mesh: Mesh | None) -> Any:
    """The step over the mesh."""
    if mesh is None:
        return step
    return distributed.data_parallel(step, mesh, model_axis="model" if "model" in mesh.shape else None)


def _axes(text: str) -> tuple[int, ...] | str:
    parts = text.split(",")
    if text == "all":
        return text
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"must be a number of devices, two as D,M, or all, got {text!r}")
    return tuple(map(int, parts))

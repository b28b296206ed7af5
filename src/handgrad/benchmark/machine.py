"""Where figures were measured: the machine, the versions, the day."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import jax

PACKAGES = ("handgrad", "jax", "jaxlib", "numpy", "flax", "optax", "equinox", "dm-haiku", "torch")


def machine() -> dict[str, str]:
    """The processor, its cores, JAX's devices, the day, and the version of each package that is installed.

    Example:
        >>> sorted(set(machine()) & {"cores", "date", "jax", "processor"})
        ['cores', 'date', 'jax', 'processor']
    """
    devices = ", ".join(sorted({f"{device.platform} {device.device_kind}" for device in jax.devices()}))
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "devices": devices,
        "python": platform.python_version(),
        **versions(),
    }


def processor() -> str:
    """The processor's own name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    if "model name" not in named:
        return platform.processor() or platform.machine()
    return f"{named['model name']} (family {named.get('cpu family', '?')}, model {named.get('model', '?')})"


def versions() -> dict[str, str]:
    """The version of each of `PACKAGES` that is installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

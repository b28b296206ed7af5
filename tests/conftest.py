"""All tests run in float64 and never mix types or ranks silently.

Compiling takes most of their time, so LLVM's expensive passes are off, and XLA's older emitter writes the loops; each
halves it. `make test-slow` leaves both as users have them.
"""

import os
from importlib.metadata import version
from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 4)  # for the tests on meshes; all others see the first one
if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
    jax.config.update("jax_disable_most_optimizations", True)
    if version("jaxlib").startswith("0.10."):  # XLA aborts on a flag that it does not know
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_addoption(parser):
    parser.addoption("--data-dir", help="a folder that holds mnist/ and fashion_mnist/; without it their tests skip")


@pytest.fixture
def data_dir(request):
    folder = request.config.getoption("--data-dir")
    if folder is None:
        pytest.skip("needs --data-dir, a folder that holds mnist/ and fashion_mnist/")
    return Path(folder)

"""Other libraries, imported only where they are asked for."""

import importlib
from typing import Any


def imported(module: str, use: str) -> Any:
    """A module of a library that handgrad does without, or an ImportError that names the extra.

    Args:
        module: such as `torch`.
        use: what wants it, for the message.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.split(".")[0]
        raise ImportError(f"{use} needs {library}; install it with pip install 'handgrad[interop]'") from error

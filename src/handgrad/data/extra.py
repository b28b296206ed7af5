"""Libraries that handgrad does without, imported only where they are asked for."""

import importlib
from typing import Any


def imported(module: str, use: str, extra: str) -> Any:
    """The module, or an ImportError that names the extra of handgrad that brings it.

    Args:
        module: such as `torch`.
        use: what wants it, for the message.
        extra: of pyproject.toml.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = {"PIL": "pillow"}.get(module.split(".")[0], module.split(".")[0])
        raise ImportError(f"{use} needs {library}; install it with pip install 'handgrad[{extra}]'") from error

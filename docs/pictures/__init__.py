"""Pictures of how data flows through each op, forward and backward; `python -m docs.pictures` draws them all."""

import inspect
from collections.abc import Callable

from docs.pictures import elementwise, losses, norms, windows
from docs.pictures.cells import Picture

DRAWINGS: dict[str, Callable[[], Picture]] = {
    name: draw
    for module in (windows, elementwise, norms, losses)
    for name, draw in inspect.getmembers(module, inspect.isfunction)
    if draw.__module__ == module.__name__ and not name.startswith("_")
}
"""The functions that draw, by the name of the picture."""

"""Pictures of how data flows through each op, forward and backward; `python -m docs.pictures` draws them all."""

from collections.abc import Callable

from docs.pictures import elementwise, losses, norms, windows
from docs.pictures.cells import Picture

DRAWINGS: dict[str, Callable[[], Picture]] = {
    name: draw
    for module in (windows, elementwise, norms, losses)
    for name, draw in vars(module).items()
    if callable(draw) and draw.__module__ == module.__name__ and not name.startswith("_") and not isinstance(draw, type)
}
"""The functions that draw, by the name of the picture."""

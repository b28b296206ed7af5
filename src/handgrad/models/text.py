"""A net back from its text: what `str(net)` gives, and a run's folder keeps.

The text is read as an expression of layers and plain numbers; nothing of it is run, and no other name is looked up.
"""

import ast
from typing import Any

from handgrad import layers
from handgrad.layers.layer import Layer

LONGEST = 1_000_000  # letters


def from_text(text: str) -> Layer:
    """The net whose `str` this is.

    Args:
        text: such as "Chain(Conv(8, 3), Relu(), Flatten(), Dense(10))": layers of `handgrad.layers` by name, with
            numbers, strings, tuples, lists, dicts, None, True, False and other layers as arguments.

    Returns:
        The net.

    Raises:
        TypeError: text that is no str, or an argument that a layer does not take.
        ValueError: text that is no such expression, or one of a layer that is not ours: one of your own, or a function.

    Example:
        >>> from_text("Chain(Conv(8, 3), Relu(), name='stem')")
        Chain(Conv(8, 3), Relu(), name='stem')
    """
    if not isinstance(text, str):
        raise TypeError(f"from_text: text must be a str, got {type(text).__name__}")
    if len(text) > LONGEST:
        raise ValueError(f"from_text: text has {len(text)} letters, which no net has; at most {LONGEST} are read")
    try:
        net = _value(ast.parse(text, mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"from_text: must be a net as str(net) writes it, got {_short(text)}") from None
    if not isinstance(net, Layer):
        raise ValueError(f"from_text: must be a net as str(net) writes it, got {_short(text)}")
    return net


def _value(node: ast.expr) -> Any:
    """A layer, or a literal in which layers may stand."""
    if isinstance(node, ast.Call):
        kind = getattr(layers, node.func.id, None) if isinstance(node.func, ast.Name) else None
        if not (isinstance(kind, type) and issubclass(kind, Layer) and kind is not Layer):
            raise ValueError(f"from_text: {_short(ast.unparse(node.func))} is no layer of handgrad.layers")
        if any(isinstance(part, ast.Starred) for part in node.args) or any(part.arg is None for part in node.keywords):
            raise ValueError(f"from_text: {kind.__name__} wants its arguments one by one, without * and **")
        named = {part.arg: _value(part.value) for part in node.keywords if part.arg is not None}
        return kind(*map(_value, node.args), **named)
    if isinstance(node, ast.Tuple | ast.List):
        return (tuple if isinstance(node, ast.Tuple) else list)(map(_value, node.elts))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ValueError(f"from_text: {_short(ast.unparse(node))} is neither a layer nor a plain number") from None


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")

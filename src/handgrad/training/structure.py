"""The shape of a tree in words: a name for each leaf, and a description from which the tree is built again.

A leaf's name is its path, `params/conv1/kernel`: keys of dicts, fields of named tuples, numbers in lists and tuples,
joined by slashes. A slash, percent sign, backslash or control character within a key is written as %2F and the like.
"""

import re
from typing import Any

import jax

from handgrad.insight.kfac import Factors, KfacState
from handgrad.optimizers import OptState
from handgrad.training.step import TrainState

OURS = {kind.__name__: kind for kind in (TrainState, OptState, KfacState, Factors)}


def leaf_names(tree: Any) -> dict[str, Any]:
    """The leaves by name, in the order of `jax.tree.leaves`.

    Args:
        tree: any pytree.

    Returns:
        {name: leaf}. A tree that is one leaf names it "leaf".

    Raises:
        ValueError: two leaves of one name, as the keys 1 and "1" would give.

    Example:
        >>> leaf_names({"conv1": {"kernel": 7}, "rates": [1, 2]})
        {'conv1/kernel': 7, 'rates/0': 1, 'rates/1': 2}
    """
    named = [(_joined(map(_key, path)), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]
    leaves = dict(named)
    if len(leaves) < len(named):
        names = [name for name, _ in named]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"checkpoint: two leaves are named {twice!r}; give them keys that differ as text")
    return leaves


def described(tree: Any, path: tuple = ()) -> Any:
    """The structure as JSON can hold it: one word for the kind of each node, and names of leaves at the ends.

    Example:
        >>> described({"conv1": (1, None)})
        {'dict': [['conv1', {'tuple': [{'leaf': 'conv1/0'}, {'none': []}]}]]}
    """
    if tree is None:
        return {"none": []}
    fields = getattr(tree, "_fields", None)
    if isinstance(tree, tuple) and fields is not None:
        items = zip(fields, tree, strict=True)
        return {type(tree).__name__: [[field, described(value, (*path, field))] for field, value in items]}
    if type(tree) is dict and all(isinstance(key, str | int) for key in tree):
        return {"dict": [[key, described(value, (*path, key))] for key, value in tree.items()]}
    if type(tree) in (list, tuple):
        return {type(tree).__name__: [described(value, (*path, i)) for i, value in enumerate(tree)]}
    if jax.tree_util.all_leaves([tree]):
        return {"leaf": _joined(path)}
    return {"other": type(tree).__name__}


def rebuilt(structure: Any, leaves: dict[str, Any]) -> Any:
    """The tree of a description. A named tuple of another library comes back as a dict by field.

    Args:
        structure: what `described` gave.
        leaves: the leaves by name.

    Returns:
        The tree.

    Raises:
        ValueError: a node of a kind that can't be built from its description alone, or a description that is none.

    Example:
        >>> rebuilt(described({"conv1": (1, None)}), {"conv1/0": 1})
        {'conv1': (1, None)}
    """
    (kind, content), *more = structure.items()
    if more:
        raise ValueError(f"a node of two kinds, {list(structure)}")
    if kind == "leaf":
        return leaves[content]
    if kind == "none":
        return None
    if kind == "other":
        raise ValueError(f"it holds a {content}, which only load(path, like=...) can build")
    if kind in ("list", "tuple"):
        items = [rebuilt(part, leaves) for part in content]
        return items if kind == "list" else tuple(items)
    fields = {key: rebuilt(part, leaves) for key, part in content}
    return OURS[kind](**fields) if kind in OURS else fields


def _joined(path: Any) -> str:
    return "/".join(re.sub(r"[%/\\\x00-\x1f]", lambda c: f"%{ord(c[0]):02X}", str(key)) for key in path) or "leaf"


def _key(entry: Any) -> Any:
    """The dict key, field or number in an entry of a JAX path."""
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return entry

"""Every public name says what it takes, and shows by an example that runs what it gives."""

import doctest
import importlib
import inspect
import pkgutil
import re
from types import ModuleType

import pytest

import handgrad

pytestmark = pytest.mark.core
SECTION = r"^(?:Args|Attributes):\n((?:    .*\n?|\n(?=    ))*)"
ENTRY = r"(?m)^    \**(\w+)(?: \(.*\))?:"


def public_modules():
    """The package, its subpackages, and every module that a public one offers by name; all others are internal."""
    found, ahead = [], [handgrad]
    ahead += [
        importlib.import_module(f"handgrad.{each.name}")
        for each in pkgutil.iter_modules(handgrad.__path__)
        if each.ispkg
    ]
    while ahead:
        module = ahead.pop(0)
        if module not in found:
            found.append(module)
            values = (getattr(module, name) for name in getattr(module, "__all__", ()))
            ahead += [value for value in values if isinstance(value, ModuleType)]
    return found


def public_names():
    """The functions and classes that the public modules offer, each once; constants and type aliases are none."""
    found = {}
    for module in public_modules():
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found.setdefault(id(value), (f"{module.__name__}.{name}", value))
    return dict(found.values())


def lacking(value, told=()):
    """What the docstring of a function or class lacks, in words, or ""; `told` are parameters that others tell."""
    text = inspect.cleandoc(value.__dict__.get("__doc__") or "" if inspect.isclass(value) else value.__doc__ or "")
    examples = doctest.DocTestParser().get_examples(text)
    if all(example.options.get(doctest.SKIP) for example in examples):
        return "an example that runs"
    described = {name for section in re.findall(SECTION, text, re.MULTILINE) for name in re.findall(ENTRY, section)}
    untold = [name for name in parameters(value) if name not in {*described, *told}]
    return f"Args or Attributes: {', '.join(untold)}" if untold else ""


def parameters(value):
    """What a call takes, but for the name that every layer may be given."""
    is_layer = inspect.isclass(value) and issubclass(value, handgrad.Layer)
    return [name for name in inspect.signature(value).parameters if not (is_layer and name == "name")]


def told_by_the_op(name):
    """The parameters that the op of a forward or backward tells; and the residual and dy, if there is nothing else."""
    module, _, own = name.rpartition(".")
    op, _, direction = own.rpartition("_")
    if module != "handgrad.ops" or direction not in ("forward", "backward"):
        return []
    of_op, its = (parameters(getattr(handgrad.ops, each)) for each in (op, own))
    elementwise = its == [its[0], "dy", *of_op[1:]]
    return of_op if direction == "forward" else its if elementwise else []


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_a_public_module_says_what_it_offers(module):
    assert getattr(module, "__all__", None), f"{module.__name__} has no __all__"


@pytest.mark.parametrize(("name", "value"), public_names().items(), ids=public_names())
def test_a_public_name_shows_what_it_does(name, value):
    lacks = lacking(value, told_by_the_op(name))
    assert not lacks, f"{name} lacks {lacks}"

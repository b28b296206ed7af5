"""Every public name says what it takes, and shows by an example that runs what it gives."""

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import handgrad

pytestmark = pytest.mark.core


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


def lacking(name, value):
    """What the docstring of a function or class lacks, in words; "" for nothing."""
    text = inspect.cleandoc(value.__dict__.get("__doc__") or "" if inspect.isclass(value) else value.__doc__ or "")
    if not text:
        return "a docstring of its own"
    examples = doctest.DocTestParser().get_examples(text)
    if all(example.options.get(doctest.SKIP) for example in examples):
        return "an example that runs"
    if parameters(value) and not told_by_the_op(name) and not {"Args:", "Attributes:"} & set(text.split("\n")):
        return "Args"
    return ""


def parameters(value):
    """What a call takes, but for the name that every layer may be given."""
    if inspect.isclass(value) and value.__init__ is object.__init__:
        return []
    return [each for each in inspect.signature(value).parameters if each != "name"]


def told_by_the_op(name):
    """A forward takes what its op does; the backward of an elementwise op its residual, dy and the op's settings."""
    module, _, own = name.rpartition(".")
    op, _, pass_ = own.rpartition("_")
    if module != "handgrad.ops" or pass_ not in ("forward", "backward"):
        return False
    wanted, given = (list(parameters(getattr(handgrad.ops, each))) for each in (op, own))
    if pass_ == "forward":
        return given == wanted
    return given == [given[0], "dy", *wanted[1:]]


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_a_public_module_says_what_it_offers(module):
    assert getattr(module, "__all__", None), f"{module.__name__} has no __all__"


@pytest.mark.parametrize("name", public_names())
def test_a_public_name_shows_what_it_does(name):
    assert not lacking(name, public_names()[name]), f"{name} lacks {lacking(name, public_names()[name])}"

"""Pickles of nothing but data, read without Python's pickle: no name in them is imported, nothing is ever called.

A pickle is a program for a stack machine. `pickletools` splits it into instructions and runs none; here those are
followed that make numbers, strings, lists, dicts and tuples, and those by which NumPy spells an array:

    _reconstruct(ndarray, (0,), "b")               an array to be filled
    dtype("u1", 0, 1)                              its type
    encode(text, "latin1")                         bytes, in pickles that Python 3 wrote for Python 2
    array.__setstate__((1, shape, dtype, fortran, bytes))

These names stand for actions of this file, not for the functions that bear them. Any other name and any other
instruction is an error. Time and memory are bounded by the file's size and the number of instructions; keys of dicts
are strings, since a hash of nested tuples may take for ever.
"""

import math
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

MOST_INSTRUCTIONS = 2_000_000
LARGEST_RANK = 64  # NumPy's
PLAIN = ((None, None, None, -1, -1), (None, None, None, -1, -1, 0))  # a dtype without fields, in old and new pickles
INTEGERS = re.compile(r"[iu][1248]")
NAMES = {
    "numpy.core.multiarray _reconstruct": "array",
    "numpy._core.multiarray _reconstruct": "array",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}
IGNORED = ("FRAME",)
LITERALS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "BINUNICODE", "SHORT_BINUNICODE")
LITERALS = (*LITERALS, "UNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
STRINGS_OF_PYTHON_2 = ("STRING", "BINSTRING", "SHORT_BINSTRING")


class Array:
    """An array of integers, once its state has come; until then value is None."""

    value: np.ndarray | None = None


class DType:
    """An integer type: name such as u1, and byte order."""

    def __init__(self, name: str) -> None:
        if not INTEGERS.fullmatch(name):
            raise ValueError(f"an array of type {name[:20]!r}, wanted integers")
        self.name, self.order = name, "="


class Name:
    """A name of `NAMES` on the stack."""

    def __init__(self, action: str) -> None:
        self.action = action


def plain_pickle(where: Any, data: bytes) -> Any:
    """The data in a pickle.

    Args:
        where: the file's name, for errors.
        data: its bytes.

    Returns:
        Numbers, bytes, str, lists, dicts, tuples, and an `Array` for each array of integers. A string that Python 2
        wrote is bytes.

    Raises:
        ValueError: anything else in it, damage, or more than two million instructions. The message names the file and,
            where the file asks for a function, that.

    Example:
        >>> import pickle
        >>> plain_pickle("file", pickle.dumps({"labels": [6, 9]}))
        {'labels': [6, 9]}
        >>> plain_pickle("file", pickle.dumps(print))
        Traceback (most recent call last):
        ValueError: file: it asks for 'builtins print', which no data needs; nothing in it was run; use another copy
    """
    machine = _Machine(len(data))
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count >= MOST_INSTRUCTIONS:
                raise ValueError(f"it has more than {MOST_INSTRUCTIONS:,} instructions")
            if opcode.name == "STOP":
                return machine.result()
            machine.follow(opcode.name, argument)
    except _Refused as error:
        raise ValueError(f"{where}: {error}; nothing in it was run; use another copy") from None
    except MemoryError:
        raise
    except Exception as error:  # whatever broken bytes do to pickletools and to the stack
        raise ValueError(
            f"{where}: it is no pickle of plain data, or a damaged one ({error}); use another copy"
        ) from error
    raise ValueError(f"{where}: it is no pickle of plain data, or a damaged one; use another copy")


class _Refused(Exception):
    pass


class _Machine:
    """The stack above the last mark, the stacks below it, the memo, and how many bytes `encode` may still make."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def follow(self, name: str, argument: Any) -> None:
        """Do what one instruction says."""
        if name in LITERALS:
            self.push(argument)
        elif name in STRINGS_OF_PYTHON_2:
            self.push(argument.encode("latin-1"))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.push(self.memo[argument])
        elif name == "PROTO":
            if argument > 5:
                raise ValueError(f"protocol {argument}")
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.push(self._named(argument))
        elif name in ACTIONS:
            ACTIONS[name](self)
        elif name not in IGNORED:
            raise _Refused(f"it has the instruction {name}, which no data needs")

    def push(self, item: Any) -> None:
        """Put one thing on the stack."""
        self.stack.append(item)

    def mark(self) -> None:
        """Begin a stack of its own, so that nothing below the mark is taken before it is."""
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        """What was put on the stack after the last mark, taken off it."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def result(self) -> Any:
        """The one thing that is left."""
        if self.below or len(self.stack) != 1:
            raise ValueError("it ends with more or less than one thing")
        return self.stack[0]

    def taken(self, count: int) -> tuple[Any, ...]:
        """The last few things, taken off the stack."""
        if count > len(self.stack):
            raise ValueError("the stack is empty")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return items

    def extend(self, items: list[Any]) -> None:
        """Add to the list on top."""
        if not isinstance(self.stack[-1], list):
            raise ValueError("items for what is no list")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Set keys of the dict on top."""
        if not isinstance(self.stack[-1], dict) or len(items) % 2:
            raise ValueError("keys for what is no dict")
        if not all(isinstance(key, bytes | str) for key in items[::2]):
            raise ValueError("a key that is no string")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def reduce(self) -> None:
        """One of the three calls that an array needs."""
        name, arguments = self.taken(2)
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise _Refused("it calls what is no function of NumPy's arrays")
        if name.action == "array" and len(arguments) == 3 and self._is_empty_array(*arguments):
            self.push(Array())
        elif name.action == "dtype" and len(arguments) == 3 and all(item in (0, 1) for item in arguments[1:]):
            self.push(DType(_text(arguments[0])))
        elif name.action == "encode" and len(arguments) == 2 and arguments[1] in ("latin1", b"latin1"):
            self.left -= len(arguments[0])  # each text of the file once: the same one often would fill the memory
            if self.left < 0:
                raise ValueError("it makes more bytes than it has")
            self.push(arguments[0].encode("latin-1"))
        else:
            raise _Refused(f"it calls {name.action} as no array needs it")

    @staticmethod
    def _is_empty_array(kind: Any, shape: Any, dtype: Any) -> bool:
        return isinstance(kind, Name) and kind.action == "ndarray" and shape == (0,) and dtype in ("b", b"b")

    def build(self) -> None:
        """Give an array or a dtype its state."""
        target, state = self.taken(2)
        if isinstance(target, DType) and isinstance(state, tuple) and len(state) >= 2:
            version, order, *rest = state
            if version not in (2, 3, 4) or tuple(rest) not in PLAIN:
                raise ValueError("the state of an integer type is not that")
            target.order = _text(order)
            if target.order not in ("<", ">", "|", "="):
                raise ValueError("an unknown byte order")
        elif isinstance(target, Array) and isinstance(state, tuple) and len(state) == 5 and state[0] == 1:
            target.value = _array(*state[1:])
        else:
            raise _Refused("it sets the state of what is no array")
        self.push(target)

    def _named(self, argument: str | None) -> Name:
        asked = " ".join(_text(part) for part in self.taken(2)) if argument is None else argument
        if asked not in NAMES:
            raise _Refused(f"it asks for {asked[:100]!r}, which no data needs")
        return Name(NAMES[asked])


def _array(shape: Any, dtype: Any, fortran: Any, data: Any) -> np.ndarray:
    if not isinstance(dtype, DType) or not isinstance(data, bytes) or not isinstance(shape, tuple):
        raise ValueError("the state of an array is not that")
    if len(shape) > LARGEST_RANK or not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise ValueError("the sizes of an array are not that")
    if fortran not in (0, 1):
        raise ValueError("the order of an array is not that")
    kind = np.dtype(dtype.order + dtype.name)
    if math.prod(shape) * kind.itemsize != len(data):
        raise ValueError(f"an array of {len(data)} bytes, its sizes say otherwise")
    return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")


def _text(value: Any) -> str:
    """A str, or the bytes of Python 2 as one."""
    if not isinstance(value, bytes | str):
        raise ValueError("no string where one must be")
    return value if isinstance(value, str) else value.decode("ascii")


ACTIONS: dict[str, Callable[[_Machine], Any]] = {
    "MARK": _Machine.mark,
    "NONE": lambda m: m.push(None),
    "NEWTRUE": lambda m: m.push(True),
    "NEWFALSE": lambda m: m.push(False),
    "EMPTY_LIST": lambda m: m.push([]),
    "EMPTY_DICT": lambda m: m.push({}),
    "EMPTY_TUPLE": lambda m: m.push(()),
    "TUPLE1": lambda m: m.push(m.taken(1)),
    "TUPLE2": lambda m: m.push(m.taken(2)),
    "TUPLE3": lambda m: m.push(m.taken(3)),
    "TUPLE": lambda m: m.push(tuple(m.since_mark())),
    "LIST": lambda m: m.push(m.since_mark()),
    "DICT": lambda m: (lambda items: (m.push({}), m.set_items(items)))(m.since_mark()),
    "APPEND": lambda m: m.extend(list(m.taken(1))),
    "APPENDS": lambda m: m.extend(m.since_mark()),
    "SETITEM": lambda m: m.set_items(list(m.taken(2))),
    "SETITEMS": lambda m: m.set_items(m.since_mark()),
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}

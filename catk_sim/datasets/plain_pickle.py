"""Pickles of plain data, read without `pickle`.

A pickle is a program for a small stack machine, and Python's own machine can be told to call
anything. This one knows only how to put together numbers, strings, lists, tuples, dicts, sets and
arrays of numbers. It looks up no name and calls no function, so that there is nothing to abuse;
and what it makes takes memory in proportion to the file.
"""

import pickletools
import re
import warnings
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from catk_sim.datasets.errors import DataError

MAX_DEPTH = 32
"""How deep containers may be nested."""

MAX_CELLS = 2**24
"""How many numbers, strings and containers there may be, where a shared one counts each time."""

_NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_DTYPE_STATES = (3, 4)


class _Name(str):
    """A name that a pickle asks for. It stands for itself: nothing is looked up."""


class _Array:
    """An array that is announced first and filled later. Holds a dtype alike."""

    def __init__(self, value: Any = None) -> None:
        self.value = value


class _Dtype(_Array):
    """A dtype, whose byte order comes later."""


class _RefusedError(Exception):
    """The pickle wants something that is not plain."""


def load_plain(data: bytes, source: str = "") -> Any:
    """Reads a pickle of plain containers and numpy arrays of numbers, of any protocol.

    Numpy's scalars become Python's numbers; `defaultdict` and `OrderedDict` become dicts.

    Args:
        data: The pickle.
        source: Where it comes from, for errors.

    Raises:
        DataError: If the pickle is damaged or holds anything else.
    """
    try:
        with warnings.catch_warnings():
            # Of odd escapes in names, which are refused anyway.
            warnings.simplefilter("ignore", DeprecationWarning)
            made = _Machine().run(data)
        return _Finisher().finish(made, 0)
    except _RefusedError as error:
        raise DataError(
            f"wanted a pickle of plain containers and arrays, got {error}", source
        ) from error
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise DataError(f"not a pickle, or damaged: {error}", source) from error


class _Machine:
    """Runs the opcodes of a pickle; see `pickletools` for what each means."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """Returns what the pickle makes."""
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _PUSHES:
                self._stack.append(argument)
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            elif opcode.name not in _IGNORED:
                raise _RefusedError(f"the opcode {opcode.name}")
        return self._stack.pop()

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def take(self, count: int) -> list[Any]:
        """Takes the uppermost values off the stack, which must not be below a mark."""
        start = len(self._stack) - count
        if start < (self._marks[-1] if self._marks else 0):
            raise ValueError("the stack is empty")
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def memoize(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def recall(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def extend(self, items: list[Any]) -> None:
        target = self._target(list, "a list")
        target.extend(items)

    def add(self, items: list[Any]) -> None:
        target = self._target(set, "a set")
        target.update(_key(item) for item in items)

    def set_items(self, items: list[Any]) -> None:
        target = self._target(dict, "a dict")
        target.update(_pairs(items))

    def reduce(self) -> None:
        name, arguments = self.take(2)
        if not isinstance(name, _Name) or name not in _CALLS:
            raise _RefusedError(f"a call of {_told(name)}")
        if not isinstance(arguments, tuple):
            raise ValueError("the arguments of a call are no tuple")
        self._stack.append(_CALLS[name](*_expected(arguments, name)))

    def build(self) -> None:
        [state] = self.take(1)
        target = self._stack[-1]
        if isinstance(target, _Dtype):
            target.value = _with_byte_order(target.value, state)
        elif isinstance(target, _Array) and target.value is None:
            target.value = _filled(state)
        else:
            raise _RefusedError(f"a state for {_told(target)}")

    def _target(self, kind: type, wanted: str) -> Any:
        if type(self._stack[-1]) is not kind:
            raise ValueError(f"wanted {wanted} to put items into")
        return self._stack[-1]


def _told(value: Any) -> str:
    return str(value) if isinstance(value, _Name) else f"a {type(value).__name__}"


def _key(value: Any) -> Any:
    # Nothing deep: hashing goes down to the leaves.
    if type(value) not in (str, int, float, bool, type(None)):
        raise _RefusedError(f"{_told(value)} as a key")
    return value


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    if len(items) % 2:
        raise ValueError("a key without a value")
    return [(_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True)]


def _expected(arguments: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    """Checks the kinds of the arguments of a call."""
    kinds = _ARGUMENTS[name]
    if len(arguments) != len(kinds) or not all(map(isinstance, arguments, kinds)):
        raise ValueError(f"the arguments of {name} are not those that numpy writes")
    return arguments


def _dtype(code: str, *_: Any) -> _Dtype:
    if not _NUMBERS.fullmatch(code):
        raise _RefusedError(f"an array of dtype {code[:20]!r}")
    return _Dtype(np.dtype(code))


def _with_byte_order(dtype: Any, state: Any) -> Any:
    if (
        not isinstance(state, tuple)
        or len(state) < 5
        or state[0] not in _DTYPE_STATES
        or state[1] not in ("<", ">", "|", "=")
        or any(part is not None for part in state[2:5])
    ):
        raise _RefusedError("a dtype that is not of plain numbers")
    return dtype.newbyteorder(state[1])


def _filled(state: Any) -> Any:
    """Makes an array of the state that numpy gives it."""
    match state:
        case (1, tuple() as shape, _Dtype(value=dtype), bool() | int() as fortran, bytes() as data):
            return _array(data, dtype, shape, "F" if fortran else "C")
    raise _RefusedError("an array that is not of plain numbers")


def _from_buffer(
    data: bytes | bytearray, dtype: _Dtype, shape: tuple[Any, ...], order: str
) -> _Array:
    return _Array(_array(bytes(data), dtype.value, shape, order))


def _array(data: bytes, dtype: Any, shape: tuple[Any, ...], order: str) -> Any:
    if len(shape) > MAX_DEPTH or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError("an array of impossible shape")
    if order not in ("C", "F") or prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array of {prod(shape)} numbers in {len(data)} bytes")
    native = dtype.newbyteorder("=")
    return (
        np.frombuffer(data, dtype)
        .reshape(shape, order="F" if order == "F" else "C")
        .astype(native, order="C")
    )


def _scalar(dtype: _Dtype, data: bytes | str) -> int | float | bool:
    raw = data.encode("latin1") if isinstance(data, str) else data
    return _array(raw, dtype.value, (), "C").item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _RefusedError(f"text in {encoding[:20]!r}")
    return text.encode("latin1")


# numpy 1 and numpy 2 name them differently.
_CORES = ("numpy.core.", "numpy._core.")
# Protocols before 3 use Python 2's name.
_BUILTINS = ("builtins.", "__builtin__.")
_CALLS: dict[str, Callable[..., Any]] = {
    **{f"{core}multiarray._reconstruct": lambda *_: _Array() for core in _CORES},
    **{f"{core}multiarray.scalar": _scalar for core in _CORES},
    **{f"{core}numeric._frombuffer": _from_buffer for core in _CORES},
    **{f"{builtins}bytes": lambda: b"" for builtins in _BUILTINS},
    **{f"{builtins}set": lambda items: set(map(_key, items)) for builtins in _BUILTINS},
    "numpy.dtype": _dtype,
    "collections.defaultdict": lambda *_: {},
    "collections.OrderedDict": lambda: {},
    "_codecs.encode": _encode,
}
"""What may be called, and what stands in for it."""

_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    **{f"{core}multiarray._reconstruct": (_Name, tuple, bytes) for core in _CORES},
    **{f"{core}multiarray.scalar": (_Dtype, (bytes, str)) for core in _CORES},
    **{f"{core}numeric._frombuffer": ((bytes, bytearray), _Dtype, tuple, str) for core in _CORES},
    **{f"{builtins}bytes": () for builtins in _BUILTINS},
    **{f"{builtins}set": (list,) for builtins in _BUILTINS},
    "numpy.dtype": (str, (bool, int), (bool, int)),
    "collections.defaultdict": (_Name,),
    "collections.OrderedDict": (),
    "_codecs.encode": (str, str),
}

_OTHER_NAMES = (
    "numpy.ndarray",
    *(f"{builtins}{name}" for builtins in _BUILTINS for name in ("int", "long", "float", "list")),
)
"""What may be named as an argument of a call. It is ignored."""


def _name(name: str) -> _Name:
    if name not in _CALLS and name not in _OTHER_NAMES:
        raise _RefusedError(f"the name {name[:60]}")
    return _Name(name)


def _stack_name(machine: _Machine, _: Any) -> None:
    module, name = machine.take(2)
    if type(module) is not str or type(name) is not str:
        raise ValueError("a name that is no text")
    machine.push(_name(f"{module}.{name}"))


def _integer(machine: _Machine, value: int) -> None:
    if not -(2**63) <= value < 2**64:
        raise _RefusedError("an integer of more than 64 bits")
    machine.push(value)


def _dict_of(machine: _Machine) -> dict[Any, Any]:
    return dict(_pairs(machine.since_mark()))


_IGNORED = frozenset(["PROTO", "FRAME", "STOP"])
_PUSHES = frozenset(
    [
        *("BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    ]
)
"""Opcodes that push their argument."""

_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "INT": _integer,
    "LONG": _integer,
    "LONG1": _integer,
    "LONG4": _integer,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": lambda machine, _: machine.mark(),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.take(3))),
    "DICT": lambda machine, _: machine.push(_dict_of(machine)),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "MEMOIZE": lambda machine, _: machine.memoize(None),
    "PUT": lambda machine, index: machine.memoize(index),
    "BINPUT": lambda machine, index: machine.memoize(index),
    "LONG_BINPUT": lambda machine, index: machine.memoize(index),
    "GET": lambda machine, index: machine.recall(index),
    "BINGET": lambda machine, index: machine.recall(index),
    "LONG_BINGET": lambda machine, index: machine.recall(index),
    # genops separates the two parts of a name by a space.
    "GLOBAL": lambda machine, name: machine.push(_name(name.replace(" ", "."))),
    "STACK_GLOBAL": _stack_name,
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
}


class _Finisher:
    """Puts the arrays in their places, and counts what is shared each time."""

    def __init__(self) -> None:
        self._cells: dict[int, int] = {}
        self._made: dict[int, Any] = {}
        self._total = 0

    def finish(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            # One that contains itself, too.
            raise _RefusedError(f"containers nested deeper than {MAX_DEPTH}")
        known = self._made.get(id(value))
        if known is not None:
            self._count(self._cells[id(value)])
            return known
        before = self._total
        self._count(1)
        made = self._finish(value, depth + 1)
        if made is not value or isinstance(value, list | tuple | dict | set):
            self._made[id(value)] = made
            self._cells[id(value)] = self._total - before
        return made

    def _finish(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {key: self.finish(item, depth) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([self.finish(item, depth) for item in value])
        if isinstance(value, set):
            self._count(len(value))
        elif isinstance(value, _Dtype | _Name) or (
            isinstance(value, _Array) and value.value is None
        ):
            raise _RefusedError("part of an array")
        elif isinstance(value, _Array):
            self._count(value.value.size)
            return value.value
        return value

    def _count(self, cells: int) -> None:
        self._total += cells
        if self._total > MAX_CELLS:
            raise _RefusedError(f"more than {MAX_CELLS} cells")

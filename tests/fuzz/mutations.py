"""Ways to damage data: bytes, and the values that are written as bytes."""

import copy
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

_NUMBERS = [0, 1, 2, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63]
_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 91, 2**31, -(2**31), 2**63 - 1, 2**64, 10**30),
    *(0.5, float("nan"), float("inf"), -1e308, 1e39),
    *("", "7", "AV", "vehicle", "LANE_STATE_GO", "lane", "\ud800", "x" * 1000, "9" * 5000),
    *([], [0], [[0.0, 0.0]], {}, {"a": 1}, [{}], [[]], [None]),
]


def damage_bytes(data: bytes, chance: Random) -> bytes:
    """Makes one to four random changes."""
    for _ in range(chance.randint(1, 4)):
        data = chance.choice(_BYTE_CHANGES)(data, chance)
    return data


def _truncate(data: bytes, chance: Random) -> bytes:
    return data[: chance.randint(0, len(data))]


def _flip(data: bytes, chance: Random) -> bytes:
    return _overwrite(data, chance, lambda byte: byte ^ 1 << chance.randrange(8))


def _replace(data: bytes, chance: Random) -> bytes:
    return _overwrite(data, chance, lambda _: chance.randrange(256))


def _overwrite(data: bytes, chance: Random, change: Callable[[int], int]) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    index = chance.randrange(len(data))
    changed[index] = change(changed[index])
    return bytes(changed)


def _number(data: bytes, chance: Random) -> bytes:
    """Writes a number that is at the edge of something over what is there, in either order."""
    size = chance.choice([1, 2, 4, 8])
    number = (chance.choice(_NUMBERS) % 2 ** (8 * size)).to_bytes(size, chance.choice(_ORDERS))
    start = chance.randint(0, len(data))
    return data[:start] + number + data[start + size :]


def _insert(data: bytes, chance: Random) -> bytes:
    start = chance.randint(0, len(data))
    return data[:start] + chance.randbytes(chance.choice([1, 2, 4, 8, 100])) + data[start:]


def _delete(data: bytes, chance: Random) -> bytes:
    start, stop = sorted(chance.randint(0, len(data)) for _ in range(2))
    return data[:start] + data[min(stop, start + chance.choice([1, 8, 100])) :]


def _repeat(data: bytes, chance: Random) -> bytes:
    start, stop = sorted(chance.randint(0, len(data)) for _ in range(2))
    return data[:stop] + data[start:stop] * chance.choice([1, 2]) + data[stop:]


_ORDERS: Any = ("little", "big")
_BYTE_CHANGES = [_truncate, _flip, _flip, _replace, _number, _number, _insert, _delete, _repeat]


def damage_value(value: Any, chance: Random) -> Any:
    """Makes one to three random changes somewhere in a tree of dicts, lists and arrays."""
    value = copy.deepcopy(value)
    for _ in range(chance.randint(1, 3)):
        places = list(_places(value))
        if places:
            container, key = chance.choice(places)
            chance.choice(_VALUE_CHANGES)(container, key, chance)
    return value


def _places(value: Any) -> Any:
    """Lists where something stands: a container, and its key there."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


def _put(container: Any, key: Any, chance: Random) -> None:
    container[key] = copy.deepcopy(chance.choice(_VALUES))


def _drop(container: Any, key: Any, chance: Random) -> None:
    del container[key]


def _copy(container: Any, key: Any, chance: Random) -> None:
    """Puts something in another's place, or beside it."""
    other = chance.choice(list(container) if isinstance(container, dict) else range(len(container)))
    container[key] = copy.deepcopy(container[other])
    if isinstance(container, list):
        container.append(container[key])
    elif chance.random() < 0.5:
        container[str(chance.choice(_NUMBERS))] = container[key]


def _nest(container: Any, key: Any, chance: Random) -> None:
    for _ in range(chance.choice([1, 2, 100])):
        container[key] = [container[key]]


def _reshape(container: Any, key: Any, chance: Random) -> None:
    """Changes an array's shape, dtype or content, or a list's length."""
    item = container[key]
    if isinstance(item, np.ndarray):
        changes = [
            lambda: item[:-1],
            lambda: item[None],
            lambda: item.reshape(-1),
            lambda: item.astype(chance.choice(["f2", "i1", "u8", "?", "f8"])),
            lambda: item.tolist(),
            lambda: np.full(item.shape, chance.choice([np.nan, np.inf, 1e300, -1.0])),
        ]
        with np.errstate(all="ignore"):
            container[key] = chance.choice(changes)()
    elif isinstance(item, list):
        container[key] = item[: chance.randint(0, len(item))] * chance.choice([1, 1, 2])
    else:
        _put(container, key, chance)


_VALUE_CHANGES = [_put, _put, _drop, _copy, _nest, _reshape, _reshape]


def damage_message(message: Any, chance: Random) -> Any:
    """Makes one to three random changes somewhere in a protocol buffer."""
    changed = copy.deepcopy(message)
    for _ in range(chance.randint(1, 3)):
        inner = chance.choice(list(_messages(changed)))
        _damage_field(inner, chance.choice(inner.DESCRIPTOR.fields), chance)
    return changed


def _messages(message: Any) -> Any:
    """Lists a message and some of those in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in list(value)[:3] if field.is_repeated else [value]:
                yield from _messages(item)


def _damage_field(message: Any, field: Any, chance: Random) -> None:
    value = getattr(message, field.name)
    if chance.random() < 0.3:
        message.ClearField(field.name)
    elif field.message_type is not None:
        if field.is_repeated:
            value.extend([copy.deepcopy(value[0])] * chance.choice([1, 10]) if value else [])
        else:
            value.SetInParent()
    elif field.is_repeated:
        value.extend(_scalars(field, chance) * chance.choice([1, 10]))
    else:
        setattr(message, field.name, _scalars(field, chance)[0])


def _scalars(field: Any, chance: Random) -> list[Any]:
    kinds = {
        field.CPPTYPE_INT32: [0, -1, 4, 9, 11, 2**31 - 1, -(2**31)],
        field.CPPTYPE_INT64: [0, -1, 5, 2**63 - 1, -(2**63)],
        field.CPPTYPE_DOUBLE: [0.0, -1.0, float("nan"), float("inf"), 1e308, 1e39],
        field.CPPTYPE_FLOAT: [0.0, -1.0, float("nan"), float("inf"), 1e30],
        field.CPPTYPE_BOOL: [False, True],
        field.CPPTYPE_STRING: ["", "x" * 1000],
    }
    return [chance.choice(kinds[field.cpp_type])]

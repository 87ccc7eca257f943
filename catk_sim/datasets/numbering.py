"""Numbers for what a source names by text, as WOMD's records want them."""

from collections.abc import Iterable

_MAX_NUMBER = 2**31 - 1
"""WOMD's track ids have 32 bits."""


def number_names(names: Iterable[str]) -> dict[str, int]:
    """Gives each name a number of its own.

    A name that is a number keeps it; the others are counted on from the largest, in order.
    """
    ordered = list(dict.fromkeys(names))
    numbers = {name: int(name) for name in ordered if is_number(name)}
    following = max(numbers.values(), default=-1) + 1
    for name in ordered:
        if name not in numbers:
            numbers[name] = following
            following += 1
    return numbers


def is_number(name: str) -> bool:
    """Tells whether a name is a number in its usual spelling, so that no two mean the same."""
    if not (name.isascii() and name.isdecimal() and len(name) <= len(str(_MAX_NUMBER))):
        return False
    return str(int(name)) == name and int(name) < _MAX_NUMBER

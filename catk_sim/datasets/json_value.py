"""JSON values that know where they stand in their file."""

import json
import reprlib
from enum import IntEnum
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from catk_sim.datasets.errors import DataError

Member = TypeVar("Member", bound=IntEnum)
Value = TypeVar("Value", bound="JsonValue")

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 50, 50


class JsonValue:
    """A value of a JSON file, asked for what it should be.

    Every method raises `DataError`, which names the way to the value, if it is something else.

    Args:
        value: What `json` made of it.
        path: The way to it, such as "objects[3].heading".
        source: The file.
    """

    def __init__(self, value: Any, path: str, source: str) -> None:
        self.value = value
        self.path = path
        self.source = source

    @classmethod
    def parse(cls, data: bytes, source: str) -> "JsonValue":
        """Parses the text of a file."""
        try:
            return cls(json.loads(data), "", source)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not JSON: {error}", source) from error

    def error(self, wanted: str, got: str = "") -> DataError:
        """Makes the error that says what was wanted here and, unless told, what stands here."""
        # Not all of it: a file may be one value.
        text = " ".join(_SHORT.repr(self.value).split())
        got = got or (text if len(text) <= 60 else f"{text[:60]}...")
        return DataError(f"{self.path or 'the file'}: wanted {wanted}, got {got}", self.source)

    def __getitem__(self: Value, key: str) -> Value:
        if not isinstance(self.value, dict) or key not in self.value:
            raise self.error(f'an object with the key "{key}"')
        return type(self)(self.value[key], f"{self.path}.{key}".lstrip("."), self.source)

    def elements(self: Value) -> list[Value]:
        """Lists the elements of an array."""
        if not isinstance(self.value, list):
            raise self.error("an array")
        return [
            type(self)(element, f"{self.path}[{index}]", self.source)
            for index, element in enumerate(self.value)
        ]

    def entries(self: Value) -> list[tuple[str, Value]]:
        """Lists the keys and values of an object."""
        if not isinstance(self.value, dict):
            raise self.error("an object")
        return [(key, self[key]) for key in self.value]

    def text(self) -> str:
        """Returns a string."""
        if not isinstance(self.value, str):
            raise self.error("a string")
        return self.value

    def integer(self) -> int:
        """Returns an integer of at most 64 bits."""
        if type(self.value) is not int or not -(2**63) <= self.value < 2**63:
            raise self.error("an integer")
        return self.value

    def member(self, names: type[Member]) -> Member:
        """Returns the member of an enumeration that a string names in lower case."""
        members = {name.lower(): member for name, member in names.__members__.items()}
        if self.text() not in members:
            raise self.error("one of " + ", ".join(members))
        return members[self.text()]

    def flags(self) -> Bool[ndarray, " length"]:
        """Returns an array of booleans."""
        if not isinstance(self.value, list) or set(map(type, self.value)) - {bool}:
            raise self.error("an array of true and false")
        return np.array(self.value, bool)

    def flag(self) -> bool:
        """Returns a boolean."""
        if not isinstance(self.value, bool):
            raise self.error("true or false")
        return self.value

    def number(self) -> float:
        """Returns a number. JSON as Python reads it may hold NaN and infinities."""
        return float(self._array([self.value], "a number")[0])

    def numbers(self) -> Float[ndarray, " length"]:
        """Returns an array of numbers."""
        wanted = "an array of numbers"
        if not isinstance(self.value, list):
            raise self.error(wanted)
        return self._array(self.value, wanted)

    def vectors(self, *axes: str) -> Float[ndarray, "length axes"]:
        """Returns an array of objects that hold a number for each of two or more axes."""
        wanted = f"an array of objects with the numbers {', '.join(axes)}"
        try:
            flat = list(chain.from_iterable(map(itemgetter(*axes), self.value)))
        except (KeyError, TypeError) as error:
            raise self.error(wanted) from error
        return self._array(flat, wanted).reshape(-1, len(axes))

    def _array(self, values: list[Any], wanted: str) -> Float[ndarray, " length"]:
        if set(map(type, values)) - {int, float}:
            raise self.error(wanted)
        try:
            return np.array(values, np.float64)
        except OverflowError as error:
            raise self.error(wanted) from error

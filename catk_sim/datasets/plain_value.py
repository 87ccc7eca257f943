"""Values of a pickle of plain data that know where they stand in their file."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from catk_sim.datasets.errors import DataError
from catk_sim.datasets.json_value import JsonValue, Value


class PlainValue(JsonValue):
    """A value that `load_plain` made. Where JSON has arrays, it may have lists or tuples."""

    def error(self, wanted: str, got: str = "") -> DataError:
        """Makes the error that says what was wanted here and what stands here."""
        if isinstance(self.value, ndarray):
            got = got or f"an array of {self.value.dtype}, {self.value.shape}"
        return super().error(wanted, got)

    def has(self, key: str) -> bool:
        """Tells whether this is an object with a key."""
        return isinstance(self.value, dict) and key in self.value

    def elements(self: Value) -> list[Value]:
        """Lists the elements of a list or a tuple."""
        if isinstance(self.value, tuple):
            return type(self)(list(self.value), self.path, self.source).elements()
        return super().elements()

    def entries(self: Value) -> list[tuple[str, Value]]:
        """Lists the keys and values of an object whose keys are strings."""
        if isinstance(self.value, dict) and set(map(type, self.value)) - {str}:
            raise self.error("an object whose keys are strings")
        return super().entries()

    def identity(self) -> str:
        """Returns a string, or an integer in its place, as the name of something."""
        return str(self.value) if type(self.value) is int else self.text()

    def whole(self) -> int:
        """Returns an integer, or a string that spells one."""
        if isinstance(self.value, str) and self.value.isascii() and len(self.value) < 19:
            try:
                return int(self.value)
            except ValueError as error:
                raise self.error("an integer") from error
        return self.integer()

    def column(self, length: int) -> Float[ndarray, " length"]:
        """Returns an array of numbers, which may have a second dimension of 1."""
        array = self._numeric(f"an array of {length} numbers")
        if array.shape not in ((length,), (length, 1)):
            raise self.error(f"an array of {length} numbers")
        return array.reshape(length)

    def column_of_flags(self, length: int) -> Bool[ndarray, " length"]:
        """Returns an array of booleans, which may be numbers that are 0 or 1."""
        array = self.column(length)
        if not np.isin(array, (0.0, 1.0)).all():
            raise self.error(f"an array of {length} booleans")
        return array > 0

    def table(self, *widths: int, length: int | None = None) -> Float[ndarray, "length columns"]:
        """Returns an array, or a list of lists, with one of several numbers of columns."""
        wanted = f"{'' if length is None else f'{length} '}rows of {' or '.join(map(str, widths))}"
        if isinstance(self.value, list | tuple):
            array = self._rows(widths, wanted)
        else:
            array = self._numeric(f"{wanted} numbers")
        if array.size == 0 and length in (0, None):
            return np.zeros((0, widths[-1]))
        if array.ndim != 2 or array.shape[1] not in widths or length not in (None, len(array)):
            raise self.error(f"{wanted} numbers")
        return array

    def _rows(self, widths: tuple[int, ...], wanted: str) -> Float[ndarray, "length columns"]:
        rows: Any = self.value
        lengths = {len(row) if isinstance(row, list | tuple) else -1 for row in rows}
        if not rows:
            return np.zeros((0, widths[-1]))
        if len(lengths) > 1 or not lengths <= set(widths):
            raise self.error(f"{wanted} numbers")
        [width] = lengths
        flat = [number for row in rows for number in row]
        return self._array(flat, f"{wanted} numbers").reshape(-1, width)

    def _numeric(self, wanted: str) -> Float[ndarray, "*shape"]:
        if isinstance(self.value, list | tuple):
            return self._array(list(self.value), wanted)
        if not isinstance(self.value, ndarray):
            raise self.error(wanted)
        # A NaN may be one that numpy warns of. It is for the checks of recordings to refuse.
        with np.errstate(invalid="ignore"):
            return self.value.astype(np.float64)

"""Many small protocol buffers at once, as a table of numbers."""

from collections.abc import Sequence
from itertools import compress
from operator import attrgetter
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from jaxtyping import Bool, Float
from numpy import ndarray

_SCALARS = {
    FieldDescriptor.TYPE_DOUBLE: ("<f8", 1),
    FieldDescriptor.TYPE_FLOAT: ("<f4", 5),
    FieldDescriptor.TYPE_BOOL: ("u1", 0),
}
"""How numpy reads a scalar, and its wire type."""


class MessageTable:
    """Decodes messages whose fields are doubles, floats and booleans.

    Messages with all their fields in order are laid out alike, so numpy decodes them together. Any
    other valid encoding is decoded by protobuf, once for all that are equal.

    Args:
        message: A generated class, with at least two fields, whose numbers are at most 15.
    """

    def __init__(self, message: Any) -> None:
        fields = sorted(message.DESCRIPTOR.fields, key=lambda field: field.number)
        self._message = message
        self._names = [field.name for field in fields]
        self._numbers = attrgetter(*self._names)
        self._booleans = [field.name for field in fields if field.type == field.TYPE_BOOL]
        self._tags = {
            f"tag of {field.name}": field.number << 3 | _SCALARS[field.type][1] for field in fields
        }
        columns = [
            column
            for field in fields
            for column in (
                (f"tag of {field.name}", "u1"),
                (field.name, _SCALARS[field.type][0]),
            )
        ]
        self._layout = np.dtype(columns)

    def decode(self, messages: Sequence[bytes]) -> Float[ndarray, "messages fields"]:
        """Decodes messages into a row each, with a column for each field in order of its number.

        Raises:
            google.protobuf.message.DecodeError: If one is not such a message.
        """
        lengths = np.fromiter(map(len, messages), np.int64, len(messages))
        complete = lengths == self._layout.itemsize
        together = messages if complete.all() else compress(messages, complete.tolist())
        table = np.frombuffer(b"".join(together), self._layout)
        usual = self._is_usual(table)
        # A NaN may be one that numpy warns of. It is for the reader to refuse.
        with np.errstate(invalid="ignore"):
            known = np.stack([table[name] for name in self._names], axis=1, dtype=np.float64)
        if len(known) == len(messages) and usual.all():
            return known
        complete[complete] = usual
        values = np.empty((len(messages), len(self._names)))
        values[complete] = known[usual]
        values[~complete] = self._decode_singly(list(compress(messages, (~complete).tolist())))
        return values

    def _decode_singly(self, messages: Sequence[bytes]) -> Float[ndarray, "messages fields"]:
        row = {data: index for index, data in enumerate(dict.fromkeys(messages))}
        known = [self._numbers(self._message.FromString(data)) for data in row]
        rows = [row[data] for data in messages]
        return np.array(known, np.float64)[rows]

    def _is_usual(self, table: ndarray) -> Bool[ndarray, " messages"]:
        """Tells which rows are laid out as the columns suppose."""
        usual = np.ones(len(table), bool)
        for column, tag in self._tags.items():
            usual &= table[column] == tag
        for column in self._booleans:
            usual &= table[column] <= 1
        return usual

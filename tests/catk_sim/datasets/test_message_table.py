import struct

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.datasets.message_table import MessageTable
from catk_sim.datasets.womd_schema import message_class

MapPoint, ObjectState = message_class("MapPoint"), message_class("ObjectState")
doubles = st.floats(allow_nan=False)
floats = st.floats(allow_nan=False, width=32)


def coordinate(number: int, value: float) -> bytes:
    return struct.pack("<Bd", number << 3 | 1, value)


@given(st.lists(st.builds(MapPoint, x=doubles, y=doubles, z=doubles)))
def test_complete_messages_are_decoded(points: list) -> None:
    table = MessageTable(MapPoint).decode([point.SerializeToString() for point in points])
    assert table.tolist() == [[point.x, point.y, point.z] for point in points]


# None leaves a field out.
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "center_x": doubles,
                "center_z": doubles,
                "length": floats,
                "velocity_y": floats,
                "valid": st.booleans(),
            },
        )
    )
)
def test_absent_fields_are_zero(contents: list[dict[str, float]]) -> None:
    states = [ObjectState(**content) for content in contents]
    table = MessageTable(ObjectState).decode([state.SerializeToString() for state in states])
    assert table[:, [0, 2, 3, 8, 9]].tolist() == [
        [state.center_x, state.center_z, state.length, state.velocity_y, state.valid]
        for state in states
    ]


def test_fields_may_come_in_any_order_and_twice() -> None:
    usual = coordinate(1, 10.0) + coordinate(2, 20.0) + coordinate(3, 30.0)
    turned = coordinate(3, 3.0) + coordinate(1, 1.0) + coordinate(2, 2.0)
    twice = coordinate(1, 7.0) + coordinate(1, 8.0) + coordinate(2, 9.0)
    table = MessageTable(MapPoint).decode([usual, turned, twice, usual])
    assert table.tolist() == [[10, 20, 30], [1, 2, 3], [8, 9, 0], [10, 20, 30]]


def test_what_is_laid_out_otherwise_is_decoded_wherever_it_stands() -> None:
    first, second = coordinate(1, 1.0), coordinate(2, 2.0)
    whole = first + second + coordinate(3, 3.0)
    table = MessageTable(MapPoint).decode([second, first, whole, second, b""])
    assert table.tolist() == [[0, 2, 0], [1, 0, 0], [1, 2, 3], [0, 2, 0], [0, 0, 0]]


def test_unknown_fields_are_passed_over() -> None:
    point = coordinate(1, 1.0) + coordinate(2, 2.0) + coordinate(9, 5.0)
    assert MessageTable(MapPoint).decode([point]).tolist() == [[1, 2, 0]]


def test_a_boolean_is_true_if_its_number_is_not_zero() -> None:
    state = ObjectState(**{field.name: 1 for field in ObjectState.DESCRIPTOR.fields})
    odd = state.SerializeToString()[:-1] + b"\x05"
    assert MessageTable(ObjectState).decode([odd])[0, -1] == 1


def test_a_nan_of_any_kind_is_decoded_as_nan() -> None:
    state = ObjectState(**{field.name: 1 for field in ObjectState.DESCRIPTOR.fields})
    signalling = b"\x2d\x01\x00\xa0\x7f"
    odd = state.SerializeToString().replace(struct.pack("<Bf", 0x2D, 1.0), signalling)
    table = MessageTable(ObjectState).decode([odd])
    assert np.isnan(table[0]).tolist() == [False] * 3 + [True] + [False] * 6


def test_no_messages_make_an_empty_table() -> None:
    assert MessageTable(MapPoint).decode([]).shape == (0, 3)


@pytest.mark.parametrize("data", [b"\x09", b"\xff" * 27, coordinate(1, 1.0)[:-1]])
def test_what_is_no_message_is_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        MessageTable(MapPoint).decode([data])


@given(st.binary(min_size=27, max_size=27))
def test_any_bytes_are_decoded_as_protobuf_decodes_them(data: bytes) -> None:
    try:
        point = MapPoint.FromString(data)
    except DecodeError:
        return
    expected = np.array([[point.x, point.y, point.z]])
    np.testing.assert_array_equal(MessageTable(MapPoint).decode([data]), expected)

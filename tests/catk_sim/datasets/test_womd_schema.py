from typing import Any

import pytest

from catk_sim.datasets.womd_schema import message_class, writing_class
from tests.catk_sim.datasets.protos import scenario_pb2


def pairs(ours: Any, theirs: Any) -> list[tuple[Any, Any]]:
    """Lists each field that is reached from a message, ours beside Waymo's."""
    found = []
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        found.append((field, other))
        if field.message_type is not None:
            found.extend(pairs(field.message_type, other.message_type))
    return found


def wire_type(field: Any) -> int:
    """The type, with enumerations as the numbers that they are on the wire."""
    if field.type == field.TYPE_ENUM:
        return field.TYPE_INT32
    return field.type


def test_the_schema_agrees_with_waymos() -> None:
    theirs = scenario_pb2().Scenario.DESCRIPTOR
    found = pairs(message_class("Scenario").DESCRIPTOR, theirs)
    assert len(found) > 60
    for ours, other in found:
        assert ours.number == other.number, ours.full_name
        assert ours.is_repeated == other.is_repeated, ours.full_name
        if ours.type == ours.TYPE_BYTES:
            assert other.message_type.name in ("ObjectState", "MapPoint")
        else:
            assert wire_type(ours) == wire_type(other), ours.full_name


def test_the_schema_for_writing_agrees_with_waymos_in_points_and_states_too() -> None:
    theirs = scenario_pb2().Scenario.DESCRIPTOR
    found = pairs(writing_class("Scenario").DESCRIPTOR, theirs)
    assert len(found) > 100
    for ours, other in found:
        assert ours.number == other.number, ours.full_name
        assert ours.is_repeated == other.is_repeated, ours.full_name
        assert wire_type(ours) == wire_type(other), ours.full_name


@pytest.mark.parametrize("name", ["ObjectState", "MapPoint"])
def test_what_is_left_as_bytes_agrees_with_waymos(name: str) -> None:
    state = scenario_pb2().ObjectState.DESCRIPTOR
    stop_point = scenario_pb2().DynamicMapState.DESCRIPTOR.fields[0].message_type
    theirs = {
        "ObjectState": state,
        "MapPoint": stop_point.fields_by_name["stop_point"].message_type,
    }[name]
    fields = message_class(name).DESCRIPTOR.fields
    assert {(field.name, field.number, field.type) for field in fields} == {
        (field.name, field.number, field.type) for field in theirs.fields
    }


def test_a_feature_is_of_one_kind() -> None:
    feature = message_class("MapFeature")()
    feature.lane.type = 2
    feature.stop_sign.lane.append(1)
    assert feature.WhichOneof("feature_data") == "stop_sign"
    assert not feature.HasField("lane")


def test_waymos_classes_can_live_beside_the_schema() -> None:
    assert scenario_pb2().Scenario is not message_class("Scenario")

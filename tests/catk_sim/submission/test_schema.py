from typing import Any

import pytest

from catk_sim.submission.schema import SIM_AGENTS_SUBMISSION, message_class

MESSAGES = [
    "SimulatedTrajectory",
    "JointScene",
    "ScenarioRollouts",
    "SimAgentsChallengeSubmission",
]
NOT_OF_THIS_CHALLENGE = {"width", "length", "height", "valid", "object_type"}


def waymos(name: str) -> Any:
    module = pytest.importorskip("waymo_open_dataset.protos.sim_agents_submission_pb2")
    return getattr(module, name)


def wire_type(field: Any) -> tuple[bool, int]:
    """Whether a field may come several times, and its type; the same where the bytes are."""
    if field.type == field.TYPE_ENUM:
        return field.is_repeated, field.TYPE_INT32
    if field.type == field.TYPE_FLOAT and field.is_packed:
        return False, field.TYPE_BYTES
    return field.is_repeated, field.type


@pytest.mark.parametrize("name", MESSAGES)
def test_the_schema_agrees_with_waymos(name: str) -> None:
    ours = message_class(name).DESCRIPTOR
    theirs = waymos(name).DESCRIPTOR
    expected = {field.name: field for field in theirs.fields}
    assert expected.keys() - {field.name for field in ours.fields} <= NOT_OF_THIS_CHALLENGE
    for field in ours.fields:
        other = expected[field.name]
        assert field.number == other.number, field.full_name
        if field.type == field.TYPE_BYTES and other.message_type is not None:
            assert field.is_repeated
            assert other.is_repeated
        else:
            assert wire_type(field) == wire_type(other), field.full_name
        if field.message_type is not None:
            assert other.message_type is not None
            assert field.message_type.name == other.message_type.name


def test_the_type_of_a_submission_is_waymos() -> None:
    assert SIM_AGENTS_SUBMISSION == waymos("SimAgentsChallengeSubmission").SIM_AGENTS_SUBMISSION

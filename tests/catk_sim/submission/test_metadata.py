import dataclasses
from typing import Any

import pytest

from catk_sim.submission.schema import message_class
from tests.catk_sim.submission.made import METADATA


def test_metadata_reach_the_message() -> None:
    names = ("one", "other")
    metadata = dataclasses.replace(
        METADATA, uses_public_model_pretraining=True, public_model_names=names
    )
    message = metadata.message()
    for field in dataclasses.fields(metadata):
        value = getattr(message, field.name)
        expected = getattr(metadata, field.name)
        assert (tuple(value) if isinstance(expected, tuple) else value) == expected
    assert message.submission_type == 1
    assert not message.scenario_rollouts


def test_what_is_false_is_told_too() -> None:
    message = message_class("SimAgentsChallengeSubmission")
    read = message.FromString(METADATA.message().SerializeToString())
    for name in ("uses_lidar_data", "uses_camera_data", "uses_public_model_pretraining"):
        assert read.HasField(name)
        assert getattr(read, name) is False


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"account_name": ""}, "account_name must be an email address, got ''"),
        ({"account_name": "someone"}, "account_name must be an email address, got 'someone'"),
        ({"account_name": "a b@c.de"}, "account_name must be an email address"),
        ({"unique_method_name": " "}, "wanted a unique_method_name, got none"),
        ({"affiliation": ""}, "wanted a affiliation, got none"),
        ({"description": "\n"}, "wanted a description, got none"),
        ({"authors": ()}, r"at least one author.*got \[\]"),
        ({"authors": ("A", " ")}, "none without a name"),
        ({"num_model_parameters": ""}, "num_model_parameters must be an integer.*got ''"),
        ({"num_model_parameters": "7.1M"}, "got '7.1M'"),
        ({"num_model_parameters": "7m"}, "got '7m'"),
        ({"method_link": "my paper"}, "method_link must start with http"),
        ({"uses_public_model_pretraining": True}, "if and only if uses_public_model_pretraining"),
        ({"public_model_names": ("X",)}, "if and only if uses_public_model_pretraining"),
        (
            {"acknowledge_complies_with_closed_loop_requirement": False},
            "acknowledge_complies_with_closed_loop_requirement must be true",
        ),
    ],
)
def test_what_the_server_would_reject_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(METADATA, **change)


@pytest.mark.parametrize("change", [{"method_link": ""}, {"num_model_parameters": "24"}])
def test_what_the_challenge_leaves_open_is_accepted(change: dict[str, Any]) -> None:
    dataclasses.replace(METADATA, **change)

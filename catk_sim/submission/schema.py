"""The schema of submissions to the Sim Agents Challenge.

It says what Waymo's `sim_agents_submission.proto` says of the fields that this challenge reads.
What is many or large is left as bytes, which are the same on the wire: a trajectory's packed
floats, that numpy takes 80 at a time, and whole scenarios, that are read one by one. Enumerations
are left as numbers. Writing and reading therefore need none of Waymo's code.
"""

from typing import Any

from catk_sim.datasets.proto_schema import ProtoSchema

SIM_AGENTS_SUBMISSION = 1
"""What `submission_type` must be."""

_SCHEMA = ProtoSchema(
    "catk_sim.submission",
    """
message SimulatedTrajectory {
  bytes center_x = 2;
  bytes center_y = 3;
  bytes center_z = 4;
  bytes heading = 5;
  int32 object_id = 6;
}
message JointScene {
  repeated SimulatedTrajectory simulated_trajectories = 1;
}
message ScenarioRollouts {
  string scenario_id = 1;
  repeated JointScene joint_scenes = 2;
}
message SimAgentsChallengeSubmission {
  repeated bytes scenario_rollouts = 1;
  int32 submission_type = 2;
  string account_name = 3;
  string unique_method_name = 4;
  repeated string authors = 5;
  string affiliation = 6;
  string description = 7;
  string method_link = 8;
  bool uses_lidar_data = 9;
  bool uses_camera_data = 10;
  bool uses_public_model_pretraining = 11;
  string num_model_parameters = 12;
  repeated string public_model_names = 13;
  bool acknowledge_complies_with_closed_loop_requirement = 14;
}
""",
)


def message_class(name: str) -> Any:
    """Returns the class of a message of the schema."""
    return _SCHEMA.message_class(name)

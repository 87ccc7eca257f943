"""What every file format tells, before it is checked and centred.

A reader turns its file into a `Recording`, and `to_scenario` makes the `Scenario`. So whatever a
file must fulfil is asked of every format, in the same words.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from numpy import ndarray

STATE_FIELDS = ("x", "y", "z", "length", "width", "height", "heading", "velocity x", "velocity y")
"""The columns of `RecordedAgents.states` (m, rad, m/s)."""

LINK_COLUMNS = 9
"""The columns of `RecordedMap.links`: those of `LaneLinks` without `valid`, in its order."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordedAgents:
    """The agents of a recording.

    Attributes:
        agent_id: Unique number of each agent.
        type: `AgentType` of each agent.
        states: `STATE_FIELDS` at each step, in the file's coordinates.
        valid: Whether the agent is present at the step. Where it is not, `states` may hold
            anything.
        sdc: Index of the self-driving car.
        to_predict: Index and difficulty of each agent to predict.
        of_interest: Ids of the agents of interest.
    """

    agent_id: Int[ndarray, " agents"]
    type: Int[ndarray, " agents"]
    states: Float[ndarray, "agents steps 9"]
    valid: Bool[ndarray, "agents steps"]
    sdc: int
    to_predict: dict[int, int]
    of_interest: list[int]


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordedMap:
    """The map of a recording.

    Attributes:
        feature_id: Number of each feature.
        feature_type: `MapFeatureType` of each feature.
        speed_limit: Speed limit of lanes (mph), else 0.
        interpolating: Whether a lane was interpolated between two others.
        num_points: How many points each feature has.
        xyz: The points of all features, feature after feature, in the file's coordinates (m).
        links: The lane graph; see `LINK_COLUMNS`.
    """

    feature_id: Int[ndarray, " features"]
    feature_type: Int[ndarray, " features"]
    speed_limit: Float[ndarray, " features"]
    interpolating: Bool[ndarray, " features"]
    num_points: Int[ndarray, " features"]
    xyz: Float[ndarray, "points 3"]
    links: Int[ndarray, "links 9"]


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordedLights:
    """The lights of a recording, as a list of observations in order of time.

    Attributes:
        step: When it was observed.
        lane_id: The lane that the light controls.
        state: `TrafficLightState` that was observed.
        stop_xyz: Where traffic stops, in the file's coordinates (m).
    """

    step: Int[ndarray, " observations"]
    lane_id: Int[ndarray, " observations"]
    state: Int[ndarray, " observations"]
    stop_xyz: Float[ndarray, "observations 3"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Recording:
    """A scenario as a file tells it.

    Attributes:
        scenario_id: The file's name for the scenario.
        lacks: What the source does not tell; see `Scenario`.
        timestamps: Time of each step (s).
        agents: The agents.
        roadgraph: The map. May be empty.
        lights: The lights. May be empty.
    """

    scenario_id: str
    lacks: str = ""
    timestamps: Float[ndarray, " steps"]
    agents: RecordedAgents
    roadgraph: RecordedMap
    lights: RecordedLights

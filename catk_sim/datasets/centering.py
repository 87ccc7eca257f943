"""Recordings become scenarios, in the frame of their sdc."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from catk_sim.constants import CURRENT_STEP
from catk_sim.datasets.errors import DataError
from catk_sim.datasets.recording import RecordedAgents, RecordedLights, RecordedMap, Recording
from catk_sim.datasets.recording_checks import check_recording, fits_float32
from catk_sim.datatypes import (
    AgentMetadata,
    LaneLinks,
    RoadGraph,
    Scenario,
    TrafficLights,
    Trajectory,
)

MAX_LIGHT_STATES = 2**22
"""How many lanes times steps lights may have. A file that names each lane once, at one of many
steps, would otherwise take memory that grows with its square."""


def to_scenario(recording: Recording, source: str) -> Scenario:
    """Checks a recording and centres it on the sdc.

    Args:
        recording: What the file tells.
        source: The file, and the record's number; for errors.

    Raises:
        DataError: If the recording cannot be a scenario.
    """
    check_recording(recording, source)
    agents = recording.agents
    origin = _origin(agents)
    # What a file tells of absent agents is kept: WOSAC computes with some of it.
    states = np.where(fits_float32(agents.states), agents.states, 0.0)
    states[..., :3] -= origin
    sizes = np.ascontiguousarray(states[..., 3:6])
    return Scenario(
        scenario_id=(recording.scenario_id,),
        lacks=(recording.lacks,),
        origin=_tensor(origin),
        timestamps=_tensor(recording.timestamps),
        log=Trajectory(
            xy=_tensor(states[..., :2]),
            z=_tensor(states[..., 2]),
            heading=_tensor(states[..., 6]),
            velocity=_tensor(states[..., 7:]),
            valid=_tensor(agents.valid),
        ),
        log_size=_tensor(sizes),
        agents=_metadata(agents, sizes),
        roadgraph=_roadgraph(recording.roadgraph, origin),
        traffic_lights=_traffic_lights(recording, origin, source),
    )


def _nearest_valid(valid: Bool[ndarray, "agents steps"]) -> Int[ndarray, " agents"]:
    """Finds each agent's valid step that is nearest to the current one; the earlier of two."""
    away = np.abs(np.arange(valid.shape[1]) - CURRENT_STEP)
    return np.where(valid, away, valid.shape[1]).argmin(axis=1)


def _origin(agents: RecordedAgents) -> Float[ndarray, "3"]:
    """Rounds the position of the sdc, or of whoever is present nearest to the current step."""
    step = _nearest_valid(agents.valid)
    away = np.where(agents.valid.any(axis=1), np.abs(step - CURRENT_STEP), np.inf)
    agent = agents.sdc if np.isfinite(away[agents.sdc]) else int(away.argmin())
    if not np.isfinite(away[agent]):
        return np.zeros(3)
    return np.round(agents.states[agent, step[agent], :3])


def _metadata(agents: RecordedAgents, sizes: Float[ndarray, "agents steps 3"]) -> AgentMetadata:
    index = np.arange(len(agents.agent_id))
    difficulty = np.zeros(len(index), np.int64)
    difficulty[list(agents.to_predict)] = list(agents.to_predict.values())
    return AgentMetadata(
        agent_id=_tensor(agents.agent_id),
        type=_tensor(agents.type),
        size=_tensor(sizes[index, _nearest_valid(agents.valid)]),
        is_sdc=_tensor(index == agents.sdc),
        to_predict=_tensor(np.isin(index, list(agents.to_predict))),
        difficulty=_tensor(difficulty),
        of_interest=_tensor(np.isin(agents.agent_id, agents.of_interest)),
        valid=torch.ones(len(index), dtype=torch.bool),
    )


def _roadgraph(roadgraph: RecordedMap, origin: Float[ndarray, "3"]) -> RoadGraph:
    links = torch.from_numpy(roadgraph.links)
    return RoadGraph(
        xyz=_tensor(roadgraph.xyz - origin),
        feature=_tensor(_point_feature(roadgraph)),
        point_valid=torch.ones(len(roadgraph.xyz), dtype=torch.bool),
        feature_id=_tensor(roadgraph.feature_id),
        feature_type=_tensor(roadgraph.feature_type),
        speed_limit=_tensor(roadgraph.speed_limit),
        interpolating=_tensor(roadgraph.interpolating),
        feature_valid=torch.ones(len(roadgraph.feature_id), dtype=torch.bool),
        links=LaneLinks(
            feature=links[:, 0].contiguous(),
            type=links[:, 1].contiguous(),
            other_id=links[:, 2].contiguous(),
            span=links[:, 3:7].contiguous(),
            boundary_type=links[:, 7].contiguous(),
            neighbor=links[:, 8].contiguous(),
            valid=torch.ones(len(links), dtype=torch.bool),
        ),
    )


def _point_feature(roadgraph: RecordedMap) -> Int[ndarray, " points"]:
    return np.repeat(np.arange(len(roadgraph.num_points)), roadgraph.num_points)


def _traffic_lights(
    recording: Recording, origin: Float[ndarray, "3"], source: str
) -> TrafficLights:
    lights, num_steps = recording.lights, len(recording.timestamps)
    lane_id, row = _light_rows(lights)
    if len(lane_id) * num_steps > MAX_LIGHT_STATES:
        problem = f"wanted at most {MAX_LIGHT_STATES} states of lights"
        raise DataError(f"{problem}, got {len(lane_id)} lanes at {num_steps} steps", source)
    at = row, lights.step
    state = np.zeros((len(lane_id), num_steps), np.int64)
    stop_xyz = np.zeros((len(lane_id), num_steps, 3))
    valid = np.zeros((len(lane_id), num_steps), bool)
    state[at], stop_xyz[at], valid[at] = lights.state, lights.stop_xyz - origin, True
    return TrafficLights(
        lane_id=_tensor(lane_id),
        state=_tensor(state),
        stop_xyz=_tensor(stop_xyz),
        valid=_tensor(valid),
    )


def _light_rows(
    lights: RecordedLights,
) -> tuple[Int[ndarray, " lights"], Int[ndarray, " observations"]]:
    """Gives each lane a row, in order of appearance, and a further one if listed twice at once."""
    rows: dict[tuple[int, int], int] = {}
    times_listed: dict[tuple[int, int], int] = {}
    row = []
    for now in zip(lights.step.tolist(), lights.lane_id.tolist(), strict=True):
        times = times_listed.get(now, 0)
        times_listed[now] = times + 1
        row.append(rows.setdefault((now[1], times), len(rows)))
    lane_id = [lane for lane, _ in rows]
    return np.array(lane_id, np.int64), np.array(row, np.int64)


def _tensor(array: ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))

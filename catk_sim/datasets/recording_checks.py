"""What a recording must fulfil to be a scenario."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from catk_sim.constants import CURRENT_STEP
from catk_sim.datasets.errors import DataError
from catk_sim.datasets.recording import (
    STATE_FIELDS,
    RecordedAgents,
    RecordedLights,
    RecordedMap,
    Recording,
)
from catk_sim.datatypes import AgentType, TrafficLightState


def check_recording(recording: Recording, source: str) -> None:
    """Refuses what contradicts itself or cannot be computed with.

    Args:
        recording: What the file tells.
        source: The file, and the record's number; for errors.

    Raises:
        DataError: If the recording cannot be a scenario.
    """
    _check_text(recording.scenario_id, source)
    num_steps = len(recording.timestamps)
    if num_steps <= CURRENT_STEP:
        raise DataError(f"wanted at least {CURRENT_STEP + 1} steps, got {num_steps}", source)
    _check_finite(recording.timestamps, lambda step: f"the timestamp of step {step}", source)
    _check_agents(recording.agents, source)
    _check_states(recording.agents, source)
    _check_map(recording.roadgraph, source)
    _check_lights(recording.lights, num_steps, source)


def _check_text(scenario_id: str, source: str) -> None:
    # JSON and pickles can hold halves of characters, which no file or terminal takes.
    if any("\ud800" <= letter <= "\udfff" for letter in scenario_id):
        raise DataError(f"wanted a scenario id of whole characters, got {scenario_id!a}", source)


def _check_agents(agents: RecordedAgents, source: str) -> None:
    num_agents = len(agents.agent_id)
    if not num_agents:
        raise DataError("wanted at least one track, got none", source)
    indices = [("sdc_track_index", agents.sdc)]
    indices += [("the track_index of tracks_to_predict", index) for index in agents.to_predict]
    for name, index in indices:
        if not 0 <= index < num_agents:
            raise DataError(f"wanted {name} in [0, {num_agents}), got {index}", source)
    unique, count = np.unique(agents.agent_id, return_counts=True)
    if len(unique) < num_agents:
        raise DataError(f"two tracks have the id {unique[count > 1][0]}", source)
    if unknown := set(agents.of_interest) - set(unique.tolist()):
        raise DataError(f"objects_of_interest names track {min(unknown)}, which is absent", source)


def _check_states(agents: RecordedAgents, source: str) -> None:
    odd = ~np.isin(agents.type, list(AgentType))
    if odd.any():
        agent_id, number = agents.agent_id[odd][0], agents.type[odd][0]
        raise DataError(f"wanted the type of track {agent_id} in [0, 4], got {number}", source)
    _check_finite(
        np.where(agents.valid[..., None], agents.states, 0.0),
        lambda agent, step, field: (
            f"{STATE_FIELDS[field]} of track {agents.agent_id[agent]} at step {step}"
        ),
        source,
    )


def _check_map(roadgraph: RecordedMap, source: str) -> None:
    def name(point: int, axis: int) -> str:
        feature = np.searchsorted(roadgraph.num_points.cumsum(), point, side="right")
        return f"{STATE_FIELDS[axis]} of a point of map feature {roadgraph.feature_id[feature]}"

    _check_finite(roadgraph.xyz, name, source)
    _check_finite(
        roadgraph.speed_limit,
        lambda feature: f"the speed limit of map feature {roadgraph.feature_id[feature]}",
        source,
    )


def _check_lights(lights: RecordedLights, num_steps: int, source: str) -> None:
    _check_finite(
        lights.stop_xyz,
        lambda row, axis: f"{STATE_FIELDS[axis]} of the stop point of lane {lights.lane_id[row]}",
        source,
    )
    late = lights.step[(lights.step < 0) | (lights.step >= num_steps)]
    if late.size:
        raise DataError(f"wanted lights at {num_steps} steps, got one at step {late[0]}", source)
    odd = lights.state[~np.isin(lights.state, list(TrafficLightState))]
    if odd.size:
        raise DataError(f"wanted a light's state in [0, 8], got {odd[0]}", source)


def fits_float32(values: Float[ndarray, "*shape"]) -> Bool[ndarray, "*shape"]:
    """Tells which numbers are finite in float32."""
    with np.errstate(invalid="ignore"):
        return np.abs(values) <= np.finfo(np.float32).max


def _check_finite(values: ndarray, name: Callable[..., str], source: str) -> None:
    """Refuses what float32 cannot hold. `name` puts the index of a number into words."""
    good = fits_float32(values)
    if not good.all():
        index = tuple(np.argwhere(~good)[0].tolist())
        raise DataError(f"wanted a finite number for {name(*index)}, got {values[index]}", source)

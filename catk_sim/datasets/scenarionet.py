"""ScenarioNet's pickles: one form for the logs of several data sets, such as WOMD and nuScenes.

Quanyi Li et al., "ScenarioNet: Open-Source Platform for Large-Scale Traffic Scenario Simulation
and Modeling", arXiv:2306.12241. A file holds one log, which may be longer than a scenario.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from catk_sim.datasets.centering import to_scenario
from catk_sim.datasets.file_content import read_content
from catk_sim.datasets.numbering import number_names
from catk_sim.datasets.plain_pickle import load_plain
from catk_sim.datasets.plain_value import PlainValue
from catk_sim.datasets.recording import RecordedAgents, RecordedLights, Recording
from catk_sim.datasets.scenarionet_map import MapNumbers, recorded_map
from catk_sim.datasets.windows import cut_windows, join_phrases
from catk_sim.datatypes import AgentType, Scenario, TrafficLightState

NUSCENES = "nuscenes"

_AGENT_TYPES = {
    "UNSET": AgentType.UNSET,
    "VEHICLE": AgentType.VEHICLE,
    "PEDESTRIAN": AgentType.PEDESTRIAN,
    "CYCLIST": AgentType.CYCLIST,
    "OTHER": AgentType.OTHER,
}
_LEFT_OUT = ("TRAFFIC_CONE", "TRAFFIC_BARRIER", "TRAFFIC_OBJECT")

_WOMD_LACKS = ("stop points of lights at each step (one for all)",)
_NUSCENES_LACKS = (
    "centre of the sdc (its rear axle is given)",
    "heights of the map (taken to be 0)",
    "states between key frames (interpolated by ScenarioNet from 2 Hz)",
)
_OUTLINES = "road edges (taken from outlines of the drivable area)"
_TURNED = "length and width of the sdc (exchanged in the file)"
_COUNTED = "numbers of agents (counted)"
_NO_LIGHTS = "traffic lights"
_OBJECTS = "cones and barriers (left out)"


def read_scenarios(path: str | Path) -> list[Scenario]:
    """Reads a file. See `parse_scenarios`.

    Args:
        path: A pickle, plain or compressed with gzip or xz; its content tells which.

    Raises:
        DataError: If the file is damaged, holds more than plain data, or is no ScenarioNet log.
        FileNotFoundError: If there is no such file.
    """
    return parse_scenarios(read_content(path), source=str(path))


def parse_scenarios(data: bytes, *, source: str = "") -> list[Scenario]:
    """Reads a pickle, by `load_plain`: no code of it is run.

    Logs are cut and, if need be, interpolated by `cut_windows`. Cones, barriers and the like are
    left out. Where the log has no numbers for its agents and map features, they are counted.

    Of nuScenes: "boundary_..." are outlines of the drivable area and become road edges; the third
    number of a lane's points is a heading and is dropped; the sdc's length and width stand in each
    other's place and are exchanged; its position is that of its rear axle and is left there.

    Args:
        data: The pickle.
        source: Where it comes from, for errors.

    Returns:
        The scenarios in order of time, in float64, without padding.

    Raises:
        DataError: If the pickle is damaged, a key is missing, or a value is not what it should be.
    """
    file = PlainValue(load_plain(data, source), "", source)
    recording = _recording(file)
    return [to_scenario(window, source) for window in cut_windows(recording, source)]


@dataclass(frozen=True, kw_only=True)
class _Tracks:
    """The tracks that are kept.

    Attributes:
        values: By their names.
        numbers: The number of each.
        num_steps: Their length.
        some_left_out: Whether there were others.
    """

    values: dict[str, PlainValue]
    numbers: dict[str, int]
    num_steps: int
    some_left_out: bool


def _recording(file: PlainValue) -> Recording:
    metadata = file["metadata"]
    num_steps = file["length"].integer()
    tracks = _tracks(file["tracks"], num_steps)
    features = file["map_features"]
    numbers = MapNumbers(number_names(name for name, _ in features.entries()))
    is_nuscenes = metadata.has("dataset") and metadata["dataset"].text() == NUSCENES
    roadgraph, lacks = recorded_map(features, numbers, is_nuscenes=is_nuscenes)
    agents = _agents(tracks, metadata)
    if is_nuscenes:
        agents, exchanged = _with_sdc_along_its_length(agents)
        lacks += [*_NUSCENES_LACKS, _NO_LIGHTS, _OUTLINES] + [_TURNED] * exchanged
    else:
        lacks += _WOMD_LACKS if file["dynamic_map_states"].value else []
    lacks += [_COUNTED] * any(str(number) != name for name, number in tracks.numbers.items())
    lacks += [_OBJECTS] * tracks.some_left_out
    return Recording(
        scenario_id=file["id"].text(),
        lacks=join_phrases(lacks),
        timestamps=metadata["ts"].column(num_steps),
        agents=agents,
        roadgraph=roadgraph,
        lights=_lights(file["dynamic_map_states"], num_steps, numbers),
    )


def _tracks(value: PlainValue, num_steps: int) -> _Tracks:
    entries = value.entries()
    kept = {name: track for name, track in entries if track["type"].text() not in _LEFT_OUT}
    if not kept:
        raise value.error("at least one track")
    return _Tracks(
        values=kept,
        numbers=number_names(kept),
        num_steps=num_steps,
        some_left_out=len(kept) < len(entries),
    )


def _agents(tracks: _Tracks, metadata: PlainValue) -> RecordedAgents:
    index = {name: position for position, name in enumerate(tracks.values)}
    sdc = metadata["sdc_id"]
    if sdc.identity() not in index:
        raise sdc.error("the name of a track")
    valid = [
        track["state"]["valid"].column_of_flags(tracks.num_steps)
        for track in tracks.values.values()
    ]
    states = [_states(track["state"], tracks.num_steps) for track in tracks.values.values()]
    return RecordedAgents(
        agent_id=np.array(list(tracks.numbers.values()), np.int64),
        type=np.array([_agent_type(track["type"]) for track in tracks.values.values()], np.int64),
        states=np.stack(states),
        valid=np.stack(valid),
        sdc=index[sdc.identity()],
        to_predict=_to_predict(metadata, index),
        of_interest=_of_interest(metadata, tracks.numbers),
    )


def _agent_type(value: PlainValue) -> AgentType:
    if value.text() not in _AGENT_TYPES:
        raise value.error("one of " + ", ".join([*_AGENT_TYPES, *_LEFT_OUT]))
    return _AGENT_TYPES[value.text()]


def _states(state: PlainValue, num_steps: int) -> Float[ndarray, "steps 9"]:
    columns = [
        state["position"].table(3, length=num_steps),
        *(state[name].column(num_steps)[:, None] for name in ("length", "width", "height")),
        state["heading"].column(num_steps)[:, None],
        state["velocity"].table(2, length=num_steps),
    ]
    return np.concatenate(columns, axis=1)


def _to_predict(metadata: PlainValue, index: dict[str, int]) -> dict[int, int]:
    if not metadata.has("tracks_to_predict"):
        return {}
    found: dict[int, int] = {}
    for _, track in metadata["tracks_to_predict"].entries():
        name = track["track_id"]
        if name.identity() not in index:
            raise name.error("the name of a track")
        difficulty = track["difficulty"].integer() if track.has("difficulty") else 0
        found[index[name.identity()]] = difficulty
    return found


def _of_interest(metadata: PlainValue, numbers: dict[str, int]) -> list[int]:
    if not metadata.has("objects_of_interest"):
        return []
    names = metadata["objects_of_interest"].elements()
    for name in names:
        if name.identity() not in numbers:
            raise name.error("the name of a track")
    return [numbers[name.identity()] for name in names]


def _with_sdc_along_its_length(agents: RecordedAgents) -> tuple[RecordedAgents, bool]:
    """Exchanges length and width of the sdc if it is broader than long."""
    states = agents.states.copy()
    turned = (states[agents.sdc, :, 4] > states[agents.sdc, :, 3]) & agents.valid[agents.sdc]
    states[agents.sdc, turned, 3:5] = states[agents.sdc, turned, 4:2:-1]
    changed = RecordedAgents(
        agent_id=agents.agent_id,
        type=agents.type,
        states=states,
        valid=agents.valid,
        sdc=agents.sdc,
        to_predict=agents.to_predict,
        of_interest=agents.of_interest,
    )
    return changed, bool(turned.any())


def _lights(value: PlainValue, num_steps: int, numbers: MapNumbers) -> RecordedLights:
    lights = [_light(name, light, num_steps) for name, light in value.entries()]
    observed = [light.observed for light in lights]
    lane_id = [np.full(light.observed.sum(), numbers.of(light.lane), np.int64) for light in lights]
    step = np.concatenate([np.zeros(0, np.int64), *(np.flatnonzero(each) for each in observed)])
    in_time = np.argsort(step, kind="stable")
    return RecordedLights(
        step=step[in_time],
        lane_id=np.concatenate([np.zeros(0, np.int64), *lane_id])[in_time],
        state=np.concatenate([np.zeros(0, np.int64), *(light.states for light in lights)])[in_time],
        stop_xyz=np.concatenate([np.zeros((0, 3)), *(light.stop_xyz for light in lights)])[in_time],
    )


@dataclass(frozen=True, kw_only=True)
class _Light:
    """The light of a lane: when it was observed, and what then."""

    lane: PlainValue
    observed: Bool[ndarray, " steps"]
    states: ndarray
    stop_xyz: Float[ndarray, "observations 3"]


def _light(name: str, light: PlainValue, num_steps: int) -> _Light:
    state = light["state"]
    if state.has("lane"):
        return _light_of_each_step(name, state, num_steps)
    names = state["object_state"].elements()
    if len(names) != num_steps:
        raise state["object_state"].error(f"{num_steps} states", got=str(len(names)))
    states = [_light_state(each) for each in names]
    observed = np.array([each is not None for each in states], bool)
    stop = light["stop_point"].column(3)
    return _Light(
        lane=light["lane"],
        observed=observed,
        states=np.array([each for each in states if each is not None], np.int64),
        stop_xyz=np.tile(stop, (observed.sum(), 1)),
    )


def _light_of_each_step(name: str, state: PlainValue, num_steps: int) -> _Light:
    """Reads the older form: the lane, state and stop point of each step, the lane 0 if absent."""
    lane = state["lane"].column(num_steps)
    observed = lane != 0
    states = state["object_state"].column(num_steps)[observed]
    if not np.isin(states, list(TrafficLightState)).all():
        raise state["object_state"].error("states of lights, 0 to 8")
    return _Light(
        lane=PlainValue(name, f"{state.path}.lane", state.source),
        observed=observed,
        states=states.astype(np.int64),
        stop_xyz=state["stop_point"].table(3, length=num_steps)[observed],
    )


def _light_state(value: PlainValue) -> TrafficLightState | None:
    if value.value is None:
        return None
    name = value.text().removeprefix("LANE_STATE_")
    if name not in TrafficLightState.__members__:
        raise value.error("LANE_STATE_ and one of " + ", ".join(TrafficLightState.__members__))
    return TrafficLightState[name]

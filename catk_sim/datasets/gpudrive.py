"""GPUDrive's JSON: the form in which GPUDrive and its relatives exchange WOMD scenarios.

Saman Kazemkhani et al., "GPUDrive: Data-driven, multi-agent driving simulation at 1 million FPS",
arXiv:2408.01584. A file holds one scenario.
"""

from collections.abc import Sized
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from catk_sim.constants import STEP_SECONDS
from catk_sim.datasets.centering import to_scenario
from catk_sim.datasets.file_content import read_content
from catk_sim.datasets.json_value import JsonValue
from catk_sim.datasets.lane_graph import connect_lanes, connection_links
from catk_sim.datasets.recording import (
    RecordedAgents,
    RecordedLights,
    RecordedMap,
    Recording,
)
from catk_sim.datatypes import AgentType, MapFeatureType, Scenario, TrafficLightState

LACKS = ", ".join(
    [
        "entry and exit lanes (rebuilt from lane ends)",
        "interpolating lanes",
        "lane boundaries",
        "lane neighbors",
        "lane speed limits",
        "lanes of stop signs",
        "sizes at each step (one for all)",
        "timestamps (taken to be 0.1 s apart)",
    ]
)
"""What the format does not tell of any scenario."""

Items = TypeVar("Items", bound=Sized)


def read_scenario(path: str | Path) -> Scenario:
    """Reads a file.

    Args:
        path: A JSON file, plain or compressed with gzip or xz; its content tells which.

    Raises:
        DataError: If the file is damaged or is no GPUDrive scenario.
        FileNotFoundError: If there is no such file.
    """
    return parse_scenario(read_content(path), source=str(path))


def parse_scenario(data: bytes, *, source: str = "") -> Scenario:
    """Reads the text of a file.

    The file gives each agent one size, which is taken to hold at every step. Where the file names
    no lights, the scenario has none.

    Args:
        data: JSON.
        source: Where it comes from, for errors.

    Returns:
        One scenario in float64, without padding.

    Raises:
        DataError: If it is not JSON, a key is missing, or a value is not what it should be.
    """
    file = JsonValue.parse(data, source)
    objects = file["objects"].elements()
    if not objects:
        raise file["objects"].error("at least one object")
    num_steps = len(objects[0]["valid"].flags())
    recording = Recording(
        scenario_id=file["scenario_id"].text(),
        lacks=LACKS,
        timestamps=STEP_SECONDS * np.arange(num_steps),
        agents=_agents(objects, file["metadata"], num_steps),
        roadgraph=_map(file["roads"].elements(), source),
        lights=_lights(file["tl_states"]),
    )
    return to_scenario(recording, source)


def _agents(objects: list[JsonValue], metadata: JsonValue, num_steps: int) -> RecordedAgents:
    valid = np.stack([_valid(each["valid"], num_steps) for each in objects])
    states = np.stack([_states(each, num_steps) for each in objects])
    return RecordedAgents(
        agent_id=np.array([each["id"].integer() for each in objects], np.int64),
        type=np.array([each["type"].member(AgentType) for each in objects], np.int64),
        # GPUDrive puts absent agents at -10000; WOMD has zeros.
        states=np.where(valid[..., None], states, 0.0),
        valid=valid,
        sdc=metadata["sdc_track_index"].integer(),
        to_predict={
            each["track_index"].integer(): each["difficulty"].integer()
            for each in metadata["tracks_to_predict"].elements()
        },
        of_interest=[each.integer() for each in metadata["objects_of_interest"].elements()],
    )


def _valid(value: JsonValue, num_steps: int) -> Bool[ndarray, " steps"]:
    return _check_length(value, value.flags(), num_steps)


def _states(item: JsonValue, num_steps: int) -> Float[ndarray, "steps 9"]:
    size = [item[key].number() for key in ("length", "width", "height")]
    return np.concatenate(
        [
            _vectors(item["position"], "xyz", num_steps),
            np.tile(size, (num_steps, 1)),
            _numbers(item["heading"], num_steps)[:, None],
            _vectors(item["velocity"], "xy", num_steps),
        ],
        axis=1,
    )


def _map(roads: list[JsonValue], source: str) -> RecordedMap:
    feature_type = np.array([_feature_type(road["map_element_id"]) for road in roads], np.int64)
    points = [road["geometry"].vectors("x", "y", "z") for road in roads]
    num_points = np.array([len(each) for each in points], np.int64)
    feature_id = np.array([road["id"].integer() for road in roads], np.int64)
    xyz = np.concatenate([np.zeros((0, 3)), *points])
    is_lane = feature_type <= MapFeatureType.LANE_BIKE_LANE
    before, after = connect_lanes(xyz, num_points, is_lane, source)
    return RecordedMap(
        feature_id=feature_id,
        feature_type=feature_type,
        speed_limit=np.zeros(len(roads)),
        interpolating=np.zeros(len(roads), bool),
        num_points=num_points,
        xyz=xyz,
        links=connection_links(before, after, feature_id),
    )


def _feature_type(value: JsonValue) -> MapFeatureType:
    try:
        return MapFeatureType(value.integer())
    except ValueError as error:
        raise value.error("the code of a map feature") from error


def _lights(states: JsonValue) -> RecordedLights:
    lights = [_light(lane_id, light) for lane_id, light in states.entries()]
    table = np.concatenate([np.zeros((0, 3), np.int64), *(light for light, _ in lights)])
    stop_xyz = np.concatenate([np.zeros((0, 3)), *(stop_xyz for _, stop_xyz in lights)])
    in_time = np.argsort(table[:, 0], kind="stable")
    step, lane_id, state = table[in_time].T
    return RecordedLights(step=step, lane_id=lane_id, state=state, stop_xyz=stop_xyz[in_time])


def _light(
    lane_id: str, light: JsonValue
) -> tuple[Int[ndarray, "observations 3"], Float[ndarray, "observations 3"]]:
    """Reads a lane's steps, its own id and states, as columns; and where traffic stops."""
    if not lane_id.isdecimal():
        raise light.error("the id of a lane as its key", got=repr(lane_id))
    steps = [step.integer() for step in light["time_index"].elements()]
    states = [state.member(TrafficLightState) for state in light["state"].elements()]
    _check_length(light["state"], states, len(steps))
    stop = [_numbers(light[axis], len(steps)) for axis in ("x", "y", "z")]
    columns = [steps, [int(lane_id)] * len(steps), states]
    return np.array(columns, np.int64).T, np.stack(stop, axis=1)


def _numbers(value: JsonValue, length: int) -> Float[ndarray, " length"]:
    return _check_length(value, value.numbers(), length)


def _vectors(value: JsonValue, axes: str, length: int) -> Float[ndarray, "length axes"]:
    return _check_length(value, value.vectors(*axes), length)


def _check_length(value: JsonValue, items: Items, length: int) -> Items:
    if len(items) != length:
        raise value.error(f"{length} values", got=str(len(items)))
    return items

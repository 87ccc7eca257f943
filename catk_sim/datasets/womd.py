"""Waymo Open Motion Dataset files: `Scenario` protocol buffers in TFRecords.

Scott Ettinger et al., "Large Scale Interactive Motion Forecasting for Autonomous Driving: The
Waymo Open Motion Dataset", arXiv:2104.10133.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from catk_sim.constants import CURRENT_STEP
from catk_sim.datasets.centering import to_scenario
from catk_sim.datasets.errors import DataError, OnError, fail
from catk_sim.datasets.message_table import MessageTable
from catk_sim.datasets.recording import (
    STATE_FIELDS,
    RecordedAgents,
    RecordedLights,
    Recording,
)
from catk_sim.datasets.tfrecord import enumerate_records
from catk_sim.datasets.womd_map import decode_points, recorded_map
from catk_sim.datasets.womd_schema import message_class
from catk_sim.datasets.womd_writer import scenario_to_proto as scenario_to_proto
from catk_sim.datasets.womd_writer import serialize_scenario as serialize_scenario
from catk_sim.datasets.womd_writer import write_scenarios as write_scenarios
from catk_sim.datatypes import Scenario


def read_scenarios(path: str | Path, on_error: OnError = fail) -> Iterator[Scenario]:
    """Streams the scenarios of a WOMD file: one of those in Waymo's folder "scenario".

    Args:
        path: A TFRecord file, plain or gzip-compressed.
        on_error: What to do about a bad record. If it returns, the record is left out; see
            `read_records`.

    Raises:
        DataError: From `on_error`, if the file is damaged or a record is no scenario.
        FileNotFoundError: If there is no such file.
    """
    for number, data in enumerate_records(path, on_error):
        try:
            scenario = parse_scenario(data, source=f"{path}, record {number}")
        except DataError as error:
            on_error(error)
        else:
            yield scenario


def parse_scenario(data: bytes, *, source: str = "") -> Scenario:
    """Reads a serialized `Scenario` proto.

    What the proto says of an agent or a light while it is absent is not kept, nor are the order of
    `tracks_to_predict` and `objects_of_interest`, camera tokens and lidar.

    Args:
        data: A TFRecord's record.
        source: Where it comes from, for errors.

    Returns:
        One scenario in float64, without padding.

    Raises:
        DataError: If it is not a scenario or contradicts itself.
    """
    try:
        recording = _recording(data, source)
    except DecodeError as error:
        raise DataError(f"not a Scenario proto{_guess(data)}: {error}", source) from error
    return to_scenario(recording, source)


def _recording(data: bytes, source: str) -> Recording:
    proto = message_class("Scenario").FromString(data)
    _check(proto, data, source)
    return Recording(
        scenario_id=proto.scenario_id,
        timestamps=np.array(proto.timestamps_seconds, np.float64),
        agents=_agents(proto),
        roadgraph=recorded_map(proto.map_features, source),
        lights=_lights(proto),
    )


def _check(proto: Any, data: bytes, source: str) -> None:
    if not isinstance(proto.scenario_id, str):  # Protobuf leaves what it cannot decode as bytes.
        raise DataError(f"wanted a scenario id in UTF-8, got {proto.scenario_id!r:.80}", source)
    if not proto.tracks:
        raise DataError(f"wanted at least one track, got none{_guess(data)}", source)
    if proto.current_time_index != CURRENT_STEP:
        raise DataError(
            f"wanted current_time_index {CURRENT_STEP}, got {proto.current_time_index}", source
        )
    num_steps = len(proto.timestamps_seconds)
    for track in proto.tracks:
        if len(track.states) != num_steps:
            raise DataError(
                f"wanted a state of track {track.id} at each of {num_steps} timestamps, "
                f"got {len(track.states)}",
                source,
            )
    if len(proto.dynamic_map_states) > num_steps:
        raise DataError(
            f"wanted dynamic_map_states at {num_steps} timestamps, "
            f"got {len(proto.dynamic_map_states)}",
            source,
        )


def _guess(data: bytes) -> str:
    if b"roadgraph_samples/" in data:
        return " (it looks like the tf_example release of WOMD; wanted the scenario release)"
    return ""


def _agents(proto: Any) -> RecordedAgents:
    tracks = proto.tracks
    states = list(chain.from_iterable(track.states for track in tracks))
    table = MessageTable(message_class("ObjectState")).decode(states)
    table = table.reshape(len(tracks), len(proto.timestamps_seconds), -1)
    return RecordedAgents(
        agent_id=np.array([track.id for track in tracks], np.int64),
        type=np.array([track.object_type for track in tracks], np.int64),
        states=table[..., : len(STATE_FIELDS)],
        valid=table[..., -1] > 0,
        sdc=proto.sdc_track_index,
        to_predict={agent.track_index: agent.difficulty for agent in proto.tracks_to_predict},
        of_interest=list(proto.objects_of_interest),
    )


def _lights(proto: Any) -> RecordedLights:
    lights = [now.lane_states for now in proto.dynamic_map_states]
    observed = list(chain.from_iterable(lights))
    steps = np.arange(len(lights)).repeat([len(now) for now in lights])
    return RecordedLights(
        step=steps,
        lane_id=np.array([light.lane for light in observed], np.int64),
        state=np.array([light.state for light in observed], np.int64),
        stop_xyz=decode_points([light.stop_point for light in observed]),
    )

"""Scenarios drawn as Waymo's protos, and rollouts in the form of the command."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catk_sim.constants import CURRENT_STEP, NUM_STEPS, STEP_SECONDS
from catk_sim.datasets.tfrecord import write_records
from catk_sim.datasets.womd_writer import scenario_to_proto
from tests import scenes

NUM_FUTURE_STEPS = NUM_STEPS - CURRENT_STEP - 1
CAR, TRUCK, POINT = (4.8, 2.0, 1.5), (12.0, 3.0, 4.0), (0.0, 0.0, 0.0)
PERSON, BICYCLE = (1.0, 1.0, 1.8), (2.0, 1.0, 1.8)

Rollouts = dict[str, np.ndarray]
"""`object_id [A]`, and x, y, z, heading `[R, A, 80]`, in float64."""


@dataclass(frozen=True)
class Case:
    """A `Scenario` proto and rollouts of it."""

    scenario: Any
    rollouts: Rollouts

    def write(self, folder: Path) -> None:
        """Writes `scenario.tfrecord` and `rollouts.npz`, in float32."""
        folder.mkdir(parents=True, exist_ok=True)
        write_records(folder / "scenario.tfrecord", [self.scenario.SerializeToString()])
        arrays = {
            name: value.astype(np.float32) if value.dtype == np.float64 else value
            for name, value in self.rollouts.items()
        }
        np.savez(folder / "rollouts.npz", allow_pickle=False, **arrays)


def straight_road() -> Any:
    """The road of `tests/scenes.py`: car 100 (the sdc), pedestrian 101, parked car 102."""
    return scenario_to_proto(scenes.straight_road())


def empty_road() -> Any:
    """The straight road with nobody on it. Who is added first is the sdc."""
    scenario = straight_road()
    del scenario.tracks[:]
    del scenario.tracks_to_predict[:]
    return scenario


def add_agent(
    scenario: Any,
    x: float | np.ndarray,
    y: float | np.ndarray,
    heading: float | np.ndarray = 0.0,
    *,
    z: float | np.ndarray = 0.0,
    size: tuple[float, float, float] = CAR,
    kind: int = 1,
    evaluated: bool = True,
    agent_id: int | None = None,
) -> Any:
    """Adds a track, by what it does at each of the 91 steps, and returns it."""
    if agent_id is None:
        agent_id = 1 + max((track.id for track in scenario.tracks), default=99)
    track = scenario.tracks.add(id=agent_id, object_type=kind)
    if evaluated:
        scenario.tracks_to_predict.add(track_index=len(scenario.tracks) - 1)
    length, width, height = size
    x, y, z, heading = (np.broadcast_to(values, NUM_STEPS) for values in (x, y, z, heading))
    columns = {
        "center_x": x,
        "center_y": y,
        "center_z": z,
        "heading": heading,
        "velocity_x": np.gradient(x, STEP_SECONDS),
        "velocity_y": np.gradient(y, STEP_SECONDS),
    }
    for now in zip(*(column.tolist() for column in columns.values()), strict=True):
        state = dict(zip(columns, now, strict=True))
        track.states.add(length=length, width=width, height=height, valid=True, **state)
    return track


def moving(start: float, speed: float, acceleration: float = 0.0) -> np.ndarray:
    """Returns a coordinate at each of the 91 steps, given it at the current one."""
    time = (np.arange(NUM_STEPS) - CURRENT_STEP) * STEP_SECONDS
    return start + speed * time + acceleration * time**2 / 2


def lose(track: Any, *steps: int) -> None:
    """Makes the states of a track invalid, as WOMD stores them: all zero."""
    for step in steps:
        track.states[step].Clear()
        track.states[step].valid = False


def add_polyline(scenario: Any, kind: str, points: Any, *, feature_type: int = 2) -> int:
    """Adds a "lane" (by default of a surface street) or a "road_edge"; returns its id."""
    feature_id = 1 + max((feature.id for feature in scenario.map_features), default=0)
    content = getattr(scenario.map_features.add(id=feature_id), kind)
    content.type = feature_type
    add_points(content.polyline, points)
    return feature_id


def add_points(polyline: Any, points: Any) -> None:
    """Appends points of two or three coordinates."""
    for x, y, *z in np.asarray(points, dtype=float).tolist():
        polyline.add(x=x, y=y, z=z[0] if z else 0.0)


def remove(scenario: Any, kind: str) -> None:
    """Removes the map features of a kind."""
    kept = [one for one in scenario.map_features if one.WhichOneof("feature_data") != kind]
    del scenario.map_features[:]
    scenario.map_features.extend(kept)


def shift(scenario: Any, x: float, y: float, z: float = 0.0) -> None:
    """Moves all that is in the scenario."""
    for track in scenario.tracks:
        for state in track.states:
            if state.valid:
                state.center_x, state.center_y = state.center_x + x, state.center_y + y
                state.center_z += z
    points = [
        point
        for feature in scenario.map_features
        for kind in ("lane", "road_edge", "road_line")
        if feature.HasField(kind)
        for point in getattr(feature, kind).polyline
    ]
    points += [one.stop_point for now in scenario.dynamic_map_states for one in now.lane_states]
    for point in points:
        point.x, point.y, point.z = point.x + x, point.y + y, point.z + z


def far_away(case: Case) -> Case:
    """Moves a case to where WOMD's are: float32 is half a millimetre coarse there."""
    x, y = 7123.456, -6789.012
    shift(case.scenario, x, y)
    rollouts = case.rollouts
    moved = {"x": rollouts["x"] + x, "y": rollouts["y"] + y}
    return Case(case.scenario, rollouts | moved)


def replay(scenario: Any, num_rollouts: int = 4) -> Rollouts:
    """Repeats the log; where it has a gap, the last state is held."""
    present = [track for track in scenario.tracks if track.states[CURRENT_STEP].valid]
    arrays = {
        name: np.zeros((len(present), NUM_FUTURE_STEPS)) for name in ["x", "y", "z", "heading"]
    }
    for row, track in enumerate(present):
        held = track.states[CURRENT_STEP]
        for step in range(NUM_FUTURE_STEPS):
            now = track.states[CURRENT_STEP + 1 + step]
            held = now if now.valid else held
            pose = (held.center_x, held.center_y, held.center_z, held.heading)
            for name, value in zip(arrays, pose, strict=True):
                arrays[name][row, step] = value
    ids = np.array([track.id for track in present], dtype=np.int32)
    repeated = {name: np.repeat(value[None], num_rollouts, 0) for name, value in arrays.items()}
    return {"object_id": ids, **repeated}


def noisy(rollouts: Rollouts, seed: int = 0, *, metres: float = 0.1) -> Rollouts:
    """Adds independent noise at each step."""
    rng = np.random.default_rng(seed)
    scales = {"x": metres, "y": metres, "z": metres / 10, "heading": 0.02}
    shape = rollouts["x"].shape
    noise = {name: scale * rng.standard_normal(shape) for name, scale in scales.items()}
    return {**rollouts, **{name: rollouts[name] + noise[name] for name in scales}}


def driven(scenario: Any, seed: int = 0, num_rollouts: int = 4) -> Rollouts:
    """Drives everyone on arcs, from where and as fast as they are, at drawn accelerations."""
    rng = np.random.default_rng(seed)
    rollouts = replay(scenario, num_rollouts)
    drawn = (num_rollouts, rollouts["x"].shape[1], 1)
    now = {track.id: track.states[CURRENT_STEP] for track in scenario.tracks}
    states = [now[agent_id] for agent_id in rollouts["object_id"].tolist()]
    speed = np.array([math.hypot(one.velocity_x, one.velocity_y) for one in states])[:, None]
    time = STEP_SECONDS * np.arange(1, NUM_FUTURE_STEPS + 1)
    speeds = np.maximum(speed + rng.normal(0, 1.0, drawn) * time, 0)
    turned = rng.normal(0, 0.1, drawn) * np.minimum(speed, 1) * time
    heading = np.array([one.heading for one in states])[:, None] + turned
    for name, start, direction in (
        ("x", [one.center_x for one in states], np.cos(heading)),
        ("y", [one.center_y for one in states], np.sin(heading)),
    ):
        travelled = np.cumsum(STEP_SECONDS * speeds * direction, axis=-1)
        rollouts[name] = np.array(start)[:, None] + travelled
    height = np.array([one.center_z for one in states])[:, None]
    return {**rollouts, "z": np.broadcast_to(height, heading.shape).copy(), "heading": heading}


def scattered(
    rollouts: Rollouts,
    x: tuple[float, float],
    y: tuple[float, float],
    *,
    grid: float = 0.0,
    right_angles: bool = False,
    seed: int = 0,
) -> Rollouts:
    """Puts everyone somewhere else at every step: within bounds, on a grid if it has a pitch."""
    rng = np.random.default_rng(seed)
    shape = rollouts["x"].shape
    drawn = {"x": rng.uniform(*x, shape), "y": rng.uniform(*y, shape)}
    if grid:
        drawn = {name: grid * np.round(value / grid) for name, value in drawn.items()}
    heading = rng.uniform(-math.pi, math.pi, shape)
    if right_angles:
        heading = math.pi / 2 * np.round(heading / (math.pi / 2))
    return {**rollouts, **drawn, "heading": heading}

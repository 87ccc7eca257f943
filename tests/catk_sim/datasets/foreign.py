"""Small logs of other data sets, and files of them."""

import gzip
import json
import lzma
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

COMPRESS = {".gz": gzip.compress, ".xz": lzma.compress}


def womd_log(num_steps: int = 91, scenario_id: str = "log") -> dict[str, Any]:
    """Describes, as ScenarioNet does for WOMD, a log of an sdc, a pedestrian and a light.

    The sdc (track 7) drives east at 10 m/s and is at (x, 2) at step x. The pedestrian (track 9)
    stands at (5, 9) and is there from step 4 on. Lane 100 goes on as lane 101; the light of lane
    100 turns from STOP to GO at step 20 and is not observed before step 2.
    """
    step = np.arange(num_steps, dtype=np.float32)
    zeros = np.zeros(num_steps, np.float32)
    sdc = _track(
        "VEHICLE",
        position=np.stack([step, zeros + 2, zeros + 1], axis=1),
        size=(5.0, 2.0, 1.5),
        velocity=np.tile(_floats([10, 0]), (num_steps, 1)),
        valid=np.ones(num_steps, bool),
    )
    pedestrian = _track(
        "PEDESTRIAN",
        position=np.tile(_floats([5, 9, 1]), (num_steps, 1)),
        size=(0.5, 0.6, 1.75),
        velocity=np.zeros((num_steps, 2), np.float32),
        valid=step >= 4,
    )
    states = [None] * 2 + ["LANE_STATE_STOP"] * 18 + ["LANE_STATE_GO"] * (num_steps - 20)
    light = {
        "type": "TRAFFIC_LIGHT",
        "lane": 100,
        "stop_point": _floats([50, 2, 0]),
        "state": {"object_state": states},
        "metadata": {"dataset": "waymo"},
    }
    return {
        "id": scenario_id,
        "version": "some version",
        "length": num_steps,
        "tracks": {"9": pedestrian, "7": sdc},
        "dynamic_map_states": {"100": light},
        "map_features": _womd_map(),
        "metadata": {
            "dataset": "waymo",
            "ts": np.float32(0.1) * step,
            "sdc_id": "7",
            "current_time_index": 10,
            "objects_of_interest": ["9"],
            "tracks_to_predict": {"9": {"track_index": 0, "track_id": "9", "difficulty": 2}},
            "number_summary": defaultdict(int, {"object": 2}),
            "object_types": {"VEHICLE", "PEDESTRIAN"},
        },
    }


def nuscenes_log(num_steps: int = 201) -> dict[str, Any]:
    """Describes, as ScenarioNet does for nuScenes, an ego car on one road, a cone and a cyclist.

    The drivable area is the rectangle 400 m long and 20 m broad around the x axis. Its outline has
    it on the right. The third number of a lane's points is a heading.
    """
    step = np.arange(num_steps, dtype=float)
    position = np.stack([0.5 * step, 0 * step, 0 * step], axis=1)
    velocity = np.tile([5.0, 0.0], (num_steps, 1))
    common = dict(velocity=velocity, valid=np.ones(num_steps))
    # The ego car's length and width are exchanged in the files.
    ego = _track("VEHICLE", position=position, size=(1.73, 4.08, 1.56), **common)
    cyclist = _track(
        "CYCLIST", position=position + np.array([0, 5, 1]), size=(1.8, 0.6, 1.7), **common
    )
    cone = _track("TRAFFIC_CONE", position=position * 0, size=(0.3, 0.3, 0.6), **common)
    for track in (ego, cyclist, cone):
        for name in ("length", "width", "height"):
            track["state"][name] = track["state"][name][:, None]
    lane = [(float(x), 0.0, 0.0) for x in range(-100, 101, 5)]
    next_lane = [(float(x), 0.01 * (x - 100), 0.01) for x in range(100, 200, 5)]
    outline = [(-200.0, -10.0), (-200.0, 10.0), (200.0, 10.0), (200.0, -10.0), (-200.0, -10.0)]
    return {
        "id": "scene-1",
        "version": "some version",
        "length": num_steps,
        "metadata": {"dataset": "nuscenes", "ts": 0.1 * step, "sdc_id": "ego"},
        "tracks": {"a1": cone, "b2": cyclist, "ego": ego},
        "dynamic_map_states": {},
        "map_features": {
            "boundary_0": {"type": "ROAD_LINE_SOLID_SINGLE_WHITE", "polyline": np.array(outline)},
            "l1": {"type": "LANE_SURFACE_STREET", "polyline": lane, "polygon": outline},
            "l2": {"type": "LANE_SURFACE_STREET", "polyline": next_lane, "speed_limit_kmh": 100},
            "d1": {"type": "ROAD_LINE_BROKEN_SINGLE_WHITE", "polyline": [[0.0, 1.0], [9.0, 1.0]]},
        },
    }


def _floats(values: Any) -> Any:
    return np.array(values, np.float32)


def _track(kind: str, *, position: Any, size: Any, velocity: Any, valid: Any) -> dict[str, Any]:
    one = np.ones(len(position), position.dtype)
    state = dict(zip(("length", "width", "height"), (one * number for number in size), strict=True))
    state |= dict(position=position, velocity=velocity, valid=valid, heading=0 * one)
    return {"type": kind, "state": state, "metadata": {"type": kind}}


def _womd_map() -> dict[str, Any]:
    boundary = {"lane_start_index": "0", "lane_end_index": "9", "boundary_feature_id": "103"}
    neighbor = {"feature_id": "101", "self_start_index": "0", "self_end_index": "1"}
    neighbor |= {"neighbor_start_index": "2", "neighbor_end_index": "3"}
    broken = "ROAD_LINE_BROKEN_SINGLE_WHITE"
    lane = {
        "type": "LANE_SURFACE_STREET",
        "polyline": _floats([[x, 2, 0] for x in range(0, 60, 5)]),
        "speed_limit_mph": 25.0,
        "interpolating": False,
        "entry_lanes": [],
        "exit_lanes": [101],
        "left_neighbor": [neighbor | {"boundaries": [boundary | {"boundary_type": broken}]}],
        "right_neighbor": [],
        "left_boundaries": [boundary | {"boundary_type": broken}],
        "right_boundaries": [boundary | {"boundary_type": "UNKNOWN"}],
        "width": np.zeros((12, 2), np.float32),
    }
    following = lane | {
        "type": "UNKNOWN",
        "polyline": _floats([[x, 2, 0] for x in range(55, 200, 5)]),
        "speed_limit_mph": 35.0,
        "interpolating": True,
        "entry_lanes": [100],
        "exit_lanes": [],
        "left_neighbor": [],
        "right_neighbor": lane["left_neighbor"],
        "left_boundaries": [],
        "right_boundaries": [],
    }
    edge = _floats([[x, -5, 0] for x in range(0, 200, 5)])
    square = _floats([[0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0]])
    return {
        "100": lane,
        "101": following,
        "103": {"type": broken, "polyline": edge + _floats([0, 9, 0])},
        "104": {"type": "ROAD_EDGE_BOUNDARY", "polyline": edge},
        "105": {"type": "CROSSWALK", "polygon": square},
        "106": {"type": "CROSS_WALK", "polyline": square},
        "107": {"type": "STOP_SIGN", "position": _floats([50, 5, 1]), "lane": [100]},
        "108": {"type": "GUARDRAIL", "polyline": edge},
    }


def write_pickle(path: Path, log: Any) -> Path:
    """Writes a pickle, compressed as its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(COMPRESS.get(path.suffix, bytes)(pickle.dumps(log)))
    return path


def argoverse_rows(num_steps: int = 110) -> list[dict[str, Any]]:
    """Describes the tracks of an Argoverse 2 scenario.

    The AV drives north at 10 m/s along x = 100 and is at (100, t) at step t. Track 12, a bus,
    stands at (90, 60) and is scored; track 13, a pedestrian, is there until step 30; track 14 is a
    static thing.
    """
    rows = []
    for step in range(num_steps):
        rows.append(_row("AV", "vehicle", 1, step, x=100.0, y=float(step), speed=10.0))
        rows.append(_row("12", "bus", 3, step, x=90.0, y=60.0))
        if step <= 30:
            rows.append(_row("13", "pedestrian", 0, step, x=95.0, y=20.0))
        rows.append(_row("14", "static", 0, step, x=95.0, y=21.0))
    return rows


def _row(
    track: str, kind: str, category: int, step: int, *, x: float, y: float, speed: float = 0.0
) -> dict[str, Any]:
    return {
        "observed": step < 50,
        "track_id": track,
        "object_type": kind,
        "object_category": category,
        "timestep": step,
        "position_x": x,
        "position_y": y,
        "heading": np.pi / 2,
        "velocity_x": 0.0,
        "velocity_y": speed,
        "scenario_id": "some-scenario",
        "start_timestamp": 0.0,
        "end_timestamp": 1.09e10,
        "num_timestamps": 110,
        "focal_track_id": "12",
        "city": "austin",
    }


def argoverse_map() -> dict[str, Any]:
    """Describes the map of an Argoverse 2 scenario: one road to the north, of two drivable areas.

    Lane 1 goes on as lane 2; lane 3 is on its left and comes towards it, lane 4 on its right.
    """
    lane = {
        "id": 1,
        "is_intersection": False,
        "lane_type": "VEHICLE",
        "centerline": _points([(100, 0), (100, 50)]),
        "left_lane_boundary": _points([(98, 0), (98, 50)]),
        "left_lane_mark_type": "DOUBLE_SOLID_YELLOW",
        "right_lane_boundary": _points([(102, 0), (102, 50)]),
        "right_lane_mark_type": "DASHED_WHITE",
        "predecessors": [77],
        "successors": [2],
        "left_neighbor_id": 3,
        "right_neighbor_id": 4,
    }
    second = lane | {
        "id": 2,
        "centerline": _points([(100, 50), (100, 110)]),
        "left_lane_mark_type": "NONE",
        "right_lane_mark_type": "NONE",
        "predecessors": [1],
        "successors": [],
        "left_neighbor_id": None,
        "right_neighbor_id": None,
    }
    towards = second | {
        "id": 3,
        "centerline": _points([(96, 50), (96, 0)]),
        "left_lane_boundary": _points([(98, 50), (98, 0)]),
        "left_lane_mark_type": "DOUBLE_SOLID_YELLOW",
        "predecessors": [],
    }
    beside = second | {
        "id": 4,
        "lane_type": "BIKE",
        "centerline": _points([(104, 0), (104, 50)]),
        "predecessors": [],
    }
    lanes = {str(each["id"]): each for each in (lane, second, towards, beside)}
    south = _points([(85, -5), (110, -5), (110, 50), (85, 50)])
    # The other way round, and the two share the side at y = 50.
    north = _points([(85, 50), (85, 120), (110, 120), (110, 50)])
    crossing = {"id": 9, "edge1": _points([(85, 30), (110, 30)])}
    crossing["edge2"] = _points([(85, 33), (110, 33)])
    return {
        "lane_segments": lanes,
        "pedestrian_crossings": {"9": crossing},
        "drivable_areas": {"5": {"area_boundary": south}, "6": {"area_boundary": north}},
    }


def _points(xy: list[tuple[float, float]]) -> list[dict[str, float]]:
    return [{"x": float(x), "y": float(y), "z": 20.0} for x, y in xy]


def write_argoverse(
    folder: Path, rows: list[dict[str, Any]] | None = None, content: Any = None
) -> Path:
    """Writes a scenario and its map. Returns the parquet file."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scenario_some-scenario.parquet"
    table = pyarrow.Table.from_pylist(argoverse_rows() if rows is None else rows)
    pyarrow.parquet.write_table(table, path)
    text = json.dumps(argoverse_map() if content is None else content)
    (folder / "log_map_archive_some-scenario.json").write_text(text)
    return path

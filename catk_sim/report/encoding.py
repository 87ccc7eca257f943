"""Scenes in few bytes: whole numbers, told by their differences, compressed."""

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, STEP_SECONDS
from catk_sim.datatypes import AgentType, MapFeatureType, Scenario, Trajectory
from catk_sim.report.records import Choices, Drive, ReportScene
from catk_sim.visualization.polylines import Polyline, features_by_type

METRES = 0.05
"""Resolution of positions (m). A pixel of the player is coarser, unless one zooms in far."""

RADIANS = 0.01
"""Resolution of headings (rad)."""

_MAP_TOLERANCE = 0.1  # How far a line of the map may be off (m).
_PROMILLE = 1000


def encode_scene(scene: ReportScene) -> str:
    """Writes a scene as base64 text of compressed JSON, which `scene.js` reads.

    Raises:
        ValueError: The scene is a batch, or a drive does not fit the log.
    """
    scenario = scene.scenario.to("cpu")
    batch = tuple(scenario.log.valid.shape[:-2])
    if batch:
        raise ValueError(f"a scene of a report is one scenario, got a batch of shape {batch}")
    log = _tracks(scenario.log)
    record = {
        "id": scenario.scenario_id[0],
        "lacks": scenario.lacks[0],
        "steps": scenario.log.num_steps,
        "current": CURRENT_STEP,
        "seconds": STEP_SECONDS,
        "metres": METRES,
        "radians": RADIANS,
        "agents": _agents(scenario),
        "log": log,
        "map": _map(scenario),
        "lights": _lights(scenario),
        "drives": {
            name: _drive(drive.simulated.to("cpu"), drive, log)
            for name, drive in scene.drives.items()
        },
    }
    text = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    return base64.b64encode(gzip.compress(text, compresslevel=6, mtime=0)).decode("ascii")


def _agents(scenario: Scenario) -> list[dict[str, Any]]:
    agents = scenario.agents
    return [
        {
            "id": int(agents.agent_id[row]),
            "type": AgentType(int(agents.type[row])).name.lower(),
            "size": [round(float(side), 2) for side in agents.size[row]],
            "sdc": bool(agents.is_sdc[row]),
        }
        for row in range(agents.valid.shape[0])
    ]


def _drive(simulated: Trajectory, drive: Drive, log: list[Any]) -> dict[str, Any]:
    rollouts = []
    for index in range(simulated.valid.shape[0]):
        tracks = _tracks(simulated.select(index))
        if len(tracks) != len(log):
            raise ValueError(f"a drive has {len(tracks)} agents, its scenario has {len(log)}")
        rollouts.append(
            {
                # Who follows the log is not told twice.
                "tracks": [
                    None if own == logged else own for own, logged in zip(tracks, log, strict=True)
                ],
                "collided": _runs_of_agents(drive.collided[index]),
                "offroad": _runs_of_agents(drive.offroad[index]),
                "choices": None if drive.choices is None else _choices(drive.choices, index, drive),
            }
        )
    return {
        "controlled": np.flatnonzero(drive.controlled.cpu().numpy()).tolist(),
        "rollouts": rollouts,
    }


def _choices(choices: Choices, index: int, drive: Drive) -> dict[str, Any]:
    """Lists, for each controlled agent, what was likely at each decision."""
    label, probability, offset = (
        tensor[index].cpu().numpy().swapaxes(0, 1)
        for tensor in (choices.label, choices.probability, choices.offset)
    )
    agents = np.flatnonzero(drive.controlled.cpu().numpy())
    return {
        "top": label.shape[-1],
        "label": {int(row): label[row].ravel().tolist() for row in agents},
        "promille": {
            int(row): _whole(probability[row] * _PROMILLE).ravel().tolist() for row in agents
        },
        "offset": {int(row): _whole(offset[row] / METRES).ravel().tolist() for row in agents},
    }


def _tracks(motion: Trajectory) -> list[list[list[Any]]]:
    """Tells each agent's motion as runs of steps: the first step, then x, y and heading."""
    x, y = (_whole(axis.numpy() / METRES) for axis in motion.xy.unbind(dim=-1))
    # Without jumps of a whole turn, so that differences are small.
    heading = _whole(np.unwrap(motion.heading.numpy(), axis=-1) / RADIANS)
    valid = motion.valid.numpy()
    return [
        [
            [start, *(_differences(each[row, start:stop]) for each in (x, y, heading))]
            for start, stop in _runs(valid[row])
        ]
        for row in range(len(valid))
    ]


def _runs_of_agents(flags: Bool[Tensor, "agents steps"]) -> dict[int, list[int]]:
    """Lists the runs of steps of each agent that has any: first, last, first, last..."""
    values = flags.cpu().numpy()
    runs = {row: _runs(values[row]) for row in np.flatnonzero(values.any(axis=1)).tolist()}
    return {
        row: [edge for run in each for edge in (run[0], run[1] - 1)] for row, each in runs.items()
    }


def _runs(flags: Bool[np.ndarray, " steps"]) -> list[tuple[int, int]]:
    """Lists where runs of true begin, and where they have ended."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _map(scenario: Scenario) -> dict[str, list[list[int]]]:
    features = features_by_type(scenario.roadgraph)
    return {
        MapFeatureType(kind).name.lower(): [
            _differences(_whole(_simplified(line) / METRES)) for line in lines
        ]
        for kind, lines in features.items()
        if lines
    }


def _lights(scenario: Scenario) -> list[dict[str, Any]]:
    lights = scenario.traffic_lights
    told = []
    for row in range(lights.valid.shape[0]):
        seen = lights.valid[row].numpy()
        if not seen.any():
            continue
        at = lights.stop_xyz[row, int(np.flatnonzero(seen)[0]), :2].numpy()
        states = np.where(seen, lights.state[row].numpy(), -1)
        told.append({"at": _whole(at / METRES).tolist(), "states": states.tolist()})
    return told


def _simplified(line: Polyline) -> Polyline:
    """Leaves out points that are hardly off the line without them (Douglas and Peucker, 1973)."""
    keep = np.zeros(len(line), dtype=bool)
    keep[[0, -1]] = True
    pending = [(0, len(line) - 1)]
    while pending:
        first, last = pending.pop()
        if last - first < 2:
            continue
        distance = _distance_to_segment(line[first + 1 : last], line[first], line[last])
        farthest = int(distance.argmax())
        if distance[farthest] > _MAP_TOLERANCE:
            middle = first + 1 + farthest
            keep[middle] = True
            pending += [(first, middle), (middle, last)]
    return line[keep]


def _distance_to_segment(
    points: Float[np.ndarray, "points 2"],
    start: Float[np.ndarray, "2"],
    end: Float[np.ndarray, "2"],
) -> Float[np.ndarray, " points"]:
    along = end - start
    share = ((points - start) @ along) / max(float(along @ along), 1e-12)
    nearest = start + np.clip(share, 0, 1)[:, None] * along
    return np.linalg.norm(points - nearest, axis=1)


def _whole(values: Shaped[np.ndarray, "*shape"]) -> np.ndarray:
    return np.rint(np.nan_to_num(values)).astype(np.int64)


def _differences(values: np.ndarray) -> list[int]:
    """Tells the first of whole numbers, or rows of them, and how each differs from the last."""
    first = values[:1]
    return np.concatenate([first, np.diff(values, axis=0)]).ravel().tolist()


def as_json(record: Mapping[str, Any]) -> str:
    """Writes JSON that may stand in a script element."""
    text = json.dumps(record, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")

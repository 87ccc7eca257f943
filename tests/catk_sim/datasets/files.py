"""Small files of scenarios in each format."""

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import torch

from catk_sim.datasets.womd import write_scenarios
from catk_sim.datatypes import Scenario
from tests import scenes


def womd_scenario(scenario_id: str) -> Scenario:
    """The straight road, as WOMD's files give it."""
    road = scenes.straight_road().to(torch.float64)
    return road.replace(scenario_id=(scenario_id,))


def write_tfrecord(path: Path, scenario_ids: list[str]) -> Path:
    """Writes a WOMD file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_scenarios(path, [womd_scenario(scenario_id) for scenario_id in scenario_ids])
    return path


def write_gpudrive(path: Path, scenario_id: str) -> Path:
    """Writes a GPUDrive file, compressed as its name says: one car that drives east."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(gpudrive_json(scenario_id)).encode()
    compress = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(compress(text))
    return path


def gpudrive_json(scenario_id: str) -> dict[str, Any]:
    """Describes one car that drives east, on one lane."""
    return {
        "name": f"{scenario_id}.json",
        "scenario_id": scenario_id,
        "objects": [
            {
                "position": [{"x": float(step), "y": 0.0, "z": 0.0} for step in range(91)],
                "width": 2.0,
                "length": 4.8,
                "height": 1.5,
                "heading": [0.0] * 91,
                "velocity": [{"x": 10.0, "y": 0.0}] * 91,
                "valid": [True] * 91,
                "id": 1,
                "type": "vehicle",
            }
        ],
        "roads": [
            {
                "geometry": [{"x": float(x), "y": 0.0, "z": 0.0} for x in range(0, 100, 10)],
                "type": "lane",
                "map_element_id": 2,
                "id": 5,
            }
        ],
        "tl_states": {},
        "metadata": {"sdc_track_index": 0, "tracks_to_predict": [], "objects_of_interest": []},
    }

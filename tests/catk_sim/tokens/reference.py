"""The reference implementation's inputs and vocabulary as our records."""

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from catk_sim.datatypes import AgentMetadata, Trajectory
from catk_sim.tokens import MotionVocabulary
from catk_sim.tokens.vocabulary import CLASS_SIZE
from tests.shared import shared_path

PROTO_SCENARIO = "637f20cafde22ff8"
SMART_SCENARIO = "1a146468873b7871"
SCENARIOS = [PROTO_SCENARIO, SMART_SCENARIO]


@functools.cache
def arrays(name: str) -> dict[str, Tensor]:
    """Reads a file of golden numbers. Floats are float32, everything else keeps its type."""
    path: Path = shared_path(f"golden/catk/{name}.npz")
    with np.load(path) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def vocabulary() -> MotionVocabulary:
    """The reference's vocabulary: its contours as poses."""
    file = arrays("reference_vocabularies")
    contours = torch.stack([file[f"agent_{kind}"] for kind in ("veh", "ped", "cyc")]).double()
    side = contours[..., 0, :] - contours[..., 3, :]
    heading = torch.atan2(side[..., 1], side[..., 0])
    poses = torch.cat([contours.mean(-2), heading[..., None]], dim=-1).float()
    poses[:, :, 0] = 0  # The reference's rounding errors.
    return MotionVocabulary.from_poses(poses, torch.tensor(CLASS_SIZE))


def log(scenario_id: str) -> Trajectory:
    """The log that the reference tokenised, around the sdc as its centred numbers are."""
    raw = arrays(f"tok_{scenario_id}_eval")
    centre = arrays(f"tok_{scenario_id}_eval_centred")["centre"].double()
    position = raw["raw_position"].double()
    return Trajectory(
        xy=(position[..., :2] - centre).float(),
        z=position[..., 2].float(),
        heading=raw["raw_heading"],
        velocity=raw["raw_velocity"],
        valid=raw["raw_valid_mask"],
    )


def agents(scenario_id: str) -> AgentMetadata:
    """Types and roles of the reference's agents."""
    raw = arrays(f"tok_{scenario_id}_eval")
    role = raw["raw_role"]
    return AgentMetadata(
        agent_id=raw["raw_id"],
        type=raw["raw_type"].to(torch.int64) + 1,
        size=raw["raw_shape"],
        is_sdc=role[:, 0],
        to_predict=role[:, 2],
        difficulty=torch.zeros_like(raw["raw_id"]),
        of_interest=role[:, 1],
        valid=torch.ones_like(role[:, 0]),
    )

"""A small policy and a small batch, made once for all tests of the trainers."""

import pytest
import torch

from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.tokens import MotionVocabulary
from policies.smart.config import SMARTConfig
from policies.smart.model import SMART
from tests import scenes
from trainers.scenes import Scene, collate_scenes, make_scene


@pytest.fixture(scope="session")
def vocabulary() -> MotionVocabulary:
    return scenes.arc_vocabulary()


@pytest.fixture(scope="session")
def batch(vocabulary: MotionVocabulary) -> Scene:
    """A drawn scene with an agent that leaves, and a generated one."""
    return collate_scenes(
        [
            make_scene(scenes.straight_road(), vocabulary),
            make_scene(generate_scenario(3), vocabulary),
        ]
    )


@pytest.fixture
def model(vocabulary: MotionVocabulary) -> SMART:
    torch.manual_seed(0)
    return SMART(SMARTConfig(hidden_dim=16, num_map_layers=1, num_agent_layers=1), vocabulary)

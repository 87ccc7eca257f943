"""Scenes that are legal but strange, through every policy and the metrics."""

from collections.abc import Callable

import pytest
import torch

from catk_sim.datasets import collate
from catk_sim.datatypes import Scenario
from catk_sim.metrics.summary import summarize_rollouts
from catk_sim.rollout import Policy, rollout
from policies.registry import POLICIES, make_policy
from policies.smart.config import SMARTConfig
from policies.smart.model import SMART
from policies.smart.policy import SMARTPolicy
from tests import scenes


def without_map() -> Scenario:
    road = scenes.straight_road()
    return road.replace(roadgraph=road.roadgraph.map(lambda tensor: tensor[:0]))


def far_from_any_road() -> Scenario:
    road = scenes.straight_road()
    return road.replace(roadgraph=road.roadgraph.replace(xyz=road.roadgraph.xyz + 5000))


def nobody_at_the_current_step() -> Scenario:
    road = scenes.straight_road()
    valid = road.log.valid.clone()
    valid[:, 10] = False
    return road.replace(log=road.log.replace(valid=valid))


def one_agent() -> Scenario:
    road = scenes.straight_road()
    valid = road.log.valid.clone()
    valid[1:] = False
    return road.replace(log=road.log.replace(valid=valid))


def history_alone() -> Scenario:
    """Only the history is known."""
    road = scenes.straight_road()
    lights = road.traffic_lights
    return road.replace(
        timestamps=road.timestamps[:11],
        log=road.log.slice(0, 11),
        log_size=road.log_size[:, :11],
        traffic_lights=lights.replace(
            state=lights.state[:, :11],
            stop_xyz=lights.stop_xyz[:, :11],
            valid=lights.valid[:, :11],
        ),
    )


ODD = [without_map, far_from_any_road, nobody_at_the_current_step, one_agent, history_alone]


def smart() -> SMARTPolicy:
    torch.manual_seed(0)
    vocabulary = scenes.arc_vocabulary()
    return SMARTPolicy(
        SMART(SMARTConfig(hidden_dim=16, num_map_layers=1, num_agent_layers=1), vocabulary).eval(),
        vocabulary,
    )


def policy_of(name: str) -> Policy:
    return smart() if name == "smart" else make_policy(name)


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", [*POLICIES, "smart"])
def test_every_policy_drives_it_and_it_can_be_measured(
    name: str, make: Callable[[], Scenario]
) -> None:
    batch = collate([make(), scenes.straight_road()])
    driven = rollout(policy_of(name), batch, num_rollouts=2)
    assert driven.simulated.xy.isfinite().all()
    summary = summarize_rollouts(driven.simulated, batch)
    present = make().log.valid[:, 10].sum()
    assert summary.num_agents[0, 0] == present
    assert summary.num_collided.isfinite().all()

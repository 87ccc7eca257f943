import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.constants import CURRENT_STEP
from catk_sim.datatypes import AgentType, Trajectory
from catk_sim.dynamics import PoseDynamics
from catk_sim.geometry.boxes import box_corners
from tests import scenes

CARS = scenes.agents_of([AgentType.VEHICLE, AgentType.VEHICLE])


def test_a_pose_is_reached_in_five_even_steps(log: Trajectory) -> None:
    pose = torch.tensor([5.0, 1.0, 0.0]).expand(2, 3)
    motion = PoseDynamics().forward(log.at(0), pose, CARS)
    share = torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0])
    east = torch.stack([5 * share, share], dim=-1)
    torch.testing.assert_close(motion.xy[0], east)
    # B drives south from (5, 10): its left is east.
    south = torch.stack([5 + share, 10 - 5 * share], dim=-1)
    torch.testing.assert_close(motion.xy[1], south)
    velocity = torch.tensor([10.0, 2.0]).expand(5, 2)
    torch.testing.assert_close(motion.velocity[0], velocity)


def test_a_turn_goes_along_its_chord(log: Trajectory) -> None:
    left = torch.tensor([0.0, 0.0, math.pi / 2]).expand(2, 3)
    heading = PoseDynamics().forward(log.at(0), left, CARS).heading[0]
    expected = [math.atan2(share, 1 - share) for share in (0.2, 0.4, 0.6, 0.8, 1.0)]
    torch.testing.assert_close(heading, torch.tensor(expected))


@given(seed=st.integers(0, 2**32 - 1))
def test_the_sides_of_a_box_point_where_its_corners_would_go(seed: int) -> None:
    now = scenes.random_motion(seed, num_agents=2, num_steps=1).to(torch.float64)
    pose = torch.tensor([[4.0, 1.0, 0.7], [-2.0, 3.0, -2.0]], dtype=torch.float64)
    motion = PoseDynamics().forward(now, pose, CARS)
    size = CARS.size[:, None].double()
    before = box_corners(now.xy, now.heading, size)
    after = box_corners(motion.xy[:, -1:], motion.heading[:, -1:], size)
    share = torch.arange(1, 6, dtype=torch.float64)[:, None, None] / 5
    corners = before + share * (after - before)
    torch.testing.assert_close(motion.xy, corners.mean(-2))
    side = corners[..., 0, :] - corners[..., 3, :]
    direction = torch.stack([motion.heading.cos(), motion.heading.sin()], dim=-1)
    torch.testing.assert_close(direction, side / side.norm(dim=-1, keepdim=True))


def test_the_pose_of_a_motion_is_where_it_is_half_a_second_later() -> None:
    log = scenes.straight_road().log
    agents = scenes.straight_road().agents
    pose = PoseDynamics().inverse(log, CURRENT_STEP, agents)
    torch.testing.assert_close(pose[0], torch.tensor([5.0, 0.0, 0.0]))
    torch.testing.assert_close(pose[1], torch.zeros(3))

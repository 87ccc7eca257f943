import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.constants import NUM_STEPS
from catk_sim.datatypes import Scenario
from catk_sim.geometry import se2
from catk_sim.tokens import motions
from tests import scenes

ROWS = pytest.mark.parametrize("row", [0, 1, 2], ids=["vehicle", "pedestrian", "cyclist"])


def straight(speed: float) -> torch.Tensor:
    x = speed * 0.1 * torch.arange(6.0)
    return torch.stack([x, torch.zeros(6), torch.zeros(6)], dim=-1)[None]


def test_motions_are_cut_from_every_agent_that_was_seen_long() -> None:
    vehicles, pedestrians, cyclists = motions.cut_motions(scenes.straight_road())
    # The sdc is seen for 18 windows; the parked car, from step 6 to 60, for ten.
    assert len(vehicles) == 18 + 10
    assert len(pedestrians) == 18
    assert len(cyclists) == 0
    torch.testing.assert_close(vehicles[:18], straight(10.0).expand(18, 6, 3), atol=1e-5, rtol=0)
    assert not pedestrians.any()


def test_windows_may_overlap() -> None:
    vehicles, _, _ = motions.cut_motions(scenes.straight_road(), stride=1)
    assert len(vehicles) == 86 + 50


def test_motions_are_seen_from_their_first_pose() -> None:
    scenario: Scenario = scenes.straight_road()
    quarter = torch.tensor(math.pi / 2)
    log = scenario.log
    turned = log.replace(xy=se2.rotate(log.xy, quarter) + 70, heading=log.heading + quarter)
    vehicles, _, _ = motions.cut_motions(scenario.replace(log=turned))
    torch.testing.assert_close(vehicles[:18], straight(10.0).expand(18, 6, 3), atol=1e-4, rtol=0)


def test_agents_seen_briefly_are_left_out() -> None:
    scenario = scenes.straight_road()
    valid = scenario.log.valid.clone()
    valid[0] = torch.arange(NUM_STEPS) < 29
    vehicles, _, _ = motions.cut_motions(scenario.replace(log=scenario.log.replace(valid=valid)))
    assert len(vehicles) == 10


def test_thirty_steps_are_long_enough() -> None:
    scenario = scenes.straight_road()
    valid = scenario.log.valid.clone()
    valid[0] = torch.arange(NUM_STEPS) < 30
    vehicles, _, _ = motions.cut_motions(scenario.replace(log=scenario.log.replace(valid=valid)))
    assert len(vehicles) == 5 + 10


def test_motions_go_on_through_gaps() -> None:
    scenario = scenes.straight_road()
    valid = scenario.log.valid.clone()
    valid[0, 33:38] = False
    vehicles, _, _ = motions.cut_motions(scenario.replace(log=scenario.log.replace(valid=valid)))
    assert len(vehicles) == 18 + 10


def test_flipped_headings_are_held_before_motions_are_cut() -> None:
    scenario = scenes.straight_road()
    heading = scenario.log.heading.clone()
    heading[0, 42:] = 3.0
    log = scenario.log.replace(heading=heading)
    vehicles, _, _ = motions.cut_motions(scenario.replace(log=log))
    assert not vehicles[..., 2].any()


def test_a_turn_across_pi_is_a_small_one() -> None:
    scenario = scenes.straight_road()
    heading = se2.wrap_angle(3.0 + 0.01 * torch.arange(NUM_STEPS)).expand(3, NUM_STEPS)
    vehicles, _, _ = motions.cut_motions(
        scenario.replace(log=scenario.log.replace(heading=heading))
    )
    torch.testing.assert_close(vehicles[:, -1, 2], torch.full((28,), 0.05), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("speed", "plausible"), [(0.0, True), (39.0, True), (41.0, False)])
def test_too_fast_is_implausible(speed: float, plausible: bool) -> None:
    assert motions.is_plausible(straight(speed), motions.LIMITS[0]).item() == plausible


def test_a_jump_is_implausible() -> None:
    jump = straight(5.0)
    jump[:, 3:, 1] += 0.3  # 3 m/s sideways for one step.
    assert not motions.is_plausible(jump, motions.LIMITS[0]).item()


def test_a_spin_is_implausible() -> None:
    spin = straight(5.0)
    spin[:, 3:, 2] += 0.3
    assert not motions.is_plausible(spin, motions.LIMITS[0]).item()
    assert motions.is_plausible(spin, motions.LIMITS[2]).item()


def test_the_first_of_equal_motions_is_kept() -> None:
    rounding = 2e-4
    given = torch.cat([straight(2.0), straight(1.0), straight(2.0) + rounding, straight(3.0)])
    assert motions.distinct_index(given).tolist() == [0, 1, 3]


def test_of_no_motions_none_are_distinct() -> None:
    assert len(motions.distinct_index(torch.zeros(0, 6, 3))) == 0


@given(seed=st.integers(0, 2**32 - 1))
def test_a_mirrored_motion_turns_the_other_way(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    some = motions.generate_motions(20, motions.LIMITS[0], generator)
    mirrored = motions.mirror(some)
    assert torch.equal(mirrored[..., 0], some[..., 0])
    assert torch.equal(mirrored[..., 1:], -some[..., 1:])


@ROWS
def test_generated_motions_are_plausible_and_varied(row: int, generator: torch.Generator) -> None:
    limits = motions.LIMITS[row]
    made = motions.generate_motions(5000, limits, generator)
    assert motions.is_plausible(made, limits).all()
    assert not made[:, 0].any()
    ahead = made[:, -1, 0]
    assert ahead.max() > 0.47 * limits.max_speed
    assert ahead.min() < -0.4 * limits.max_reverse_speed
    assert made[:, -1, 2].max() > 0.1
    assert made[:, -1, 2].min() < -0.1


@ROWS
def test_generated_motions_keep_their_angle_to_the_heading(
    row: int, generator: torch.Generator
) -> None:
    made = motions.generate_motions(500, motions.LIMITS[row], generator).double()
    moves = se2.rotate(made[..., :2].diff(dim=-2), -made[:, :-1, 2])
    # On an arc, the chord leads at half the turn. It has no direction for those who stand.
    course = torch.atan2(moves[..., 1], moves[..., 0]) - made[..., 2].diff(dim=-1) / 2
    slip = se2.wrap_angle(2 * course) / 2  # Those who reverse have the opposite course.
    moving = (torch.linalg.vector_norm(moves, dim=-1) > 0.01).all(-1)
    slip = slip[moving]
    assert (slip - slip[:, :1]).abs().max() < 1e-3
    assert 0.8 * motions.SLIP < slip[:, 0].std() < 1.2 * motions.SLIP


@ROWS
def test_generated_motions_keep_the_road(row: int, generator: torch.Generator) -> None:
    made = motions.generate_motions(5000, motions.LIMITS[row], generator).double()
    speed = torch.linalg.vector_norm(made[..., :2].diff(dim=-2), dim=-1) / 0.1
    sideways = speed * made[..., 2].diff(dim=-1).abs() / 0.1
    assert sideways.max() < motions.SIDEWAYS_ACCELERATION + 0.01

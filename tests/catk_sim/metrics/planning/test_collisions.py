import math

import numpy as np
import pytest
import shapely
import torch

from catk_sim.datatypes import AgentType, Scenario
from catk_sim.geometry.boxes import box_corners
from catk_sim.metrics.collision import collision_indication
from catk_sim.metrics.planning.collisions import (
    collision_score,
    ego_collisions,
    hits_with_front,
    is_behind,
)
from catk_sim.metrics.planning.ego import Boxes
from tests import scenes
from tests.catk_sim.metrics.planning.drives import SECONDS, arranged, at_speed, road_with


def judged(scenario: Scenario) -> tuple[bool, bool, float]:
    """Whether the ego collides, whether it is at fault, and nuPlan's score."""
    found, one_lane = arranged(scenario)
    collisions = ego_collisions(found, one_lane)
    score = collision_score(collisions.at_fault, found.scenario.agents.type)
    return bool(collisions.touches.any()), bool(collisions.at_fault.any()), float(score)


def test_who_drives_into_a_parked_car_is_at_fault() -> None:
    assert judged(road_with(at_speed(-20, -2, 10), at_speed(20, -2, 0))) == (True, True, 0)


def test_who_drives_into_a_slower_car_is_at_fault() -> None:
    assert judged(road_with(at_speed(-20, -2, 10), at_speed(0, -2, 3))) == (True, True, 0)


def test_who_meets_an_oncoming_car_head_on_is_at_fault() -> None:
    scenario = road_with(at_speed(-30, -2, 10), at_speed(30, -2, -10, heading=math.pi))
    assert judged(scenario) == (True, True, 0)


def test_who_stands_and_is_hit_is_not_at_fault() -> None:
    scenario = road_with(at_speed(0, -2, 0), at_speed(30, -2, -10, heading=math.pi))
    assert judged(scenario) == (True, False, 1)


def test_who_creeps_slower_than_five_centimetres_a_second_stands() -> None:
    oncoming = at_speed(30, -2, -10, heading=math.pi)
    assert judged(road_with(at_speed(0, -2, 0.04), oncoming)) == (True, False, 1)
    assert judged(road_with(at_speed(0, -2, 0.06), oncoming)) == (True, True, 0)


def test_who_is_hit_from_behind_is_not_at_fault() -> None:
    """Not even between two lanes."""
    for y in (-2, 0):
        assert judged(road_with(at_speed(0, y, 3), at_speed(-20, y, 10))) == (True, False, 1)


def test_who_backs_into_a_parked_car_is_at_fault() -> None:
    """What stands hits nobody from behind."""
    assert judged(road_with(at_speed(0, -2, -3), at_speed(-20, -2, 0))) == (True, True, 0)


def test_who_is_swiped_in_its_lane_is_not_at_fault() -> None:
    """The other one comes over from the left, half a car behind."""
    scenario = road_with(at_speed(0, -2, 5), at_speed(-2, 2, 5, sideways=-1))
    assert judged(scenario) == (True, False, 1)


def test_who_is_swiped_between_two_lanes_is_at_fault() -> None:
    scenario = road_with(at_speed(0, -0.5, 5), at_speed(-2, 4, 5, sideways=-1))
    assert judged(scenario) == (True, True, 0)


def test_whom_the_ego_overlaps_at_the_start_it_did_not_run_into() -> None:
    scenario = road_with(at_speed(-4, -2, 3), at_speed(0, -2, 0))
    assert judged(scenario) == (True, False, 1)


def test_a_collision_before_the_start_is_over() -> None:
    """It stands in the other one, is away at the current step, and backs into it again."""
    x = torch.where(SECONDS < -0.5, 0.0, (SECONDS - 3).abs() * 5)
    ego = at_speed(0, -2, 5) | {"xy": torch.stack([x, torch.full_like(x, -2)], dim=-1)}
    found, one_lane = arranged(road_with(ego, at_speed(0, -2, 0)))
    collisions = ego_collisions(found, one_lane)
    assert collisions.touches[0, 0, 1, 0]
    assert not collisions.has_touched[0, 0, 1, 10]
    assert collisions.at_fault.any()


def test_an_agent_collides_once() -> None:
    """The ego leaves the parked car and comes back."""
    x = (SECONDS % 2 - 1).abs() * 10
    ego = at_speed(0, -2, 10) | {"xy": torch.stack([x, torch.full_like(x, -2)], dim=-1)}
    found, one_lane = arranged(road_with(ego, at_speed(0, -2, 0)))
    collisions = ego_collisions(found, one_lane)
    touches = collisions.touches[0, 0, 1].int()
    assert (touches.diff() == 1).sum() > 2
    assert collisions.at_fault.sum() == 1
    first = int(touches[10:].argmax()) + 10
    assert collisions.at_fault[0, 0, 1, first]
    assert collisions.has_touched[0, 0, 1, first:].all()
    assert not collisions.has_touched[0, 0, 1, :first].any()


@pytest.mark.parametrize(
    ("types", "score"),
    [
        ([AgentType.VEHICLE], 0),
        ([AgentType.PEDESTRIAN], 0),
        ([AgentType.CYCLIST], 0),
        ([AgentType.OTHER], 0.5),
        ([AgentType.UNSET], 0.5),
        ([AgentType.OTHER, AgentType.UNSET], 0),
        ([AgentType.OTHER] * 3, 0),
        ([AgentType.OTHER, AgentType.PEDESTRIAN], 0),
    ],
)
def test_objects_count_half(types: list[AgentType], score: float) -> None:
    others = [at_speed(20 + 10 * place, -2, 0) for place in range(len(types))]
    assert judged(road_with(at_speed(-20, -2, 10), *others, types=types))[2] == score


def test_a_drive_that_touches_nobody_scores_one() -> None:
    assert judged(road_with(at_speed(-20, -2, 10), at_speed(20, 2, 0))) == (False, False, 1)


def test_the_ego_touches_whom_it_collides_with() -> None:
    """A third of the pairs of a crowd overlap; absent agents do not."""
    generator = torch.Generator().manual_seed(0)
    motion = scenes.random_motion(0, num_agents=20, num_steps=91)
    motion = motion.replace(xy=motion.xy / 200)
    scenario = scenes.straight_road()
    kinds = torch.randint(1, 4, (20,), generator=generator).tolist()
    agents = scenes.agents_of([AgentType(kind) for kind in kinds])
    scenario = scenario.replace(log=motion, agents=agents)
    found, one_lane = arranged(scenario)
    touches = ego_collisions(found, one_lane).touches[0, 0]
    expected = collision_indication(motion, scenario).value > 0
    assert torch.equal(touches.any(dim=0), expected[0])
    assert not touches[0].any()
    assert not (touches & ~motion.valid).any()
    assert touches.sum() > 100


def test_the_front_bumper_hits_where_shapely_says() -> None:
    ego, other = (random_boxes(seed, 4000) for seed in (1, 2))
    front = box_corners(ego.xy, ego.heading, ego.size)[:, :2]
    polygons = shapely.polygons(box_corners(other.xy, other.heading, other.size).numpy())
    expected = shapely.intersects(shapely.linestrings(front.numpy()), polygons)
    assert np.array_equal(hits_with_front(ego, other).numpy(), expected)
    assert 500 < expected.sum() < 3500


def test_behind_is_within_thirty_degrees() -> None:
    angle = torch.tensor([180.0, 151, 149, -151, -149, 0, 90]) * math.pi / 180
    num, heading = len(angle), torch.full((len(angle),), 0.7)
    place = 10 * torch.stack([(angle + heading).cos(), (angle + heading).sin()], dim=-1)
    ego, other = (
        Boxes(xy=xy, heading=heading, size=torch.ones(num, 3), velocity=torch.zeros(num, 2))
        for xy in (torch.zeros(num, 2), place)
    )
    assert is_behind(ego, other).tolist() == [True, True, False, True, False, False, False]


def random_boxes(seed: int, num: int) -> Boxes:
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(
            num, *shape, generator=generator, dtype=torch.float64
        )

    return Boxes(
        xy=uniform(-3, 3, 2),
        heading=uniform(-4, 4),
        size=uniform(0.5, 6, 3),
        velocity=uniform(-10, 10, 2),
    )

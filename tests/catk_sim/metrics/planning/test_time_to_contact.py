import math

import pytest
import torch

from catk_sim.datatypes import Scenario
from catk_sim.geometry.boxes import boxes_overlap
from catk_sim.metrics.planning.collisions import ego_collisions
from catk_sim.metrics.planning.ego import Boxes
from catk_sim.metrics.planning.time_to_contact import HORIZON, contact_time, time_to_contact
from tests.catk_sim.metrics.planning.drives import arranged, at_speed, road_with
from tests.catk_sim.metrics.planning.test_collisions import random_boxes


def times(scenario: Scenario) -> torch.Tensor:
    found, one_lane = arranged(scenario)
    touched = ego_collisions(found, one_lane).has_touched
    return time_to_contact(found, touched, one_lane)[0, 0]


def test_it_is_the_gap_over_the_speed() -> None:
    """Bumper to bumper 35.2 m at the current step, 10 m/s: a second later 25.2 m."""
    found = times(road_with(at_speed(-20, -2, 10), at_speed(20, -2, 0)))
    assert found[20] == pytest.approx(2.52, abs=1e-5)
    assert found[30] == pytest.approx(1.52, abs=1e-5)


def test_it_counts_how_fast_the_other_drives() -> None:
    found = times(road_with(at_speed(-20, -2, 10), at_speed(10, -2, 5)))
    assert found[11] == pytest.approx((25.2 - 0.5) / 5, abs=1e-5)


def test_it_is_the_horizon_where_nobody_is_in_the_way() -> None:
    assert (times(road_with(at_speed(-20, -2, 10), at_speed(20, 2, 0))) == HORIZON).all()


def test_further_ahead_than_the_horizon_is_the_horizon() -> None:
    found = times(road_with(at_speed(-20, -2, 2), at_speed(10, -2, 0)))
    assert found[11] == HORIZON
    assert found[90] == pytest.approx((25.2 - 16) / 2, abs=1e-5)


def test_the_history_does_not_count() -> None:
    found = times(road_with(at_speed(-20, -2, 10), at_speed(20, -2, 0)))
    assert (found[:11] == HORIZON).all()
    assert found[11] < HORIZON


def test_who_stands_collides_with_nobody() -> None:
    oncoming = at_speed(30, -2, -10, heading=math.pi)
    assert (times(road_with(at_speed(0, -2, 0), oncoming)) == HORIZON).all()


def test_who_comes_from_behind_does_not_count() -> None:
    assert (times(road_with(at_speed(0, -2, 3), at_speed(-30, -2, 10))) == HORIZON).all()
    between_lanes = times(road_with(at_speed(0, 0, 3), at_speed(-30, 0, 10)))
    assert (between_lanes == HORIZON).all()


def test_who_was_hit_does_not_count_any_more() -> None:
    """The ego drives through the parked car; another one stands behind it."""
    found = times(road_with(at_speed(-20, -2, 10), at_speed(0, -2, 0), at_speed(60, -2, 0)))
    gap = 80 - 4.8 - 10 * 2.0
    assert found[30] == pytest.approx(min(HORIZON, gap / 10), abs=1e-5)
    assert found[60] == pytest.approx((80 - 4.8 - 50) / 10, abs=1e-5)


def test_who_comes_from_the_side_counts_only_between_lanes() -> None:
    """The other one comes over from the left at 1 m/s, abreast of the ego."""
    beside = at_speed(0, 6, 5, sideways=-1)
    assert (times(road_with(at_speed(0, -2, 5), beside)) == HORIZON).all()
    found = times(road_with(at_speed(0, 0, 5), beside))
    assert found[20] == pytest.approx(6 - 1 - 2, abs=1e-5)


def test_who_is_ahead_to_the_side_counts_within_thirty_degrees() -> None:
    """Someone crosses from the left. From 30 degrees on, the ego in its lane need not care."""
    ego, crossing = at_speed(-20, -2, 10), at_speed(0, 18, 0, heading=-math.pi / 2, sideways=-10)
    found = times(road_with(ego, crossing))
    # The offset is (20 - 10 t, 20 - 10 t): 45 degrees, at all times.
    assert (found == HORIZON).all()
    flat = at_speed(0, 8, 0, heading=-math.pi / 2, sideways=-5)
    found = times(road_with(ego, flat))
    # Here 27 degrees. Half a length and half a width of both: x meets from 1.66 s on, y from 1.32.
    assert found[11] == pytest.approx((20 - 2.4 - 1) / 10 - 0.1, abs=1e-4)


def test_boxes_meet_when_small_steps_say_so() -> None:
    ego, other = (random_boxes(seed, 1000) for seed in (3, 4))
    other = other.replace(xy=other.xy * 6)
    found = contact_time(ego, other)
    step, first = 5e-3, torch.full_like(found, math.inf)
    for index in reversed(range(400)):
        moved, other_moved = (box.xy + box.velocity * step * index for box in (ego, other))
        hit = boxes_overlap(moved, ego.heading, ego.size, other_moved, other.heading, other.size)
        first = torch.where(hit, step * index, first)
    meets = first.isfinite()
    assert 100 < meets.sum() < 900
    late = (first - found)[meets]
    # At most a step late, but for corners that touch for less than one.
    assert (late >= -1e-9).all()
    assert (late <= step + 1e-9).double().mean() > 0.99
    assert (found[~meets] > 2 - step).double().mean() > 0.99


def test_boxes_that_overlap_meet_at_once() -> None:
    box = random_boxes(5, 10)
    assert (contact_time(box, box) == 0).all()


def test_boxes_that_do_not_move_to_each_other_never_meet() -> None:
    ego = still(0.0)
    assert contact_time(ego, still(5.0)).isinf().all()
    assert contact_time(ego, still(3.9)).tolist() == [0.0]
    assert contact_time(ego, still(4.0)).isinf().all()


def still(x: float) -> Boxes:
    return Boxes(
        xy=torch.tensor([[x, 0.0]]),
        heading=torch.zeros(1),
        size=torch.tensor([[4.0, 2.0, 1.0]]),
        velocity=torch.tensor([[1.0, 2.0]]),
    )

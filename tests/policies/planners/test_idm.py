import math

import pytest
import torch

from catk_sim.metrics.planning.comfort import comfort
from catk_sim.planning.tracking import KinematicBicycle
from policies.idm import IDM
from policies.planners import IDMPlanner
from tests.policies.planners.roads import (
    CAR,
    LIMIT,
    WALKER,
    bend,
    driven,
    logged,
    straight,
    without_future,
)


def test_on_a_free_road_it_reaches_the_speed_limit() -> None:
    motion = driven(IDMPlanner(), logged(straight(), (CAR, 0.0, 0.0, 0.0, 5.0)), num_steps=150)
    speed = motion.velocity[:, 0]
    assert 0.95 * LIMIT < speed[-1] < LIMIT
    assert speed.diff().min() > -1e-3
    torch.testing.assert_close(motion.xy[:, 1], torch.zeros(151), rtol=0, atol=1e-3)


def test_without_a_speed_limit_it_drives_as_it_is_told_or_as_it_did() -> None:
    roadgraph = straight()
    roadgraph = roadgraph.replace(speed_limit=torch.zeros_like(roadgraph.speed_limit))
    slow, fast = (logged(roadgraph, (CAR, 0.0, 0.0, 0.0, speed)) for speed in (5.0, 20.0))
    planner = IDMPlanner(IDM(desired_speed=6.0))
    assert driven(planner, slow).velocity[-1, 0].item() == pytest.approx(6.0, abs=0.2)
    assert driven(planner, fast).velocity[-1, 0].item() == pytest.approx(20.0, abs=0.2)


@pytest.mark.parametrize("y", [0.0, 1.8, -1.8])
def test_it_stops_behind_a_car_that_reaches_into_its_way(y: float) -> None:
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.0, 8.0), (CAR, 30.0, y, 0.0, 0.0))
    motion = driven(IDMPlanner(), scenario)
    assert motion.velocity[-1].norm() < 0.3
    # From bumper to bumper the least gap.
    assert 30 - 4.8 - motion.xy[-1, 0].item() == pytest.approx(2.0, abs=0.8)


@pytest.mark.parametrize("y", [2.6, -2.6])
def test_it_passes_a_car_beside_its_way(y: float) -> None:
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.0, 10.0), (CAR, 50.0, y, 0.0, 0.0))
    assert driven(IDMPlanner(), scenario).xy[-1, 0] > 75


def test_it_follows_whoever_drives_ahead() -> None:
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.0, 10.0), (CAR, 25.0, 0.0, 0.0, 6.0))
    motion = driven(IDMPlanner(), scenario)
    assert motion.velocity[-1, 0].item() == pytest.approx(6.0, abs=0.5)


def test_it_waits_for_who_crosses() -> None:
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.0, 8.0), (WALKER, 30.0, 0.0, math.pi / 2, 0.1))
    motion = driven(IDMPlanner(), scenario)
    assert motion.xy[:, 0].max() < 30 - 2.4 - 0.5


@pytest.mark.parametrize(("red_at", "stops"), [(40.0, True), (5.0, False), (-20.0, False)])
def test_it_stops_for_red_lights_ahead_if_it_can(red_at: float, stops: bool) -> None:
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.0, 10.0), red_at=red_at)
    motion = driven(IDMPlanner(), scenario)
    if stops:
        assert red_at - 4 < motion.xy[-1, 0] + 2.4 < red_at
    else:
        assert motion.xy[-1, 0] > 75


def test_it_drives_on_when_the_light_turns_green() -> None:
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.0, 0.0), red_at=8.0)
    lights = scenario.traffic_lights
    state = lights.state.clone()
    state[:, 40:] = 6
    green = scenario.replace(traffic_lights=lights.replace(state=state))
    assert driven(IDMPlanner(), scenario).xy[-1, 0] < 8
    assert driven(IDMPlanner(), green).xy[-1, 0] > 12


def test_lights_of_other_lanes_are_not_its_own() -> None:
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.0, 10.0), red_at=40.0)
    lights = scenario.traffic_lights.replace(lane_id=torch.tensor([7]))
    assert driven(IDMPlanner(), scenario.replace(traffic_lights=lights)).xy[-1, 0] > 75


def test_it_drives_onto_the_centre_of_its_lane() -> None:
    scenario = without_future(logged(straight(), (CAR, 0.0, 1.5, 0.1, 8.0)))
    motion = driven(IDMPlanner(), scenario)
    y = motion.xy[:, 1]
    assert y[-1].abs() < 0.05
    assert y.min() > -0.4
    assert motion.heading[-1].abs() < 0.02


@pytest.mark.parametrize("radius", [8.0, 15.0, 40.0])
def test_it_takes_bends_slowly_and_exactly(radius: float) -> None:
    scenario = without_future(logged(bend(radius), (CAR, 0.0, 0.0, 0.0, 10.0)))
    motion = driven(IDMPlanner(), scenario, num_steps=120)
    center = torch.tensor([30.0, radius])
    offset = motion.xy - center
    inside = (offset[:, 0] > 0) & (offset[:, 1] < 0)
    assert inside.sum() > 10
    assert (offset[inside].norm(dim=-1) - radius).abs().max() < 0.4
    assert motion.heading[-1].item() == pytest.approx(math.pi / 2, abs=0.05)
    extremes = comfort(motion.xy, motion.heading, torch.ones(121, dtype=torch.bool))
    assert extremes.lateral_acceleration < 4.0
    assert extremes.score == 1


def test_a_plan_is_driven_as_it_is_planned() -> None:
    """The ego's motion is that of a bicycle: turns are curvature times distance."""
    scenario = without_future(logged(bend(15.0), (CAR, 0.0, 0.6, 0.0, 6.0)))
    motion = driven(IDMPlanner(), scenario, num_steps=60)
    step = motion.xy.diff(dim=0)
    course = torch.atan2(step[:, 1], step[:, 0])
    middle = (motion.heading[1:] + motion.heading[:-1]) / 2
    # Between the points of the route, a metre apart, it goes along chords.
    torch.testing.assert_close(course, middle, rtol=0, atol=0.5 / 15)
    mean = (motion.velocity[1:] + motion.velocity[:-1]).norm(dim=-1) / 2
    torch.testing.assert_close(step.norm(dim=-1), 0.1 * mean, rtol=0, atol=0.01)


def test_it_drives_with_a_real_car() -> None:
    scenario = logged(straight(), (CAR, 0.0, 1.0, 0.0, 8.0), (CAR, 30.0, 0.0, 0.0, 0.0))
    motion = driven(IDMPlanner(), scenario, tracker=KinematicBicycle())
    assert motion.xy[-1, 1].abs() < 0.3
    assert 21 < motion.xy[-1, 0] < 25.2
    assert motion.velocity[-1].norm() < 0.3

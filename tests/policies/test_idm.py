import math

import pytest
import torch
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS, NUM_STEPS
from catk_sim.datatypes import AgentType, Scenario, Trajectory
from catk_sim.rollout import rollout
from policies.idm import IDM
from tests import scenes

MPH = 0.44704


def standing(xy: list[list[float]]) -> Trajectory:
    """Agents that stand for a whole log, heading east."""
    position = torch.tensor(xy)[:, None].expand(-1, NUM_STEPS, 2)
    return Trajectory(
        xy=position,
        z=torch.zeros(position.shape[:-1]),
        heading=torch.zeros(position.shape[:-1]),
        velocity=torch.zeros(position.shape),
        valid=torch.ones(position.shape[:-1], dtype=torch.bool),
    )


def on_the_road(
    *agents: tuple[AgentType, float, float, float], red_at: float | None = None
) -> Scenario:
    """The straight road with agents of a type, x, y and speed. Its speed limit is 11.18 m/s.

    Lane 1 runs east along y = -2 and ends at x = 100.
    """
    scenario = scenes.straight_road()
    log = standing([[x, y] for _, x, y, _ in agents])
    velocity = log.velocity.clone()
    velocity[..., 0] = torch.tensor([speed for *_, speed in agents])[:, None]
    lights = scenario.traffic_lights
    stop = lights.stop_xyz.clone()
    stop[..., 0] = 1e3 if red_at is None else red_at
    return scenario.replace(
        log=log.replace(velocity=velocity),
        agents=scenes.agents_of([kind for kind, *_ in agents]),
        traffic_lights=lights.replace(
            stop_xyz=stop, state=torch.full_like(lights.state, 6 if red_at is None else 4)
        ),
    )


CAR, WALKER, BIKE = AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.CYCLIST


def driven(scenario: Scenario, policy: IDM | None = None, num_steps: int = 80) -> Trajectory:
    return rollout(policy or IDM(), scenario, num_steps=num_steps).simulated.select(0)


def speeds(motion: Trajectory) -> Tensor:
    return motion.velocity.norm(dim=-1)


def test_on_a_free_road_it_reaches_the_speed_limit() -> None:
    motion = driven(on_the_road((CAR, -95.0, -2.0, 0.0)), num_steps=100)
    assert 0.8 * 25 * MPH < speeds(motion).max() < 25 * MPH
    torch.testing.assert_close(motion.xy[0, :, 1], torch.full((111,), -2.0))


def test_without_a_speed_limit_it_drives_as_it_is_told() -> None:
    scenario = on_the_road((CAR, -95.0, -2.0, 5.0))
    roadgraph = scenario.roadgraph
    scenario = scenario.replace(
        roadgraph=roadgraph.replace(speed_limit=torch.zeros_like(roadgraph.speed_limit))
    )
    motion = driven(scenario, IDM(desired_speed=5.0), num_steps=30)
    torch.testing.assert_close(speeds(motion)[0], torch.full((41,), 5.0), rtol=0, atol=0.05)


def test_the_first_step_is_that_of_the_equation() -> None:
    """At 8 m/s, 30 m behind the centre of a car at 5 m/s."""
    scenario = on_the_road((CAR, -50.0, -2.0, 8.0), (CAR, -20.0, -2.0, 5.0))
    gap = 30 - 4.8
    wanted = 2.0 + 8 * 1.6 + 8 * (8 - 5) / (2 * math.sqrt(1.5 * 2.0))
    acceleration = 1.5 * (1 - (8 / (25 * MPH)) ** 4 - (wanted / gap) ** 2)
    motion = driven(scenario, num_steps=1)
    assert speeds(motion)[0, -1].item() == pytest.approx(8 + 0.1 * acceleration, abs=1e-4)
    moved = motion.xy[0, -1, 0] + 50
    assert moved.item() == pytest.approx(0.8 + 0.01 * acceleration / 2, abs=1e-4)


@pytest.mark.parametrize("kind", [CAR, WALKER, BIKE])
def test_it_stops_behind_whoever_stands_in_its_way(kind: AgentType) -> None:
    scenario = on_the_road((CAR, -20.0, -2.0, 6.0), (kind, 10.0, -2.0, 0.0))
    controlled = torch.tensor([True, False])
    motion = rollout(IDM(), scenario, controlled=controlled).simulated.select(0)
    gap = 10 - motion.xy[0, -1, 0] - 2.4 - scenario.agents.size[1, 0] / 2
    assert 1.5 < gap < 4.0
    assert speeds(motion)[0, -1] < 0.8


def test_it_ignores_who_stands_beside_its_way_or_behind() -> None:
    """Its flank is at -1. The flank of a walker, who is 1 m wide, is beyond that or not."""
    me, behind = (CAR, -5.0, -2.0, 7.0), (CAR, -15.0, -2.0, 0.0)
    free = driven(on_the_road(me), num_steps=20)
    beside = driven(on_the_road(me, (WALKER, 10.0, -0.4, 0.0), behind), num_steps=20)
    in_the_way = driven(on_the_road(me, (WALKER, 10.0, -0.6, 0.0)), num_steps=20)
    assert torch.equal(beside.xy[0], free.xy[0])
    assert in_the_way.xy[0, -1, 0] < free.xy[0, -1, 0] - 3


def test_it_stops_at_a_red_light() -> None:
    motion = driven(on_the_road((CAR, -20.0, -2.0, 7.0), red_at=10.0), num_steps=100)
    front = motion.xy[0, -1, 0] + 2.4
    assert 7.0 < front < 8.5
    assert driven(on_the_road((CAR, -20.0, -2.0, 7.0)), num_steps=60).xy[0, -1, 0] > 20


def test_it_drives_on_when_it_is_too_late_to_stop() -> None:
    """At 10 m/s a car needs 6 m; its front is 2 m before the light."""
    late = on_the_road((CAR, -4.4, -2.0, 10.0), red_at=0.0)
    free = on_the_road((CAR, -4.4, -2.0, 10.0))
    assert torch.equal(driven(late, num_steps=10).xy, driven(free, num_steps=10).xy)


def test_a_light_of_another_lane_is_not_its_own() -> None:
    scenario = on_the_road((CAR, 0.0, -2.0, 7.0), red_at=10.0)
    lights = scenario.traffic_lights.replace(lane_id=torch.tensor([2]))
    motion = driven(scenario.replace(traffic_lights=lights), num_steps=30)
    assert motion.xy[0, -1, 0] > 20


def test_it_stops_where_its_lane_ends() -> None:
    motion = driven(on_the_road((CAR, 70.0, -2.0, 7.0)), num_steps=100)
    assert 96.5 < motion.xy[0, -1, 0] + 2.4 < 99.0


def test_those_that_follow_no_lane_keep_their_velocity() -> None:
    """A walker, a cyclist in the lane, a car beside the road, and one against the traffic."""
    scenario = on_the_road(
        (WALKER, -40.0, 6.0, 1.0),
        (BIKE, -30.0, -2.0, 4.0),
        (CAR, 0.0, 8.0, 3.0),
        (CAR, -60.0, 2.0, 5.0),
    )
    motion = driven(scenario, num_steps=20)
    travelled = motion.xy[:, -1] - motion.xy[:, CURRENT_STEP]
    expected = 2 * scenario.log.velocity[:, CURRENT_STEP]
    torch.testing.assert_close(travelled, expected, rtol=0, atol=1e-3)


def test_it_moves_onto_the_centre_of_its_lane() -> None:
    scenario = on_the_road((CAR, -80.0, -0.8, 10.0))
    heading = torch.full_like(scenario.log.heading, 0.2)
    scenario = scenario.replace(log=scenario.log.replace(heading=heading))
    motion = driven(scenario, num_steps=30)
    assert motion.xy[0, -1, 1] == pytest.approx(-2.0, abs=1e-3)
    assert motion.heading[0, -1] == pytest.approx(0.0, abs=1e-3)
    # Without a jump.
    assert motion.xy[0, HISTORY_STEPS - 1 :, 1].diff().abs().max() < 0.15
    assert motion.heading[0, HISTORY_STEPS - 1 :].diff().abs().max() < 0.05


def test_a_platoon_does_not_collide() -> None:
    """Ten cars, 12 m apart, behind one that stands; the first is 4 m behind it."""
    cars = [(CAR, 60.0 - 12 * i - (i > 0) * 3.0, -2.0, 6.0 * (i > 1)) for i in range(10)]
    scenario = on_the_road(*cars)
    controlled = torch.arange(10) > 0
    motion = rollout(IDM(), scenario, controlled=controlled).simulated.select(0)
    gaps = motion.xy[:-1, :, 0] - motion.xy[1:, :, 0] - 4.8
    assert gaps.min() > 0.5
    assert speeds(motion)[:, -1].max() < 3.0


@pytest.mark.parametrize("field", ["max_acceleration", "min_gap", "desired_speed"])
def test_a_parameter_that_is_not_positive_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be above 0, got 0"):
        IDM(**{field: 0.0})


def test_a_light_that_is_not_observed_stops_nobody() -> None:
    scenario = on_the_road((CAR, 0.0, -2.0, 7.0), red_at=10.0)
    lights = scenario.traffic_lights
    dark = lights.replace(valid=lights.valid & (torch.arange(NUM_STEPS) < CURRENT_STEP))
    motion = driven(scenario.replace(traffic_lights=dark), num_steps=30)
    assert motion.xy[0, -1, 0] > 20


def test_without_a_speed_limit_who_is_faster_stays_so() -> None:
    scenario = on_the_road((CAR, -95.0, -2.0, 20.0))
    roadgraph = scenario.roadgraph
    scenario = scenario.replace(
        roadgraph=roadgraph.replace(speed_limit=torch.zeros_like(roadgraph.speed_limit))
    )
    motion = driven(scenario, IDM(desired_speed=5.0, time_headway=0.1), num_steps=5)
    assert speeds(motion)[0, -1] > 19.5

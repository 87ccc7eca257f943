import math

import pytest
import torch

from catk_sim.metrics.offroad import distance_to_road_edge
from catk_sim.metrics.road_edges import RoadEdges
from catk_sim.planning.tracking import KinematicBicycle
from policies.planners import IDMPlanner, PDMPlanner
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

pytestmark = pytest.mark.slow


def test_on_a_free_road_it_keeps_to_the_centre_at_the_speed_limit() -> None:
    motion = driven(PDMPlanner(), logged(straight(), (CAR, 0.0, 0.0, 0.0, 8.0)))
    assert motion.xy[:, 1].abs().max() < 0.05
    assert 0.95 * LIMIT < motion.velocity[-1, 0] < LIMIT


def test_it_passes_a_car_that_reaches_into_its_lane() -> None:
    """The intelligent driver model waits behind it for ever."""
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.0, 8.0), (CAR, 45.0, -2.0, 0.0, 0.0))
    motion = driven(PDMPlanner(), scenario)
    beside = (motion.xy[:, 0] - 45).abs() < 4.8
    assert beside.any()
    assert motion.xy[beside, 1].min() > 0.1
    assert motion.xy[-1, 0] > 55
    assert driven(IDMPlanner(), scenario).xy[-1, 0] < 43


def test_it_does_not_pass_where_the_road_is_too_narrow() -> None:
    roadgraph = straight(left=1.5, right=-3.0)
    scenario = logged(roadgraph, (CAR, 0.0, 0.0, 0.0, 8.0), (CAR, 45.0, -1.7, 0.0, 0.0))
    motion = driven(PDMPlanner(), scenario)
    assert motion.xy[:, 0].max() < 45 - 4.8
    assert motion.xy[:, 1].max() < 0.5


def test_it_lets_a_walker_cross_where_the_driver_model_does_not_see_him_coming() -> None:
    """He is beside the road until he steps in front of the car."""
    scenario = logged(
        straight(), (CAR, 0.0, 0.0, 0.0, 10.0), (WALKER, 30.0, -4.5, math.pi / 2, 1.5)
    )
    gap = (driven(PDMPlanner(), scenario).xy - scenario.log.xy[1, 10:]).norm(dim=-1)
    assert gap.min() > 2.6


def test_it_brakes_hard_if_it_must() -> None:
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.0, 11.0), (CAR, 17.0, 0.0, 0.0, 0.0))
    motion = driven(PDMPlanner(), scenario, num_steps=30)
    assert motion.xy[:, 0].max() < 17 - 4.8
    assert motion.velocity[:, 0].diff().min() < -0.6


def test_it_does_not_fear_who_is_behind() -> None:
    """He runs into it after a second and a half."""
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.0, 8.0), (CAR, -8.0, 0.0, 0.0, 11.0))
    motion = driven(PDMPlanner(), scenario, num_steps=12)
    assert motion.velocity[:, 0].diff().min() > 0
    assert motion.velocity[-1, 0] > 8.8


def test_it_waits_at_a_red_light() -> None:
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.0, 10.0), red_at=40.0)
    motion = driven(PDMPlanner(), scenario)
    assert 36 < motion.xy[-1, 0] + 2.4 < 40


def test_it_stays_where_there_is_no_road_ahead() -> None:
    """It stands with its nose to the edge of the road, off all lanes."""
    scenario = logged(straight(), (CAR, 0.0, -0.2, -math.pi / 2, 0.0))
    motion = driven(PDMPlanner(), scenario, num_steps=40)
    assert motion.xy[-1, 1] > -0.6


@pytest.mark.parametrize("tracker", [None, KinematicBicycle()])
def test_it_keeps_off_the_edge(tracker: KinematicBicycle | None) -> None:
    scenario = logged(straight(left=6.0, right=-1.3), (CAR, 0.0, 1.0, 0.0, 8.0))
    motion = driven(PDMPlanner(), scenario, tracker=tracker)
    edges = RoadEdges.from_roadgraph(scenario.roadgraph)
    simulated = scenario.log.slice(10, 91)
    simulated = simulated.replace(xy=motion.xy[None], heading=motion.heading[None])
    assert distance_to_road_edge(simulated, scenario.agents, edges).value.max() <= 0


def test_in_a_bend_it_keeps_to_the_centre() -> None:
    scenario = without_future(logged(bend(12.0), (CAR, 0.0, 0.0, 0.0, 8.0)))
    offset = driven(PDMPlanner(), scenario).xy - torch.tensor([30.0, 12.0])
    inside = (offset[:, 0] > 0) & (offset[:, 1] < 0)
    assert inside.sum() > 10
    assert (offset[inside].norm(dim=-1) - 12).abs().max() < 0.5

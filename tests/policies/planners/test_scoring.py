from dataclasses import replace

import numpy as np
import pytest
import torch

from catk_sim.datatypes import RoadGraph
from catk_sim.metrics.road_edges import RoadEdges
from catk_sim.planning.observing import make_context, observe
from policies.idm import IDM
from policies.planners.route_following import Drives, Wishes, simulate
from policies.planners.scoring import Scores, score
from policies.planners.situation import Observer, Obstacles
from tests.policies.planners.roads import CAR, Agent, logged, straight


def scored(
    wishes: Wishes, *others: Agent, y: float = 0.0, roadgraph: RoadGraph | None = None
) -> tuple[Drives, Scores]:
    """Drives for four seconds at first 10 m/s, blind to all others."""
    scenario = logged(roadgraph or straight(), (CAR, 0.0, y, 0.0, 10.0), *others)
    context = make_context(scenario, horizon=80, seed=0, with_log=False)
    observer = Observer(context, num_steps=40, idm=IDM())
    situation = observer.look(observe(scenario, scenario.log.slice(0, 11), 10))
    nobody = situation.others
    nobody = replace(
        nobody,
        xy=nobody.xy[:0],
        heading=nobody.heading[:0],
        velocity=nobody.velocity[:0],
        size=nobody.size[:0],
    )
    free = Obstacles.of(nobody, torch.zeros(0), situation.road.route)
    drives = simulate(replace(situation, obstacles=free), wishes, IDM())
    return drives, score(drives, situation, RoadEdges.from_roadgraph(context.roadgraph))


def wishes(*speeds: float, offset: float = 0.0, max_acceleration: float = np.inf) -> Wishes:
    count = len(speeds)
    return Wishes(
        offset=np.full(count, offset),
        speed=np.tile(np.array(speeds)[:, None], 200),
        max_acceleration=np.full(count, max_acceleration),
    )


def test_a_good_drive_scores_one() -> None:
    _, scores = scored(wishes(10.0))
    assert scores.total.item() == pytest.approx(1)
    assert scores.collision_step.item() > 40


def test_progress_is_that_of_the_farthest() -> None:
    drives, scores = scored(wishes(10.0, 6.0))
    part = float(drives.arc[1, -1] - drives.arc[1, 0]) / 40
    assert part < 0.9
    expected = torch.tensor([1.0, (5 * part + 7) / 12])
    torch.testing.assert_close(scores.total, expected, rtol=0, atol=1e-3)


def test_driving_into_a_standing_car_is_its_fault() -> None:
    """Its front, at x = 2.4, has 25.2 m to go."""
    _, scores = scored(wishes(10.0), (CAR, 30.0, 0.0, 0.0, 0.0))
    assert scores.total.item() < 1e-5
    assert scores.collision_step.item() == 26


def test_of_two_collisions_the_later_is_better() -> None:
    _, scores = scored(wishes(10.0, 7.0), (CAR, 30.0, 0.0, 0.0, 0.0))
    assert scores.total[1] > scores.total[0]


def test_being_hit_from_behind_is_not() -> None:
    _, scores = scored(wishes(10.0), (CAR, -10.0, 0.0, 0.0, 14.0))
    assert scores.total.item() == pytest.approx(1)


def test_whom_it_overlaps_at_the_start_it_does_not_hit() -> None:
    _, scores = scored(wishes(10.0), (CAR, 4.0, 0.0, 0.0, 10.0))
    assert scores.total.item() == pytest.approx(1)


def test_coming_near_costs_what_time_to_collision_weighs() -> None:
    """From 4.3 m to 0.3 m behind who is a metre a second slower."""
    _, scores = scored(wishes(10.0), (CAR, 9.1, 0.0, 0.0, 9.0))
    assert scores.total.item() == pytest.approx(7 / 12)


@pytest.mark.parametrize(("offset", "is_near"), [(0.0, False), (-1.0, True)])
def test_who_is_beside_matters_out_of_the_lane(offset: float, is_near: bool) -> None:
    """Half a metre to its left, a little behind, he comes over with 0.6 m/s."""
    side = (CAR, -1.5, 2.5 + offset, -0.06, 10.0)
    _, scores = scored(wishes(10.0, offset=offset), side, y=offset)
    assert (scores.total.item() < 0.7) == is_near


def test_leaving_the_road_costs_nearly_all() -> None:
    roadgraph = straight(right=-1.5)
    _, inside = scored(wishes(10.0), roadgraph=roadgraph)
    _, outside = scored(wishes(10.0, offset=-1.0), roadgraph=roadgraph)
    assert inside.total.item() == pytest.approx(1)
    assert outside.total.item() < 1e-3


def test_of_two_ways_off_the_road_the_nearer_is_better() -> None:
    roadgraph = straight(right=-1.3)
    near, far = (
        scored(wishes(10.0, offset=offset), roadgraph=roadgraph)[1].total.item()
        for offset in (-0.6, -1.2)
    )
    assert far < near < 1e-3


def test_braking_hard_is_no_comfort() -> None:
    _, scores = scored(wishes(10.0, max_acceleration=-6.0))
    assert scores.total.item() == pytest.approx(10 / 12)


def test_the_centre_is_better_than_beside_it() -> None:
    _, scores = scored(wishes(10.0, offset=1.0))
    assert 0.95 < scores.total.item() < 0.99


def test_a_map_without_edges_has_no_end() -> None:
    roadgraph = straight(right=-1.3)
    lanes_only = roadgraph.replace(feature_type=torch.full_like(roadgraph.feature_type, 18))
    bare = lanes_only.replace(
        feature_type=torch.where(roadgraph.feature_id == 1, 2, lanes_only.feature_type)
    )
    _, scores = scored(wishes(10.0, offset=-1.0), roadgraph=bare)
    assert scores.total.item() > 0.95

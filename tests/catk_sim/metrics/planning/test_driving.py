import math

import pytest
import torch
from torch import Tensor

from catk_sim.datatypes import Scenario, TrafficLights
from catk_sim.metrics.planning.driving import (
    progress_along_route,
    runs_red_light,
    speed_limit_score,
    wrong_way_distance,
)
from catk_sim.metrics.planning.ego import EgoScenes
from catk_sim.metrics.planning.lanes import LaneAt, lane_at
from tests.catk_sim.metrics.planning.drives import SECONDS, EastwardRoute, at_speed, road_with


def driven(scenario: Scenario) -> tuple[EgoScenes, LaneAt]:
    found = EgoScenes.of(scenario.log, scenario)
    lane = lane_at(found.ego.xy[0, :, 0], found.ego.heading[0, :, 0], found.scenario.roadgraph)
    return found, lane.repeat(1)


def wrong_way(ego: dict[str, Tensor]) -> float:
    return float(wrong_way_distance(*driven(road_with(ego))))


def path(x: Tensor, y: float, heading: float = 0.0) -> dict[str, Tensor]:
    xy = torch.stack([x, torch.full_like(x, y)], dim=-1)
    return at_speed(0, y, 0, heading) | {"xy": xy}


def test_who_keeps_to_the_right_is_not_on_the_wrong_way() -> None:
    assert wrong_way(at_speed(-20, -2, 10)) == 0
    assert wrong_way(at_speed(20, 2, -10, heading=math.pi)) == 0


def test_the_wrong_way_is_measured_over_a_second() -> None:
    assert wrong_way(at_speed(-20, 2, 10)) == pytest.approx(10, abs=1e-3)
    assert wrong_way(at_speed(-20, 2, 3)) == pytest.approx(3, abs=1e-3)


def test_reversing_is_the_wrong_way() -> None:
    assert wrong_way(at_speed(-20, -2, -4)) == pytest.approx(4, abs=1e-3)


def test_a_short_stretch_counts_by_its_length() -> None:
    """Three steps of 1 m on the wrong side. What is driven on the right one makes up for it."""
    x = torch.where(SECONDS < 2, 0.0, torch.where(SECONDS < 2.25, 10 * (SECONDS - 1.9), 3.5))
    assert wrong_way(path(x, 2)) == pytest.approx(3.5, abs=1e-3)
    back = torch.where(SECONDS < 3, x, 3.5 - 10 * (SECONDS - 2.9).clamp(max=0.2))
    assert wrong_way(path(back, 2)) == pytest.approx(3.5, abs=1e-3)
    soon = torch.where(SECONDS < 2.45, x, 3.5 - 10 * (SECONDS - 2.4).clamp(max=0.2))
    assert wrong_way(path(soon, 2)) == pytest.approx(3.5, abs=1e-3)


def test_the_way_before_the_start_does_not_count() -> None:
    x = torch.where(SECONDS < 0, 10 * SECONDS, 0.0)
    assert wrong_way(path(x, 2)) == 0


def test_the_first_step_after_the_start_counts() -> None:
    x = torch.where(SECONDS < 0.05, 0.0, 3.0)
    assert wrong_way(path(x, 2)) == pytest.approx(3)


def test_on_no_lane_there_is_no_wrong_way() -> None:
    """It is on a lane once, so that the lanes about are looked at."""
    x, y = 20 * SECONDS, torch.where(SECONDS < 0.05, -2.0, 9.0)
    for direction in (1, -1):
        xy = torch.stack([direction * x, y], dim=-1)
        assert wrong_way(at_speed(0, -2, 0) | {"xy": xy}) == 0


def test_a_jump_out_of_absence_is_not_driven() -> None:
    scenario = road_with(path(torch.where(SECONDS < 2, 0.0, 50.0), 2))
    valid = scenario.log.valid.clone()
    valid[0, 29] = False
    scenario = scenario.replace(log=scenario.log.replace(valid=valid))
    assert wrong_way_distance(*driven(scenario)) == 0


def test_who_keeps_the_speed_limit_scores_one() -> None:
    """25 mph are 11.18 m/s."""
    assert speed_limit_score(*driven(road_with(at_speed(-20, -2, 11.1)))) == 1


def test_speeding_counts_by_its_average() -> None:
    scenario = road_with(at_speed(-20, -2, 11.176 + 1))
    # The builder's lane ends at x = 100, after 9.9 s.
    assert speed_limit_score(*driven(scenario)) == pytest.approx(1 - 1 / 2.23, abs=1e-4)
    assert speed_limit_score(*driven(road_with(at_speed(-20, -2, 11.176 + 2.3)))) == 0


def test_speeding_for_half_the_time_counts_half() -> None:
    ego = at_speed(-20, -2, 12.176)
    velocity = torch.where((SECONDS < 4.05)[:, None], ego["velocity"], 0.0)
    scenario = road_with(ego | {"velocity": velocity})
    assert speed_limit_score(*driven(scenario)) == pytest.approx(1 - 0.5 / 2.23, abs=1e-4)


def test_speeding_in_the_history_does_not_count() -> None:
    ego = at_speed(-20, -2, 10)
    velocity = torch.where((SECONDS < 0.05)[:, None], 99.0, ego["velocity"])
    assert speed_limit_score(*driven(road_with(ego | {"velocity": velocity}))) == 1


def test_beside_the_lanes_nobody_speeds() -> None:
    x, y = 30 * SECONDS, torch.where(SECONDS < 0.15, -2.0, 20.0)
    velocity = torch.stack([torch.where(SECONDS < 0.15, 5.0, 30.0), torch.zeros(91)], dim=-1)
    ego = at_speed(0, -2, 0) | {"xy": torch.stack([x, y], dim=-1), "velocity": velocity}
    assert speed_limit_score(*driven(road_with(ego))) == 1


def test_without_a_known_limit_nobody_is_scored() -> None:
    scenario = road_with(at_speed(-20, -2, 30))
    unknown = scenario.roadgraph.replace(speed_limit=torch.zeros(4))
    assert speed_limit_score(*driven(scenario.replace(roadgraph=unknown))).isnan()
    assert speed_limit_score(*driven(road_with(at_speed(-20, 20, 30)))).isnan()


def progress(ego: dict[str, Tensor]) -> float:
    found = EgoScenes.of((scenario := road_with(ego)).log, scenario)
    return float(progress_along_route(found.ego, EastwardRoute(), torch.Size()))


def test_progress_is_counted_from_the_current_step() -> None:
    assert progress(at_speed(-20, -2, 10)) == pytest.approx(80, abs=1e-3)


def test_who_goes_back_makes_negative_progress() -> None:
    assert progress(at_speed(-20, -2, -1)) == pytest.approx(-8, abs=1e-3)


def test_far_beside_the_route_is_no_progress() -> None:
    assert progress(at_speed(-20, 7.9, 10)) == pytest.approx(80, abs=1e-3)
    assert progress(at_speed(-20, 8.1, 10)) == 0
    assert progress(at_speed(-20, -12.1, 10)) == 0


def test_only_the_steps_on_the_route_are_progress() -> None:
    """It leaves after 4 s; the step from 3.9 s to 4 s is the last that counts."""
    y = torch.where(SECONDS < 4.05, -2.0, 30.0)
    xy = torch.stack([10 * SECONDS, y], dim=-1)
    assert progress(at_speed(0, -2, 10) | {"xy": xy}) == pytest.approx(40, abs=1e-3)


def light_run(x: float, speed: float, y: float = -2) -> float:
    scenario = road_with(at_speed(x, y, speed))
    return float(runs_red_light(EgoScenes.of(scenario.log, scenario)))


def test_who_passes_a_red_light_runs_it() -> None:
    """The light at x = 60 is red from 3 s on."""
    assert light_run(20.5, 10) == 1


def test_who_passes_while_it_is_green_does_not() -> None:
    assert light_run(35.5, 10) == 0


def test_who_stops_before_it_does_not() -> None:
    assert light_run(20, 3) == 0


def test_who_is_on_another_lane_does_not() -> None:
    assert light_run(20.5, 10, y=2) == 0


def test_a_light_run_in_the_history_does_not_count() -> None:
    """Red at all times, and passed at -0.5 s; or at the first step after the current one."""
    for x, expected in ((64.5, 0), (60.5, 0), (59.5, 1)):
        scenario = road_with(at_speed(x, -2, 10))
        lights = scenario.traffic_lights
        always = scenario.replace(
            traffic_lights=lights.replace(state=torch.full_like(lights.state, 4))
        )
        assert runs_red_light(EgoScenes.of(always.log, always)) == expected


def test_a_map_without_lights_tells_nothing() -> None:
    scenario = road_with(at_speed(20, -2, 10))
    lights = scenario.traffic_lights
    unseen = lights.replace(valid=torch.zeros_like(lights.valid))
    none = TrafficLights(
        lane_id=lights.lane_id[:0],
        state=lights.state[:0],
        stop_xyz=lights.stop_xyz[:0],
        valid=lights.valid[:0],
    )
    for absent in (unseen, none):
        bare = scenario.replace(traffic_lights=absent)
        assert runs_red_light(EgoScenes.of(bare.log, bare)).isnan()

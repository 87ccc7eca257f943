import math

import pytest
import torch
from torch import Tensor

from catk_sim.datasets.batching import collate
from catk_sim.datatypes import AgentType, RoadGraph, Scenario
from catk_sim.metrics.collision import collision_indication
from catk_sim.metrics.offroad import offroad_indication
from catk_sim.metrics.planning import EgoMetrics, evaluate_ego
from tests import scenes
from tests.catk_sim.metrics.planning.drives import SECONDS, EastwardRoute, at_speed, road_with


def measured(scenario: Scenario, ego: dict[str, Tensor] | None = None) -> EgoMetrics:
    """What the log is worth, or an ego that drives otherwise."""
    log = scenario.log
    if ego is not None:
        first = torch.arange(log.num_agents) == 0
        log = road_with(ego, *[at_speed(0, 0, 0)] * (log.num_agents - 1)).log.where(first, log)
    return evaluate_ego(log, scenario, EastwardRoute())


def test_a_good_drive_scores_one() -> None:
    found = measured(road_with(at_speed(-30.5, -2, 10), at_speed(20, 2, 0)))
    names = ("collision", "drivable_area", "driving_direction", "making_progress")
    names += ("time_to_collision", "progress", "speed_limit", "comfort")
    assert [float(getattr(found, f"{name}_score")) for name in names] == [1.0] * 8
    assert found.score == 1
    assert found.red_light_violation == 0
    assert found.collision == found.at_fault_collision == found.offroad == 0


def test_what_is_averaged_has_nuplans_weights() -> None:
    """Half the log's progress, and nothing else amiss."""
    scenario = road_with(at_speed(-20, -2, 10))
    assert measured(scenario, at_speed(-20, -2, 5)).score == pytest.approx(1 - 2.5 / 16)


def test_time_to_collision_weighs_five() -> None:
    """It stops 3 m behind the other, from 10 m/s within 4 m: 0.3 s before it would hit."""
    x = (10 * SECONDS).clamp(max=40)
    velocity = torch.stack([torch.where(SECONDS < 4, 10.0, 0.0), torch.zeros(91)], dim=-1)
    xy = torch.stack([x, torch.full((91,), -2)], dim=-1)
    scenario = road_with(at_speed(0, -2, 5), at_speed(47.8, -2, 0))
    found = measured(scenario, {"xy": xy, "heading": torch.zeros(91), "velocity": velocity})
    assert found.time_to_collision == pytest.approx(0.4, abs=1e-4)
    assert found.time_to_collision_score == 0
    assert found.comfort_score == 0
    assert found.collision == 0
    assert found.score == pytest.approx(9 / 16)


@pytest.mark.parametrize(("gap", "score"), [(0.94, 0), (0.96, 1)])
def test_time_to_collision_is_bounded_by_95_hundredths(gap: float, score: float) -> None:
    """The ego drives behind a faster car, which is slower for a step."""
    ego, ahead = at_speed(0, -2, 10), at_speed(4.8 + gap * 10, -2, 10)
    velocity = ahead["velocity"].clone()
    velocity[40, 0] = 0
    found = measured(road_with(ego, ahead | {"velocity": velocity}))
    assert found.time_to_collision == pytest.approx(gap, abs=1e-4)
    assert found.time_to_collision_score == score


def test_what_multiplies_is_fatal() -> None:
    assert measured(road_with(at_speed(-20, -2, 10), at_speed(20, -2, 0))).score == 0
    assert measured(road_with(at_speed(-20, -2, 10)), at_speed(-20, -2, 1)).score == 0
    assert measured(road_with(at_speed(-20, -3.4, 10))).score == 0


def test_the_wrong_way_is_half_fatal_from_two_metres_and_fatal_from_six() -> None:
    for distance, score in ((1.9, 1), (2.1, 0.5), (5.9, 0.5), (6.1, 0)):
        x = torch.where(SECONDS < 2.05, 0.0, distance)
        ego = at_speed(0, 2, 0) | {"xy": torch.stack([x, torch.full_like(x, 2)], dim=-1)}
        found = measured(road_with(ego))
        assert found.wrong_way_distance == pytest.approx(distance)
        assert found.driving_direction_score == score
        # All is well but comfort.
        assert found.score == pytest.approx(score * 14 / 16)


def test_a_hit_object_halves_the_score() -> None:
    """It stands beyond where the ego would be within 0.95 s, if it were not for the last steps."""
    scenario = road_with(at_speed(-60, -2, 10), at_speed(0, -2, 0), types=[AgentType.OTHER])
    found = measured(scenario)
    assert found.collision_score == 0.5
    assert found.score == pytest.approx(0.5 * 11 / 16)


def test_thirty_centimetres_off_the_road_are_tolerated() -> None:
    """The edge is at y = -4, the ego 2 m wide."""
    for y, offroad, score in ((-2.99, 0, 1), (-3.01, 1, 1), (-3.29, 1, 1), (-3.31, 1, 0)):
        found = measured(road_with(at_speed(-20, y, 10)))
        assert found.offroad == offroad
        assert found.drivable_area_score == score


def test_progress_is_measured_against_the_log() -> None:
    scenario = road_with(at_speed(-20, -2, 10))
    for speed, score, making in (
        (10, 1, 1),
        (12, 1, 1),
        (5, 0.5, 1),
        (2.1, 0.21, 1),
        (1.9, 0.19, 0),
    ):
        found = measured(scenario, at_speed(-20, -2, speed))
        assert found.progress == pytest.approx(8 * speed, abs=1e-3)
        assert found.progress_score == pytest.approx(score, abs=1e-4)
        assert found.making_progress_score == making


def test_who_stands_where_the_log_stands_makes_progress() -> None:
    """Up to 0.1 m backwards are noise."""
    standing = road_with(at_speed(0, -2, 0))
    assert measured(standing).progress_score == 1
    assert measured(standing, at_speed(0, -2, -0.09 / 8)).progress_score == 1
    assert measured(standing, at_speed(0, -2, -0.11 / 8)).progress_score == 0
    driving = road_with(at_speed(0, -2, 10))
    assert measured(driving, at_speed(0, -2, 0)).progress_score == pytest.approx(0.1 / 80)


def test_displacement_is_measured_after_the_current_step() -> None:
    """A metre per second further away: 0.1 m at the first step, 8 m at the last."""
    found = measured(road_with(at_speed(0, -2, 10)), at_speed(0, -2, 9))
    assert found.ade == pytest.approx(4.05, abs=1e-4)
    assert found.fde == pytest.approx(8, abs=1e-4)


def test_a_log_that_ends_has_no_final_displacement() -> None:
    scenario = road_with(at_speed(0, -2, 10))
    valid = scenario.log.valid.clone()
    valid[0, 90] = False
    ended = scenario.replace(log=scenario.log.replace(valid=valid))
    found = evaluate_ego(scenario.log, ended, EastwardRoute())
    assert found.fde.isnan()
    assert found.ade == 0


def test_the_first_collision_and_departure_are_told() -> None:
    """Bumpers meet after (20 - 4.8) / 10 s, the second one's after 1 s more."""
    others = at_speed(10, -2, 0), at_speed(0, -2, 0)
    found = measured(road_with(at_speed(-20, -2, 10), *others))
    assert found.collision_step == 10 + 16
    assert found.collision_agent == 102
    leaving = at_speed(0, -2, 5, sideways=-1)
    assert measured(road_with(leaving)).offroad_step == 10 + 11


def test_flags_are_those_of_the_simulator() -> None:
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        y, speed, x = (
            float(value) for value in torch.rand(3, generator=generator) * torch.tensor([8, 9, 40])
        )
        scenario = road_with(at_speed(-20, y - 4, speed), at_speed(x - 20, -2, 2))
        found = measured(scenario)
        collides = collision_indication(scenario.log, scenario).value[0, 11:].any()
        offroad = offroad_indication(scenario.log, scenario).value[0, 11:].any()
        assert found.collision == float(collides)
        assert found.offroad == float(offroad)


def test_the_history_counts_for_no_flag() -> None:
    """It hits the other one and leaves the road, and is back at the current step."""
    away = SECONDS < -0.05
    xy = torch.stack([torch.zeros(91), torch.where(away, -8.0, -2.0)], dim=-1)
    found = measured(road_with(at_speed(0, -2, 0) | {"xy": xy}, at_speed(0, -8, 0)))
    assert found.collision == found.offroad == found.at_fault_collision == 0


def test_what_the_map_does_not_tell_is_nan_and_does_not_count() -> None:
    scenario = road_with(at_speed(-20, -2, 10))
    empty = scenario.roadgraph
    nothing = torch.zeros_like(empty.feature_valid)
    bare = RoadGraph(
        **{**vars(empty), "feature_type": nothing.long() + 18, "feature_valid": nothing}
    )
    lights = scenario.traffic_lights
    scenario = scenario.replace(
        roadgraph=bare, traffic_lights=lights.replace(valid=torch.zeros_like(lights.valid))
    )
    found = measured(scenario)
    for name in ("offroad", "drivable_area_score", "speed_limit_score", "red_light_violation"):
        assert getattr(found, name).isnan(), name
    assert found.score == 1


def test_an_ego_that_is_absent_at_times_is_measured_where_it_is() -> None:
    scenario = road_with(at_speed(-20, -2, 10), at_speed(20, -2, 0))
    valid = scenario.log.valid.clone()
    valid[0, 40:60] = False
    found = evaluate_ego(scenario.log.replace(valid=valid), scenario, EastwardRoute())
    assert found.comfort_score.isnan()
    assert found.collision == 0
    assert found.progress == pytest.approx(80 - 21, abs=1e-3)
    assert not found.score.isnan()


class SeveralRoutes:
    """An eastward route for each scenario, that begins further and further west."""

    def __init__(self, num: int) -> None:
        self.start = -torch.arange(num, dtype=torch.float32)

    def project(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        assert xy.shape[0] == len(self.start)
        return xy[..., 0] - self.start[:, None], xy[..., 1] + 2


def some_scenarios() -> list[Scenario]:
    roads = [
        road_with(at_speed(-20, -2, 10), at_speed(20, -2, 0), at_speed(0, 2, 3)),
        road_with(at_speed(-20, -2, 12)),
        road_with(at_speed(-20, -3.4, 6), at_speed(-10, -3, 2)),
    ]
    for place, road in enumerate(roads):
        # Larger and larger egos, up to one that does not fit its lane.
        road.agents.size[0] += 0.8 * place
    return [road.replace(scenario_id=(str(place),)) for place, road in enumerate(roads)]


def test_a_batch_is_measured_as_its_members_are() -> None:
    single = [measured(scenario) for scenario in some_scenarios()]
    batch = collate(some_scenarios())
    other = batch.log.replace(xy=batch.log.xy + torch.tensor([0.0, 0.5]))
    rollouts = type(batch.log).stack([batch.log, other, batch.log, batch.log])
    found = evaluate_ego(rollouts, batch, SeveralRoutes(3))
    assert found.score.shape == (4, 3)
    assert found.scenario_id == ("0", "1", "2") * 4
    for rollout in (0, 2, 3):
        for place, alone in enumerate(single):
            member = found.select(rollout).select(place)
            for name, value in vars(alone).items():
                if isinstance(value, Tensor):
                    torch.testing.assert_close(
                        getattr(member, name), value, equal_nan=True, rtol=0, atol=1e-5
                    )
    assert found.fde[1].tolist() == pytest.approx([0.5] * 3, abs=1e-5)


def test_rollouts_of_a_single_scenario_need_no_batch() -> None:
    scenario = some_scenarios()[0]
    found = evaluate_ego(scenario.log.repeat(4), scenario, EastwardRoute())
    assert found.score.shape == (4,)
    assert found.scenario_id == ("0",) * 4
    assert found.score.tolist() == [float(measured(scenario).score)] * 4


def test_the_sdc_need_not_be_the_first_agent() -> None:
    scenario = some_scenarios()[0]

    def turned(tensor: Tensor) -> Tensor:
        return tensor.flip(0)

    moved = scenario.replace(log=scenario.log.map(turned), agents=scenario.agents.map(turned))
    found, expected = (measured(one) for one in (moved, scenario))
    for name, value in vars(expected).items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(getattr(found, name), value, equal_nan=True)


def test_records_are_means_over_rollouts() -> None:
    batch = collate(some_scenarios()[:2])
    away = batch.log.replace(xy=batch.log.xy.clone())
    away.xy[:, 0] += torch.tensor([3.0, -4.0])
    rollouts = type(batch.log).stack([batch.log, away])
    records = evaluate_ego(rollouts, batch, SeveralRoutes(2)).scenario_records()
    assert [record["scenario_id"] for record in records] == ["0", "1"]
    assert [record["num_rollouts"] for record in records] == [2, 2]
    assert [record["ade"] for record in records] == pytest.approx([2.5, 2.5], abs=1e-5)
    assert [record["min_ade"] for record in records] == [0, 0]
    assert records[0]["collision"] == 0.5
    assert "jerk" in records[0]
    assert "collision_step" not in records[0]


def test_the_tenths_of_a_short_rollout_count() -> None:
    scenario = road_with(at_speed(-20, -2, 10))
    found = evaluate_ego(scenario.log.slice(0, 21), scenario, EastwardRoute())
    assert found.progress == pytest.approx(10, abs=1e-3)
    assert found.progress_score == 1


def test_a_rollout_longer_than_the_log_is_measured_to_its_end() -> None:
    scenario = road_with(at_speed(-19.5, -2, 10))
    longer = type(scenario.log).join([scenario.log, scenario.log.slice(90, 91)])
    found = evaluate_ego(longer, scenario, EastwardRoute())
    assert found.fde.isnan()
    assert found.ade == 0
    assert found.red_light_violation == 1


def test_a_scenario_without_an_sdc_is_refused() -> None:
    scenario = scenes.straight_road()
    agents = scenario.agents
    for flags, num in (([False] * 3, 0), ([True, False, True], 2)):
        other = scenario.replace(agents=agents.replace(is_sdc=torch.tensor(flags)))
        with pytest.raises(
            ValueError, match=f"wanted one sdc in scenario straight_road, got {num}"
        ):
            evaluate_ego(scenario.log, other, EastwardRoute())


def test_a_motion_without_a_future_is_refused() -> None:
    scenario = scenes.straight_road()
    with pytest.raises(ValueError, match="wanted more than the 11 steps of the history, got 11"):
        evaluate_ego(scenario.log.slice(0, 11), scenario, EastwardRoute())


def test_a_motion_of_others_is_refused() -> None:
    scenario = scenes.straight_road()
    fewer = scenario.log.map(lambda tensor: tensor[:2])
    with pytest.raises(ValueError, match=r"wanted motion whose batch and agents end in"):
        evaluate_ego(fewer, scenario, EastwardRoute())


def test_moving_and_turning_the_scene_changes_nothing() -> None:
    scenario = some_scenarios()[0]
    expected = measured(scenario)
    angle, shift = 0.8, torch.tensor([300.0, -200.0])
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    log, road, lights = scenario.log, scenario.roadgraph, scenario.traffic_lights

    def moved(xyz: Tensor) -> Tensor:
        return torch.cat([xyz[..., :2] @ turn + shift, xyz[..., 2:]], dim=-1)

    other = scenario.replace(
        log=log.replace(
            xy=log.xy @ turn + shift, heading=log.heading + angle, velocity=log.velocity @ turn
        ),
        roadgraph=road.replace(xyz=moved(road.xyz)),
        traffic_lights=lights.replace(stop_xyz=moved(lights.stop_xyz)),
    )

    class TurnedRoute:
        def project(self, xy: Tensor) -> tuple[Tensor, Tensor]:
            return EastwardRoute().project((xy - shift) @ turn.T)

    found = evaluate_ego(other.log, other, TurnedRoute())
    for name, value in vars(expected).items():
        if isinstance(value, Tensor) and name != "red_light_violation":
            # Coordinates of hundreds of metres are rounded to hundredths of a millimetre.
            torch.testing.assert_close(getattr(found, name), value, rtol=0, atol=2e-3)

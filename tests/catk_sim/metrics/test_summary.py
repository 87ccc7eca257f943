import math

import pytest
import torch

from catk_sim.constants import FUTURE_STEPS, HISTORY_STEPS
from catk_sim.datatypes import Scenario, Trajectory
from catk_sim.metrics.summary import RolloutSummary, summarize_rollouts
from tests import scenes


def two_rollouts(scenario: Scenario) -> Trajectory:
    """The car A is 2 m, then 3 m south of its log; in the second rollout C stays to be hit.

    A's flank is then at y = -5 and -6: off the road, which ends at -4.
    """
    log = scenario.log
    simulated = log.repeat(2)
    xy, valid = simulated.xy.clone(), simulated.valid.clone()
    xy[0, ..., 0, HISTORY_STEPS:, 1] -= 2.0
    xy[1, ..., 0, HISTORY_STEPS:, 1] -= 3.0
    xy[1, ..., 2, :, 1] -= 3.0
    valid[1, ..., 2, HISTORY_STEPS:] = True
    return simulated.replace(xy=xy, valid=valid)


def test_the_figures_of_the_straight_road_are_as_counted_by_hand() -> None:
    scenario = scenes.straight_road()
    table = summarize_rollouts(two_rollouts(scenario), scenario).table()
    # Errors are A: 2 and 3, B: 0 and 0, C: 0 and 3. C is on the road at the current step in the
    # first rollout only.
    expected = {
        "ade": (2 + 3 + 0 + 3) / 2 / 3,
        "min_ade": 2 / 3,
        "agent_min_ade": 2 / 3,
        "collision_rate": 2 / 6,
        "offroad_rate": (2 + 2 + 1) / 6,
        "departure_rate": 2 / 3,
        "num_agents": 3,
    }
    assert table["all"] == pytest.approx(expected)
    expected = {
        "ade": 2.0,
        "min_ade": 1.0,
        "agent_min_ade": 1.0,
        "collision_rate": 2 / 4,
        "offroad_rate": 3 / 4,
        "departure_rate": 2 / 3,
        "num_agents": 2,
    }
    assert table["vehicle"] == pytest.approx(expected)
    assert table["pedestrian"]["offroad_rate"] == 1
    assert math.isnan(table["pedestrian"]["departure_rate"])
    assert table["cyclist"]["num_agents"] == 0
    assert math.isnan(table["cyclist"]["ade"])


def test_only_controlled_agents_count() -> None:
    scenario = scenes.straight_road()
    controlled = torch.tensor([True, False, False])
    table = summarize_rollouts(two_rollouts(scenario), scenario, controlled).table()
    # C, which A hits in the second rollout, is not counted but still hit.
    assert table["all"]["ade"] == pytest.approx(2.5)
    assert table["all"]["collision_rate"] == 0.5
    assert table["all"]["num_agents"] == 1


def test_agents_that_are_absent_at_the_current_step_do_not_count() -> None:
    scenario = scenes.straight_road()
    valid = scenario.log.valid.clone()
    valid[2, :HISTORY_STEPS] = False
    scenario = scenario.replace(log=scenario.log.replace(valid=valid))
    assert summarize_rollouts(scenario.log.repeat(1), scenario).table()["all"]["num_agents"] == 2


def test_collisions_of_the_history_do_not_count() -> None:
    scenario = scenes.straight_road()
    simulated = scenario.log.repeat(1)
    xy = simulated.xy.clone()
    xy[0, 1, :HISTORY_STEPS] = xy[0, 0, :HISTORY_STEPS]
    table = summarize_rollouts(simulated.replace(xy=xy), scenario).table()
    assert table["all"]["collision_rate"] == 0


def test_a_scenario_without_a_future_has_rates_but_no_error() -> None:
    """As in WOMD's test split."""
    scenario = scenes.straight_road()
    simulated = scenario.log.repeat(1)
    scenario = scenario.replace(log=scenario.log.slice(0, HISTORY_STEPS))
    table = summarize_rollouts(simulated, scenario).table()
    assert math.isnan(table["all"]["ade"])
    assert math.isnan(table["all"]["min_ade"])
    assert table["all"]["offroad_rate"] == pytest.approx(1 / 3)


def test_a_shorter_simulation_is_compared_as_far_as_it_goes() -> None:
    scenario = scenes.straight_road()
    short = two_rollouts(scenario).slice(0, HISTORY_STEPS + FUTURE_STEPS // 2)
    assert summarize_rollouts(short, scenario).table()["all"]["ade"] == pytest.approx(8 / 6)


def test_a_batch_and_merged_parts_have_the_figures_of_the_whole() -> None:
    scenario = scenes.straight_road()
    still = scenario.replace(scenario_id=("still",))
    parts = [
        summarize_rollouts(two_rollouts(scenario), scenario),
        summarize_rollouts(scenario.log.repeat(2), still),
    ]
    batch = Scenario.stack([scenario, still])
    both = Trajectory.stack([two_rollouts(scenario), scenario.log.repeat(2)])
    both = both.map(lambda tensor: tensor.transpose(0, 1))
    whole = summarize_rollouts(both, batch).table()
    merged = RolloutSummary.stack(parts).table()
    assert merged["all"] == whole["all"]
    assert merged["vehicle"] == whole["vehicle"]
    # minADE is a mean over scenarios.
    assert whole["all"]["min_ade"] == pytest.approx((2 / 3 + 0) / 2)

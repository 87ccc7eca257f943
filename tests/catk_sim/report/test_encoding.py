import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from catk_sim.datatypes import Scenario, TrafficLights, Trajectory
from catk_sim.report import ReportScene
from catk_sim.report.encoding import METRES, RADIANS, as_json, encode_scene
from tests.catk_sim.report.scenes import decode, drive_of, scenario_of


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    scenario = scenario_of()
    valid = scenario.log.valid.clone()
    valid[1, 30:40] = False
    return scenario.replace(log=scenario.log.replace(valid=valid))


def encoded(scenario: Scenario, **drives: Any) -> Any:
    return decode(encode_scene(ReportScene(scenario=scenario, drives=drives)))


def sdc_of(scenario: Scenario) -> int:
    return int(scenario.agents.is_sdc.nonzero())


def read_track(runs: list[Any], num_steps: int) -> np.ndarray:
    """Positions and headings at all steps; NaN where there are none."""
    told = np.full((num_steps, 3), np.nan)
    for start, *columns in runs:
        for axis, numbers in enumerate(columns):
            unit = RADIANS if axis == 2 else METRES
            told[start : start + len(numbers), axis] = np.cumsum(numbers) * unit
    return told


def assert_told(tracks: list[Any], motion: Trajectory) -> None:
    for row, runs in enumerate(tracks):
        told = read_track(runs, motion.num_steps)
        valid = motion.valid[row].numpy()
        np.testing.assert_array_equal(~np.isnan(told[:, 0]), valid)
        np.testing.assert_allclose(
            told[valid, :2], motion.xy[row].numpy()[valid], atol=METRES / 2 + 1e-4
        )
        turned = told[valid, 2] - motion.heading[row].numpy()[valid]
        np.testing.assert_allclose(np.cos(turned), 1, atol=RADIANS**2)


def test_the_log_is_told_to_the_resolution_and_holes_stay_holes(scenario: Scenario) -> None:
    assert_told(encoded(scenario)["log"], scenario.log)


def test_driven_agents_are_told_and_others_refer_to_the_log(scenario: Scenario) -> None:
    drive = drive_of(scenario, ahead=3)

    rollout = encoded(scenario, one=drive)["drives"]["one"]["rollouts"][1]

    sdc = sdc_of(scenario)
    driven = rollout["tracks"].pop(sdc)
    assert rollout["tracks"] == [None] * (scenario.log.num_agents - 1)
    assert_told([driven], drive.simulated.select(1).map(lambda each: each[sdc : sdc + 1]))


def test_flags_are_told_as_runs_of_steps(scenario: Scenario) -> None:
    rollout = encoded(scenario, one=drive_of(scenario))["drives"]["one"]["rollouts"][0]

    assert rollout["collided"]["0"] == [20, 21, 40, 40]
    assert rollout["offroad"] == {}


def test_choices_are_told_for_controlled_agents_decision_by_decision(scenario: Scenario) -> None:
    choices = encoded(scenario, one=drive_of(scenario))["drives"]["one"]["rollouts"][0]["choices"]

    sdc = str(sdc_of(scenario))
    assert choices["top"] == 3
    assert list(choices["label"]) == [sdc]
    assert choices["label"][sdc] == [0, 1, 2] * 16
    assert choices["promille"][sdc][:3] == [500, 300, 200]
    assert choices["offset"][sdc][:6] == [100, 0, 80, 20, 0, 0]


def test_a_line_of_the_map_stays_where_it_is_but_has_fewer_points(scenario: Scenario) -> None:
    told = encoded(scenario)["map"]
    points = scenario.roadgraph.point_valid.sum()

    kept = [
        np.cumsum(np.reshape(line, (-1, 2)), axis=0) * METRES
        for lines in told.values()
        for line in lines
    ]

    assert sum(map(len, kept)) < points / 2
    drawn = np.concatenate([densely(line) for line in kept if len(line) > 1])
    lanes = scenario.roadgraph.xyz[scenario.roadgraph.point_valid][:, :2].numpy()
    for point in lanes[::50]:
        assert np.linalg.norm(drawn - point, axis=1).min() < 0.1 + METRES + 0.05


def densely(line: np.ndarray) -> np.ndarray:
    """Points of a polyline, 10 cm apart."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.arange(0, length[-1] + 0.05, 0.1)
    return np.stack([np.interp(at, length, line[:, axis]) for axis in (0, 1)], axis=-1)


def test_a_light_is_told_at_its_place_and_unseen_steps_as_minus_one(scenario: Scenario) -> None:
    step = torch.arange(scenario.log.num_steps)
    lights = TrafficLights(
        lane_id=torch.tensor([1, 2]),
        state=torch.stack([4 + step % 3, step % 9]),
        stop_xyz=torch.tensor([[1.0, -2.0, 0.0], [3.0, 4.0, 0.0]])[:, None].expand(2, 91, 3),
        valid=torch.stack([step >= 2, step < 0]),
    )

    told = encoded(scenario.replace(traffic_lights=lights))["lights"]

    assert told == [{"at": [20, -40], "states": [-1, -1, *(4 + step % 3)[2:].tolist()]}]


def test_a_batch_is_refused(scenario: Scenario) -> None:
    batch = Scenario.stack([scenario, scenario])

    with pytest.raises(ValueError, match=r"one scenario, got a batch of shape \(2,\)"):
        encode_scene(ReportScene(scenario=batch, drives={}))


def test_a_drive_of_another_scenario_is_refused(scenario: Scenario) -> None:
    drive = drive_of(scenario)
    fewer = dataclasses.replace(drive, simulated=drive.simulated.map(lambda each: each[:, :2]))

    with pytest.raises(ValueError, match="a drive has 2 agents"):
        encoded(scenario, one=fewer)


def test_json_cannot_close_its_script() -> None:
    assert "<" not in as_json({"name": "</script><script>alert(1)</script>"})

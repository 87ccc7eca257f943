import numpy as np
import pytest
import torch

from catk_sim.planning.observing import make_context, observe
from catk_sim.planning.planner import Planner
from policies.planners import (
    ConstantVelocityPlanner,
    IDMPlanner,
    LogReplayPlanner,
    PDMPlanner,
)
from tests.policies.planners.roads import CAR, driven, logged, straight

PLANNERS = {
    "log_replay": LogReplayPlanner,
    "constant_velocity": ConstantVelocityPlanner,
    "idm": IDMPlanner,
    "pdm": PDMPlanner,
}


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_keep_their_contract(name: str) -> None:
    scenario = logged(straight(), (CAR, 0.0, 0.5, 0.1, 8.0), (CAR, 30.0, 0.0, 0.0, 5.0))
    planner = PLANNERS[name]()
    assert isinstance(planner, Planner)
    assert planner.name == name
    assert planner.requires_log == (name == "log_replay")
    context = make_context(scenario, horizon=80, seed=0, with_log=planner.requires_log)
    planner.initialize(context)
    plan = planner.plan(observe(scenario, scenario.log.slice(0, 11), 10))
    assert isinstance(plan, np.ndarray)
    assert plan.dtype == np.float64
    assert plan.shape[1] == 5
    assert np.isfinite(plan).all()
    np.testing.assert_allclose(plan[0, :2], [0.8, 0.58], atol=0.05)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_planner_drives_one_scenario_after_the_other(name: str) -> None:
    one = logged(straight(), (CAR, 0.0, 0.0, 0.0, 8.0))
    other = logged(straight(), (CAR, 0.0, 0.0, 0.0, 2.0), (CAR, 20.0, 0.0, 0.0, 0.0))
    planner = PLANNERS[name]()
    driven(planner, one, num_steps=5)
    again = driven(planner, other, num_steps=5)
    assert torch.equal(again.xy, driven(PLANNERS[name](), other, num_steps=5).xy)


def test_log_replay_is_the_log_to_the_bit() -> None:
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.3, 7.0))
    motion = driven(LogReplayPlanner(), scenario)
    log = scenario.log.slice(10, 91)
    assert torch.equal(motion.xy, log.xy[0])
    assert torch.equal(motion.heading, log.heading[0])
    assert torch.equal(motion.velocity, log.velocity[0])


def test_log_replay_goes_straight_on_where_the_log_ends() -> None:
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.0, 10.0))
    valid = scenario.log.valid.clone()
    valid[0, 40] = False
    xy = scenario.log.xy.clone()
    xy[0, 40:] = -999.0
    scenario = scenario.replace(log=scenario.log.replace(valid=valid, xy=xy))
    motion = driven(LogReplayPlanner(), scenario)
    torch.testing.assert_close(motion.xy[:, 0], torch.arange(81.0), rtol=0, atol=1e-3)


def test_log_replay_wants_the_log() -> None:
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.0, 10.0))
    context = make_context(scenario, horizon=80, seed=0, with_log=False)
    with pytest.raises(ValueError, match="wants a context with the log"):
        LogReplayPlanner().initialize(context)


def test_constant_velocity_goes_straight_on() -> None:
    scenario = logged(straight(), (CAR, 0.0, 0.0, 0.1, 10.0), (CAR, 20.0, 2.0, 0.0, 0.0))
    motion = driven(ConstantVelocityPlanner(), scenario)
    torch.testing.assert_close(motion.xy, scenario.log.xy[0, 10:], rtol=0, atol=1e-3)
    torch.testing.assert_close(motion.heading, torch.full((81,), 0.1))

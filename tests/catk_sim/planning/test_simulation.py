import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS, NUM_STEPS
from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.datatypes import Action, AgentType, Scenario, SimState
from catk_sim.dynamics import DynamicsModel, TokenDynamics
from catk_sim.planning.adapters import FunctionPlanner
from catk_sim.planning.drivers import PlannerDriver, PolicyDriver
from catk_sim.planning.planner import Controls
from catk_sim.planning.simulation import BRAKING, TrafficGroup, drive
from catk_sim.planning.tracking import KinematicBicycle
from catk_sim.rollout import rollout, without_late_agents
from policies.constant_velocity import ConstantVelocity
from policies.idm import IDM
from policies.log_replay import LogReplay
from policies.memory import NoMemory
from policies.random_token import RandomToken
from tests.catk_sim.envs import variations
from tests.catk_sim.planning.planners import (
    Failing,
    Oracle,
    Recording,
    Slow,
    straight_on,
    towards_goal,
)
from tests.scenes import arc_vocabulary, straight_road

VEHICLES = frozenset({AgentType.VEHICLE})


def straight() -> PlannerDriver:
    return PlannerDriver(lambda: FunctionPlanner(straight_on))


def with_late_car() -> Scenario:
    """The road on which the parked car comes at step 20 and the pedestrian at step 30."""
    scenario = straight_road()
    valid = scenario.log.valid.clone()
    valid[2, :20] = False
    valid[1, :30] = False
    return scenario.replace(log=scenario.log.replace(valid=valid))


def test_a_plan_is_where_the_ego_goes() -> None:
    driven = drive(straight(), [straight_road()])
    simulated = driven.rollout.simulated.select(0)
    assert driven.failures == ()
    assert simulated.num_steps == NUM_STEPS
    # 8 s at 10 m/s, as was logged.
    torch.testing.assert_close(simulated.xy[0], straight_road().log.xy[0], rtol=0, atol=1e-4)
    assert simulated.valid[0].all()


def test_traffic_replays_the_log_by_itself() -> None:
    scenario = with_late_car()
    simulated = drive(straight(), [scenario]).rollout.simulated.select(0)
    assert torch.equal(simulated.valid[1:], scenario.log.valid[1:])
    seen = scenario.log.valid[1:]
    assert torch.equal(simulated.xy[1:][seen], scenario.log.xy[1:][seen])


def test_agents_that_are_driven_come_with_the_start_or_never() -> None:
    traffic = [TrafficGroup(policy=ConstantVelocity(), types=VEHICLES)]
    driven = drive(straight(), [with_late_car()], traffic=traffic)
    simulated = driven.rollout.simulated.select(0)
    assert not simulated.valid[2].any()
    # Pedestrians replay the log.
    assert torch.equal(simulated.valid[1], with_late_car().log.valid[1])
    assert driven.rollout.final.controlled.tolist() == [[True, False, False]]


def test_traffic_moves_as_in_a_rollout_of_its_policy() -> None:
    scenario = generate_scenario(3).to(torch.float32)
    traffic = [TrafficGroup(policy=IDM())]
    driven = drive(straight(), [scenario], traffic=traffic, num_steps=20)
    present = scenario.log.valid[:, CURRENT_STEP] & scenario.agents.valid

    class Both(ConstantVelocity):
        """IDM, but the ego goes straight on."""

        def init(self, state: SimState) -> Any:
            return IDM().init(state)

        def act(self, state: SimState, memory: Any, generator: Generator | None) -> Any:
            action, memory = IDM().act(state, memory, generator)
            straight, _ = ConstantVelocity().act(state, NoMemory(), generator)
            is_sdc = state.scenario.agents.is_sdc[..., None]
            data = torch.where(is_sdc, straight.data, action.data)
            return Action(data=data, valid=action.valid), memory

    alone = rollout(Both(), without_late_agents(scenario), num_steps=20).simulated.select(0)
    ours = driven.rollout.simulated.select(0)
    torch.testing.assert_close(ours.xy[present], alone.xy[present], rtol=0, atol=1e-3)


def test_traffic_reacts_to_where_the_ego_is() -> None:
    # A car 20 m behind the ego, which is going to stand.
    scenario = variations.with_present(straight_road(), [0, 1, 2])
    xy = scenario.log.xy.clone()
    xy[2] = scenario.log.xy[0] - torch.tensor([20.0, 0.0])
    velocity = scenario.log.velocity.clone()
    velocity[2] = velocity[0]
    valid = torch.ones_like(scenario.log.valid)
    log = scenario.log.replace(xy=xy, velocity=velocity, valid=valid)
    scenario = scenario.replace(log=log)
    stand = PlannerDriver(
        lambda: FunctionPlanner(lambda input: Controls(acceleration=-5.0, curvature=0.0)),
        tracker=KinematicBicycle(),
    )
    after = drive(stand, [scenario], num_steps=15, traffic=[TrafficGroup(policy=IDM())])
    free = drive(straight(), [scenario], num_steps=15, traffic=[TrafficGroup(policy=IDM())])
    slow, fast = (one.rollout.final.current.velocity[0, 2, 0, 0] for one in (after, free))
    assert slow < fast - 2


def test_traffic_is_not_asked_to_drive_the_ego() -> None:
    asked = []

    class Watching(ConstantVelocity):
        def act(self, state: SimState, memory: Any, generator: Any) -> Any:
            asked.append(state.controlled.tolist())
            return super().act(state, memory, generator)

    drive(straight(), [straight_road()], traffic=[TrafficGroup(policy=Watching())], num_steps=2)
    assert asked == [[[False, True, True]]] * 2


def test_two_policies_may_not_drive_the_same_agents() -> None:
    groups = [TrafficGroup(policy=IDM()), TrafficGroup(policy=IDM(), types=VEHICLES)]
    with pytest.raises(ValueError, match="one policy for each type"):
        drive(straight(), [straight_road()], traffic=groups)


def test_scenarios_side_by_side_are_driven_as_alone() -> None:
    members = [straight_road(), variations.crowd(5), generate_scenario(1).to(torch.float32)]
    traffic = [TrafficGroup(policy=IDM(), types=VEHICLES)]

    def driver() -> PlannerDriver:
        return PlannerDriver(lambda: FunctionPlanner(towards_goal), tracker=KinematicBicycle())

    together = drive(driver(), members, traffic=traffic, num_steps=20)
    for index, member in enumerate(members):
        alone = drive(driver(), [member], traffic=traffic, num_steps=20).rollout.simulated
        count = member.log.num_agents
        ours = together.rollout.simulated.select(index)
        assert torch.equal(ours.valid[:count], alone.valid[0])
        mask = alone.valid[0]
        torch.testing.assert_close(ours.xy[:count][mask], alone.xy[0][mask], rtol=0, atol=1e-3)


def test_one_planner_after_the_other_drives_as_new() -> None:
    driver = PlannerDriver(lambda: FunctionPlanner(towards_goal))
    first = drive(driver, [straight_road()], num_steps=10)
    drive(driver, [variations.crowd(5), straight_road()], num_steps=10)
    again = drive(driver, [straight_road()], num_steps=10)
    assert torch.equal(first.rollout.simulated.xy, again.rollout.simulated.xy)
    assert len(again.seconds) == 10
    assert len(again.start_seconds) == 1


def test_an_oracle_replays_the_log() -> None:
    scenario = generate_scenario(2).to(torch.float32)
    simulated = drive(PlannerDriver(Oracle), [scenario]).rollout.simulated.select(0)
    ego = scenario.agents.is_sdc
    for name in ("xy", "velocity"):
        ours, logged = (getattr(one, name)[ego] for one in (simulated, scenario.log))
        torch.testing.assert_close(ours, logged, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (RuntimeError("no way"), r"RuntimeError: no way \(planners.py:\d+\)"),
        (SystemExit(3), r"SystemExit: 3"),
        (np.full((4, 3), np.nan), "not finite: pose 0"),
        (np.array([[0, 0, 0], [0, np.inf, 0]]), "not finite: pose 1"),
        (np.zeros((4, 2)), r"wanted a trajectory .* got an array of shape \(4, 2\)"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.zeros(3), r"shape \(3,\)"),
        (None, "got an array of shape|got NoneType"),
        ("left", "got str"),
        (np.full((4, 3), 1e30), "more than 1000 km away"),
        (Controls(acceleration=math.nan, curvature=0.0), "not finite: Controls"),
    ],
)
def test_a_failure_is_told_and_ends_in_a_standstill(what: Any, reason: str) -> None:
    planner = Failing(5, what)
    driven = drive(PlannerDriver(lambda: planner), [straight_road()], num_steps=33)
    (failure,) = driven.failures
    assert failure.scenario_id == "straight_road"
    assert failure.step == 5
    assert "\n" not in failure.reason
    assert re.search(reason, failure.reason)
    assert len(planner.inputs) == 6
    ego = driven.rollout.simulated.select(0)
    speed = ego.velocity[0, HISTORY_STEPS:, 0]
    assert (speed[:5] == 10).all()
    torch.testing.assert_close(-speed[4:].diff()[:20] / 0.1, torch.full((20,), BRAKING))
    assert (speed[31:] == 0).all()
    assert ego.valid[0].all()


def test_a_failure_in_one_scenario_is_none_in_another() -> None:
    members = [straight_road(), variations.crowd(5)]
    driver = PlannerDriver(lambda: Failing(3, ValueError("x"), only=("straight_road",)))
    driven = drive(driver, members, num_steps=10)
    assert [failure.scenario_id for failure in driven.failures] == ["straight_road"]
    assert len(driven.seconds) == 4 + 10
    alone = drive(straight(), members[1:], num_steps=10).rollout.simulated
    assert torch.equal(driven.rollout.simulated.xy[1], alone.xy[0])


def test_a_planner_that_cannot_begin_has_failed() -> None:
    class Stuck(Recording):
        def initialize(self, context: Any) -> None:
            raise KeyError("map")

    driven = drive(PlannerDriver(Stuck), [straight_road()], num_steps=5)
    (failure,) = driven.failures
    assert failure.step is None
    assert "KeyError: 'map'" in failure.reason
    assert "Traceback" in failure.details
    assert driven.seconds == ()


def test_a_planner_that_thinks_too_long_is_interrupted() -> None:
    driven = drive(PlannerDriver(Slow, time_limit=0.5), [straight_road()], num_steps=6)
    (failure,) = driven.failures
    assert failure.step == 2
    assert "and may take 0.5 s" in failure.reason
    assert max(driven.seconds) < 10


def test_a_planner_may_optimise_by_gradients() -> None:
    class Optimising(Recording):
        def plan(self, input: Any) -> np.ndarray:
            bias = torch.zeros(3, requires_grad=True)
            bias.square().sum().backward()
            return super().plan(input) + bias.detach().numpy()

    assert drive(PlannerDriver(Optimising), [straight_road()], num_steps=2).failures == ()


def test_a_time_limit_must_be_one() -> None:
    with pytest.raises(ValueError, match="above 0 s, got 0"):
        PlannerDriver(Recording, time_limit=0.0)


@pytest.mark.parametrize("dynamics", ["states", "tokens"])
def test_a_policy_drives_the_ego_as_in_a_rollout(dynamics: str) -> None:
    members = [straight_road(), variations.crowd(5)]
    policy: Any = IDM() if dynamics == "states" else EveryTenth()
    driven = drive(PolicyDriver(policy, "policy"), members, num_steps=20)
    assert driven.failures == ()
    assert len(driven.seconds) == (20 if dynamics == "states" else 4)
    for index, member in enumerate(members):
        alone = rollout(policy, member, num_steps=20, controlled=member.agents.is_sdc)
        ours = driven.rollout.simulated.xy[index, : member.log.num_agents]
        ego = member.agents.is_sdc
        # Tokens may start from a history that is told in tokens.
        torch.testing.assert_close(
            ours[ego][:, -1], alone.simulated.xy[0, ego][:, -1], rtol=0, atol=0.02
        )


class EveryTenth:
    """Drives by one token."""

    dynamics: DynamicsModel = TokenDynamics(arc_vocabulary(), snap_start=False)

    def init(self, state: SimState) -> NoMemory:
        return NoMemory()

    def act(
        self, state: SimState, memory: NoMemory, generator: Generator | None
    ) -> tuple[Action, NoMemory]:
        token = torch.full_like(state.controlled, 46, dtype=torch.int64)
        return Action(data=token, valid=state.controlled), memory


def test_a_policy_that_does_not_act_leaves_the_ego_to_the_log() -> None:
    scenario = generate_scenario(2).to(torch.float32)
    driven = drive(PolicyDriver(LogReplay(), "log"), [scenario])
    ego = scenario.agents.is_sdc
    torch.testing.assert_close(
        driven.rollout.simulated.xy[0, ego], scenario.log.xy[ego], rtol=0, atol=1e-5
    )
    short = drive(PolicyDriver(LogReplay(), "log"), [variations.short(straight_road())])
    assert "the log, which ends here" in short.failures[0].reason


def test_a_policy_that_fails_is_told_of() -> None:
    class Broken(ConstantVelocity):
        def act(self, state: SimState, memory: Any, generator: Any) -> Any:
            if state.step.max() < 13:
                return super().act(state, memory, generator)
            raise RuntimeError("gone")

    members = [straight_road(), variations.crowd(5)]
    driven = drive(PolicyDriver(Broken(), "broken"), members, num_steps=6)
    assert [failure.step for failure in driven.failures] == [3, 3]
    assert "RuntimeError: gone" in driven.failures[0].reason


def test_a_policy_that_is_not_finite_is_told_of_where_it_is_not() -> None:
    class Lost(ConstantVelocity):
        def act(self, state: SimState, memory: Any, generator: Any) -> Any:
            action, memory = super().act(state, memory, generator)
            data = action.data.clone()
            data[0] = torch.nan
            return Action(data=data, valid=action.valid), memory

    members = [straight_road(), variations.crowd(5)]
    driven = drive(PolicyDriver(Lost(), "lost"), members, num_steps=6)
    (failure,) = driven.failures
    assert (failure.scenario_id, failure.step) == ("straight_road", 0)
    assert "not finite" in failure.reason
    assert driven.rollout.simulated.xy.isfinite().all()


def test_the_seed_decides_what_is_drawn() -> None:
    policy = RandomToken(vocabulary=arc_vocabulary())
    traffic = [TrafficGroup(policy=policy)]

    def end(seed: int) -> torch.Tensor:
        driver = PolicyDriver(policy, "random")
        members = [variations.crowd(6)]
        return drive(driver, members, traffic=traffic, num_steps=5, seed=seed).rollout.simulated.xy

    assert torch.equal(end(1), end(1))
    assert not torch.equal(end(1)[:, 0], end(2)[:, 0])
    assert not torch.equal(end(1)[:, 1:], end(2)[:, 1:])


def test_actions_are_the_states_that_followed() -> None:
    driven = drive(straight(), [straight_road()], num_steps=3).rollout
    assert driven.actions.data.shape == (1, 3, 3, 5)
    assert driven.actions.valid[0].tolist() == [[True, False, False]] * 3
    torch.testing.assert_close(
        driven.actions.data[0, :, 0, :2], driven.simulated.xy[0, 0, HISTORY_STEPS:]
    )


def test_a_scenario_without_its_sdc_is_refused() -> None:
    absent = variations.with_present(straight_road(), [1, 2])
    with pytest.raises(ValueError, match=r"one sdc .* got 1 of which 0"):
        drive(straight(), [absent])
    agents = straight_road().agents
    nobody = straight_road().replace(agents=agents.replace(is_sdc=torch.zeros_like(agents.is_sdc)))
    with pytest.raises(ValueError, match="got 0 of which 0"):
        drive(straight(), [nobody])

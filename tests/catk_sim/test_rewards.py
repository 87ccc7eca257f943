import math

import pytest
import torch
from torch import Tensor

from catk_sim.datatypes import Action, Scenario, SimState
from catk_sim.dynamics import DeltaLocal
from catk_sim.rewards import (
    GOAL_RADIUS,
    REWARDS,
    Goals,
    ReachGoal,
    SafeDriving,
    Transition,
    log_imitation,
    progress,
    reached_goal,
)
from catk_sim.simulator import Simulator
from tests.catk_sim.envs import variations
from tests.scenes import straight_road

NOBODY = torch.zeros(3, dtype=torch.bool)


def step(delta: list[list[float]], scenario: Scenario | None = None) -> Transition:
    """Every agent of the straight road moves forward, to the left, and turns by this."""
    simulator = Simulator(DeltaLocal())
    before = simulator.reset(scenario or straight_road(), ~NOBODY)
    return move(before, delta)


def move(before: SimState, delta: list[list[float]]) -> Transition:
    action = Action(data=torch.tensor(delta), valid=~NOBODY)
    after = Simulator(DeltaLocal()).step(before, action)
    return Transition(before=before, after=after, collision=NOBODY, offroad=NOBODY)


def assert_rewards(given: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(given, torch.tensor(expected, dtype=given.dtype), rtol=0, atol=1e-4)


def test_imitation_is_minus_the_distance_to_the_log() -> None:
    # The log moves A a metre ahead, and leaves B and C where they are.
    transition = step([[1.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 2.0, 0.0]])
    assert_rewards(log_imitation(transition), [0, -5, -2])


def test_there_is_nothing_to_imitate_where_the_log_has_nobody() -> None:
    transition = step([[1.0, 0.0, 0.0]] * 3, variations.short(straight_road()))
    assert_rewards(log_imitation(transition), [0, 0, 0])


def test_progress_is_the_distance_gained_along_the_logged_path() -> None:
    transition = step([[2.5, 0.7, 0.0], [3.0, 4.0, 0.0], [1.0, 0.0, 0.0]])
    # Sideways gains nothing; whoever stands in the log has no path to follow.
    assert_rewards(progress(transition), [2.5, 0, 0])
    back = move(transition.after, [[-1.5, 0.0, 0.0]] * 3)
    assert_rewards(progress(back), [-1.5, 0, 0])


def test_progress_ends_where_the_log_ends() -> None:
    # A is at x = -30 and its log ends at x = 50.
    transition = step([[200.0, 0.0, 0.0]] * 3)
    assert_rewards(progress(transition), [80, 0, 0])


def test_progress_follows_a_bend() -> None:
    road = straight_road()
    log = road.log
    angle = torch.linspace(0, math.pi / 2, log.num_steps)
    bend = 50 * torch.stack([angle.sin(), 1 - angle.cos()], dim=-1)
    xy = log.xy.clone()
    xy[0] = bend
    start = float(angle[10])
    # To the end of a quarter of a circle of 50 m, straight across.
    offset = bend[-1] - bend[10]
    transition = step([[*offset.tolist(), 0.0]] * 3, road.replace(log=log.replace(xy=xy)))
    torch.testing.assert_close(
        progress(transition)[0],
        torch.tensor(50 * (math.pi / 2 - start)),
        rtol=0,
        atol=2e-3,  # The log takes the chords.
    )


def test_progress_does_not_cross_gaps_of_the_log() -> None:
    road = straight_road()
    valid = road.log.valid.clone()
    valid[0, 11:21] = False
    transition = step([[11.0, 0.0, 0.0]] * 3, road.replace(log=road.log.replace(valid=valid)))
    # Steps 10 to 21 are 11 m apart, and none of them is between two valid steps.
    assert_rewards(progress(transition), [0, 0, 0])


def test_infractions_cost_as_much_as_they_are_said_to() -> None:
    moved = step([[1.0, 0.0, 0.0]] * 3)
    transition = moved.replace(
        collision=torch.tensor([True, True, False]), offroad=torch.tensor([False, True, True])
    )
    reward = SafeDriving(collision_penalty=7.0, offroad_penalty=2.0)
    assert_rewards(reward(transition), [1 - 7, -7 - 2, -2])
    assert_rewards(REWARDS["safe_driving"](transition), [1 - 10, -10 - 5, -5])


def test_safe_driving_needs_both_infractions() -> None:
    moved = step([[1.0, 0.0, 0.0]] * 3)
    for missing in ("collision", "offroad"):
        with pytest.raises(ValueError, match="safe_driving needs report"):
            SafeDriving()(moved.replace(**{missing: None}))


@pytest.mark.parametrize("name", list(REWARDS))
def test_absent_agents_earn_nothing(name: str) -> None:
    transition = step([[1.0, 2.0, 0.0]] * 3, variations.with_present(straight_road(), [1]))
    reward = REWARDS[name](transition)
    assert reward[0] == 0
    assert reward.isfinite().all()


@pytest.mark.parametrize("name", list(REWARDS))
def test_rewards_of_a_batch_are_those_of_its_members(name: str) -> None:
    transition = step([[1.0, 0.5, 0.1], [0.3, 0.0, 0.0], [2.0, 0.0, 0.0]])
    batch = Transition.stack([transition, transition])
    expected = REWARDS[name](transition)
    torch.testing.assert_close(REWARDS[name](batch), torch.stack([expected, expected]))


def test_a_goal_is_where_the_log_has_an_agent_last() -> None:
    goals = Goals.from_log(straight_road().log)
    # C leaves after step 60.
    assert goals.step.tolist() == [90, 90, 60]
    assert goals.valid.all()
    torch.testing.assert_close(goals.xy, torch.tensor([[50.0, -2.0], [10.0, 6.0], [40.0, -2.0]]))


def test_there_is_no_goal_without_a_future() -> None:
    assert not Goals.from_log(variations.short(straight_road()).log).valid.any()
    gone = straight_road().log.replace(valid=torch.zeros(3, 91, dtype=torch.bool))
    assert not Goals.from_log(gone).valid.any()


def test_a_goal_is_reached_within_its_radius() -> None:
    # A is 80 m from its goal; B and C are at theirs.
    near, far = GOAL_RADIUS - 0.01, GOAL_RADIUS + 0.01
    there = step([[80 - near, 0.0, 0.0], [near, 0.0, 0.0], [far, 0.0, 0.0]])
    assert reached_goal(there).tolist() == [True, True, False]
    beside = step([[80.0, near, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert reached_goal(beside).tolist() == [True, True, True]
    assert not reached_goal(step([[80.0, far, 0.0]] * 3))[0]


def test_a_goal_that_is_not_there_is_not_reached() -> None:
    assert not reached_goal(step([[0.0, 0.0, 0.0]] * 3, variations.short(straight_road()))).any()


def test_a_goal_counts_on_the_way_but_not_from_before() -> None:
    first = step([[80.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    beyond = move(first.after, [[30.0, 0.0, 0.0]] * 3)
    assert not reached_goal(beyond).any()
    both = Transition(before=first.before, after=beyond.after, collision=NOBODY, offroad=NOBODY)
    assert reached_goal(both).tolist() == [True, True, True]


def test_reaching_the_goal_is_progress_and_arriving_without_harm() -> None:
    reward = ReachGoal(progress=0.1, goal=2.0, collision=3.0, offroad=5.0)
    transition = step([[80.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    # B and C were there before.
    assert_rewards(reward(transition), [8 + 2, 0, 0])
    struck = transition.replace(collision=torch.tensor([True, False, True]), offroad=~NOBODY)
    assert_rewards(reward(struck), [8 + 2 - 3 - 5, -5, -8])
    assert_rewards(reward(step([[50.0, 0.0, 0.0]] * 3)), [5, 0, 0])


def test_reaching_the_goal_needs_the_infractions() -> None:
    transition = step([[1.0, 0.0, 0.0]] * 3)
    for name in ("collision", "offroad"):
        with pytest.raises(ValueError, match="reach_goal needs report"):
            ReachGoal()(transition.replace(**{name: None}))

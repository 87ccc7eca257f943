"""Episodes of agents on the straight road. See `tests.scenes.straight_road`."""

from typing import Any

import pytest
import torch

from catk_sim.constants import CURRENT_STEP
from catk_sim.envs.episodes import AgentEpisodes, MovingVehicles
from tests.catk_sim.envs import variations
from tests.scenes import straight_road

A, B, C = 0, 1, 2
STAY = [0.0, 0.0, 0.0]


def make(num_worlds: int = 1, **changes: Any) -> AgentEpisodes:
    arguments = {
        "data": [straight_road()],
        "action": "delta",
        "max_map_points": 8,
        "max_lights": 1,
        "max_neighbors": 2,
        **changes,
    }
    episodes = AgentEpisodes(num_worlds, **arguments)
    episodes.reset(seed=0)
    return episodes


def forward(*metres: float) -> torch.Tensor:
    """Actions of the agents of one world."""
    return torch.tensor([[[distance / 8, 0.0, 0.0] for distance in metres]])


def test_reaching_the_goal_ends_an_episode() -> None:
    # B and C are at their goals. C is where A is going, so A stops short.
    episodes = make(ends_on=("goal",))
    step = episodes.step(forward(10, 0, 0))
    assert step.terminated.tolist() == [[False, True, True]]
    assert not step.truncated.any()
    assert step.goal.tolist() == [[False, True, True]]


def test_success_is_the_goal_without_an_infraction() -> None:
    # B is off the road all the time.
    step = make().step(forward(10, 0, 0))
    assert step.offroad.tolist() == [[False, True, False]]
    assert step.success.tolist() == [[False, False, True]]
    # A is put upon C: both collide.
    struck = make().step(forward(70, 0, 0))
    assert struck.collision.tolist() == [[True, False, True]]
    assert struck.terminated.tolist() == [[True, True, True]]
    assert not struck.success.any()


@pytest.mark.parametrize(
    ("ends_on", "expected"),
    [
        ((), [False, False, False]),
        (("collision",), [True, False, True]),
        (("offroad",), [False, True, False]),
        (("goal",), [False, True, True]),
    ],
)
def test_what_ends_an_episode_is_chosen(ends_on: tuple[str, ...], expected: list[bool]) -> None:
    step = make(ends_on=ends_on).step(forward(70, 0, 0))
    assert step.terminated.tolist() == [expected]


def test_the_horizon_cuts_off_who_is_not_done() -> None:
    episodes = make(ends_on=("offroad",), horizon=2)
    first = episodes.step(forward(1, 0, 0))
    episodes.remove(first.done)
    second = episodes.step(forward(1, 0, 0))
    assert second.truncated.tolist() == [[True, False, True]]
    assert not second.terminated.any()
    assert second.done.tolist() == [[True, False, True]]


def test_who_is_removed_is_gone_until_the_world_is_reset() -> None:
    episodes = make()
    before = episodes.observe()
    step = episodes.step(forward(1, 0, 0))
    assert episodes.present.tolist() == [[True, True, True]]
    episodes.remove(torch.tensor([[False, False, True]]))
    assert episodes.present.tolist() == [[True, True, False]]
    after = episodes.observe()
    assert before["neighbors_valid"][0, A].tolist() == [True, True]
    assert after["neighbors_valid"][0, A].tolist() == [True, False]
    assert not after["own"][0, C].any()
    # A passes through where C was, and nothing happens to C any more.
    step = episodes.step(forward(69, 0, 0))
    assert step.collision.tolist() == [[False, False, False]]
    assert step.reward[0, C] == 0
    assert not episodes.state.current.valid[0, C, 0]
    assert not step.done[0, C]
    episodes.reset()
    assert episodes.present.all()


def test_others_worlds_keep_their_agents() -> None:
    episodes = make(2)
    episodes.remove(torch.tensor([[True, False, False], [False, False, False]]))
    assert episodes.present.tolist() == [[False, True, True], [True, True, True]]


def test_the_ego_has_the_only_episode() -> None:
    episodes = make(2, controlled="sdc", data=[variations.crowd(3), straight_road()])
    episodes.reset(options={"scenario_index": [1, 1]})
    assert episodes.agents_per_world == 1
    assert episodes.observe()["own"].shape == (2, 1, 14)
    assert episodes.agent_id.tolist() == [[100], [100]]
    step = episodes.step(torch.tensor([[[8.75, 0.0, 0.0]], [[0.125, 0.0, 0.0]]]))
    assert step.collision.tolist() == [[True], [False]]
    assert step.terminated.tolist() == [[True], [False]]
    assert step.reward[:, 0].tolist() == pytest.approx([0.02 * 70 - 1, 0.02])
    episodes.remove(step.done)
    assert episodes.present.tolist() == [[False], [True]]
    assert not episodes.state.current.valid[0, A, 0]
    assert episodes.state.current.valid[1].all()


def test_what_absent_agents_do_is_not_looked_at() -> None:
    data = [variations.with_present(straight_road(), [A])]
    one, other = make(data=data), make(data=data)
    assert one.present.tolist() == [[True, False, False]]
    first, second = one.step(forward(1, 0, 0)), other.step(forward(1, 5, -3))
    assert torch.equal(first.reward, second.reward)
    assert torch.equal(one.state.history.xy, other.state.history.xy)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"ends_on": ("goal", "boredom")}, "got \\['boredom'\\]"),
        ({"observation": "scene"}, "observation must be 'agents' here, got 'scene'"),
        ({"report": ()}, "report must be"),
        ({"terminate_on_collision": True}, "terminate_on_collision must be False"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make(**arguments)


def test_moving_vehicles_are_those_with_somewhere_to_go() -> None:
    # B walks nowhere, C is parked.
    assert MovingVehicles()(straight_road()).tolist() == [True, False, False]
    assert not MovingVehicles(min_distance=81.0)(straight_road()).any()
    assert MovingVehicles(min_distance=79.0)(straight_road())[A]
    assert not MovingVehicles()(variations.short(straight_road())).any()


def test_moving_vehicles_are_the_nearest_present_ones() -> None:
    crowd = variations.crowd(30)
    able = MovingVehicles(max_count=30, min_distance=5.0)(crowd)
    assert (crowd.agents.type[able] == 1).all()
    assert crowd.log.valid[able, CURRENT_STEP].all()
    few = MovingVehicles(max_count=3, min_distance=5.0)(crowd)
    assert few.sum() == 3
    distance = crowd.log.xy[:, CURRENT_STEP].norm(dim=-1)
    assert distance[few].max() < distance[able & ~few].min()


@pytest.mark.parametrize("controlled", ["sdc", MovingVehicles(max_count=2, min_distance=0.0)])
def test_whether_others_leave_the_road_is_not_looked_for_and_changes_nothing(
    controlled: Any,
) -> None:
    # B is off the road all the time.
    few, all_of_them = (make(controlled=controlled, max_agents=3) for _ in range(2))
    all_of_them.envs.worlds.judges_controlled_only = False
    for _ in range(3):
        action = forward(2, 0, 0)[:, : few.agents_per_world]
        one, other = few.step(action), all_of_them.step(action)
        assert torch.equal(one.offroad, other.offroad)
        assert torch.equal(one.reward, other.reward)
    still = torch.zeros(1, 3) if few.agents_per_world == 1 else torch.zeros(1, 3, 3)
    judged = few.envs.worlds.step(still)
    assert judged.offroad is not None
    assert not (judged.offroad & ~few.state.controlled).any()

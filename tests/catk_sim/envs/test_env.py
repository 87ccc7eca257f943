import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from catk_sim.datatypes import Scenario, SimState, TensorTree
from catk_sim.envs import WaymoEnv
from catk_sim.envs.actions import SCALES
from tests.catk_sim.envs import variations
from tests.scenes import arc_vocabulary, straight_road

ACTIONS = ["token", "delta", "bicycle", "state"]


def make(**changes: Any) -> WaymoEnv:
    arguments = {
        "data": [straight_road(), variations.crowd(6)],
        "vocabulary": arc_vocabulary(),
        "max_map_points": 16,
        "max_lights": 1,
        **changes,
    }
    env = gymnasium.make("CatK-Waymo-v0", **arguments).unwrapped
    assert isinstance(env, WaymoEnv)
    return env


def replay(action: str, env: WaymoEnv) -> np.ndarray:
    """The action that takes every agent where the log has it next, while it is on the log."""
    state = env.state
    dynamics = env._vector.worlds.actions.dynamics
    data = dynamics.inverse(state.scenario.log, int(state.step), state.scenario.agents)
    if action in SCALES:
        data = data / torch.tensor(SCALES[action])
    return data.numpy()


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("controlled", ["all", "sdc"])
@pytest.mark.parametrize("action", ACTIONS)
def test_gymnasium_finds_nothing_to_complain_about(action: str, controlled: str) -> None:
    env = make(action=action, controlled=controlled)
    # Drawing is slow, and the same for all.
    check_env(env, skip_render_check=(action, controlled) != ("token", "all"))


def test_gymnasium_finds_nothing_to_complain_about_without_observations() -> None:
    check_env(make(observation="minimal"), skip_render_check=True)


def test_an_agent_alone_has_a_plain_action() -> None:
    assert make(controlled="sdc").action_space == gymnasium.spaces.Discrete(113)
    assert make(controlled="sdc", action="delta").action_space.shape == (3,)
    assert make(controlled="all", action="delta").action_space.shape == (6, 3)
    assert make(controlled="all").action_space == gymnasium.spaces.MultiDiscrete([113] * 6)


@pytest.mark.parametrize("action", ["delta", "state"])
def test_actions_read_off_the_log_replay_it(action: str) -> None:
    env = make(action=action, data=[straight_road()], terminate_on_collision=False)
    env.reset()
    for _ in range(12):
        _, reward, _, _, info = env.step(replay(action, env))
        # The log stays valid for all three up to step 60.
        np.testing.assert_allclose(info["agent_rewards"], 0, atol=1e-4)
        assert abs(reward) < 1e-4
        log = env.state.scenario.log.at(int(env.state.step))
        torch.testing.assert_close(env.state.current.xy, log.xy, rtol=0, atol=1e-4)


@pytest.mark.parametrize("action", ACTIONS)
def test_the_same_seed_and_actions_give_the_same_states_bit_by_bit(action: str) -> None:
    def episode(env: WaymoEnv) -> list[SimState]:
        env.action_space.seed(1)
        env.reset(seed=5)
        states = [env.state]
        for _ in range(6):
            env.step(env.action_space.sample())
            states.append(env.state)
        return states

    first, again, other = make(action=action), make(action=action), make(action=action, seed=9)
    other.reset()
    for one, two, three in zip(episode(first), episode(again), episode(other), strict=True):
        assert_equal(one, two)
        assert_equal(one, three)


def assert_equal(one: TensorTree, other: TensorTree) -> None:
    left: list[torch.Tensor] = []
    right: list[torch.Tensor] = []
    one.map(lambda tensor: (left.append(tensor), tensor)[1])
    other.map(lambda tensor: (right.append(tensor), tensor)[1])
    for a, b in zip(left, right, strict=True):
        assert torch.equal(a, b)


def test_every_scenario_is_played_once_before_any_is_played_again() -> None:
    env = make(data=[variations.crowd(2, seed) for seed in range(5)])
    env.reset(seed=3)
    played = [env.reset()[1]["scenario_index"] for _ in range(14)]
    assert sorted(played[4:9]) == sorted(played[9:14]) == list(range(5))
    assert played[4:9] != played[9:14]


def test_a_seed_decides_the_order() -> None:
    def order(seed: int) -> list[int]:
        env = make(data=[variations.crowd(2, seed) for seed in range(6)])
        first = env.reset(seed=seed)[1]["scenario_index"]
        return [int(first)] + [int(env.reset()[1]["scenario_index"]) for _ in range(5)]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_the_argument_seed_is_that_of_the_first_reset() -> None:
    data = [variations.crowd(2, seed) for seed in range(6)]
    argument, passed = make(data=data, seed=4), make(data=data)
    first = [argument.reset()[1], passed.reset(seed=4)[1]]
    second = [env.reset()[1] for env in (argument, passed)]
    for one, other in (first, second):
        assert one["scenario_index"] == other["scenario_index"]
    assert argument.np_random.random() == passed.np_random.random()


def test_options_choose_the_scenario() -> None:
    env = make()
    _, info = env.reset(options={"scenario_index": 1})
    assert (info["scenario_id"], info["scenario_index"]) == ("crowd_0", 1)
    given = variations.crowd(3, seed=8)
    _, info = env.reset(options={"scenario": given})
    assert (info["scenario_id"], info["scenario_index"]) == ("crowd_8", -1)


def test_the_horizon_truncates() -> None:
    env = make(action="delta", horizon=3)
    env.reset()
    steps = [env.step(np.zeros((6, 3), dtype=np.float32))[3] for _ in range(3)]
    assert steps == [False, False, True]
    with pytest.raises(gymnasium.error.ResetNeeded, match="must be reset"):
        env.step(np.zeros((6, 3), dtype=np.float32))


def test_a_step_before_the_first_reset_is_refused() -> None:
    with pytest.raises(gymnasium.error.ResetNeeded):
        make().step(np.zeros(6, dtype=np.int64))


def crash(env: WaymoEnv) -> tuple[bool, dict[str, Any]]:
    # The sdc, at (-30, -2), is put into C, which is parked at (40, -2).
    env.reset()
    action = np.zeros(5) if env.action_space.shape == (5,) else np.zeros((6, 5))
    action[..., :2] = np.array([41.0, -2.0]) / 1024
    if action.ndim == 2:
        action[1:, :2] = np.array([500.0, 500.0]) / 1024
        action[2, :2] = np.array([40.0, -2.0]) / 1024
    _, _, terminated, _, info = env.step(action.astype(np.float32))
    return terminated, info


def test_a_collision_of_the_sdc_ends_the_episode_if_that_is_asked_for() -> None:
    arguments: dict[str, Any] = {"action": "state", "data": [straight_road()], "max_agents": 6}
    for changes, expected in [
        ({"controlled": "sdc"}, True),
        ({"controlled": "sdc", "terminate_on_collision": False}, False),
        ({}, False),
        ({"terminate_on_collision": True}, True),
    ]:
        terminated, info = crash(make(**arguments, **changes))
        assert terminated is expected
        assert info["collision"].tolist() == [True, False, True, False, False, False]


def test_a_collision_of_others_ends_nothing() -> None:
    env = make(action="state", data=[straight_road()], terminate_on_collision=True)
    env.reset()
    action = np.zeros((3, 5), dtype=np.float32)
    action[0, :2] = -0.5
    *_, terminated, _, info = env.step(action)
    assert not terminated
    assert info["collision"].tolist() == [False, True, True]


def test_whoever_leaves_the_road_is_reported() -> None:
    env = make(action="delta", data=[straight_road()])
    env.reset()
    action = np.zeros((3, 3), dtype=np.float32)
    *_, info = env.step(action)
    # B stands beyond the edge at y = 4; A is a metre within the one at y = -4.
    assert info["offroad"].tolist() == [False, True, False]
    action[0, 1] = -1.1 / 8  # A metre and a little to the right.
    *_, info = env.step(action)
    assert info["offroad"].tolist() == [True, True, False]


def test_infractions_within_a_token_count() -> None:
    # The sdc runs through the narrow pedestrian B within half a second, and ends beyond.
    road = straight_road()
    log = road.log
    log = log.replace(xy=log.xy.clone())
    log.xy[1] = torch.tensor([-26.0, -2.0])
    env = make(data=[road.replace(log=log)])
    env.reset()
    fastest = arc_vocabulary().end_poses[0, :, 0].argmax()
    *_, info = env.step(np.array([int(fastest), 0, 0]))
    assert info["collision"].tolist() == [True, True, False]


def test_absent_agents_collide_with_nobody() -> None:
    env = make(data=[variations.with_present(straight_road(), [])])
    env.reset()
    *_, info = env.step(np.zeros(3, dtype=np.int64))
    assert not info["collision"].any()
    assert not info["controlled"].any()


@pytest.mark.parametrize(
    "scenario",
    [
        variations.short(straight_road()),
        variations.without_map(straight_road()),
        variations.moved(straight_road(), 50_000),
        variations.with_present(straight_road(), []),
        variations.with_present(straight_road(), [1]),
        variations.crowd(250),
    ],
    ids=lambda scenario: f"{scenario.scenario_id[0]} of {scenario.log.num_agents}",
)
@pytest.mark.parametrize("controlled", ["all", "sdc"])
def test_unusual_scenarios_can_be_played(scenario: Scenario, controlled: str) -> None:
    env = make(data=[scenario], controlled=controlled, horizon=10, terminate_on_collision=False)
    observation, _ = env.reset(seed=0)
    for _ in range(2):
        assert observation in env.observation_space
        observation, reward, *_ = env.step(env.action_space.sample())
        assert np.isfinite(reward)
    assert observation in env.observation_space


def test_a_mask_or_a_function_chooses_who_is_controlled() -> None:
    mask = torch.tensor([True, False, True])
    for choice in (mask, lambda scenario: scenario.agents.type == 1):
        env = make(data=[straight_road()], controlled=choice)
        _, info = env.reset()
        assert info["controlled"].tolist() == [True, False, True]
    env = make(data=[straight_road()], controlled=torch.tensor([True]))
    assert env.reset()[1]["controlled"].tolist() == [True, False, False]


def test_more_agents_than_there_is_room_for_are_rearranged_and_counted() -> None:
    scenario = variations.crowd(40)
    env = make(data=[scenario], max_agents=10, controlled="sdc")
    _, info = env.reset()
    agents, log = env.state.scenario.agents, env.state.scenario.log
    assert info["num_agents_without_slot"] == 30
    assert agents.is_sdc[0]
    assert agents.valid.sum() == 40
    distance = (log.xy[:, 10] - log.xy[0, 10]).norm(dim=-1)
    present = log.valid[:, 10]
    assert present[:10].all()
    assert distance[:10].max() <= distance[10:][present[10:]].min()
    # Those without room are simulated like the others.
    env.step(0)
    expected = log.at(15)
    torch.testing.assert_close(env.state.current.xy[1:], expected.xy[1:], rtol=0, atol=0)


def test_controlled_agents_come_before_nearer_ones() -> None:
    scenario = variations.crowd(40)
    last = int(scenario.log.valid[:, 10].nonzero()[-1])
    chosen = torch.arange(40) == last
    env = make(data=[scenario], max_agents=3, controlled=chosen, action="delta")
    _, info = env.reset()
    assert info["controlled"].tolist() == [True, False, False]
    assert env.state.scenario.agents.agent_id[:2].tolist() == [100 + last, 100]
    env.step(np.zeros((3, 3), dtype=np.float32))
    torch.testing.assert_close(env.state.current.xy[0, 0], scenario.log.xy[last, 10])


def test_the_sdc_sees_the_map_wherever_it_goes() -> None:
    env = make(data=[straight_road()], controlled="sdc", action="state", max_map_points=50)
    observation, _ = env.reset()
    for _ in range(2):
        # A lane runs under it, with a point every 2 m.
        assert np.linalg.norm(observation["map"][0, :2]) < 1.1
        observation, *_ = env.step(np.array([35, -2, 0, 0, 0], dtype=np.float32) / 1024)


def test_more_controlled_agents_than_there_is_room_for_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"'crowd_0' has \d+ agents to control.*max_agents=10"):
        make(data=[variations.crowd(40)], max_agents=10).reset()


def test_it_runs_in_double_precision() -> None:
    env = make(dtype=torch.float64, data=[straight_road().to(torch.float64)])
    observation, _ = env.reset()
    observation, *_ = env.step(np.zeros(3, dtype=np.int64))
    assert env.state.history.xy.dtype == torch.float64
    assert observation["agents"].dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"action": "teleport"}, "action must be one of token, delta, bicycle, state"),
        ({"controlled": "nobody"}, "controlled must be one of"),
        ({"reward": "fame"}, "reward must be one of"),
        ({"observation": "picture"}, "observation must be one of"),
        ({"report": ("boredom",)}, "report must be one of"),
        ({"report": (), "terminate_on_collision": True}, "needs 'collision'"),
        ({"horizon": 7}, "horizon must be a multiple of 5"),
        ({"max_agents": 0}, "max_agents must be at least 1"),
        ({"data": []}, "there are no scenarios"),
        ({"dtype": torch.int64}, "dtype must be"),
        ({"autoreset_mode": "Disabled"}, "vector environment only"),
    ],
)
def test_impossible_arguments_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make(**changes)


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        make(colour="red")


@pytest.mark.parametrize(
    ("action", "given", "problem"),
    [
        ("token", np.zeros(7, dtype=np.int64), r"shape \(1, 6\), got \(1, 7\)"),
        ("token", np.full(6, 113), "tokens must be from 0 to 112, got 113 to 113"),
        ("token", np.full(6, -1), "tokens must be from 0 to 112"),
        ("token", np.zeros(6), "tokens must be integers"),
        ("delta", np.full((6, 3), np.nan), "controls must be finite"),
    ],
)
def test_impossible_actions_are_refused(action: str, given: np.ndarray, problem: str) -> None:
    env = make(action=action, data=[variations.crowd(6)])
    env.reset()
    with pytest.raises(ValueError, match=problem):
        env.step(given)


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, catk_sim; print('torch' in sys.modules, catk_sim.Scenario.__name__)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "Scenario"]


def test_a_picture_shows_the_world_now() -> None:
    env = make(data=[straight_road()], render_mode="rgb_array", action="delta")
    env.reset()
    before = env.render()
    env.step(np.full((3, 3), 0.9, dtype=np.float32))
    after = env.render()
    assert before is not None
    assert after is not None
    assert before.dtype == np.uint8
    assert before.shape[2] == 3
    assert (before != after).any()
    env.close()


def test_a_picture_shows_the_map_of_the_episode() -> None:
    bare = variations.without_map(straight_road())
    env, fresh = (make(render_mode="rgb_array", data=[straight_road(), bare]) for _ in range(2))
    env.reset(options={"scenario_index": 0})
    env.render()
    for one in (env, fresh):
        one.reset(options={"scenario_index": 1})
    np.testing.assert_array_equal(env.render(), fresh.render())


def test_an_action_may_be_held() -> None:
    arguments = {"action": "bicycle", "controlled": "sdc", "data": [straight_road()]}
    held, plain = make(action_repeat=5, **arguments), make(**arguments)
    held.reset()
    plain.reset()
    action = np.array([0.5, 0.1], dtype=np.float32)
    _, reward, _, _, info = held.step(action)
    rewards = [plain.step(action)[1] for _ in range(5)]
    assert info["step"] == 15
    torch.testing.assert_close(held.state.history.xy, plain.state.history.xy)
    # The reward is that of where the action leads.
    assert reward == pytest.approx(rewards[-1])
    assert held.metadata["render_fps"] == 2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"action": "token", "action_repeat": 2}, "action_repeat is for delta and bicycle"),
        ({"action": "state", "action_repeat": 2}, "action_repeat is for delta and bicycle"),
        ({"action": "delta", "action_repeat": 0}, "action_repeat must be at least 1, got 0"),
        ({"action": "delta", "action_repeat": 3}, "horizon must be a multiple of 3, got 80"),
        ({"max_neighbors": 0}, "max_neighbors must be at least 1, got 0"),
    ],
)
def test_actions_that_cannot_be_held_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make(**changes)

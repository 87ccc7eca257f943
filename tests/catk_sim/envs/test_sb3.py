"""The adapter to Stable-Baselines3, on the straight road. See `tests.scenes.straight_road`."""

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from catk_sim.envs import WaymoEnv, WaymoVectorEnv
from catk_sim.envs.episodes import MovingVehicles
from catk_sim.envs.sb3 import PresentRolloutBuffer, WaymoVecEnv
from tests.catk_sim.envs import variations
from tests.scenes import arc_vocabulary, straight_road

SMALL = {"max_map_points": 8, "max_lights": 1, "max_neighbors": 2}
WORLDS = [variations.crowd(5), straight_road(), variations.crowd(4, seed=4)]


def make(num_worlds: int = 2, **changes: Any) -> WaymoVecEnv:
    arguments = {"data": WORLDS, "action": "delta", "controlled": "sdc", **SMALL, **changes}
    return WaymoVecEnv(num_worlds, **arguments)


def started(*args: Any, **changes: Any) -> WaymoVecEnv:
    envs = make(*args, **changes)
    envs.seed(0)
    envs.reset()
    return envs


def still(envs: WaymoVecEnv) -> np.ndarray:
    return np.zeros((envs.num_envs, *(envs.action_space.shape or ())), dtype=np.float32)


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        # Sums over padded rows may round otherwise.
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("controlled", ["sdc", "all"])
@pytest.mark.parametrize("action", ["token", "delta", "bicycle"])
def test_it_keeps_the_protocol(action: str, controlled: str) -> None:
    vocabulary = arc_vocabulary()
    envs = make(3, action=action, controlled=controlled, vocabulary=vocabulary, horizon=10)
    assert envs.num_envs == (3 if controlled == "sdc" else 15)
    assert isinstance(envs.observation_space, spaces.Dict)
    observation = envs.reset()
    for _ in range(12):
        for row in range(envs.num_envs):
            part = {name: values[row] for name, values in observation.items()}
            assert envs.observation_space.contains(part)
        actions = np.stack([envs.action_space.sample() for _ in range(envs.num_envs)])
        observation, reward, done, infos = envs.step(actions)
        assert isinstance(observation, dict)
        assert (reward.shape, reward.dtype) == ((envs.num_envs,), np.float32)
        assert (done.shape, done.dtype) == ((envs.num_envs,), np.bool_)
        assert len(infos) == envs.num_envs
        assert len({id(info) for info in infos}) == envs.num_envs
        for row, info in enumerate(infos):
            assert ("terminal_observation" in info) == done[row]
            assert info["TimeLimit.truncated"] in (True, False)
            if done[row]:
                assert envs.observation_space.contains(info["terminal_observation"])
    envs.close()


def test_what_is_returned_is_not_written_to_later() -> None:
    envs = started()
    observation, reward, done, _ = envs.step(still(envs))
    assert isinstance(observation, dict)
    copies = {name: values.copy() for name, values in observation.items()}
    reward += 7
    done |= True
    later, reward, done, _ = envs.step(still(envs))
    assert_same(observation, copies)
    assert reward.max() < 7
    assert not done.all()
    assert isinstance(later, dict)
    assert not np.shares_memory(later["own"], observation["own"])


def test_it_plays_what_as_many_single_environments_play() -> None:
    """Beside Gymnasium's environment, which starts the next episode when it is told to."""
    changes = {"reward": "safe_driving", "horizon": 3, "action": "bicycle"}
    envs = make(3, ends_on=("collision",), **changes)
    arguments = {"data": WORLDS, "controlled": "sdc", "observation": "agents", **SMALL, **changes}
    singles = [gymnasium.make("CatK-Waymo-v0", **arguments).unwrapped for _ in range(envs.num_envs)]
    envs.seed(5)
    rows = envs.reset()
    for row, single in enumerate(singles):
        seen, info = single.reset(seed=5 + row)
        assert_same({name: values[row] for name, values in rows.items()}, seen)
        assert envs.reset_infos[row]["scenario_id"] == info["scenario_id"]
    for _ in range(7):
        actions = np.random.default_rng(0).uniform(-1, 1, (3, 2)).astype(np.float32)
        rows, rewards, dones, infos = envs.step(actions)
        for row, single in enumerate(singles):
            assert isinstance(single, WaymoEnv)
            seen, reward, terminated, truncated, _ = single.step(actions[row])
            assert rewards[row] == pytest.approx(reward, abs=1e-4)
            assert dones[row] == (terminated or truncated)
            assert infos[row]["TimeLimit.truncated"] == (truncated and not terminated)
            if dones[row]:
                assert_same(infos[row]["terminal_observation"], seen)
                seen, _ = single.reset()
            assert isinstance(rows, dict)
            assert_same({name: values[row] for name, values in rows.items()}, seen)


def test_the_horizon_truncates_and_an_end_does_not() -> None:
    envs = started(1, data=[straight_road()], horizon=2)
    _, _, done, infos = envs.step(still(envs))
    assert not done[0]
    _, _, done, infos = envs.step(still(envs))
    assert done[0]
    assert infos[0]["TimeLimit.truncated"] is True
    # Now it drives into C, and it is not the horizon that ends it, even in the last step.
    envs.step(still(envs))
    _, _, done, infos = envs.step(np.array([[70 / 8, 0, 0]], dtype=np.float32))
    assert done[0]
    assert infos[0]["TimeLimit.truncated"] is False
    assert (infos[0]["collision"], infos[0]["is_success"]) == (True, False)


def test_an_episode_is_summed_up() -> None:
    envs = started(1, data=[straight_road()], ends_on=("goal",), horizon=5)
    ahead = np.array([[1, 0, 0]], dtype=np.float32)
    for _ in range(2):
        *_, infos = envs.step(ahead)
        assert "episode" not in infos[0]
    # At its goal, but with its right side beyond the road's edge.
    _, reward, done, infos = envs.step(np.array([[8, -1.9 / 8, 0]], dtype=np.float32))
    assert done[0]
    assert reward[0] == pytest.approx(0.02 * 64 + 1 - 1, abs=1e-5)
    assert infos[0]["episode"]["r"] == pytest.approx(0.02 * 80 + 1 - 1, abs=1e-5)
    assert infos[0]["episode"]["l"] == 3
    assert (infos[0]["offroad"], infos[0]["is_success"]) == (True, False)
    assert (infos[0]["scenario_id"], infos[0]["agent_id"]) == ("straight_road", 100)
    # The next one starts from nothing.
    for _ in range(5):
        *_, infos = envs.step(ahead * 0)
    assert infos[0]["episode"]["r"] == pytest.approx(0, abs=1e-6)
    assert infos[0]["episode"]["l"] == 5


def test_rows_are_the_agents_of_worlds() -> None:
    envs = make(2, controlled="all", data=[straight_road()], max_agents=4)
    rows = envs.reset()
    assert envs.num_envs == 8
    assert rows["present"][:, 0].tolist() == [True, True, True, False] * 2
    assert rows["own"][:3, 4].tolist() == pytest.approx([4.8, 1.0, 4.8])
    assert [info["agent_id"] for info in envs.reset_infos[:3]] == [100, 101, 102]
    actions = still(envs)
    actions[0, 0] = 1 / 8
    actions[4, 0] = 2 / 8
    _, reward, done, _ = envs.step(actions)
    assert reward[[0, 4]].tolist() == pytest.approx([0.02, 0.04], abs=1e-5)
    # B is off the road and C at its goal, in both worlds; the fourth is nobody.
    assert done.tolist() == [False, True, True, False] * 2


def test_an_absent_row_is_silent_until_its_world_starts_anew() -> None:
    envs = started(1, controlled="all", data=[straight_road()], max_agents=4, horizon=3)
    rows, _, done, _ = envs.step(still(envs))
    assert done.tolist() == [False, True, True, False]
    for is_last in (False, True):
        assert isinstance(rows, dict)
        assert rows["present"][:, 0].tolist() == [True, False, False, False]
        for values in rows.values():
            assert not values[1:].any()
        rows, reward, done, infos = envs.step(still(envs) + np.float32(0.3))
        assert done.tolist() == [is_last, False, False, False]
        assert not reward[1:].any()
        assert all("episode" not in info for info in infos[1:])
    # A was the last one.
    assert isinstance(rows, dict)
    assert rows["present"][:, 0].tolist() == [True, True, True, False]
    assert envs.reset_infos[2]["agent_id"] == 102


def test_worlds_start_anew_each_in_its_own_time() -> None:
    envs = started(2, data=[straight_road()], horizon=4)
    away = still(envs)
    away[1, 1] = 1
    _, _, done, _ = envs.step(away)
    assert done.tolist() == [False, True]
    assert envs.episodes.state.step.tolist() == [11, 10]


def test_scenarios_without_anybody_are_passed_over() -> None:
    nobody = variations.with_present(straight_road(), [])
    envs = make(2, data=[nobody, straight_road()])
    envs.set_options([{"scenario_index": 0}, {"scenario_index": 1}])
    rows = envs.reset()
    assert rows["present"][:, 0].tolist() == [False, True]
    for _ in range(3):
        rows, reward, done, _ = envs.step(still(envs))
        assert reward[0] == 0
        assert not done[0]
        assert isinstance(rows, dict)
        if rows["present"][0]:
            break
    assert rows["present"].all()


def test_a_seed_decides_what_is_played() -> None:
    def scenarios(seed: int) -> list[str]:
        envs = make(7, data=[variations.crowd(2, index) for index in range(6)], horizon=1)
        envs.seed(seed)
        envs.reset()
        first = [info["scenario_id"] for info in envs.reset_infos]
        envs.step(still(envs))
        return first + [info["scenario_id"] for info in envs.reset_infos]

    assert scenarios(3) == scenarios(3)
    assert scenarios(3) != scenarios(4)
    # The second world's seed is the first one's of the next seed.
    assert scenarios(3)[1:7] == scenarios(4)[:6]


def test_seeds_are_those_of_the_vector_environment() -> None:
    envs = make(3, controlled="all")
    assert envs.seed(8) == [8] * 5 + [9] * 5 + [10] * 5
    envs.reset()
    vector = WaymoVectorEnv(3, data=WORLDS)
    _, info = vector.reset(seed=8)
    assert [info["scenario_id"] for info in envs.reset_infos[::5]] == list(info["scenario_id"])
    torch.manual_seed(1)
    drawn = envs.seed()
    torch.manual_seed(1)
    assert make(3, controlled="all").seed() == drawn


def test_options_choose_scenarios_once() -> None:
    envs = make(2)
    envs.set_options({"scenario_index": 1})
    envs.reset()
    assert [info["scenario_id"] for info in envs.reset_infos] == ["straight_road"] * 2
    played = set()
    for _ in WORLDS:  # Each world plays all of its data before any again.
        envs.reset()
        played |= {info["scenario_id"] for info in envs.reset_infos}
    assert len(played) == len(WORLDS)
    envs.set_options([{"scenario_index": 1}, {}])
    with pytest.raises(ValueError, match="same options of every world"):
        envs.reset()


def test_attributes_and_methods_are_those_of_the_environment() -> None:
    envs = make(2, controlled="all")
    assert envs.get_attr("num_envs") == [2] * 10
    assert envs.get_attr("num_envs", indices=[0, 3]) == [2, 2]
    assert envs.get_attr("num_envs", indices=1) == [2]
    assert envs.has_attr("nothing") is False
    envs.set_attr("spec", "mine")
    assert envs.episodes.envs.spec == "mine"
    envs.reset()
    assert envs.env_method("render") == [None] * 10
    for call in (
        lambda: envs.set_attr("spec", 1, indices=[0]),
        lambda: envs.env_method("render", indices=0),
    ):
        with pytest.raises(ValueError, match="all 10 rows are one environment"):
            call()


def test_it_says_that_it_monitors_and_is_not_wrapped_otherwise() -> None:
    envs = make(2)
    assert envs.env_is_wrapped(Monitor) == [True, True]
    assert envs.env_is_wrapped(Monitor, indices=[1]) == [True]
    assert envs.env_is_wrapped(gymnasium.wrappers.ClipAction) == [False, False]


def test_worlds_are_drawn() -> None:
    envs = make(2, render_mode="rgb_array", data=[straight_road()])
    envs.reset()
    picture = envs.render()
    assert picture is not None
    first, second = envs.get_images()
    assert first is not None
    assert second is not None
    assert picture.shape == (2 * first.shape[0], first.shape[1], 3)
    assert make(2).render_mode is None


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="observation must be 'agents'"):
        make(observation="sdc")


PPO_ARGUMENTS: dict[str, Any] = {
    "n_steps": 6,
    "batch_size": 12,
    "n_epochs": 1,
    "rollout_buffer_class": PresentRolloutBuffer,
    "policy_kwargs": {"net_arch": [8]},
    "device": "cpu",
    "seed": 0,
}


@pytest.mark.parametrize("controlled", ["sdc", "all"])
def test_algorithms_of_stable_baselines_run_on_it(controlled: str) -> None:
    envs = make(8, controlled=controlled, action="bicycle", action_repeat=5, horizon=20)
    model = PPO("MultiInputPolicy", envs, **PPO_ARGUMENTS)
    model.learn(2 * 6 * envs.num_envs)
    assert model.num_timesteps == 2 * 6 * envs.num_envs
    assert len(model.ep_info_buffer or ()) > 0
    A2C("MultiInputPolicy", make(2), n_steps=3, device="cpu").learn(12)


def test_a_policy_is_evaluated_without_a_warning() -> None:
    envs = make(2, data=[straight_road()], horizon=4, ends_on=("goal",))
    model = PPO("MultiInputPolicy", make(4), **PPO_ARGUMENTS)
    _, lengths = evaluate_policy(model, envs, n_eval_episodes=4, return_episode_rewards=True)
    assert isinstance(lengths, list)
    assert len(lengths) == 4
    assert set(lengths) == {4}


def filled_buffer(present: np.ndarray) -> PresentRolloutBuffer:
    """A buffer of so many steps and rows, whose numbers tell their place."""
    num_steps, num_rows = present.shape
    space = spaces.Dict(
        {
            "present": spaces.Box(0, 1, (1,), np.bool_),  # type: ignore[arg-type]
            "x": spaces.Box(-1e3, 1e3, (2,), np.float32),
        }
    )
    action_space = spaces.Box(-1e3, 1e3, (1,), np.float32)
    buffer = PresentRolloutBuffer(num_steps, space, action_space, device="cpu", n_envs=num_rows)
    for step in range(num_steps):
        place = (100 * step + np.arange(num_rows, dtype=np.float32))[:, None]
        buffer.add(
            {"present": present[step][:, None], "x": np.repeat(place, 2, axis=1)},
            place,
            np.ones(num_rows),
            np.zeros(num_rows),
            torch.tensor(place[:, 0]),
            torch.tensor(-place[:, 0]),
        )
    buffer.compute_returns_and_advantage(torch.zeros(num_rows), np.ones(num_rows, dtype=np.bool_))
    return buffer


def test_absent_rows_are_not_learnt_from() -> None:
    present = np.random.default_rng(0).random((7, 5)) > 0.4
    buffer = filled_buffer(present)
    places = [100 * step + row for step, row in zip(*present.nonzero(), strict=True)]
    for _ in range(2):  # Every epoch is another order.
        samples = list(buffer.get(4))
        given = torch.cat([sample.actions[:, 0] for sample in samples])
        assert sorted(given.tolist()) == sorted(places)
        for sample in samples:
            assert sample.observations["present"].all()
            assert torch.equal(sample.observations["x"][:, 0], sample.actions[:, 0])
            assert torch.equal(sample.old_values, sample.actions[:, 0])
            assert torch.equal(sample.old_log_prob, -sample.actions[:, 0])
    sizes = [len(sample.actions) for sample in buffer.get(4)]
    assert max(sizes) - min(sizes) <= 1
    [everything] = buffer.get()
    assert len(everything.actions) == present.sum()
    order = [sample.actions[:, 0].tolist() for sample in buffer.get(4)]
    assert order != [sample.actions[:, 0].tolist() for sample in buffer.get(4)]


def test_returns_of_present_rows_are_those_of_stable_baselines() -> None:
    everyone = filled_buffer(np.ones((4, 2), dtype=np.bool_))
    some = filled_buffer(np.array([[True, False]] * 4))
    [all_samples], [samples] = everyone.get(), some.get()
    expected = dict(zip(all_samples.actions[:, 0].tolist(), all_samples.returns, strict=True))
    for action, value in zip(samples.actions[:, 0].tolist(), samples.returns, strict=True):
        assert value == expected[action]


def test_a_rollout_of_nobody_cannot_be_learnt_from() -> None:
    with pytest.raises(ValueError, match="nobody was present"):
        next(filled_buffer(np.zeros((3, 2), dtype=np.bool_)).get(4))


def test_moving_vehicles_share_a_world() -> None:
    controlled = MovingVehicles(max_count=2)
    envs = make(1, controlled=controlled, data=[variations.crowd(30)], max_agents=2)
    rows = envs.reset()
    assert envs.num_envs == 2
    assert rows["present"].all()
    assert (rows["own"][:, 6] == 1).all()


IMPORT = """
import sys
import catk_sim, catk_sim.envs, policies.registry
catk_sim.WaymoVectorEnv
loaded = {"stable_baselines3", "pettingzoo"} & set(sys.modules)
assert not loaded, loaded
sys.modules["stable_baselines3"] = None
import catk_sim.envs.sb3
"""


def test_it_is_only_loaded_when_used_and_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    assert done.returncode == 1
    assert "reinforcement learning needs more: pip install 'catk-sim[rl]'" in done.stderr

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from catk_sim.datasets import ScenarioDataset, open_scenarios
from catk_sim.datasets.batching import collate
from catk_sim.datasets.conversion import convert
from catk_sim.datasets.schema import size_of
from catk_sim.datatypes import Scenario
from catk_sim.envs import WaymoVectorEnv
from catk_sim.envs.infos import to_numpy
from tests.catk_sim.datasets.files import write_tfrecord
from tests.catk_sim.envs import variations
from tests.scenes import arc_vocabulary, straight_road

MODES = list(AutoresetMode)
VOCABULARY = arc_vocabulary()


def different_worlds() -> list[Scenario]:
    road = straight_road()
    return [
        road,
        variations.crowd(9, seed=1),
        variations.short(variations.crowd(5, seed=2)),
        variations.without_map(variations.crowd(7, seed=3)),
        variations.with_more_edges(variations.crowd(8, seed=5)),
        variations.moved(road, 5000),
        variations.with_present(road, []),
        variations.with_present(variations.crowd(4, seed=4), [2]),
    ]


def arguments(**changes: Any) -> dict[str, Any]:
    return {
        "data": different_worlds(),
        "vocabulary": VOCABULARY,
        "max_agents": 12,
        "max_map_points": 32,
        "max_lights": 2,
        **changes,
    }


def make_vec(num_envs: int, **changes: Any) -> WaymoVectorEnv:
    env = gymnasium.make_vec("CatK-Waymo-v0", num_envs=num_envs, **arguments(**changes)).unwrapped
    assert isinstance(env, WaymoVectorEnv)
    return env


def make_sync(num_envs: int, mode: AutoresetMode, **changes: Any) -> SyncVectorEnv:
    def make() -> gymnasium.Env[Any, Any]:
        return gymnasium.make("CatK-Waymo-v0", **arguments(**changes)).unwrapped

    return SyncVectorEnv([make] * num_envs, autoreset_mode=mode)


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, np.ndarray) and one.dtype == object:
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        # Sums over padded rows may round otherwise.
        atol = 1e-4 if np.issubdtype(one.dtype, np.floating) else 0
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=atol)
    else:
        assert one == other


CRASHES = [
    variations.hit_at(12),
    variations.with_more_edges(variations.hit_at(14)),
    straight_road(),
    variations.crowd(5),
]
SETUPS = [
    {"action": "token", "horizon": 10},
    {"action": "delta", "controlled": "sdc", "horizon": 6, "data": CRASHES},
    {"action": "bicycle", "controlled": "sdc", "data": CRASHES, "reward": "safe_driving"},
    {"action": "state", "controlled": "to_predict", "horizon": 4, "observation": "minimal"},
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup["action"])
def test_it_does_what_as_many_single_environments_do(
    mode: AutoresetMode, setup: dict[str, Any]
) -> None:
    batched = make_vec(3, autoreset_mode=mode, **setup)
    singles = make_sync(3, mode, **setup)
    assert batched.observation_space == singles.observation_space
    assert batched.action_space == singles.action_space
    batched.action_space.seed(0)
    for one, other in zip(batched.reset(seed=7), singles.reset(seed=7), strict=True):
        assert_same(one, other)
    is_mixed = False
    for _ in range(9):
        # The sdc hardly moves, so that it is hit in some worlds.
        actions = batched.action_space.sample() * 0.01
        if setup["action"] == "token":
            actions = actions.astype(np.int64)
        given, expected = batched.step(actions), singles.step(actions)
        for one, other in zip(given, expected, strict=True):
            assert_same(one, other)
        over = given[2] | given[3]
        is_mixed |= bool(over.any() and not over.all())
        if mode == AutoresetMode.DISABLED and over.any():
            reset = [env.reset(options={"reset_mask": over.copy()}) for env in (batched, singles)]
            for one, other in zip(*reset, strict=True):
                assert_same(one, other)
    assert is_mixed == (setup.get("data") is CRASHES)


def test_gymnasium_makes_it_natively_batched_without_a_warning() -> None:
    env = gymnasium.make_vec("CatK-Waymo-v0", num_envs=3, **arguments())
    assert type(env) is WaymoVectorEnv
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert env.num_envs == 3
    env.close()


@pytest.mark.parametrize("observation", ["scene", "sdc", "minimal"])
def test_torch_output_equals_numpy_output(observation: str) -> None:
    changes = {"observation": observation, "action": "delta", "horizon": 4}
    numpy, tensors = make_vec(3, **changes), make_vec(3, output="torch", **changes)
    actions = numpy.action_space.sample()
    given = [tensors.reset(seed=2), *(tensors.step(torch.as_tensor(actions)) for _ in range(6))]
    expected = [numpy.reset(seed=2), *(numpy.step(actions) for _ in range(6))]
    for left, right in zip(given, expected, strict=True):
        for one, other in zip(left, right, strict=True):
            assert_close(to_numpy(one), other)


def assert_close(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_close(one[name], other[name])
    elif one.dtype == object:
        assert one.tolist() == other.tolist()
    else:
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_resetting_some_worlds_leaves_the_others_alone() -> None:
    env = make_vec(4, action="delta", autoreset_mode="Disabled")
    env.reset(seed=0, options={"scenario_index": [0, 1, 5, 3]})
    env.step(env.action_space.sample())
    before = env.state
    # A larger scenario than any so far makes the whole batch grow.
    larger = variations.crowd(12)
    mask = np.array([False, True, False, True])
    env.reset(options={"reset_mask": mask, "scenario": variations.with_more_edges(larger)})
    after = env.state
    assert after.scenario.scenario_id == ("straight_road", "more_edges", "moved", "more_edges")
    assert after.step.tolist() == [11, 10, 11, 10]
    for world in (0, 2):
        num_agents = before.controlled.shape[1]
        assert torch.equal(after.history.xy[world, :num_agents], before.history.xy[world])
        assert not after.history.valid[world, num_agents:].any()
    # The state from before the reset is what it was.
    assert before.scenario.scenario_id[1] == "crowd_1"
    assert before.step.tolist() == [11] * 4


def test_worlds_go_on_alike_after_others_were_reset() -> None:
    alone, together = (make_vec(2, action="delta", autoreset_mode="Disabled") for _ in range(2))
    for env in (alone, together):
        env.reset(seed=0, options={"scenario_index": [1, 0]})
    actions = alone.action_space.sample()
    for _ in range(3):
        alone.step(actions)
        together.reset(
            options={
                "reset_mask": np.array([False, True]),
                "scenario": variations.crowd(12),
            }
        )
        together.step(actions)
    num_agents = alone.state.controlled.shape[1]
    torch.testing.assert_close(
        alone.state.history.xy[0], together.state.history.xy[0, :num_agents], rtol=0, atol=0
    )


def test_a_batch_in_the_options_is_taken_as_it_is() -> None:
    batch = collate([variations.crowd(20), straight_road()])
    env = make_vec(2, data=None, autoreset_mode="Disabled", max_agents=4)
    env.reset(options={"scenario": batch})
    assert torch.equal(env.state.scenario.agents.agent_id, batch.agents.agent_id)
    env.step(np.zeros((2, 20), dtype=np.int64))
    *_, info = env.step(np.zeros((2, 4), dtype=np.int64))
    assert info["agent_rewards"].shape == (2, 4)
    assert env.state.step.tolist() == [20, 20]


def test_an_environment_without_data_needs_scenarios() -> None:
    env = make_vec(2, data=None)
    with pytest.raises(ValueError, match="without data needs"):
        env.reset()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"reset_mask": np.array([True])}, "reset_mask must be 2 booleans"),
        ({"reset_mask": np.array([False, False])}, "at least one is true"),
        ({"reset_mask": np.array([1, 0])}, "reset_mask must be 2 booleans"),
        ({"scenario_index": [0, 1, 2]}, "each of 2 worlds, got 3"),
        ({"scenario_index": 0.5}, "must be one integer"),
        ({"scenario": [straight_road()]}, "each of 2 worlds, got 1"),
        ({"scenario": straight_road(), "scenario_index": 0}, "got both"),
        ({"scnario": straight_road()}, "got \\['scnario'\\]"),
        ({"scenario": straight_road().repeat(2).repeat(2)}, "may have one batch dimension, got 2"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make_vec(2).reset(options=options)


def test_an_index_beyond_the_data_is_refused() -> None:
    with pytest.raises(IndexError, match="from 0 to 7, got 8"):
        make_vec(2).reset(options={"scenario_index": 8})


def test_a_failed_reset_leaves_the_worlds_as_they_were() -> None:
    env = make_vec(2, autoreset_mode="Disabled", action="delta")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    before = env.state
    with pytest.raises(ValueError, match="agents to control"):
        env.reset(options={"scenario": variations.crowd(60)})
    assert env.state is before
    env.step(env.action_space.sample())


def test_a_number_of_worlds_or_seeds_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        WaymoVectorEnv(0, **arguments())
    with pytest.raises(ValueError, match="wanted a seed for each of 2 worlds, got 3"):
        make_vec(2).reset(seed=[1, 2, 3])


def test_a_world_that_gets_no_seed_keeps_its_source_of_randomness() -> None:
    env = make_vec(3)
    env.reset(seed=5)
    before = env.np_random
    drawn = [random.integers(2**32) for random in before]
    env.reset(seed=[5, None, 7])
    first, kept, third = env.np_random
    assert len(set(drawn)) == 3
    assert kept is before[1]
    assert [first.integers(2**32), third.integers(2**32)] == [drawn[0], drawn[2]]


def test_a_prepared_cache_is_played_like_the_scenarios_in_it(tmp_path: Path) -> None:
    file = write_tfrecord(tmp_path / "some.tfrecord", ["a", "b"])
    cache = convert(open_scenarios(file), tmp_path / "cache").folder
    resets = []
    for data in (str(file), str(cache)):
        env = make_vec(2, data=data, max_agents=None, action="delta")
        observation, info = env.reset(options={"scenario_index": [1, 0]})
        assert info["scenario_id"].tolist() == ["b", "a"]
        resets.append({"actions": env.action_space.shape, "observation": observation})
        # A cache may be larger than memory.
        assert isinstance(env.data, ScenarioDataset) == (data == str(cache))
    assert_same(*resets)


def test_worlds_differ_with_one_seed() -> None:
    env = make_vec(7)
    _, info = env.reset(seed=0)
    _, again = env.reset(seed=0)
    assert info["scenario_id"].tolist() == again["scenario_id"].tolist()
    assert len(set(info["scenario_id"])) > 1


def test_the_reward_of_a_world_is_the_mean_over_its_controlled_agents() -> None:
    env = make_vec(1, data=[straight_road()], action="delta", controlled="all")
    env.reset()
    actions = np.zeros((1, 12, 3), dtype=np.float32)
    actions[0, 1, 0] = 2 / 8
    _, reward, _, _, info = env.step(actions)
    # A stands, the log runs 1 m ahead; B is put 2 m beside where it stands; C is where it was.
    np.testing.assert_allclose(info["agent_rewards"][0, :3], [-1, -2, 0], atol=1e-5)
    np.testing.assert_allclose(reward, [-1.0], atol=1e-5)
    assert not info["agent_rewards"][0, 3:].any()


def test_no_reward_is_zero() -> None:
    env = make_vec(2, reward=None)
    env.reset(seed=0)
    _, reward, *_ = env.step(env.action_space.sample())
    assert reward.tolist() == [0, 0]


def test_a_reward_may_be_any_function() -> None:
    env = make_vec(2, reward=lambda transition: transition.after.current.xy[..., 0, 0])
    env.reset(options={"scenario": straight_road()})
    _, reward, *_ = env.step(np.zeros((2, 12), dtype=np.int64))
    xy = env.state.current.xy[:, :3, 0, 0].mean(-1)
    np.testing.assert_allclose(reward, xy.numpy(), rtol=1e-6)


def test_every_world_is_drawn() -> None:
    env = make_vec(2, render_mode="rgb_array", data=[straight_road()])
    env.reset()
    pictures = env.render()
    assert pictures is not None
    assert len(pictures) == 2
    assert make_vec(2).render() is None


def test_a_mask_in_numpy_is_the_callers_own() -> None:
    env = make_vec(2)
    _, info = env.reset(seed=0)
    info["_step"][:] = False
    assert info["_controlled"].all()
    assert info["_scenario_id"].all()


def test_a_batch_without_a_map_gets_the_padding_that_its_scenario_gets() -> None:
    empty = variations.without_map(variations.crowd(4, seed=1))
    sizes = []
    for given in (collate([empty]), empty):
        env = make_vec(1, data=None)
        env.reset(options={"scenario": given})
        sizes.append(size_of(env.state.scenario))
    assert sizes[0] == sizes[1]

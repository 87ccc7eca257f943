"""The adapter to PettingZoo, on the straight road. See `tests.scenes.straight_road`."""

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import error, spaces
from pettingzoo.test import parallel_api_test, parallel_seed_test

from catk_sim.envs.pettingzoo import WaymoParallelEnv, parallel_env
from tests.catk_sim.envs import variations
from tests.scenes import arc_vocabulary, straight_road

SMALL = {"max_map_points": 8, "max_lights": 1, "max_neighbors": 2}
A, B, C = "agent_100", "agent_101", "agent_102"
ROADS = [straight_road(), variations.crowd(6), variations.with_present(straight_road(), [0])]


def make(**changes: Any) -> WaymoParallelEnv:
    return parallel_env(**{"data": [straight_road()], "action": "delta", **SMALL, **changes})


def go(**metres: float) -> dict[str, np.ndarray]:
    """Actions that move agents forward."""
    return {
        f"agent_{name[1:]}": np.array([distance / 8, 0, 0], dtype=np.float32)
        for name, distance in metres.items()
    }


@pytest.mark.parametrize("controlled", ["sdc", "all"])
@pytest.mark.parametrize("action", ["token", "delta", "bicycle"])
def test_pettingzoo_finds_nothing_to_complain_about(action: str, controlled: str) -> None:
    env = make(action=action, controlled=controlled, vocabulary=arc_vocabulary(), horizon=10)
    parallel_api_test(env, num_cycles=30)


@pytest.mark.parametrize("action", ["token", "bicycle"])
def test_pettingzoo_finds_that_a_seed_decides_everything(action: str) -> None:
    def env() -> WaymoParallelEnv:
        return make(data=ROADS, action=action, vocabulary=arc_vocabulary(), horizon=10, ends_on=())

    parallel_seed_test(env)


def test_agents_are_called_by_their_ids() -> None:
    env = make()
    assert env.possible_agents == [A, B, C]
    observations, infos = env.reset(seed=0)
    assert env.agents == [A, B, C]
    assert list(observations) == list(infos) == env.agents
    assert infos[A] == {"scenario_id": "straight_road"}
    assert observations[A]["own"][10] == pytest.approx(80)
    assert env.observation_space(A).contains(observations[A])
    assert make(controlled="sdc").possible_agents == [A]


def test_possible_agents_are_those_of_all_scenarios() -> None:
    env = make(data=ROADS)
    # Two of the crowd come later.
    assert env.possible_agents == [A, B, C, "agent_104"]
    env.reset(options={"scenario_index": 2})
    assert env.agents == [A]
    alone = make(data=[ROADS[2]])
    assert alone.possible_agents == [A]
    with pytest.raises(ValueError, match="not in the data: \\['agent_101', 'agent_102'\\]"):
        alone.reset(options={"scenario": straight_road()})


def test_agents_die_one_by_one_and_are_taken_out() -> None:
    env = make(ends_on=("goal", "collision"), horizon=2)
    env.reset()
    seen, rewards, terminations, truncations, infos = env.step(go(_100=1, _101=5, _102=0))
    # C is at its goal, B has left its own.
    assert terminations == {A: False, B: False, C: True}
    assert truncations == {A: False, B: False, C: False}
    assert rewards[A] == pytest.approx(0.02, abs=1e-5)
    assert rewards[B] == pytest.approx(-1, abs=1e-5)  # B is off the road.
    assert seen[A]["neighbors_valid"].tolist() == [True, True]
    assert env.agents == [A, B]
    success = {"scenario_id": "straight_road", "is_success": True}
    assert infos[C] == {**success, "collision": False, "offroad": False}
    assert infos[A] == {"scenario_id": "straight_road"}
    # C is gone: A drives through it, until the horizon.
    seen, rewards, terminations, truncations, infos = env.step(go(_100=69, _101=0))
    assert set(seen) == set(rewards) == {A, B}
    assert terminations == {A: False, B: False}
    assert truncations == {A: True, B: True}
    assert seen[A]["neighbors_valid"].tolist() == [True, False]
    assert infos[A]["is_success"] is False
    assert env.agents == []
    with pytest.raises(error.ResetNeeded):
        env.step({})
    env.reset()
    assert env.agents == [A, B, C]


def test_every_living_agent_must_act() -> None:
    env = make()
    env.reset()
    with pytest.raises(ValueError, match="wanted an action of each"):
        env.step(go(_100=1, _101=0))
    with pytest.raises(ValueError, match="wanted an action of each"):
        env.step(go(_100=1, _101=0, _102=0, _103=0))


def test_spaces_are_an_agents_own() -> None:
    env = make(data=ROADS)
    assert env.action_space(A) is env.action_space(A)
    assert env.action_space(A) is not env.action_space(B)
    assert isinstance(env.action_space(A), spaces.Box)
    assert env.action_space(A).shape == (3,)
    road = straight_road()
    other = road.replace(agents=road.agents.replace(agent_id=road.agents.agent_id + 7))
    egos = make(data=[road, other], controlled="sdc")
    assert egos.possible_agents == [A, "agent_107"]
    assert egos.action_space(A) is not egos.action_space("agent_107")
    tokens = make(action="token", vocabulary=arc_vocabulary())
    assert tokens.action_space(A) == gymnasium.spaces.Discrete(113)
    with pytest.raises(ValueError, match="no agent 'agent_7'"):
        env.action_space("agent_7")


def test_the_world_is_drawn() -> None:
    env = make(render_mode="rgb_array")
    env.reset()
    picture = env.render()
    assert picture is not None
    assert picture.shape[2] == 3
    plain = make()
    plain.reset()
    assert plain.render() is None


def test_there_must_be_data() -> None:
    with pytest.raises(ValueError, match="got data=None"):
        parallel_env(data=None)


IMPORT = """
import sys
sys.modules["pettingzoo"] = None
import catk_sim.envs.pettingzoo
"""


def test_it_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'catk-sim[pettingzoo]'" in done.stderr

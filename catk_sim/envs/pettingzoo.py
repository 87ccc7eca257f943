"""The environment as PettingZoo wants it: `pip install 'catk-sim[pettingzoo]'`.

from catk_sim.envs.pettingzoo import parallel_env

env = parallel_env(data="synthetic:4", action="bicycle", action_repeat=5)
observations, infos = env.reset(seed=0)
while env.agents:
actions = {agent: env.action_space(agent).sample() for agent in env.agents}
observations, rewards, terminations, truncations, infos = env.step(actions)
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import error
from typing_extensions import override

from catk_sim.envs.episodes import ENDS, AgentEpisodes
from catk_sim.envs.infos import of_world, to_numpy
from catk_sim.envs.scenarios import select_controlled
from catk_sim.extras import needs_extra

with needs_extra("pettingzoo", "a PettingZoo environment"):
    from pettingzoo import ParallelEnv

Observation = dict[str, np.ndarray]
AgentInfo = dict[str, Any]


class WaymoParallelEnv(ParallelEnv[str, Observation, Any]):
    """One world, in which every controlled agent is a PettingZoo agent.

    Agents are called `agent_` and WOMD's id. `agents` are those whose episodes go on, as
    `catk_sim.envs.episodes.AgentEpisodes` has them: they die at their goal, with a collision, off
    the road, or at the horizon, and are then taken out of the world. They see what
    `catk_sim.envs.views` says. `possible_agents` are those of all scenarios of the data, which are
    looked through once for them.

    Infos have `scenario_id`; and for agents that died `is_success`, `collision` and `offroad`.

    Args:
        ends_on: What ends an agent's episode: "goal", "collision", "offroad".
        **arguments: The fields of `EnvConfig`, except those that `AgentEpisodes` decides. There
            must be data.
    """

    def __init__(self, *, ends_on: Sequence[str] = ENDS, **arguments: Any) -> None:
        if arguments.get("data", "synthetic") is None:
            raise ValueError("PettingZoo's possible_agents are those of the data, got data=None")
        self._episodes = AgentEpisodes(1, ends_on=ends_on, **arguments)
        envs = self._episodes.envs
        self.metadata = {**envs.metadata, "name": "catk_waymo_v0", "is_parallelizable": True}
        self.render_mode = envs.render_mode
        self.possible_agents = self._find_agents()
        self.agents: list[str] = []
        self._slots: dict[str, int] = {}
        self._spaces: dict[str, tuple[gymnasium.Space[Any], gymnasium.Space[Any]]] = {}

    @override
    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        """Describes what an agent sees."""
        return self._spaces_of(agent)[0]

    @override
    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        """Describes what an agent may do. Every agent's space draws for itself."""
        return self._spaces_of(agent)[1]

    @override
    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, AgentInfo]]:
        """Starts a scenario.

        Args:
            seed: Decides which.
            options: `scenario_index` or `scenario` are read. Others are for other environments.
        """
        known = ("scenario_index", "scenario")
        chosen = {name: value for name, value in (options or {}).items() if name in known}
        self._episodes.reset(seed=seed, options=chosen)
        present = self._episodes.present[0]
        names = [_name(agent) for agent in self._episodes.agent_id[0].tolist()]
        self._slots = {names[slot]: slot for slot in present.nonzero()[:, 0].tolist()}
        unknown = sorted(set(self._slots) - set(self.possible_agents))
        if unknown:
            raise ValueError(f"the scenario has agents that are not in the data: {unknown}")
        self.agents = list(self._slots)
        return self._seen(), {agent: self._info() for agent in self.agents}

    @override
    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[
        dict[str, Observation],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, AgentInfo],
    ]:
        """Plays an action of every agent.

        Raises:
            ResetNeeded: Nobody is alive.
            ValueError: The actions are not those of the agents that are alive.
        """
        if not self.agents:
            raise error.ResetNeeded("no agent is alive: reset the environment")
        if set(actions) != set(self.agents):
            raise ValueError(
                f"wanted an action of each of {sorted(self.agents)}, got {sorted(actions)}"
            )
        step = self._episodes.step(self._one_array(actions))
        observations = self._seen()
        done = step.done[0].tolist()
        happened = {
            "is_success": step.success[0].tolist(),
            "collision": step.collision[0].tolist(),
            "offroad": step.offroad[0].tolist(),
        }
        slots = {agent: self._slots[agent] for agent in self.agents}
        infos = {agent: self._info() for agent in slots}
        for agent, slot in slots.items():
            if done[slot]:
                infos[agent] |= {name: which[slot] for name, which in happened.items()}
        self._episodes.remove(step.done)
        self.agents = [agent for agent, slot in slots.items() if not done[slot]]
        return (
            observations,
            {agent: float(step.reward[0, slot]) for agent, slot in slots.items()},
            {agent: bool(step.terminated[0, slot]) for agent, slot in slots.items()},
            {agent: bool(step.truncated[0, slot]) for agent, slot in slots.items()},
            infos,
        )

    @override
    def render(self) -> np.ndarray | None:
        """Draws the world from above, as an array of (height, width, 3) bytes."""
        pictures = self._episodes.envs.render()
        return None if pictures is None else pictures[0]

    @override
    def close(self) -> None:
        """Closes the window, if there is one."""
        self._episodes.envs.close()

    def _find_agents(self) -> list[str]:
        envs = self._episodes.envs
        found: dict[str, None] = {}
        for index in range(len(envs.data)):
            scenario = envs.data[index]
            controlled = select_controlled(envs.config.controlled, scenario)
            found |= dict.fromkeys(map(_name, scenario.agents.agent_id[controlled].tolist()))
        return list(found)

    def _spaces_of(self, agent: str) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
        if agent not in self._spaces:
            if agent not in self.possible_agents:
                raise ValueError(f"there is no agent {agent!r} in the data")
            self._spaces[agent] = copy.deepcopy(self._episodes.spaces_of_agent())
        return self._spaces[agent]

    def _seen(self) -> dict[str, Observation]:
        seen = of_world(to_numpy(self._episodes.observe()), 0)
        return {agent: of_world(seen, self._slots[agent]) for agent in self.agents}

    def _info(self) -> AgentInfo:
        return {"scenario_id": self._episodes.state.scenario.scenario_id[0]}

    def _one_array(self, actions: Mapping[str, Any]) -> np.ndarray:
        space = self._episodes.spaces_of_agent()[1]
        shape = (1, self._episodes.agents_per_world, *(space.shape or ()))
        array = np.zeros(shape, dtype=space.dtype)
        for agent, action in actions.items():
            array[0, self._slots[agent]] = action
        return array


def parallel_env(**arguments: Any) -> WaymoParallelEnv:
    """Makes the environment, under the name that PettingZoo's users look for."""
    return WaymoParallelEnv(**arguments)


def _name(agent_id: int) -> str:
    return f"agent_{agent_id}"

"""Worlds in which every controlled agent has an episode of its own.

What Stable-Baselines3 and PettingZoo need on top of `WaymoVectorEnv`, whose episodes are those of
worlds: an agent's episode ends when it reaches its goal, collides or leaves the road, and it is
then taken out of its world. At the horizon the others' episodes are cut off.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from jaxtyping import Bool, Float
from torch import Tensor

from catk_sim.constants import CURRENT_STEP
from catk_sim.datatypes import AgentType, Scenario, SimState, TensorTree
from catk_sim.envs.vector_env import WaymoVectorEnv
from catk_sim.observation import fit
from catk_sim.rewards import Goals, Transition, reached_goal

ENDS = ("goal", "collision", "offroad")


@dataclass(frozen=True, kw_only=True)
class MovingVehicles:
    """Chooses the vehicles that have somewhere to go, those nearest to the sdc.

    For `controlled`. Whoever is at its goal from the start has nothing to learn.
    """

    max_count: int = 8
    """How many at most."""
    min_distance: float = 5.0
    """How far the goal is at least (m)."""

    def __call__(self, scenario: Scenario) -> Bool[Tensor, " agents"]:
        """Makes the mask of a scenario."""
        xy, present = scenario.log.xy[:, CURRENT_STEP], scenario.log.valid[:, CURRENT_STEP]
        goals = Goals.from_log(scenario.log)
        far = (goals.xy - xy).norm(dim=-1) >= self.min_distance
        vehicle = scenario.agents.type == AgentType.VEHICLE
        able = present & scenario.agents.valid & vehicle & goals.valid & far
        center = (xy * (scenario.agents.is_sdc & present)[:, None]).sum(0)
        distance = (xy - center).norm(dim=-1).masked_fill(~able, torch.inf)
        rank = distance.argsort(stable=True).argsort(stable=True)
        return able & (rank < self.max_count)


@dataclass(frozen=True, eq=False, kw_only=True)
class AgentStep(TensorTree):
    """What came of a step for each agent that there is room for. All false for who was not there.

    Attributes:
        reward: Rewards; 0 for who was not there.
        terminated: Whose episode ended.
        truncated: Whose episode was cut off by the horizon.
        goal: Who reached its goal.
        collision: Who collided.
        offroad: Who left the road.
    """

    reward: Float[Tensor, "worlds agents"]
    terminated: Bool[Tensor, "worlds agents"]
    truncated: Bool[Tensor, "worlds agents"]
    goal: Bool[Tensor, "worlds agents"]
    collision: Bool[Tensor, "worlds agents"]
    offroad: Bool[Tensor, "worlds agents"]

    @property
    def done(self) -> Bool[Tensor, "worlds agents"]:
        """Whose episode is over."""
        return self.terminated | self.truncated

    @property
    def success(self) -> Bool[Tensor, "worlds agents"]:
        """Who reached its goal without a collision or leaving the road in the same step."""
        return self.goal & ~self.collision & ~self.offroad


class AgentEpisodes:
    """Plays worlds, and the episodes of their agents.

    Args:
        num_worlds: How many worlds.
        ends_on: What ends an agent's episode: "goal", "collision", "offroad".
        **arguments: The fields of `EnvConfig`, with defaults of its own. The observation is
            "agents".
    """

    def __init__(self, num_worlds: int, *, ends_on: Sequence[str] = ENDS, **arguments: Any) -> None:
        unknown = sorted(set(ends_on) - set(ENDS))
        if unknown:
            raise ValueError(f"ends_on may have {', '.join(ENDS)}, got {unknown}")
        fixed = {
            "observation": "agents",
            "autoreset_mode": "Disabled",
            "output": "torch",
            "terminate_on_collision": False,
            "report": ("collision", "offroad"),
        }
        for name, value in fixed.items():
            if arguments.get(name, value) != value:
                raise ValueError(f"{name} must be {value!r} here, got {arguments[name]!r}")
        defaults = {"max_map_points": 128, "max_lights": 4, "reward": "reach_goal"}
        self.envs = WaymoVectorEnv(num_worlds, **{**defaults, **arguments, **fixed})
        # Nobody else has an episode that leaving the road could end.
        self.envs.worlds.judges_controlled_only = True
        self.num_worlds = num_worlds
        self._ends_on = frozenset(ends_on)
        self._observation: Any = None

    @property
    def agents_per_world(self) -> int:
        """How many agents of a world may have an episode."""
        config = self.envs.config
        return 1 if config.controls_sdc else self.envs.worlds.sizes.max_agents

    def spaces_of_agent(self) -> tuple[spaces.Space, spaces.Space]:
        """Describes what one agent sees, and what it may do."""
        envs = self.envs
        observation, action = envs.single_observation_space, envs.single_action_space
        if envs.config.controls_sdc:
            return observation, action
        return _of_one_agent(observation), _of_one_agent(action)

    @property
    def state(self) -> SimState:
        """The current state of all worlds, with one batch dimension."""
        return self.envs.state

    @property
    def present(self) -> Bool[Tensor, "worlds agents"]:
        """Whose episode is going on."""
        return self._of_agents(self.state.controlled)

    @property
    def agent_id(self) -> Tensor:
        """WOMD's ids of the agents, of shape (worlds, agents)."""
        return self._of_agents(self.state.scenario.agents.agent_id)

    def reset(self, *, seed: Any = None, options: Mapping[str, Any] | None = None) -> None:
        """Starts worlds, as `WaymoVectorEnv.reset` does."""
        self._observation, _ = self.envs.reset(seed=seed, options=options)

    def observe(self) -> dict[str, Tensor]:
        """Describes to the agents what they see: arrays of shape (worlds, agents, ...)."""
        if self._observation is None:
            self._observation = self.envs.worlds.observe()
        observation: dict[str, Tensor] = self._observation
        if not self.envs.config.controls_sdc:
            return observation
        return {name: values[:, None] for name, values in observation.items()}

    def step(self, actions: Any) -> AgentStep:
        """Plays an action of every agent. Those whose episode is over stay until `remove`.

        Args:
            actions: Of shape (worlds, agents, ...). What absent agents do is not looked at.
        """
        before, present = self.state, self.present
        if self.envs.config.controls_sdc:
            actions = actions[:, 0]
        self._observation, _, _, truncated, info = self.envs.step(actions)
        transition = Transition(before=before, after=self.state, collision=None, offroad=None)
        happened = {
            "goal": self._of_agents(reached_goal(transition)) & present,
            "collision": self._of_agents(info["collision"]) & present,
            "offroad": self._of_agents(info["offroad"]) & present,
        }
        terminated = torch.zeros_like(present)
        for name in self._ends_on:
            terminated = terminated | happened[name]
        reward = self._of_agents(info["agent_rewards"]).masked_fill(~present, 0)
        return AgentStep(
            reward=reward,
            terminated=terminated,
            truncated=present & ~terminated & truncated[:, None],
            **happened,
        )

    def remove(self, done: Bool[Tensor, "worlds agents"]) -> None:
        """Takes agents whose episode is over out of their worlds."""
        state = self.state
        if self.envs.config.controls_sdc:
            gone = state.scenario.agents.is_sdc & done
        else:
            gone = fit(done, 1, state.controlled.shape[1])
        self.envs.worlds.remove(gone)
        self._observation = None

    def _of_agents(self, values: Tensor) -> Tensor:
        if not self.envs.config.controls_sdc:
            return fit(values, 1, self.agents_per_world)
        # Infos are as wide as the environment's room, states as wide as the scenarios.
        is_sdc = fit(self.state.scenario.agents.is_sdc, 1, values.shape[1])
        if values.dtype == torch.bool:
            return (values & is_sdc).any(-1, keepdim=True)
        return values.masked_fill(~is_sdc, 0).sum(-1, keepdim=True)


def _of_one_agent(space: spaces.Space) -> spaces.Space:
    """Drops the first dimension, that of the agents."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: _of_one_agent(part) for name, part in space.spaces.items()})
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.Discrete(int(space.nvec[0]))
    assert isinstance(space, spaces.Box)
    dtype: Any = space.dtype
    return spaces.Box(space.low[0], space.high[0], dtype=dtype)

"""The worlds behind the environments: pure tensors, without Gymnasium's protocol."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import error
from jaxtyping import Bool, Float
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS
from catk_sim.datasets.schema import ScenarioSize, size_of
from catk_sim.datatypes import Action, RoadGraph, Scenario, SimState, TensorTree, Trajectory
from catk_sim.envs.actions import ActionInterface
from catk_sim.envs.background import Background
from catk_sim.envs.config import EnvConfig
from catk_sim.envs.episode import (
    SMALLEST,
    Episode,
    at_least,
    collate_to,
    pad_state,
    replace_worlds,
)
from catk_sim.envs.scenarios import arrange_agents, select_controlled
from catk_sim.envs.views import ViewSizes, view_all, view_sdc, visible_points
from catk_sim.metrics.base import MetricResult
from catk_sim.metrics.collision import agents_collide
from catk_sim.metrics.offroad import offroad_indication
from catk_sim.metrics.road_edges import RoadEdges
from catk_sim.observation import MapPoints, ObservationSizes, observable_points, observe
from catk_sim.rewards import Transition
from catk_sim.simulator import Simulator


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome(TensorTree):
    """What came of a step.

    Attributes:
        reward: Mean reward of the controlled agents of each world; 0 where there are none.
        agent_reward: Reward of each agent.
        terminated: Whether the episode ended.
        truncated: Whether its horizon is reached.
        collision: Which agents overlapped another one on the way; None if it was not looked for.
        offroad: Which agents left the road on the way; None if it was not looked for.
    """

    reward: Float[Tensor, " worlds"]
    agent_reward: Float[Tensor, "worlds agents"]
    terminated: Bool[Tensor, " worlds"]
    truncated: Bool[Tensor, " worlds"]
    collision: Bool[Tensor, "worlds agents"] | None
    offroad: Bool[Tensor, "worlds agents"] | None


class Worlds:
    """Scenarios that are played side by side, each from its own beginning.

    Args:
        config: The environment's arguments.
        num_worlds: How many.
        max_agents: Agents per world that learners have room for.

    Attributes:
        judges_controlled_only: Whether leaving the road is looked for of controlled agents alone,
            which costs less.
    """

    def __init__(self, config: EnvConfig, num_worlds: int, max_agents: int) -> None:
        self.config = config
        self.sizes = ObservationSizes(
            max_agents=max_agents,
            max_map_points=config.max_map_points,
            max_lights=config.max_lights,
        )
        self.view_sizes = ViewSizes(
            max_neighbors=config.max_neighbors,
            max_map_points=config.max_map_points,
            max_lights=config.max_lights,
        )
        self.num_worlds = num_worlds
        self.judges_controlled_only = False
        self.actions = ActionInterface(config, max_agents)
        self.simulator = Simulator(self.actions.dynamics)
        self.background = (
            None
            if config.background is None
            else Background(config.background, torch.device(config.device))
        )
        self._reward = config.reward_function
        self._episode: Episode | None = None
        self._size: ScenarioSize | None = None

    @property
    def episode(self) -> Episode:
        """The current state, and what is prepared of the maps."""
        if self._episode is None:
            raise error.ResetNeeded("reset the environment before anything else")
        return self._episode

    @property
    def state(self) -> SimState:
        """The current state."""
        return self.episode.state

    def load(self, batch: Scenario) -> None:
        """Starts a batch of scenarios, one for each world, in all worlds. It is taken as it is."""
        batch = at_least(batch, SMALLEST)
        batch = batch.to(self.config.device).to(self.config.dtype)
        self._episode = self._begin(batch, select_controlled(self.config.controlled, batch))
        self._size = size_of(batch)
        self._start_background(self._episode.state, range(self.num_worlds))

    def reset(self, worlds: Sequence[int], scenarios: Sequence[Scenario]) -> None:
        """Starts scenarios in some worlds. The others are left alone.

        Raises:
            ValueError: If a scenario has more agents to control than there is room for.
        """
        arranged = [self._arrange(scenario) for scenario in scenarios]
        all_at_once = len(worlds) == self.num_worlds
        batch = collate_to([one for one, _ in arranged], None if all_at_once else self._size)
        controlled = batch.agents.valid.new_zeros(batch.agents.valid.shape)
        for row, (_, mask) in zip(controlled, arranged, strict=True):
            row[: mask.shape[0]] = mask
        fresh = self._begin(batch, controlled)
        if all_at_once:
            self._episode = fresh
        else:
            grown = self._grow(self.episode, size_of(batch))
            self._episode = replace_worlds(grown, worlds, fresh)
        self._size = size_of(batch)
        self._start_background(fresh.state, worlds)

    def retire(self, worlds: Sequence[int]) -> None:
        """Lets worlds rest until they are reset: their agents follow the log."""
        if self.background is not None:
            self.background.stop(worlds)

    def remove(self, agents: Bool[Tensor, "worlds agents"]) -> None:
        """Takes agents out of their worlds, until these are reset."""
        state, gone = self.state, agents[..., None]
        scenario = state.scenario
        log = scenario.log.replace(valid=scenario.log.valid & ~gone)
        state = state.replace(
            scenario=scenario.replace(log=log),
            history=state.history.replace(valid=state.history.valid & ~gone),
            controlled=state.controlled & ~agents,
        )
        self._episode = self.episode.replace(state=state)

    def step(self, actions: np.ndarray | Tensor) -> Outcome:
        """Plays one action in every world."""
        episode, before = self.episode, self.state
        after = self._advance(before, self.actions.decode(actions, before))
        self._episode = episode.replace(state=after)
        collision, offroad = self._infractions(after, episode.edges)
        transition = Transition(before=before, after=after, collision=collision, offroad=offroad)
        agent_reward, reward = self._rewards(transition)
        never = torch.zeros_like(reward, dtype=torch.bool)
        crashed = never if collision is None else (collision & after.scenario.agents.is_sdc).any(-1)
        return Outcome(
            reward=reward,
            agent_reward=agent_reward,
            terminated=crashed if self.config.ends_on_collision else never,
            truncated=after.step >= CURRENT_STEP + self.config.horizon,
            collision=collision,
            offroad=offroad,
        )

    def observe(self) -> dict[str, Tensor] | Tensor:
        """Describes the worlds to a learner."""
        episode, kind = self.episode, self.config.observation_kind
        if episode.points is None:
            return episode.state.step[:, None]
        if kind == "agents":
            if self.config.controls_sdc:
                return view_sdc(episode.state, episode.points, self.view_sizes)
            room = self.sizes.max_agents
            return view_all(episode.state, episode.points, self.view_sizes, room)
        return observe(episode.state, episode.points, self.sizes, from_sdc=kind == "sdc")

    @property
    def steps_per_action(self) -> int:
        """Steps (of 0.1 s) that one action covers."""
        return self.actions.dynamics.steps_per_action

    def _arrange(self, scenario: Scenario) -> tuple[Scenario, Bool[Tensor, " agents"]]:
        scenario = scenario.to(self.config.device).to(self.config.dtype)
        controlled = select_controlled(self.config.controlled, scenario)
        return arrange_agents(scenario, controlled, self.sizes.max_agents)

    def _begin(self, batch: Scenario, controlled: Bool[Tensor, "worlds agents"]) -> Episode:
        state = self.simulator.reset(batch, controlled)
        points, edges = self._points(batch.roadgraph), None
        if "offroad" in self.config.report:
            edges = RoadEdges.from_roadgraph(batch.roadgraph)
        last_action = self.actions.zero(state)
        return Episode(state=state.replace(last_action=last_action), points=points, edges=edges)

    def _points(self, roadgraph: RoadGraph) -> MapPoints | None:
        kind = self.config.observation_kind
        if kind == "minimal":
            return None
        if kind == "agents":
            return visible_points(roadgraph)
        # The sdc moves away from where the nearest points are chosen, the scene does not.
        spare = 4 if kind == "sdc" else 1
        return observable_points(roadgraph, spare * self.config.max_map_points)

    def _grow(self, episode: Episode, size: ScenarioSize) -> Episode:
        if size == self._size:
            return episode
        return episode.replace(state=pad_state(episode.state, size))

    def _start_background(self, state: SimState, worlds: Sequence[int]) -> None:
        if self.background is not None:
            self.background.start(state, worlds)

    def _advance(self, state: SimState, action: Action) -> SimState:
        if self.background is None:
            return self.simulator.step(state, action)
        motion = self.actions.dynamics.forward(state.current, action.data, state.scenario.agents)
        acts = state.controlled & action.valid
        stride = min(self.steps_per_action, self.background.steps_per_action)
        for start in range(0, self.steps_per_action, stride):
            others, drives = self.background.move(state, stride)
            own: Trajectory = motion.slice(start, start + stride)
            state = self.simulator.advance(state, own.where(acts, others), acts | drives)
        return state.replace(last_action=Action(data=action.data, valid=acts))

    def _infractions(
        self, after: SimState, edges: RoadEdges | None
    ) -> tuple[Bool[Tensor, "worlds agents"] | None, Bool[Tensor, "worlds agents"] | None]:
        """Finds who collided in the last action, and who left the road. None where nobody asks."""
        collision, offroad = None, None
        if not self.config.report:
            return collision, offroad
        motion = after.history.slice(HISTORY_STEPS - self.steps_per_action, HISTORY_STEPS)
        if "collision" in self.config.report:
            collision = _ever(agents_collide(motion, after.scenario.agents))
        if edges is not None:
            if self.judges_controlled_only:
                motion = motion.replace(valid=motion.valid & after.controlled[..., None])
            offroad = _ever(offroad_indication(motion, after.scenario, edges))
        return collision, offroad

    def _rewards(
        self, transition: Transition
    ) -> tuple[Float[Tensor, "worlds agents"], Float[Tensor, " worlds"]]:
        after = transition.after
        if self._reward is None:
            nothing = after.history.xy.new_zeros(after.controlled.shape)
            return nothing, nothing.new_zeros(self.num_worlds)
        rewards = self._reward(transition)
        counts = after.controlled.sum(-1).clamp(min=1)
        return rewards, rewards.masked_fill(~after.controlled, 0).sum(-1) / counts


def _ever(indication: MetricResult) -> Bool[Tensor, "worlds agents"]:
    return ((indication.value > 0) & indication.valid).any(dim=-1)

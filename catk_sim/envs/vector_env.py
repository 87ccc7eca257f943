"""The natively batched environment."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import error
from gymnasium.spaces import Box, Space
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, STEP_SECONDS
from catk_sim.datatypes import SimState
from catk_sim.envs.config import RENDER_MODES, EnvConfig, Scenarios
from catk_sim.envs.infos import Info, of_world, to_numpy, with_masks
from catk_sim.envs.options import ResetOptions
from catk_sim.envs.pictures import Pictures, Screen
from catk_sim.envs.scenarios import ScenarioOrder, load_data, most_agents
from catk_sim.envs.views import view_space
from catk_sim.envs.worlds import Outcome, Worlds
from catk_sim.observation import fit, observation_space

StepResult = tuple[Any, Any, Any, Any, Info]


class WaymoVectorEnv(VectorEnv[Any, Any, Any]):
    """Closed-loop traffic in many worlds at once, each on its own scenario and in its own time.

    Row i of a world's actions, observations and infos is agent i of its state. A world with more
    than `max_agents` agents is rearranged so that its first agents are the controlled ones, the sdc
    and those nearest to it. The others are simulated like any agent that is not controlled, and
    `num_agents_without_slot` counts them. More controlled agents than `max_agents` are an error.

    The reward of a world is the mean over its controlled agents. Infos have, per world:

        scenario_id, scenario_index    after a reset: what is played; -1 if it came from the options
        num_agents_without_slot        after a reset
        num_map_points_left_out        after a reset, unless the observation is minimal
        step                           the current step in the log's time (0.1 s)
        controlled (max_agents,)       the agents that follow actions
        agent_rewards (max_agents,)    after a step
        collision, offroad (max_agents,)  after a step: at any time during it, as `report` asks

    Options of `reset`: `reset_mask`, and `scenario_index` or `scenario`. A batch of scenarios for
    all worlds is taken as it is: nothing is rearranged, and actions may be given for exactly its
    agents, so that a trainer works on its own batches.

    With torch output and `AutoresetMode.DISABLED` a step never waits for the device, if `report` is
    empty. Tensors that are returned may be views of the state: do not write to them. With NumPy
    output arrays are copies.

    Args:
        num_envs: How many worlds.
        **arguments: The fields of `EnvConfig`.

    Example:
        >>> import catk_sim, gymnasium
        >>> envs = gymnasium.make_vec(
        ...     "CatK-Waymo-v0", num_envs=3, data="synthetic:1", controlled="sdc", action="delta"
        ... )
        >>> observation, info = envs.reset(seed=0)
        >>> _, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
        >>> reward.shape
        (3,)
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's type)
        "render_modes": list(RENDER_MODES)
    }

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        self.config = EnvConfig(**arguments)
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(self.config.autoreset_mode)
        self.render_mode = self.config.render_mode
        self._data = load_data(self.config)
        max_agents = self.config.max_agents or most_agents(self._data)
        self.worlds = Worlds(self.config, num_envs, max_agents)
        self.metadata = {
            **self.metadata,
            "autoreset_mode": self.autoreset_mode,
            "render_fps": round(1 / (STEP_SECONDS * self.worlds.steps_per_action)),
        }
        self.single_action_space = self.worlds.actions.single_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.single_observation_space = self._observation_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        first = seeding.np_random()[1] if self.config.seed is None else self.config.seed
        self._orders = [ScenarioOrder() for _ in range(num_envs)]
        self._random = [seeding.np_random(first + world)[0] for world in range(num_envs)]
        self.use_generator(0, self._random[0])
        follow = "sdc" if self.config.controls_sdc else "scene"
        fps = self.metadata["render_fps"]
        self._screen = (
            Screen(num_envs, follow=follow, fps=fps) if self.render_mode == "human" else None
        )
        self._pictures = self._screen.pictures if self._screen else Pictures(follow=follow)
        self._happened: tuple[Tensor | None, Tensor | None] = None, None
        self._indices = np.full(num_envs, -1)
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._over = np.zeros(num_envs, dtype=np.bool_)

    @property
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generator of each world, which chooses its scenarios."""
        return tuple(self._random)

    @property
    def data(self) -> Scenarios:
        """The scenarios that are played. None, if resets must be given their own."""
        return self._data

    @property
    def state(self) -> SimState:
        """The current state of all worlds, with one batch dimension."""
        return self.worlds.state

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Any, Info]:
        """Starts new episodes in all worlds, or in those of `options["reset_mask"]`.

        Args:
            seed: One seed per world, or the first of successive ones. It decides what is played.
            options: See the class.
        """
        chosen = ResetOptions.read(options, self.num_envs)
        self._seed(seed, chosen.worlds)
        self._begin(chosen)
        entries = {**self._current_entries(), **self._reset_entries()}
        info = with_masks(self._returned(entries), self._mask(chosen.worlds))
        self._show()
        return self._returned(self.worlds.observe()), info

    def step(self, actions: np.ndarray | Tensor) -> StepResult:
        """Plays one action in every world, and resets worlds as the autoreset mode has it.

        A window shows how an episode ends, and then how the next one begins.

        Args:
            actions: As `action_space` says, or for exactly the agents of `state`.

        Raises:
            ResetNeeded: Before the first reset; and with `AutoresetMode.DISABLED` if worlds that
                are over were not reset. With torch output a collision does not count then: the
                host does not know of it.
        """
        renewed = self._over.copy()
        if self.autoreset_mode == AutoresetMode.DISABLED and renewed.any():
            raise error.ResetNeeded(f"worlds {_positions(renewed)} are over and must be reset")
        if renewed.all():
            return self._restart_all()
        outcome = self.worlds.step(actions)
        self._happened = outcome.collision, outcome.offroad
        self._elapsed += self.worlds.steps_per_action
        if renewed.any():
            outcome = _without(outcome, renewed)
            self._begin(ResetOptions(worlds=_positions(renewed)))
        self._note_what_is_over(outcome)
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._over.any():
            return self._finish_and_restart(outcome)
        return self._result(outcome, self._info(outcome, renewed))

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Draws every world from above, as arrays of (height, width, 3) bytes.

        Returns None where `render_mode` is "human": `reset` and `step` have shown the worlds.
        """
        if self.render_mode != "rgb_array":
            return None
        return self._pictures.draw(self.state, **self._marks())

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the window, if there is one."""
        if self._screen is not None:
            self._screen.close()

    def use_generator(self, world: int, random: np.random.Generator) -> None:
        """Gives a world another source of randomness, and starts its data anew."""
        self._random[world] = random
        self._orders[world].restart()
        background = self.worlds.background
        if world == 0 and background is not None:
            background.seed(int(random.integers(2**62)))

    def _observation_space(self) -> Space:
        if self.config.observation_kind == "minimal":
            return Box(0, CURRENT_STEP + self.config.horizon, (1,), np.int64)
        if self.config.observation_kind == "agents":
            num_agents = None if self.config.controls_sdc else self.worlds.sizes.max_agents
            return view_space(self.worlds.view_sizes, num_agents)
        return observation_space(self.worlds.sizes)

    def _seed(self, seed: int | Sequence[int | None] | None, worlds: Sequence[int]) -> None:
        if seed is None:
            return
        seeds = range(seed, seed + self.num_envs) if isinstance(seed, int) else seed
        if len(seeds) != self.num_envs:
            raise ValueError(f"wanted a seed for each of {self.num_envs} worlds, got {len(seeds)}")
        for world in worlds:
            if seeds[world] is not None:
                self.use_generator(world, seeding.np_random(seeds[world])[0])

    def _begin(self, chosen: ResetOptions) -> None:
        if chosen.batch is not None:
            self.worlds.load(chosen.batch)
            self._indices[:] = -1
        elif chosen.scenarios is not None:
            given = [chosen.scenarios[world] for world in chosen.worlds]
            self.worlds.reset(chosen.worlds, given)
            self._indices[list(chosen.worlds)] = -1
        else:
            indices = [self._next_index(world, chosen.indices) for world in chosen.worlds]
            self.worlds.reset(chosen.worlds, [self._data[index] for index in indices])
            self._indices[list(chosen.worlds)] = indices
        self._pictures.forget(chosen.worlds)
        self._elapsed[list(chosen.worlds)] = 0
        self._over[list(chosen.worlds)] = False

    def _next_index(self, world: int, given: Sequence[int] | None) -> int:
        num_scenarios = len(self._data)
        if num_scenarios == 0:
            raise ValueError("an environment without data needs options={'scenario': ...}")
        if given is None:
            return self._orders[world].next(num_scenarios, self._random[world])
        if not 0 <= given[world] < num_scenarios:
            raise IndexError(
                f"scenario_index must be from 0 to {num_scenarios - 1}, got {given[world]}"
            )
        return given[world]

    def _note_what_is_over(self, outcome: Outcome) -> None:
        # The host counts steps itself, so that it need not ask the device.
        self._over = self._elapsed >= self.config.horizon
        host_decides = self.autoreset_mode == AutoresetMode.DISABLED
        if not (host_decides and self.config.output == "torch"):
            self._over |= outcome.terminated.cpu().numpy()
        if self.autoreset_mode == AutoresetMode.NEXT_STEP and self._over.any():
            self.worlds.retire(_positions(self._over))

    def _restart_all(self) -> StepResult:
        # Nobody is left to step, so the actions are not looked at.
        self._begin(ResetOptions(worlds=tuple(range(self.num_envs))))
        nobody = torch.zeros_like(self.state.step, dtype=torch.bool)
        outcome = Outcome(
            reward=self.state.history.xy.new_zeros(self.num_envs),
            agent_reward=self.state.history.xy.new_zeros(self.num_envs, 0),
            terminated=nobody,
            truncated=nobody,
            collision=None,
            offroad=None,
        )
        return self._result(outcome, self._info(outcome, np.ones(self.num_envs, dtype=np.bool_)))

    def _finish_and_restart(self, outcome: Outcome) -> StepResult:
        self._show()
        over = self._over.copy()
        observation = self._returned(self.worlds.observe())
        entries = {**self._current_entries(), **self._step_entries(outcome)}
        final_info = with_masks(self._returned(entries), over)
        final_observation = np.full(self.num_envs, None, dtype=object)
        for world in _positions(over):
            final_observation[world] = of_world(observation, world)
        self._begin(ResetOptions(worlds=_positions(over)))
        final = {"final_obs": final_observation, "_final_obs": over}
        final |= {"final_info": final_info, "_final_info": over.copy()}
        return self._result(outcome, {**final, **self._info(outcome, over)})

    def _info(self, outcome: Outcome, renewed: np.ndarray) -> Info:
        always, after_step = self._current_entries(), self._step_entries(outcome)
        if not renewed.any():
            return with_masks(self._returned({**always, **after_step}), ~renewed)
        return {
            **with_masks(self._returned(always), np.ones_like(renewed)),
            **with_masks(self._returned(after_step), ~renewed),
            **with_masks(self._returned(self._reset_entries()), renewed),
        }

    def _show(self) -> None:
        if self._screen is not None:
            self._screen.show(self.state, **self._marks())

    def _marks(self) -> dict[str, Tensor]:
        """Tells what befell agents in the last step of the episodes that are played."""
        nobody = torch.zeros(self.state.controlled.shape, dtype=torch.bool)
        began = torch.as_tensor(self._elapsed == 0)[:, None]
        return {
            name: nobody if agents is None else fit(agents.cpu(), 1, nobody.shape[1]) & ~began
            for name, agents in zip(("collided", "offroad"), self._happened, strict=True)
        }

    def _current_entries(self) -> Info:
        state = self.state
        return {"step": state.step, "controlled": self._slots(state.controlled)}

    def _step_entries(self, outcome: Outcome) -> Info:
        entries = {"agent_rewards": outcome.agent_reward}
        if outcome.collision is not None:
            entries["collision"] = outcome.collision
        if outcome.offroad is not None:
            entries["offroad"] = outcome.offroad
        return {name: self._slots(entry) for name, entry in entries.items()}

    def _reset_entries(self) -> Info:
        episode = self.worlds.episode
        scenario = episode.state.scenario
        entries: Info = {
            "scenario_id": np.array(scenario.scenario_id, dtype=object),
            "scenario_index": self._indices.copy(),
            "num_agents_without_slot": scenario.agents.valid[:, self.worlds.sizes.max_agents :].sum(
                -1
            ),
        }
        if episode.points is not None:
            entries["num_map_points_left_out"] = episode.points.num_left_out
        return entries

    def _slots(self, entry: Tensor) -> Tensor:
        return fit(entry, 1, self.worlds.sizes.max_agents)

    def _mask(self, worlds: Sequence[int]) -> np.ndarray:
        mask = np.zeros(self.num_envs, dtype=np.bool_)
        mask[list(worlds)] = True
        return mask

    def _result(self, outcome: Outcome, info: Info) -> StepResult:
        reward = outcome.reward.double() if self.config.output == "numpy" else outcome.reward
        given = (self.worlds.observe(), reward, outcome.terminated, outcome.truncated)
        observation, reward, terminated, truncated = (self._returned(entry) for entry in given)
        self._show()
        return observation, reward, terminated, truncated, info

    def _returned(self, value: Any) -> Any:
        return to_numpy(value) if self.config.output == "numpy" else value


def _without(outcome: Outcome, worlds: np.ndarray) -> Outcome:
    """Clears what came of worlds that were not really played."""
    gone = torch.as_tensor(worlds, device=outcome.reward.device)
    return outcome.replace(
        reward=outcome.reward.masked_fill(gone, 0),
        terminated=outcome.terminated & ~gone,
        truncated=outcome.truncated & ~gone,
    )


def _positions(worlds: np.ndarray) -> tuple[int, ...]:
    return tuple(int(world) for world in worlds.nonzero()[0])

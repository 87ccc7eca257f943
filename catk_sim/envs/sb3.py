"""The environment as Stable-Baselines3 wants it: `pip install 'catk-sim[rl]'`.

from stable_baselines3 import PPO
from catk_sim.envs.sb3 import PresentRolloutBuffer, WaymoVecEnv

envs = WaymoVecEnv(32, controlled="sdc", action="bicycle", action_repeat=5)
PPO("MultiInputPolicy", envs, rollout_buffer_class=PresentRolloutBuffer).learn(100_000)
"""

import time
from collections.abc import Generator, Iterable, Sequence
from typing import Any, TypeVar

import gymnasium
import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from catk_sim.envs.episodes import AgentEpisodes, AgentStep
from catk_sim.envs.infos import to_numpy
from catk_sim.extras import needs_extra

with needs_extra("rl", "reinforcement learning"):
    from stable_baselines3.common.buffers import DictRolloutBuffer
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.type_aliases import DictRolloutBufferSamples
    from stable_baselines3.common.vec_env import VecEnv

Indices = int | Iterable[int] | None
Observation = dict[str, np.ndarray]
_Value = TypeVar("_Value")


class WaymoVecEnv(VecEnv):
    """Worlds side by side, as a `VecEnv` whose rows are agents.

    Row `world * agents_per_world + agent` is an agent of a world, or its sdc where that alone is
    controlled. It sees what `catk_sim.envs.views` says, and its episode is that of
    `catk_sim.envs.episodes.AgentEpisodes`: it ends at the goal, with a collision or off the road,
    or is cut off at the horizon (`TimeLimit.truncated`). A world starts anew, in the same step, as
    soon as nobody in it has an episode.

    A row without an agent is absent: there is none in this scenario, or its episode is over while
    others of its world go on. Its observation is zero, `present` in it too, its reward is 0, it is
    never done, and what it does is not looked at. `PresentRolloutBuffer` keeps such rows out of
    what is learnt.

    Infos have, of a row that is done:

        terminal_observation     what the agent saw last
        TimeLimit.truncated      whether the horizon cut it off
        episode                  sum of rewards "r", actions "l", and seconds "t", as of `Monitor`
        is_success               whether it reached the goal without a collision, on the road
        collision, offroad       whether it did so in the last step
        scenario_id, agent_id    whose episode it was

    All rows are one environment: attributes and methods are those of the `WaymoVectorEnv`.

    Args:
        num_worlds: How many worlds.
        ends_on: What ends an agent's episode: "goal", "collision", "offroad".
        **arguments: The fields of `EnvConfig`, except those that `AgentEpisodes` decides.
    """

    def __init__(
        self,
        num_worlds: int,
        *,
        ends_on: Sequence[str] = ("goal", "collision", "offroad"),
        **arguments: Any,
    ) -> None:
        self.episodes = AgentEpisodes(num_worlds, ends_on=ends_on, **arguments)
        self._slots = self.episodes.agents_per_world
        observation, action = self.episodes.spaces_of_agent()
        super().__init__(num_worlds * self._slots, observation, action)
        self._returns = np.zeros((num_worlds, self._slots))
        self._lengths = np.zeros((num_worlds, self._slots), dtype=np.int64)
        self._start = time.time()
        self._actions: np.ndarray | None = None

    @property
    def num_worlds(self) -> int:
        """How many worlds there are."""
        return self.episodes.num_worlds

    @override
    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seeds the next reset: the first world with this, each further one with one more."""
        if seed is None:
            seed = int(torch.randint(2**31, ()))
        self._seeds = [seed + row // self._slots for row in range(self.num_envs)]
        return self._seeds

    @override
    def reset(self) -> Observation:
        """Starts all worlds. `set_options` may have given `scenario_index` or `scenario`."""
        seeds = self._seeds[:: self._slots]
        given = self._options[:: self._slots]
        names = sorted({name for options in given for name in options})
        if any(set(options) != set(names) for options in given):
            raise ValueError(f"wanted the same options of every world, got {given}")
        options = {name: [one[name] for one in given] for name in names}
        self.episodes.reset(seed=seeds, options=options)
        self._reset_seeds()
        self._reset_options()
        self._note_start(np.ones(self.num_worlds, dtype=np.bool_))
        return self._observation()

    @override
    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.asarray(actions)

    @override
    def step_wait(self) -> tuple[Observation, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        assert self._actions is not None
        actions = self._actions.reshape(
            self.num_worlds, self._slots, *(self.action_space.shape or ())
        )
        present = self.episodes.present.cpu().numpy()
        step = self.episodes.step(actions)
        reward = step.reward.cpu().numpy().astype(np.float32)
        done = step.done.cpu().numpy()
        self._returns += reward
        self._lengths += present
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        if done.any():
            self._describe(step, done, infos)
            self.episodes.remove(step.done)
        empty = ~self.episodes.present.any(-1).cpu().numpy()
        if empty.any():
            self.episodes.reset(options={"reset_mask": empty})
            self._note_start(empty)
        return self._observation(), reward.reshape(-1).copy(), done.reshape(-1).copy(), infos

    @override
    def close(self) -> None:
        self.episodes.envs.close()

    @override
    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        return [getattr(self.episodes.envs, attr_name)] * len(self._rows(indices))

    @override
    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        self._refuse_some(indices)
        setattr(self.episodes.envs, attr_name, value)

    @override
    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls a method of the environment once. Every row gets the result."""
        self._refuse_some(indices)
        method = getattr(self.episodes.envs, method_name)
        return [method(*method_args, **method_kwargs)] * self.num_envs

    @override
    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper], indices: Indices = None
    ) -> list[bool]:
        """Tells that there is a `Monitor`, because infos have what it adds, and nothing else."""
        return [wrapper_class is Monitor] * len(self._rows(indices))

    @override
    def get_images(self) -> Sequence[np.ndarray | None]:
        """Draws the worlds, one picture each."""
        return self.episodes.envs.render() or [None] * self.num_worlds

    def _describe(self, step: AgentStep, done: np.ndarray, infos: list[dict[str, Any]]) -> None:
        seen = to_numpy(self.episodes.observe())
        labels = self.episodes.state.scenario.scenario_id
        told = {
            "TimeLimit.truncated": step.truncated,
            "is_success": step.success,
            "collision": step.collision,
            "offroad": step.offroad,
        }
        told = {name: values.cpu().numpy() for name, values in told.items()}
        agent_id = self.episodes.agent_id.cpu().numpy()
        for world, agent in zip(*done.nonzero(), strict=True):
            infos[world * self._slots + agent] = {
                **{name: bool(values[world, agent]) for name, values in told.items()},
                "terminal_observation": {name: rows[world, agent] for name, rows in seen.items()},
                "episode": {
                    "r": float(self._returns[world, agent]),
                    "l": int(self._lengths[world, agent]),
                    "t": round(time.time() - self._start, 6),
                },
                "scenario_id": labels[world],
                "agent_id": int(agent_id[world, agent]),
            }

    def _note_start(self, worlds: np.ndarray) -> None:
        self._returns[worlds] = 0
        self._lengths[worlds] = 0
        labels = self.episodes.state.scenario.scenario_id
        agent_id = self.episodes.agent_id.cpu().numpy()
        for row in np.repeat(worlds, self._slots).nonzero()[0]:
            world, agent = divmod(int(row), self._slots)
            self.reset_infos[row] = {
                "scenario_id": labels[world],
                "agent_id": int(agent_id[world, agent]),
            }

    def _observation(self) -> Observation:
        seen: dict[str, Tensor] = self.episodes.observe()
        return to_numpy({name: values.flatten(0, 1) for name, values in seen.items()})

    def _rows(self, indices: Indices) -> list[int]:
        return list(self._get_indices(indices))

    def _refuse_some(self, indices: Indices) -> None:
        rows = self._rows(indices)
        if sorted(set(rows)) != list(range(self.num_envs)):
            raise ValueError(f"all {self.num_envs} rows are one environment, got indices {rows}")


class PresentRolloutBuffer(DictRolloutBuffer):
    """The rollout buffer of `WaymoVecEnv`: it gives out present rows only.

    Batches are of equal size, as near to the wanted one as that allows, because how many rows are
    present differs between rollouts.
    """

    @override
    def get(self, batch_size: int | None = None) -> Generator[DictRolloutBufferSamples, None, None]:
        """Yields batches in random order.

        Raises:
            ValueError: If nobody was present.
        """
        assert self.full, "the rollout is not finished"
        if not self.generator_ready:
            self._keep_present()
        count = len(self.actions)
        batches = 1 if batch_size is None else max(1, round(count / batch_size))
        for rows in np.array_split(torch.randperm(count).numpy(), batches):
            yield self._get_samples(rows)

    def _keep_present(self) -> None:
        present = self.swap_and_flatten(self.observations["present"])[:, 0]
        if not present.any():
            raise ValueError("wanted agents to learn from, but nobody was present in a rollout")
        for name, values in self.observations.items():
            self.observations[name] = self.swap_and_flatten(values)[present]
        for name in ("actions", "values", "log_probs", "advantages", "returns"):
            setattr(self, name, self.swap_and_flatten(getattr(self, name))[present])
        self.generator_ready = True

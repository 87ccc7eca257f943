"""The arguments of the environment."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from catk_sim.constants import FUTURE_STEPS, STEPS_PER_TOKEN
from catk_sim.datatypes import Scenario
from catk_sim.rewards import REWARDS, Reward
from catk_sim.rollout import Policy
from catk_sim.tokens import MotionVocabulary

ACTIONS = ("token", "delta", "bicycle", "state")
CONTROLLED = ("all", "sdc", "to_predict")
OBSERVATIONS = ("scene", "sdc", "agents", "minimal")
INFRACTIONS = ("collision", "offroad")
RENDER_MODES = ("human", "rgb_array")


@runtime_checkable
class Scenarios(Protocol):
    """Scenarios that can be had in any order: a sequence, or a `ScenarioDataset`."""

    def __len__(self) -> int:
        """Tells how many there are."""
        ...

    def __getitem__(self, index: int, /) -> Scenario:
        """Returns one."""
        ...


Controlled = str | Tensor | Callable[[Scenario], Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class EnvConfig:
    """Every argument of `CatK-Waymo-v0`, with what it means."""

    data: str | Path | Scenarios | None = "synthetic"
    """What `open_scenarios` takes, or scenarios. With None every reset must be given its own."""
    action: str = "token"
    """What an action is: "token" (half a second), or "delta", "bicycle" or "state" (0.1 s)."""
    action_repeat: int = 1
    """How often in a row an action of "delta" or "bicycle" is applied."""
    controlled: Controlled = "all"
    """Who follows actions: "all", "sdc", "to_predict", a mask over the agents of every scenario, or
    a function from a scenario to its mask. Only agents that are valid at the current step can."""
    background: Policy | None = None
    """Who drives the other agents that are valid at the current step. By default they follow the
    log, as do, in any case, those that enter later."""
    reward: str | Reward | None = "log_imitation"
    """A name in `catk_sim.rewards.REWARDS`, a function like them, or None for no reward."""
    report: tuple[str, ...] = INFRACTIONS
    """Which infractions are looked for at every step: "collision", "offroad"."""
    terminate_on_collision: bool | None = None
    """Whether a collision of the sdc ends the episode. By default it does if the sdc is who is
    controlled."""
    horizon: int = FUTURE_STEPS
    """Steps (of 0.1 s) after which an episode is cut off."""
    observation: str | None = None
    """"scene" or "sdc" for full observations in that frame; "agents" for what each agent sees from
    where it is (`catk_sim.envs.views`), or the sdc alone if that is who is controlled; "minimal"
    for the step alone, which suits whoever reads `env.unwrapped.state`. By default "sdc" if that is
    who is controlled, else "scene"."""
    max_agents: int | None = None
    """Agents that actions, observations and infos have room for. By default as many as the largest
    scenario of the data has, or 128 without data. All are simulated, whether there is room or not:
    see `WaymoVectorEnv`."""
    max_map_points: int = 1024
    """Map points that observations have room for."""
    max_lights: int = 32
    """Traffic lights that observations have room for."""
    max_neighbors: int = 16
    """Other agents that each agent's view has room for, where the observation is "agents"."""
    vocabulary: str | Path | MotionVocabulary | None = None
    """The motion tokens, or a file of them; by default those of the package."""
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP
    """How the vector environment goes on after an episode, as Gymnasium documents it."""
    output: Literal["numpy", "torch"] = "numpy"
    """What the vector environment returns."""
    render_mode: str | None = None
    """"rgb_array" for pictures from above, "human" for a window in which `reset` and `step` show
    all worlds, in real time at most. It opens at the first reset and needs a display."""
    device: torch.device | str = "cpu"
    """Where it is simulated."""
    dtype: torch.dtype = torch.float32
    """Precision of the simulation."""
    seed: int | None = None
    """Seed of the first reset, for users who cannot pass one to `reset`. World i adds i."""

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        _one_of("action", self.action, ACTIONS)
        _one_of("output", self.output, ("numpy", "torch"))
        if isinstance(self.controlled, str):
            _one_of("controlled", self.controlled, CONTROLLED)
        if isinstance(self.reward, str):
            _one_of("reward", self.reward, tuple(REWARDS))
        if self.observation is not None:
            _one_of("observation", self.observation, OBSERVATIONS)
        if self.render_mode is not None:
            _one_of("render_mode", self.render_mode, RENDER_MODES)
        for name in self.report:
            _one_of("report", name, INFRACTIONS)
        AutoresetMode(self.autoreset_mode)
        self._check_numbers()

    def _check_numbers(self) -> None:
        if self.ends_on_collision and "collision" not in self.report:
            raise ValueError("terminate_on_collision needs 'collision' in report")
        counts = ("max_agents", "max_map_points", "max_lights", "max_neighbors", "horizon")
        for name in (*counts, "action_repeat"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.action_repeat > 1 and self.action not in ("delta", "bicycle"):
            raise ValueError(f"action_repeat is for delta and bicycle, got {self.action!r}")
        per_action = STEPS_PER_TOKEN if self.action == "token" else self.action_repeat
        if self.horizon % per_action:
            raise ValueError(f"horizon must be a multiple of {per_action}, got {self.horizon}")
        if not self.dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating type, got {self.dtype}")

    @property
    def ends_on_collision(self) -> bool:
        """Whether a collision of the sdc ends the episode."""
        if self.terminate_on_collision is None:
            return self.controls_sdc and "collision" in self.report
        return self.terminate_on_collision

    @property
    def controls_sdc(self) -> bool:
        """Whether the sdc is the one controlled agent, so that there is one action per world."""
        return isinstance(self.controlled, str) and self.controlled == "sdc"

    @property
    def observation_kind(self) -> str:
        """The observation, with its default resolved."""
        return self.observation or ("sdc" if self.controls_sdc else "scene")

    @property
    def reward_function(self) -> Reward | None:
        """The reward, looked up by name."""
        return REWARDS[self.reward] if isinstance(self.reward, str) else self.reward


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")

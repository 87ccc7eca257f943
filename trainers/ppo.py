"""Reinforcement learning: PPO of the ego, or of all vehicles with shared parameters.

python -m trainers.ppo [preset] [--field value ...]

Stable-Baselines3's PPO (Schulman et al., arXiv:1707.06347) on `catk_sim.envs.sb3.WaymoVecEnv`. An
agent succeeds if it comes within `GOAL_RADIUS` of where the log has it last, before the horizon and
without a collision or leaving the road on the way: what GPUDrive counts (arXiv:2408.01584). Success
is measured before and after, on held-out scenarios, with the most likely actions. The model is
`model.zip` in the run's folder, which `policies.sb3.load_policy` reads.
"""

import dataclasses
import json
import math
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from typing_extensions import override

from catk_sim.constants import CURRENT_STEP, FUTURE_STEPS
from catk_sim.datasets.scenario_dataset import prepare_if_needed
from catk_sim.datatypes import Scenario
from catk_sim.envs.episodes import AgentEpisodes, MovingVehicles
from catk_sim.envs.infos import to_numpy
from catk_sim.extras import needs_extra
from catk_sim.rewards import Goals, ReachGoal
from policies.registry import make_policy
from trainers.cli import parse_preset, run_trainer
from trainers.run_log import RunLog

try:
    with needs_extra("rl", "reinforcement learning"):
        from stable_baselines3 import PPO
        from stable_baselines3.common.logger import KVWriter, Logger

    from catk_sim.envs.sb3 import PresentRolloutBuffer, WaymoVecEnv
    from policies.sb3 import ViewEncoder, save_model
except ImportError as error:
    if __name__ != "__main__":
        raise
    # What is to be installed, in one line, as other commands say it.
    sys.exit(f"error: {error}")


@runtime_checkable
class Predictor(Protocol):
    """What is measured: any model of Stable-Baselines3."""

    def predict(
        self, observation: dict[str, np.ndarray], *, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Chooses an action for every row."""
        ...


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """A run of PPO."""

    agents: Literal["sdc", "vehicles"] = "sdc"
    """Who learns: the ego among others, or every vehicle with somewhere to go, the `max_agents`
    nearest to the ego, all with the same network."""

    max_agents: int = 8
    """Vehicles of a world that learn at most, if they all do."""

    traffic: str = "log"
    """Who drives the others: "log", a name of `policies.registry`, or a model.zip."""

    data: str = "synthetic:256"
    """Scenarios to learn from. See `trainers.bc --help`."""

    validation_data: str = "synthetic:96:1"
    """Scenarios to measure success on."""

    cache: Path = Path("runs/cache")
    """Folder for parsed scenarios, so that a source is read once."""

    output: Path = Path("runs/ppo")
    """Folder for the model, logs and results. One with a run in it is refused."""

    min_distance: float = 5.0
    """How far the goals of learners are at least (m). Whoever starts at its goal succeeds at once,
    and shows nothing."""

    action: Literal["bicycle", "delta"] = "bicycle"
    """What an action is. See `EnvConfig`."""

    action_repeat: int = 5
    """Steps (of 0.1 s) for which an action is held."""

    horizon: int = FUTURE_STEPS
    """Steps (of 0.1 s) of an episode."""

    reward: ReachGoal = field(default_factory=ReachGoal)
    """What is rewarded, and how much."""

    num_worlds: int = 64
    """Worlds side by side."""

    num_decisions: int = 100_000
    """Actions to learn from, of all agents; those of absent agents count too."""

    decisions_per_update: int = 16
    """Actions of each agent between updates."""

    batch_size: int = 256
    """Actions of a gradient step."""

    num_epochs: int = 5
    """Passes over the actions of an update."""

    learning_rate: float = 7e-4
    """Learning rate of Adam at the start. It falls to zero."""

    gamma: float = 0.97
    """Discount of an action."""

    gae_lambda: float = 0.95
    """Discount of generalised advantage estimation (arXiv:1506.02438)."""

    clip_range: float = 0.2
    """How far a probability may move from 1 as a ratio."""

    entropy: float = 0.0
    """Weight of the entropy."""

    exploration: tuple[float, ...] = (0.3, 0.08)
    """Standard deviation of each part of an action at the start, in the units of the action space.
    A bicycle's action of 1 is 6 m/s^2 and a curve of 3.3 m radius: steering needs less."""

    hidden_dim: int = 64
    """Width of the network."""

    seed: int = 0
    """Seed of every random draw."""

    cpu_threads: int = 1
    """Threads that torch may use."""

    device: str = "cpu"
    """Where the network learns. The worlds are on the CPU."""

    def __post_init__(self) -> None:
        counts = ("max_agents", "num_worlds", "num_decisions", "decisions_per_update", "num_epochs")
        for name in (*counts, "batch_size", "cpu_threads", "hidden_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        num_parts = {"bicycle": 2, "delta": 3}[self.action]
        if len(self.exploration) != num_parts or min(self.exploration) <= 0:
            raise ValueError(
                f"exploration must be {num_parts} numbers above 0 for {self.action}, "
                f"got {self.exploration}"
            )


def ego() -> PPOConfig:
    """The ego alone, in five minutes of one core. The others replay the log."""
    return PPOConfig()


def shared() -> PPOConfig:
    """Up to eight vehicles of each world, all with the same network."""
    return PPOConfig(agents="vehicles", num_worlds=16)


def debug() -> PPOConfig:
    """Seconds: the same steps on next to nothing."""
    return PPOConfig(
        data="synthetic:6",
        validation_data="synthetic:4:1",
        num_worlds=4,
        num_decisions=128,
        batch_size=32,
        hidden_dim=16,
    )


PRESETS = {preset.__name__: preset for preset in (ego, shared, debug)}


@dataclass(frozen=True, kw_only=True)
class Score:
    """What became of the episodes of agents. Rates are shares of them."""

    episodes: int
    """Agents that were driven."""
    success: float
    """Who reached its goal without a collision or leaving the road."""
    collision: float
    """Who collided."""
    offroad: float
    """Who left the road, and did not collide in the same action."""

    @property
    def late(self) -> float:
        """Who did none of these until the horizon."""
        return 1 - self.success - self.collision - self.offroad


def make_worlds(config: PPOConfig, scenarios: list[Scenario], num_worlds: int) -> dict[str, Any]:
    """Makes the arguments of `AgentEpisodes` and `WaymoVecEnv`."""
    return {
        "num_worlds": num_worlds,
        "data": scenarios,
        "controlled": "sdc" if config.agents == "sdc" else _learners(config),
        "max_agents": None if config.agents == "sdc" else config.max_agents,
        "background": None if config.traffic == "log" else make_policy(config.traffic),
        "action": config.action,
        "action_repeat": config.action_repeat,
        "horizon": config.horizon,
        "reward": config.reward,
        "seed": config.seed,
    }


def load_scenarios(config: PPOConfig, data: str) -> list[Scenario]:
    """Reads the scenarios in which somebody has somewhere to go.

    Raises:
        ValueError: There is none.
    """
    everything = prepare_if_needed(data, config.cache, dtype=torch.float64)
    scenarios = [everything[index].to(torch.float32) for index in range(len(everything))]
    kept = [scenario for scenario in scenarios if _has_learner(config, scenario)]
    if not kept:
        raise ValueError(f"in {data} no learner has {config.min_distance} m or more to go")
    return kept


def make_model(config: PPOConfig, envs: WaymoVecEnv) -> PPO:
    """Makes a model with weights drawn from the seed. At first it keeps speed and heading."""
    num_rows = config.decisions_per_update * envs.num_envs
    peak = config.learning_rate
    with warnings.catch_warnings():
        # It warns of a small last batch, which `PresentRolloutBuffer` does not make.
        warnings.filterwarnings("ignore", message="You have specified a mini-batch size")
        model = PPO(
            "MultiInputPolicy",
            envs,
            learning_rate=lambda remaining: peak * remaining,
            n_steps=config.decisions_per_update,
            batch_size=min(config.batch_size, num_rows),
            n_epochs=config.num_epochs,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip_range,
            ent_coef=config.entropy,
            rollout_buffer_class=PresentRolloutBuffer,
            policy_kwargs={
                "features_extractor_class": ViewEncoder,
                "features_extractor_kwargs": {"hidden_dim": config.hidden_dim},
                "net_arch": [config.hidden_dim] * 2,
            },
            seed=config.seed,
            device=config.device,
        )
    with torch.no_grad():
        log_std = model.policy.get_parameter("log_std")
        log_std.copy_(torch.tensor(config.exploration).log())
    return model


def measure(
    model: Predictor, config: PPOConfig, scenarios: list[Scenario], *, batch_size: int = 32
) -> Score:
    """Drives every scenario once, with the most likely actions, and counts what happened."""
    counts = np.zeros(4, dtype=np.int64)
    for start in range(0, len(scenarios), batch_size):
        part = scenarios[start : start + batch_size]
        episodes = AgentEpisodes(**make_worlds(config, part, len(part)))
        episodes.reset(seed=config.seed, options={"scenario_index": np.arange(len(part))})
        counts += _drive(model, episodes, config.horizon // config.action_repeat)
    episodes, *happened = counts.tolist()
    success, collision, offroad = (count / episodes for count in happened)
    return Score(episodes=episodes, success=success, collision=collision, offroad=offroad)


def train(config: PPOConfig, folder: Path) -> dict[str, Score]:
    """Runs PPO, saves the model, and measures it before and after."""
    torch.set_num_threads(config.cpu_threads)
    scenarios = load_scenarios(config, config.data)
    held_out = load_scenarios(config, config.validation_data)
    envs = WaymoVecEnv(**make_worlds(config, scenarios, config.num_worlds))
    model = make_model(config, envs)
    scores = {"before": measure(model, config, held_out)}
    log = RunLog(folder, "ppo")
    model.set_logger(Logger(str(folder), [_LogWriter(log)]))
    try:
        model.learn(config.num_decisions)
        # What the last update tells is otherwise written with the next one.
        model.logger.dump(model.num_timesteps)
    finally:
        log.close()
    save_model(model, folder / "model.zip")
    scores["after"] = measure(model, config, held_out)
    return scores


class _LogWriter(KVWriter):
    """Stable-Baselines3's figures in the log that all trainers write."""

    def __init__(self, log: RunLog) -> None:
        self._log = log

    @override
    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        numbers = {
            name: float(value)
            for name, value in key_values.items()
            if isinstance(value, int | float | np.number) and math.isfinite(value)
        }
        self._log.write(step, **numbers, cpu_seconds=time.process_time())

    @override
    def close(self) -> None:
        """Leaves the log to whoever opened it."""


def _learners(config: PPOConfig) -> MovingVehicles:
    return MovingVehicles(max_count=config.max_agents, min_distance=config.min_distance)


def _has_learner(config: PPOConfig, scenario: Scenario) -> bool:
    if config.agents == "vehicles":
        return bool(_learners(config)(scenario).any())
    goals = Goals.from_log(scenario.log)
    distance = (goals.xy - scenario.log.xy[:, CURRENT_STEP]).norm(dim=-1)
    present = scenario.log.valid[:, CURRENT_STEP] & scenario.agents.is_sdc & goals.valid
    return bool((present & (distance >= config.min_distance)).any())


def _drive(model: Predictor, episodes: AgentEpisodes, num_actions: int) -> np.ndarray:
    counts = np.zeros(4, dtype=np.int64)
    for _ in range(num_actions):
        seen = episodes.observe()
        rows: dict[str, np.ndarray] = to_numpy(
            {name: values.flatten(0, 1) for name, values in seen.items()}
        )
        actions, _ = model.predict(rows, deterministic=True)
        shape = tuple(episodes.present.shape)
        step = episodes.step(actions.reshape(*shape, *actions.shape[1:]))
        counts += [
            int(which.sum())
            for which in (step.done, step.success, step.collision, step.offroad & ~step.collision)
        ]
        episodes.remove(step.done)
    return counts


def print_table(scores: Mapping[str, Score], config: PPOConfig) -> None:
    """Prints what was measured."""
    count = next(iter(scores.values())).episodes
    who = "the ego" if config.agents == "sdc" else "vehicles"
    caption = f"{count} episodes of {who}, {config.validation_data}, traffic: {config.traffic}"
    table = Table(caption=caption, caption_justify="left")
    for heading in ("", "success", "collision", "off-road", "too late"):
        table.add_column(heading, justify="right")
    for name, score in scores.items():
        figures = (score.success, score.collision, score.offroad, score.late)
        table.add_row(name, *(f"{figure:.3f}" for figure in figures))
    Console(emoji=False).print(table)


def main(args: list[str]) -> None:
    """Runs the training that the command line asks for."""
    config: PPOConfig = parse_preset(PRESETS, "ego", args, prog="python -m trainers.ppo")
    folder = config.output
    if (folder / "config.json").exists():
        raise ValueError(f"{folder} has a run in it: choose another --output")
    folder.mkdir(parents=True, exist_ok=True)
    note = json.dumps(dataclasses.asdict(config), indent=2, default=str)
    (folder / "config.json").write_text(note + "\n")
    sys.stdout.write(f"learning in {folder}\n")
    scores = train(config, folder)
    record = {name: dataclasses.asdict(score) for name, score in scores.items()}
    (folder / "metrics.json").write_text(json.dumps(record, indent=2) + "\n")
    print_table(scores, config)


if __name__ == "__main__":
    run_trainer(main)

"""Which scenarios an environment plays, and in what order."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from catk_sim.constants import CURRENT_STEP
from catk_sim.datasets.parts import CachePart
from catk_sim.datasets.scenario_dataset import ScenarioDataset
from catk_sim.datasets.sources import open_scenarios
from catk_sim.datatypes import Scenario, TensorTree, Trajectory
from catk_sim.envs.config import Controlled, EnvConfig, Scenarios


class ScenarioOrder:
    """The order in which a world plays the data: shuffled, each scenario once before any again."""

    def __init__(self) -> None:
        self._remaining: list[int] = []

    def restart(self) -> None:
        """Forgets what was played. Called when the world is seeded."""
        self._remaining = []

    def next(self, num_scenarios: int, random: np.random.Generator) -> int:
        """Draws the next scenario."""
        if not self._remaining:
            self._remaining = random.permutation(num_scenarios).tolist()
        return self._remaining.pop()


def load_data(config: EnvConfig) -> Scenarios:
    """Opens the data of an environment.

    A prepared cache is read as it is played. Anything else is read into memory at once, because it
    can only be read in order: prepare a cache of what is large.

    Raises:
        ValueError: If there is no scenario.
    """
    if config.data is None:
        return ()
    if not isinstance(config.data, str | Path):
        data = config.data
    else:
        data = _open(config.data, config.dtype)
    if len(data) == 0:
        raise ValueError(f"there are no scenarios in {config.data!r}")
    return data


def most_agents(data: Scenarios) -> int:
    """Finds how many agents the largest scenario has. Without any scenario, a usual number."""
    if len(data) == 0:
        return 128
    if isinstance(data, ScenarioDataset):  # It knows without reading.
        return max(size.agents for size in data.sizes)
    return max(data[index].log.num_agents for index in range(len(data)))


def _open(path: str | Path, dtype: torch.dtype) -> Scenarios:
    source = open_scenarios(path)
    folders = {part.folder for part in source.parts if isinstance(part, CachePart)}
    if folders:
        return ScenarioDataset(folders.pop(), dtype=dtype)
    return [scenario.to(dtype) for scenario in source]


def select_controlled(choice: Controlled, scenario: Scenario) -> Bool[Tensor, "*batch agents"]:
    """Finds the agents that follow actions, among those that are valid at the current step."""
    present = scenario.agents.valid & scenario.log.valid[..., CURRENT_STEP]
    if isinstance(choice, str):
        chosen = {
            "all": scenario.agents.valid,
            "sdc": scenario.agents.is_sdc,
            "to_predict": scenario.agents.to_predict,
        }[choice]
    elif isinstance(choice, Tensor):
        chosen = _checked(choice, present)
    else:
        chosen = _checked(choice(scenario), present)
    return present & chosen


def arrange_agents(
    scenario: Scenario, controlled: Bool[Tensor, " agents"], max_agents: int
) -> tuple[Scenario, Bool[Tensor, " agents"]]:
    """Puts those agents first that an environment with little room must show.

    Scenarios with at most `max_agents` agents stay as they are. In others the controlled agents
    come first, then the sdc and the others by their distance to it at the current step, and last
    those that are absent then.

    Raises:
        ValueError: If more than `max_agents` agents are controlled.
    """
    num_agents = controlled.shape[0]
    if num_agents <= max_agents:
        return scenario, controlled
    num_controlled = int(controlled.sum())
    if num_controlled > max_agents:
        raise ValueError(
            f"scenario {scenario.scenario_id[0]!r} has {num_controlled} agents to control, more "
            f"than max_agents={max_agents}: raise max_agents, or control fewer"
        )
    order = _rank(scenario, controlled).argsort(stable=True)
    return _permute_agents(scenario, order), controlled[order]


def _rank(scenario: Scenario, controlled: Bool[Tensor, " agents"]) -> Tensor:
    xy, present = scenario.log.xy[:, CURRENT_STEP], scenario.log.valid[:, CURRENT_STEP]
    # Without an sdc that is present, distances count from the origin, which is where it would be.
    center = (xy * (scenario.agents.is_sdc & present)[:, None]).sum(0)
    distance = (xy - center).norm(dim=-1)
    distance = torch.where(present, distance, torch.inf)
    return torch.where(controlled, -1.0, distance)


def _permute_agents(scenario: Scenario, order: Tensor) -> Scenario:
    log: Trajectory = scenario.log.map(lambda tensor: tensor[order])
    agents: TensorTree = scenario.agents.map(lambda tensor: tensor[order])
    return scenario.replace(log=log, agents=agents, log_size=scenario.log_size[order])


def _checked(mask: Tensor, present: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        raise ValueError(f"a mask of controlled agents must be boolean, got {mask.dtype}")
    mask = mask.to(present.device)
    if mask.shape == present.shape:
        return mask
    # One mask for scenarios of different sizes: beyond its end nobody is controlled.
    if mask.dim() == 1:
        num_agents = present.shape[-1]
        row = mask.new_zeros(num_agents)
        count = min(num_agents, mask.shape[0])
        row[:count] = mask[:count]
        return row.expand(present.shape)
    raise ValueError(
        f"a mask of controlled agents must have shape {tuple(present.shape)} or one dimension, "
        f"got {tuple(mask.shape)}"
    )

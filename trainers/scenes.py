"""Scenarios as a token model learns from them: tokenised once, batched at every step."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from catk_sim.constants import NUM_STEPS
from catk_sim.datasets.bucketing import BucketBatchSampler
from catk_sim.datasets.schema import ScenarioSize
from catk_sim.datatypes import RoadGraph, Scenario, TensorTree
from catk_sim.tokens import MotionVocabulary, TokenizedLog, match_trajectory
from catk_sim.tokens.cleaning import train_mask
from catk_sim.tokens.matching import prepare
from policies.smart.map_tokens import MapTokens, tokenize_map
from policies.smart.map_vocabulary import map_vocabulary
from trainers.distributed import share, world_size
from trainers.seeds import seed_of

SDC_RADIUS = 150.0
"""Agents at least this far (m) from the sdc are hidden in training (arXiv:2412.05334)."""

Tree = TypeVar("Tree", bound=TensorTree)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene(TensorTree):
    """A scenario with everything that training reads.

    Attributes:
        scenario: What was logged, in float32; the log is mended and limited to the surroundings of
            the sdc, and the map is left out, since training reads it as tokens.
        tokenized: The log as tokens.
        map_tokens: The map as tokens.
        learned: The agents that carry loss: some are drawn, anew each time that `batches` yields
            the scene.
    """

    scenario: Scenario
    tokenized: TokenizedLog
    map_tokens: MapTokens
    learned: Bool[Tensor, "*batch agents"]

    def draw_learned(self, max_agents: int, seed: int) -> "Scene":
        """Draws the agents that carry loss. See `train_mask`."""
        log, agents = self.scenario.log, self.scenario.agents
        generator = torch.Generator().manual_seed(seed)
        return self.replace(
            learned=train_mask(log, agents, max_agents=max_agents, generator=generator)
        )


def make_scene(scenario: Scenario, vocabulary: MotionVocabulary) -> Scene:
    """Tokenises a scenario.

    Raises:
        ValueError: The log has no future to learn from, as in WOMD's test split.
    """
    if scenario.log.num_steps != NUM_STEPS:
        raise ValueError(
            f"training wants scenarios of {NUM_STEPS} steps, and {scenario.scenario_id[0]} has "
            f"{scenario.log.num_steps}: WOMD's test split has no future to learn from"
        )
    scenario = scenario.to(torch.float32)
    log = prepare(scenario.log, scenario.agents, sdc_radius=SDC_RADIUS)
    generator = torch.Generator().manual_seed(0)
    return Scene(
        scenario=scenario.replace(log=log, roadgraph=_no_map(scenario.roadgraph)),
        tokenized=match_trajectory(log, scenario.agents, vocabulary),
        map_tokens=tokenize_map(scenario.roadgraph, scenario.traffic_lights, map_vocabulary()),
        learned=train_mask(log, scenario.agents, generator=generator),
    )


@runtime_checkable
class Scenarios(Protocol):
    """Anything that gives scenarios by index: a `ScenarioDataset`, a list."""

    def __getitem__(self, index: int, /) -> Scenario:
        """Returns a scenario."""
        ...


class SceneDataset(Dataset[Scene]):
    """Scenes of some scenarios. Each is made when it is first asked for and then kept.

    Args:
        scenarios: The scenarios, by index.
        indices: Which of them.
        vocabulary: The motion vocabulary.
        sizes: How large each of these is. By default all are taken to be alike.
        max_kept: Scenes that are kept in memory. Further ones are made anew each time.
    """

    def __init__(
        self,
        scenarios: Scenarios,
        indices: Sequence[int],
        vocabulary: MotionVocabulary,
        *,
        sizes: Sequence[ScenarioSize] | None = None,
        max_kept: int = 2000,
    ) -> None:
        self._scenarios = scenarios
        self._indices = list(indices)
        self._vocabulary = vocabulary
        self._max_kept = max_kept
        self._kept: dict[int, Scene] = {}
        self.sizes = [_ALIKE] * len(self._indices) if sizes is None else list(sizes)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Scene:
        if index in self._kept:
            return self._kept[index]
        scene = make_scene(self._scenarios[self._indices[index]], self._vocabulary)
        if len(self._kept) < self._max_kept:
            # A copy, which does not keep alive what the scene is a part of, such as the map.
            scene = self._kept[index] = scene.map(torch.clone)
        return scene


_ALIKE = ScenarioSize(agents=1, steps=1, points=1, features=1, links=1, lights=1)


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How scenes are put into batches.

    Attributes:
        batch_size: Scenes in a batch of all processes together; fewer only where there are fewer
            scenes in all.
        seed: Decides the order, and with it which agents of a scene carry loss.
        max_learned_agents: Agents of a scene that carry loss. See `train_mask`.
        part_size: Scenes of a part at most, or None for no limit.
        batches_per_pool: Batches that are drawn together and then cut by size. See
            `BucketBatchSampler`.
    """

    batch_size: int
    seed: int
    max_learned_agents: int = 32
    part_size: int | None = None
    batches_per_pool: int = 1


def batches(
    scenes: SceneDataset, plan: BatchPlan, *, first: int = 0, workers: int = 0
) -> Iterator[list[Scene]]:
    """Yields batches without end, every scene once an epoch: of each, this process's share.

    What a batch holds depends on nothing but the scenes, the plan and its number, and on no other
    random draw: not on the number of processes, nor on how the share of each is cut into parts.

    Args:
        scenes: What to draw from.
        plan: Into what batches.
        first: Batches to leave out at the start, because a resumed run has seen them.
        workers: Processes that make scenes ahead of time; with 0, they are made when needed.

    Yields:
        The share, in parts that are worked through one after the other.

    Raises:
        ValueError: There are fewer scenes in a batch than processes.
    """
    batch_size = min(plan.batch_size, len(scenes))
    if batch_size < world_size():
        raise ValueError(
            f"wanted a scene in each batch for each of {world_size()} processes, got "
            f"{batch_size} in all"
        )
    share_size = len(share(range(batch_size)))
    num_parts = math.ceil(share_size / (plan.part_size or share_size))
    parts = iter(
        DataLoader(
            _Drawn(scenes, plan.max_learned_agents),
            batch_sampler=_Order(scenes.sizes, plan, batch_size, num_parts, first),
            collate_fn=collate_scenes,
            num_workers=workers,
        )
    )
    while True:
        yield list(islice(parts, num_parts))


class _Draw(NamedTuple):
    """A scene of a batch, and the seed of what is drawn for it."""

    scene: int
    seed: int


class _Drawn(Dataset[Scene]):
    """Scenes with the agents that carry loss drawn."""

    def __init__(self, scenes: SceneDataset, max_learned_agents: int) -> None:
        self._scenes = scenes
        self._max_learned_agents = max_learned_agents

    def __getitem__(self, draw: _Draw) -> Scene:
        return self._scenes[draw.scene].draw_learned(self._max_learned_agents, draw.seed)


class _Order(Sampler[list[_Draw]]):
    """The scenes of each part of this process's shares, from some batch on."""

    def __init__(
        self,
        sizes: Sequence[ScenarioSize],
        plan: BatchPlan,
        batch_size: int,
        num_parts: int,
        first: int,
    ) -> None:
        self._batches = BucketBatchSampler(
            sizes,
            batch_size,
            seed=plan.seed,
            batches_per_pool=plan.batches_per_pool,
            drop_last=True,
        )
        self._seed = plan.seed
        self._num_parts = num_parts
        self._first = first

    def __iter__(self) -> Iterator[list[_Draw]]:
        number = self._first
        self._batches.seek(*divmod(number, self._batches.batches_per_epoch))
        while True:
            for batch in self._batches:
                mine = [_Draw(index, seed_of(self._seed, number, index)) for index in share(batch)]
                for part in range(self._num_parts):
                    yield mine[part :: self._num_parts]
                number += 1


def collate_scenes(scenes: Sequence[Tree]) -> Tree:
    """Pads every dimension to the largest of the batch, with zeros and false, and stacks.

    The records must pad well: what zeros refer to must exist, and absence be said by a mask.
    """
    changes: dict[str, Any] = {}
    for field in fields(scenes[0]):
        values = [getattr(scene, field.name) for scene in scenes]
        if isinstance(values[0], TensorTree):
            changes[field.name] = collate_scenes(values)
        elif isinstance(values[0], Tensor):
            changes[field.name] = _pad_and_stack(values)
        elif isinstance(values[0], tuple):
            changes[field.name] = tuple(label for value in values for label in value)
    return replace(scenes[0], **changes)


def _pad_and_stack(tensors: list[Tensor]) -> Tensor:
    shape = [max(lengths) for lengths in zip(*(tensor.shape for tensor in tensors), strict=True)]
    batch = tensors[0].new_zeros(len(tensors), *shape)
    for row, tensor in zip(batch, tensors, strict=True):
        row[tuple(slice(length) for length in tensor.shape)] = tensor
    return batch


def _no_map(roadgraph: RoadGraph) -> RoadGraph:
    def nothing(tensor: Tensor) -> Tensor:
        return tensor[:0]

    # One feature stays, so that padded points, if any, have a feature to belong to.
    return roadgraph.map(nothing).replace(
        feature_id=roadgraph.feature_id.new_zeros(1),
        feature_type=roadgraph.feature_type.new_zeros(1),
        speed_limit=roadgraph.speed_limit.new_zeros(1),
        interpolating=roadgraph.interpolating.new_zeros(1),
        feature_valid=roadgraph.feature_valid.new_zeros(1),
    )

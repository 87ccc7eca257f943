"""Scenarios as a token model learns from them: tokenised once, batched at every step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from catk_sim.constants import NUM_STEPS
from catk_sim.datatypes import RoadGraph, Scenario, TensorTree
from catk_sim.tokens import MotionVocabulary, TokenizedLog, match_trajectory
from catk_sim.tokens.matching import prepare
from policies.smart.map_tokens import MapTokens, tokenize_map
from policies.smart.map_vocabulary import map_vocabulary

SDC_RADIUS = 150.0
"""Agents at least this far (m) from the sdc are hidden in training (arXiv:2412.05334)."""

Tree = TypeVar("Tree", bound=TensorTree)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene(TensorTree):
    """A scenario with everything that training reads and that does not change between epochs.

    Attributes:
        scenario: What was logged, in float32; the log is mended and limited to the surroundings of
            the sdc, and the map is left out, since training reads it as tokens.
        tokenized: The log as tokens.
        map_tokens: The map as tokens.
    """

    scenario: Scenario
    tokenized: TokenizedLog
    map_tokens: MapTokens


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
    return Scene(
        scenario=scenario.replace(log=log, roadgraph=_no_map(scenario.roadgraph)),
        tokenized=match_trajectory(log, scenario.agents, vocabulary),
        map_tokens=tokenize_map(scenario.roadgraph, scenario.traffic_lights, map_vocabulary()),
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
        vocabulary: The motion vocabulary.
        max_kept: Scenes that are kept in memory. Further ones are made anew each time.
    """

    def __init__(
        self,
        scenarios: Scenarios,
        indices: Sequence[int],
        vocabulary: MotionVocabulary,
        *,
        max_kept: int = 2000,
    ) -> None:
        self._scenarios = scenarios
        self._indices = list(indices)
        self._vocabulary = vocabulary
        self._max_kept = max_kept
        self._kept: dict[int, Scene] = {}

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Scene:
        if index in self._kept:
            return self._kept[index]
        scene = make_scene(self._scenarios[self._indices[index]], self._vocabulary)
        if len(self._kept) < self._max_kept:
            self._kept[index] = scene
        return scene


def batches(
    scenes: SceneDataset, *, batch_size: int, seed: int, first: int, workers: int = 0
) -> Iterator[Scene]:
    """Yields batches without end, every scene once an epoch.

    Args:
        scenes: What to draw from.
        batch_size: Scenes in a batch; fewer only where there are fewer scenes in all.
        seed: Decides the order.
        first: Batches to leave out at the start, because a resumed run has seen them.
        workers: Processes that make scenes ahead of time; with 0, they are made when needed.
    """
    yield from DataLoader(
        scenes,
        batch_sampler=_Order(len(scenes), min(batch_size, len(scenes)), seed, first),
        collate_fn=collate_scenes,
        num_workers=workers,
    )


class _Order(Sampler[list[int]]):
    """The scenes of each batch, from some batch on. It depends on nothing but the arguments."""

    def __init__(self, num_scenes: int, size: int, seed: int, first: int) -> None:
        self._num_scenes = num_scenes
        self._size = size
        self._seed = seed
        self._first = first

    def __iter__(self) -> Iterator[list[int]]:
        per_epoch = self._num_scenes // self._size
        epoch, position = divmod(self._first, per_epoch)
        while True:
            generator = torch.Generator().manual_seed(self._seed + epoch)
            order = torch.randperm(self._num_scenes, generator=generator).tolist()
            for start in range(position * self._size, per_epoch * self._size, self._size):
                yield order[start : start + self._size]
            epoch, position = epoch + 1, 0


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

"""The worlds of an environment as one padded batch, of which some can be replaced."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from catk_sim.datasets.batching import collate
from catk_sim.datasets.schema import ScenarioSize, build, size_of
from catk_sim.datatypes import Scenario, SimState, TensorTree
from catk_sim.metrics.road_edges import FAR, RoadEdges
from catk_sim.observation import MapPoints


@dataclass(frozen=True, eq=False, kw_only=True)
class Episode(TensorTree):
    """A batch of worlds, and what is prepared once for each of their maps.

    Attributes:
        state: The simulation.
        points: What can be observed of the map; None if nobody looks.
        edges: The edges of the road; None if nobody asks who left it.
    """

    state: SimState
    points: MapPoints | None
    edges: RoadEdges | None


SMALLEST = ScenarioSize(agents=1, steps=1, points=2, features=1, links=0, lights=0)
"""So that what is prepared of a map need not know of empty ones."""


def collate_to(scenarios: Sequence[Scenario], size: ScenarioSize | None) -> Scenario:
    """Makes a batch that is at least as large as `size` in every dimension."""
    return at_least(collate(scenarios), size or SMALLEST)


def at_least(batch: Scenario, size: ScenarioSize) -> Scenario:
    """Adds padding where a batch is smaller than `size`."""
    given = size_of(batch)
    wanted = largest(given, size)
    return batch if wanted == given else pad_scenario(batch, wanted)


def largest(one: ScenarioSize, other: ScenarioSize) -> ScenarioSize:
    """Finds the larger of every dimension."""
    return ScenarioSize(*map(max, zip(one, other, strict=True)))


def pad_scenario(batch: Scenario, size: ScenarioSize) -> Scenario:
    """Adds padding to the end of every dimension."""
    return build(
        Scenario,
        lambda leaf: _pad(leaf.of(batch), (batch.batch_size, *leaf.shape(size))),
        lambda name: getattr(batch, name),
    )


def pad_state(state: SimState, size: ScenarioSize) -> SimState:
    """Adds padding to the end of every dimension. Padded agents are absent."""
    scenario = pad_scenario(state.scenario, size)

    def widen(tensor: Tensor) -> Tensor:
        return _pad(tensor, (tensor.shape[0], size.agents, *tensor.shape[2:]))

    return state.replace(
        scenario=scenario,
        history=state.history.map(widen),
        controlled=widen(state.controlled),
        last_action=state.last_action.map(widen),
    )


def replace_worlds(episode: Episode, worlds: Sequence[int], fresh: Episode) -> Episode:
    """Puts new worlds in the place of some. The sizes of the states must agree already.

    The old episode stays valid, as every record does.
    """
    if episode.edges is not None and fresh.edges is not None:
        num_groups = max(episode.edges.radius.shape[-1], fresh.edges.radius.shape[-1])
        episode = episode.replace(edges=_pad_edges(episode.edges, num_groups))
        fresh = fresh.replace(edges=_pad_edges(fresh.edges, num_groups))
    index = torch.tensor(list(worlds), device=episode.state.step.device)
    members: list[Tensor] = []
    fresh.map(lambda tensor: (members.append(tensor), tensor)[1])
    following = iter(members)
    merged = episode.map(lambda tensor: tensor.index_copy(0, index, next(following)))
    labels = {name: _relabel(episode, worlds, fresh, name) for name in ("scenario_id", "lacks")}
    state = merged.state
    return merged.replace(state=state.replace(scenario=state.scenario.replace(**labels)))


def _relabel(episode: Episode, worlds: Sequence[int], fresh: Episode, name: str) -> tuple[str, ...]:
    labels = list(getattr(episode.state.scenario, name))
    for world, label in zip(worlds, getattr(fresh.state.scenario, name), strict=True):
        labels[world] = label
    return tuple(labels)


def _pad_edges(edges: RoadEdges, num_groups: int) -> RoadEdges:
    missing = num_groups - edges.radius.shape[-1]
    return RoadEdges(
        segment=pad(edges.segment, (0, 0, 0, 0, 0, missing), value=FAR),
        previous=pad(edges.previous, (0, 0, 0, missing)),
        following=pad(edges.following, (0, 0, 0, missing)),
        center=pad(edges.center, (0, 0, 0, missing), value=FAR),
        radius=pad(edges.radius, (0, missing), value=-torch.inf),
    )


def _pad(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tensor.shape == shape:
        return tensor
    padded = tensor.new_zeros(shape)
    padded[tuple(slice(length) for length in tensor.shape)] = tensor
    return padded

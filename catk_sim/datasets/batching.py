"""Scenarios of different sizes as one padded batch, and back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from catk_sim.datasets.schema import Leaf, ScenarioSize, build, size_of
from catk_sim.datatypes import Scenario


def collate(scenarios: Sequence[Scenario]) -> Scenario:
    """Pads scenarios to the largest of each dimension and stacks them.

    Padding is zero and, where a record says so, not valid. It changes nothing that is read through
    the masks, and its indices are legal: a batch has at least one map feature, if only padding.

    Raises:
        ValueError: If there is no scenario, if one has batch dimensions already, or if they differ
            in dtype.

    Example:
        >>> from itertools import islice
        >>> from catk_sim.datasets import open_scenarios
        >>> collate(list(islice(open_scenarios("synthetic"), 2))).batch_size
        2
    """
    if not scenarios:
        raise ValueError("collate needs at least one scenario, got none")
    for scenario in scenarios:
        _check_single(scenario)
    sizes = [size_of(scenario) for scenario in scenarios]
    # Padded points and links refer to feature 0.
    largest = ScenarioSize(*map(max, zip(*sizes, strict=True)))
    largest = largest._replace(features=max(largest.features, 1))
    return build(
        Scenario,
        lambda leaf: _pad_and_stack(leaf, [leaf.of(one) for one in scenarios], largest),
        lambda name: tuple(label for one in scenarios for label in getattr(one, name)),
    )


def uncollate(batch: Scenario) -> list[Scenario]:
    """Splits a batch into its scenarios and takes the padding off each.

    What counts as padding is what ends a dimension without being valid: agents, features, points
    and links by their masks, lights that are never observed, and steps after time stops rising.
    """
    members = [batch.select(index) for index in range(batch.batch_size)]
    return [_trim(member, _unpadded_size(member)) for member in members]


def _check_single(scenario: Scenario) -> None:
    shape = tuple(scenario.log.valid.shape)
    if len(shape) != 2:
        raise ValueError(
            f"collate takes scenarios without batch dimensions: log.valid of {shape} has "
            f"{len(shape)} dimensions, expected (agents, steps)"
        )


def _pad_and_stack(leaf: Leaf, tensors: list[Tensor], size: ScenarioSize) -> Tensor:
    first = tensors[0]
    batch = first.new_zeros(len(tensors), *leaf.shape(size))
    for row, tensor in zip(batch, tensors, strict=True):
        if tensor.dtype != first.dtype:
            raise ValueError(
                f"{leaf.name} is {first.dtype} in one scenario and {tensor.dtype} in another"
            )
        row[tuple(slice(length) for length in tensor.shape)] = tensor
    return batch


def _unpadded_size(scenario: Scenario) -> ScenarioSize:
    roadgraph = scenario.roadgraph
    rises = scenario.timestamps[1:] > scenario.timestamps[:-1]
    return ScenarioSize(
        agents=_used_length(scenario.agents.valid),
        steps=int(rises.int().cumprod(0).sum()) + min(1, scenario.timestamps.shape[0]),
        points=_used_length(roadgraph.point_valid),
        features=_used_length(roadgraph.feature_valid),
        links=_used_length(roadgraph.links.valid),
        lights=_used_length(scenario.traffic_lights.valid.any(-1)),
    )


def _used_length(valid: Tensor) -> int:
    used = torch.nonzero(valid)
    return int(used[-1]) + 1 if len(used) else 0


def _trim(scenario: Scenario, size: ScenarioSize) -> Scenario:
    return build(
        Scenario,
        lambda leaf: leaf.of(scenario)[tuple(slice(length) for length in leaf.shape(size))].clone(),
        lambda name: getattr(scenario, name),
    )

"""Passages: ways through a junction, and where two of them meet."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from catk_sim.datasets.synthetic.polylines import Points, arc_length, resample
from catk_sim.datasets.synthetic.road_network import Control, RoadNetwork

CLEARANCE = 2.9
"""Passages whose centre lines are nearer than this (m) cannot be used side by side."""

BIKE_CLEARANCE = 2.1
"""The same if one of them is a bike lane (m)."""

MERGING_LENGTH = 5.0
"""Where two ways merge, whoever is this far (m) behind the place is followed, not avoided."""


@dataclass(frozen=True, eq=False)
class Passage:
    """A way through a junction, from one street to another.

    Attributes:
        lanes: The lanes inside the junction.
        junction: Index of the junction.
        approach: The lane before.
        departure: The lane after.
        xy: Centre line (m), points 1 m apart.
    """

    lanes: tuple[int, ...]
    junction: int
    approach: int
    departure: int
    xy: Points


def find_passages(network: RoadNetwork) -> list[Passage]:
    """Lists every way through every junction."""
    passages = []
    for approach, lane in enumerate(network.lanes):
        if lane.junction < 0:
            for first in lane.exits:
                passages += _extend(network, approach, (first,))
    return passages


def _extend(network: RoadNetwork, approach: int, lanes: tuple[int, ...]) -> list[Passage]:
    found = []
    for following in network.lanes[lanes[-1]].exits:
        if following in lanes:
            continue
        if network.lanes[following].junction >= 0:
            found += _extend(network, approach, (*lanes, following))
        else:
            xy = resample(join_lanes(network, lanes), 1.0)
            junction = network.lanes[lanes[0]].junction
            found.append(Passage(lanes, junction, approach, following, xy))
    return found


def join_lanes(network: RoadNetwork, lanes: tuple[int, ...]) -> Points:
    """Returns the centre line of lanes that follow each other."""
    first, *others = (network.lanes[lane].xy for lane in lanes)
    return np.concatenate([first, *(xy[1:] for xy in others)])


@dataclass(frozen=True, eq=False)
class Conflicts:
    """Where passage i cannot be used together with passage j, as matrices (i, j).

    Attributes:
        start: Distance (m) along i at which it comes near j; infinite if never.
        end: Distance (m) along i at which it is clear of j again.
        other_start: Distance along j at which the place that `start` means begins.
        other_end: Distance along j at which it ends.
        reference: Distance along i of a point that i and j share.
        other_reference: Distance of that point along j.
        follows: Whether i and j run alongside there (they part or merge) and do not just cross.
        parts: Whether they come from the same lane.
    """

    start: Float[np.ndarray, "passages passages"]
    end: Float[np.ndarray, "passages passages"]
    other_start: Float[np.ndarray, "passages passages"]
    other_end: Float[np.ndarray, "passages passages"]
    reference: Float[np.ndarray, "passages passages"]
    other_reference: Float[np.ndarray, "passages passages"]
    follows: Bool[np.ndarray, "passages passages"]
    parts: Bool[np.ndarray, "passages passages"]


def find_conflicts(network: RoadNetwork, passages: list[Passage]) -> Conflicts:
    """Measures where the passages of each junction come near each other."""
    shape = len(passages), len(passages)
    conflicts = Conflicts(
        *(np.full(shape, value) for value in (np.inf, -np.inf, np.inf, -np.inf)),
        *np.zeros((2, *shape)),
        *np.zeros((2, *shape), dtype=bool),
    )
    for i, one in enumerate(passages):
        for j, other in enumerate(passages):
            if i == j or one.junction != other.junction:
                continue
            conflicts.parts[i, j] = one.approach == other.approach
            if network.junctions[one.junction].control is Control.YIELD:
                _note_entry(conflicts, (i, j), one, other, network)
            else:
                _note_meeting(conflicts, (i, j), one, other, network)
    return conflicts


def _distances(one: Passage, other: Passage) -> np.ndarray:
    separation = one.xy[:, None] - other.xy[None]
    return np.hypot(separation[..., 0], separation[..., 1])


def _note_meeting(
    conflicts: Conflicts, at: tuple[int, int], one: Passage, other: Passage, network: RoadNetwork
) -> None:
    bikes = any(network.lanes[passage.lanes[0]].is_bike_lane for passage in (one, other))
    near = _distances(one, other) < (BIKE_CLEARANCE if bikes else CLEARANCE)
    if not near.any():
        return
    mine, theirs = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    merges = one.departure == other.departure
    conflicts.follows[at] = merges or one.approach == other.approach
    conflicts.start[at], conflicts.other_start[at] = mine[0], theirs[0]
    conflicts.end[at], conflicts.other_end[at] = mine[-1] + 1.0, theirs[-1] + 1.0
    if merges:
        conflicts.reference[at] = arc_length(one.xy)[-1]
        conflicts.other_reference[at] = arc_length(other.xy)[-1]


def _note_entry(
    conflicts: Conflicts, at: tuple[int, int], one: Passage, other: Passage, network: RoadNetwork
) -> None:
    """Notes where `one` joins the roundabout, if `other` comes by there."""
    conflicts.follows[at] = True
    joins = arc_length(network.lanes[one.lanes[0]].xy)[-1]
    point = one.xy[min(round(joins), len(one.xy) - 1)]
    away = np.hypot(*(other.xy - point).T)
    if one.approach == other.approach:
        conflicts.start[at] = conflicts.other_start[at] = 0.0
        conflicts.end[at] = conflicts.other_end[at] = joins
    elif away.min() < CLEARANCE:
        passes = float(away.argmin())
        conflicts.start[at], conflicts.other_start[at] = joins - 6.0, passes - 6.0
        conflicts.end[at], conflicts.other_end[at] = joins + 2.0, passes + 2.0
        conflicts.reference[at], conflicts.other_reference[at] = joins, passes

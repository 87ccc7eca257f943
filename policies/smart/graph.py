"""Who attends to whom. The one ragged place: everything outside is padded and masked."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.geometry.se2 import wrap_angle
from policies.smart.native.geometry import Grid, relate, search
from policies.smart.native.library import takes

ANGLE_RANGE = (-math.pi, math.pi)
"""Least and largest angle (rad)."""

_CELLS_PER_RADIUS = 2
_WIDTHS = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)
# A bucket of its own costs as much time as this many slots of padding.
_BUCKET_COST = 512


@dataclass(frozen=True, eq=False, kw_only=True)
class Poses:
    """A flat list of poses. Poses of different groups do not see each other.

    Attributes:
        xy: Positions (m).
        heading: Directions (rad).
        group: Which scene, or which scene and mark, each pose belongs to.
    """

    xy: Float[Tensor, "poses 2"]
    heading: Float[Tensor, " poses"]
    group: Int[Tensor, " poses"]
    _grids: dict[float, Grid] = field(default_factory=dict, init=False, repr=False)

    def grid(self, radius: float) -> Grid:
        """Sorts the poses into cells, for who searches within a radius (m) again and again."""
        if radius not in self._grids:
            self._grids[radius] = self._sort(radius / _CELLS_PER_RADIUS)
        return self._grids[radius]

    def _sort(self, size: float) -> Grid:
        origin = self.xy.amin(dim=0)
        cell = ((self.xy - origin) / size).floor().to(torch.int64)
        shape = cell.amax(dim=0).flip(0) + 1
        key, order = ((self.group * shape[0] + cell[:, 1]) * shape[1] + cell[:, 0]).sort()
        return Grid(
            xy=self.xy.index_select(0, order),
            origin=origin,
            size=size,
            reach=_CELLS_PER_RADIUS,
            shape=shape,
            key=key,
            order=order,
        )


class Bucket(NamedTuple):
    """Destinations with about as many neighbours: a rectangle of slots."""

    rows: slice
    """Their places in the list of destinations."""

    slots: slice
    """Their slots in the flat list."""

    shape: tuple[int, int]
    """How many there are, and how many slots each has."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Neighbors:
    """Neighbours of a list of destinations, padded a little or not at all.

    Destinations with about as many neighbours form a bucket, a small rectangle of slots, one
    behind the other in a flat list. So attention is a batched matrix product for each bucket,
    without a padded neighbour for every real one and without scattering. Kernels that take rows of
    any length need no padding: then destinations are in order.

    Attributes:
        destination: The destinations that have neighbours, bucket by bucket.
        source: The neighbour in each slot; 0 in slots of padding.
        slot_destination: The destination that each slot belongs to.
        width: How many slots each destination has.
        is_padding: Whether a slot is padding.
        shapes: How many destinations each bucket has, and how many slots each of these has. None
            if nothing is padded: then a bucket is what has the same width.
    """

    destination: Int[Tensor, " rows"]
    source: Int[Tensor, " slots"]
    slot_destination: Int[Tensor, " slots"]
    width: Int[Tensor, " rows"]
    is_padding: Bool[Tensor, " slots"]
    shapes: tuple[tuple[int, int], ...] | None

    @classmethod
    def from_edges(
        cls,
        destination: Int[Tensor, " edges"],
        source: Int[Tensor, " edges"],
        num_destinations: int,
        *,
        padded: bool = True,
    ) -> "Neighbors":
        """Groups a list of edges, which must be sorted by destination.

        Args:
            destination: That of each edge.
            source: That of each edge.
            num_destinations: Destinations, with those that have no edge.
            padded: Whether there are to be few buckets.
        """
        degree = torch.bincount(destination, minlength=num_destinations)
        if not padded:
            order = degree.nonzero()[:, 0]
            return cls(
                destination=order,
                source=source,
                slot_destination=destination,
                width=degree[order],
                is_padding=torch.zeros_like(source, dtype=torch.bool),
                shapes=None,
            )
        largest = int(degree.max()) if num_destinations else 0
        widths = _widths_up_to(largest)
        # Bucket 0 holds those without neighbours.
        bucket = torch.bucketize(degree, torch.tensor((0, *widths), device=degree.device))
        counts = torch.bincount(bucket, minlength=len(widths) + 1).tolist()
        shapes = _merge(counts[1:], widths)
        order = bucket.argsort(stable=True)[counts[0] :]
        width = torch.cat([degree.new_full((rows,), width) for rows, width in shapes] or [order])
        num_slots = sum(rows * width for rows, width in shapes)
        first_slot = torch.zeros_like(degree)
        first_slot[order] = width.cumsum(0) - width
        first_edge = degree.cumsum(0) - degree
        edge = torch.arange(destination.shape[0], device=degree.device)
        slot = (first_slot - first_edge)[destination] + edge
        return cls(
            destination=order,
            source=source.new_zeros(num_slots).index_copy(0, slot, source),
            slot_destination=order.repeat_interleave(width, output_size=num_slots),
            width=width,
            is_padding=torch.ones(num_slots, dtype=torch.bool, device=slot.device).index_fill(
                0, slot, False
            ),
            shapes=tuple(shapes),
        )

    @classmethod
    def cat(
        cls,
        parts: Sequence["Neighbors"],
        destinations: Sequence[int],
        sources: Sequence[int] | None = None,
    ) -> "Neighbors":
        """Joins the neighbours of several lists of destinations.

        Args:
            parts: The neighbours of each.
            destinations: How long each list is.
            sources: How many sources each has, if they are not the same for all.
        """
        first = list(accumulate(destinations, initial=0))
        first_source = [0] * len(first) if sources is None else accumulate(sources, initial=0)
        offsets = list(zip(parts, first, first_source, strict=False))
        shapes = [part.shapes for part in parts]
        joined = tuple(shape for some in shapes if some is not None for shape in some)
        return cls(
            destination=torch.cat([part.destination + begin for part, begin, _ in offsets]),
            source=torch.cat([part.source + begin for part, _, begin in offsets]),
            slot_destination=torch.cat(
                [part.slot_destination + begin for part, begin, _ in offsets]
            ),
            width=torch.cat([part.width for part in parts]),
            is_padding=torch.cat([part.is_padding for part in parts]),
            shapes=None if None in shapes else joined,
        )

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """Where each bucket lies."""
        shapes = self.shapes
        if shapes is None:
            widths, counts = self.width.unique_consecutive(return_counts=True)
            shapes = zip(counts.tolist(), widths.tolist(), strict=True)
        return _lay_out(shapes)

    @cached_property
    def starts(self) -> Int[Tensor, " rows_and_end"]:
        """The first slot of each destination, and where the last one's end."""
        return torch.cat([self.width.new_zeros(1), self.width.cumsum(0)])

    @property
    def num_edges(self) -> int:
        """Real neighbours, without padding."""
        return int((~self.is_padding).sum())


def _widths_up_to(largest: int) -> list[int]:
    widths: list[int] = list(_WIDTHS)
    while widths[-1] < largest:
        widths.append(widths[-4] * 2)
    return widths


def _lay_out(shapes: Iterable[tuple[int, int]]) -> tuple[Bucket, ...]:
    buckets, row, slot = [], 0, 0
    for rows, width in shapes:
        next_row, next_slot = row + rows, slot + rows * width
        buckets.append(Bucket(slice(row, next_row), slice(slot, next_slot), (rows, width)))
        row, slot = next_row, next_slot
    return tuple(buckets)


def _merge(counts: list[int], widths: list[int]) -> list[tuple[int, int]]:
    """Widens small buckets into the next, where the padding costs less than a bucket."""
    merged: list[tuple[int, int]] = []
    for rows, width in zip(counts, widths, strict=True):
        if not rows:
            continue
        if merged and merged[-1][0] * (width - merged[-1][1]) <= _BUCKET_COST:
            rows += merged.pop()[0]
        merged.append((rows, width))
    return merged


def radius_edges(
    destinations: Poses, sources: Poses, radius: float
) -> tuple[Int[Tensor, " edges"], Int[Tensor, " edges"]]:
    """Finds the sources of the same group within a radius (m) of each destination.

    Sorts the sources into square cells, so that the time grows with the number of edges.

    Args:
        destinations: If they are the sources, no pose is its own source.
        sources: The poses that are searched.
        radius: Sources at this distance are too far.

    Returns:
        Destination and source of each edge, sorted by destination.
    """
    if not (destinations.xy.shape[0] and sources.xy.shape[0]):
        empty = destinations.group.new_zeros(0)
        return empty, empty
    grid, are_sources = sources.grid(radius), destinations is sources
    if takes(sources.xy):
        return search(
            destinations.xy, destinations.group, grid, radius=radius, are_sources=are_sources
        )
    destination, source = _candidates(destinations, grid)
    offset = sources.xy[source] - destinations.xy[destination]
    near = offset.square().sum(dim=-1) < radius**2
    if are_sources:
        near &= destination != source
    near = near.nonzero()[:, 0]
    return destination[near], source[near]


def _candidates(
    destinations: Poses, grid: Grid
) -> tuple[Int[Tensor, " candidates"], Int[Tensor, " candidates"]]:
    """Lists the sources in the cells around each destination."""
    cell = ((destinations.xy - grid.origin) / grid.size).floor().to(torch.int64)
    around = torch.arange(-grid.reach, grid.reach + 1, device=cell.device)
    num_rows, num_columns = grid.shape.unbind()
    row = cell[:, 1, None] + around
    # Cells of a row follow each other, so the cells in reach are one range a row.
    left = (cell[:, 0] - grid.reach).clamp(min=0)
    right = torch.minimum(cell[:, 0] + grid.reach, num_columns - 1)
    line = (destinations.group[:, None] * num_rows + row) * num_columns
    first = torch.searchsorted(grid.key, line + left[:, None])
    last = torch.searchsorted(grid.key, line + right[:, None], right=True)
    exists = (row >= 0) & (row < num_rows) & (left <= right)[:, None]
    num_candidates = (last - first).where(exists, 0)
    ranges = num_candidates.flatten()
    total, ends = int(ranges.sum()), ranges.cumsum(0)
    shift = (first.flatten() - (ends - ranges)).repeat_interleave(ranges, output_size=total)
    source = grid.order[shift + torch.arange(total, device=shift.device)]
    destination = torch.arange(len(cell), device=cell.device).repeat_interleave(
        num_candidates.sum(dim=1), output_size=total
    )
    return destination, source


def relative_ranges(radius: float) -> tuple[tuple[float, float], ...]:
    """Tells the ranges of the numbers of `relative_pose` within a radius (m)."""
    return (0.0, radius), ANGLE_RANGE, ANGLE_RANGE


def relative_pose(
    destinations: Poses, sources: Poses, neighbors: Neighbors
) -> Float[Tensor, "slots 3"]:
    """Tells distance (m), bearing and heading (rad) of each neighbour in its destination's frame.

    The bearing of a neighbour at the same place is 0, however the destination is turned.
    """
    if takes(destinations.xy):
        return relate(
            (destinations.xy, destinations.heading),
            (sources.xy, sources.heading),
            neighbors.slot_destination,
            neighbors.source,
        )
    heading = destinations.heading[:, None]
    frame = torch.cat([destinations.xy, heading, heading.cos(), heading.sin()], dim=1)
    frame = frame.index_select(0, neighbors.slot_destination)
    pose = torch.cat([sources.xy, sources.heading[:, None]], dim=1)
    x, y, turn = (pose.index_select(0, neighbors.source) - frame[:, :3]).unbind(dim=1)
    cos, sin = frame[:, 3:].unbind(dim=1)
    # Adding zero turns -0.0 into 0.0, whose bearing is 0; that of -0.0 would be pi.
    bearing = torch.atan2(cos * y - sin * x, cos * x + sin * y + 0.0)
    return torch.stack([torch.hypot(x, y), bearing, wrap_angle(turn)], dim=1)

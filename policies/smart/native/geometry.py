"""Who is near whom, and how they stand to each other, in C."""

import ctypes
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policies.smart.native import threads
from policies.smart.native.library import POINTER, pointers

_INT = ctypes.c_int64


class _Poses(ctypes.Structure):
    """`struct poses`."""

    _fields_ = pointers("xy", "heading")


class _Grid(ctypes.Structure):
    """`struct grid`."""

    _fields_ = [
        *(("count", _INT), *pointers("key", "source", "xy", "origin"), ("size", ctypes.c_float)),
        *((name, _INT) for name in ("num_rows", "num_columns", "reach")),
    ]


def relate(
    destinations: tuple[Float[Tensor, "destinations 2"], Float[Tensor, " destinations"]],
    sources: tuple[Float[Tensor, "sources 2"], Float[Tensor, " sources"]],
    destination: Int[Tensor, " edges"],
    source: Int[Tensor, " edges"],
) -> Float[Tensor, "edges 3"]:
    """Tells distance (m), bearing and heading (rad) of sources, seen from destinations.

    Args:
        destinations: Positions (m) and headings (rad).
        sources: The same.
        destination: That of each edge.
        source: That of each edge.
    """
    kept = [tensor.contiguous() for tensor in (*destinations, *sources, destination, source)]
    xy, heading, source_xy, source_heading, of, to = (tensor.data_ptr() for tensor in kept)
    poses = destinations[0].new_empty(len(source), 3)
    arguments = (
        *(_Poses(xy, heading), _Poses(source_xy, source_heading)),
        *(POINTER(of), POINTER(to), POINTER(poses.data_ptr())),
    )
    threads.run("relate", arguments, len(source), cost=100)
    return poses


@dataclass(frozen=True, eq=False, kw_only=True)
class Grid:
    """Sources in square cells, sorted by cell. Cells of a row follow each other.

    Attributes:
        xy: Where sources are (m), in the order of `key`.
        origin: The least coordinates (m), where row and column 0 begin.
        size: Of a cell (m).
        reach: How many cells a radius reaches in each direction.
        shape: Rows of each group, and columns.
        key: Cells of sources in order, row by row.
        order: Which source each of these is.
    """

    xy: Float[Tensor, "sources 2"]
    origin: Float[Tensor, "2"]
    size: float
    reach: int
    shape: Int[Tensor, "2"]
    key: Int[Tensor, " sources"]
    order: Int[Tensor, " sources"]

    @cached_property
    def structure(self) -> _Grid:
        """What kernels are told of it."""
        tensors = self.key, self.order, self.xy, self.origin
        assert all(tensor.is_contiguous() for tensor in tensors)
        addresses = (tensor.data_ptr() for tensor in tensors)
        return _Grid(len(self.key), *addresses, self.size, *self.shape.tolist(), self.reach)


def search(
    xy: Float[Tensor, "destinations 2"],
    group: Int[Tensor, " destinations"],
    grid: Grid,
    *,
    radius: float,
    are_sources: bool,
) -> tuple[Int[Tensor, " edges"], Int[Tensor, " edges"]]:
    """Finds the sources near each destination.

    Args:
        xy: Where destinations are (m).
        group: The group of each.
        grid: The sources.
        radius: How near (m).
        are_sources: Whether the destinations are the sources. Then nobody finds itself.

    Returns:
        Destination and source of each edge, sorted by destination.
    """
    xy, group, degree = xy.contiguous(), group.contiguous(), torch.empty_like(group)
    arguments = (
        *(ctypes.byref(grid.structure), POINTER(xy.data_ptr()), POINTER(group.data_ptr())),
        *(ctypes.c_int(are_sources), ctypes.c_float(radius), POINTER(degree.data_ptr())),
    )
    # Where the edges of each destination begin is known when all have been counted.
    threads.run("search", (*arguments, None, None, None), len(xy), cost=1000)
    ends = degree.cumsum(0)
    starts = ends - degree
    edges = torch.empty(2, int(ends[-1]) if len(xy) else 0, dtype=torch.int64)
    to = (POINTER(tensor.data_ptr()) for tensor in (starts, *edges))
    threads.run("search", (*arguments, *to), len(xy), cost=1000)
    return edges[0], edges[1]

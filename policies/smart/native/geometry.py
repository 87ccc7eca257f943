"""Who is near whom, and how they stand to each other, in C."""

import ctypes

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policies.smart.native import threads
from policies.smart.native.library import POINTER, pointers

_INT = ctypes.c_int64


class _Poses(ctypes.Structure):
    """`struct poses`."""

    _fields_ = pointers("xy", "heading")


class _Cells(ctypes.Structure):
    """`struct cells`."""

    _fields_ = [
        ("count", _INT),
        *pointers("key", "source", "xy"),
        *(("num_columns", _INT), ("reach", _INT)),
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


def search(
    xy: Float[Tensor, "destinations 2"],
    cells: tuple[Int[Tensor, " destinations"], Int[Tensor, " destinations"]],
    source_xy: Float[Tensor, "sources 2"],
    keys: tuple[Int[Tensor, " sources"], Int[Tensor, " sources"]],
    *,
    num_columns: int,
    reach: int,
    radius: float,
) -> tuple[Int[Tensor, " edges"], Int[Tensor, " edges"]]:
    """Finds the sources near each destination.

    Args:
        xy: Where destinations are (m).
        cells: Row and column of the cell of each.
        source_xy: Where sources are (m).
        keys: Cells of sources in order, row by row, and which source each of these is.
        num_columns: Cells in a row.
        reach: How many cells the radius reaches in each direction.
        radius: How near (m).

    Returns:
        Destination and source of each edge, sorted by destination.
    """
    kept = [tensor.contiguous() for tensor in (xy, *cells, source_xy, *keys)]
    xy_at, row, column, source_at, key, order = (tensor.data_ptr() for tensor in kept)
    found = _Cells(len(source_xy), key, order, source_at, num_columns, reach)
    degree = torch.empty(len(xy), dtype=torch.int64)
    arguments = (
        *(ctypes.byref(found), POINTER(xy_at), POINTER(row), POINTER(column)),
        *(ctypes.c_float(radius), POINTER(degree.data_ptr())),
    )
    # Where the edges of each destination begin is known when all have been counted.
    threads.run("search", (*arguments, None, None), len(xy), cost=1000)
    starts = degree.cumsum(0) - degree
    source = torch.empty(int(degree.sum()), dtype=torch.int64)
    to = (POINTER(starts.data_ptr()), POINTER(source.data_ptr()))
    threads.run("search", (*arguments, *to), len(xy), cost=1000)
    destination = torch.arange(len(xy)).repeat_interleave(degree, output_size=len(source))
    return destination, source

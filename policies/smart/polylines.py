"""Polylines of any number of points, in one flat list."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Polylines:
    """Polylines, one behind the other.

    Attributes:
        xy: Their points (m).
        line: Which polyline each point belongs to; points with equal numbers follow each other.
    """

    xy: Float[Tensor, "points 2"]
    line: Int[Tensor, " points"]

    @property
    def starts_line(self) -> Bool[Tensor, " points"]:
        """Whether a point is the first of its polyline."""
        starts = torch.ones_like(self.line, dtype=torch.bool)
        starts[1:] = self.line[1:] != self.line[:-1]
        return starts

    @property
    def ends_line(self) -> Bool[Tensor, " points"]:
        """Whether a point is the last of its polyline."""
        ends = torch.ones_like(self.line, dtype=torch.bool)
        ends[:-1] = self.line[1:] != self.line[:-1]
        return ends

    def keep(self, keep: Bool[Tensor, " points"]) -> "Polylines":
        """Returns some of the points."""
        return self._take(keep.nonzero()[:, 0], self.line)

    @classmethod
    def cat(cls, parts: Sequence["Polylines"]) -> "Polylines":
        """Joins lists of polylines that are numbered from 0 without gaps."""
        lines, count = [], 0
        for part in parts:
            lines.append(part.line + count)
            count += int(part.line[-1]) + 1 if part.line.shape[0] else 0
        return cls(xy=torch.cat([part.xy for part in parts]), line=torch.cat(lines))

    def reorder(self, order: Int[Tensor, " lines"]) -> "Polylines":
        """Sorts polylines that are numbered from 0 without gaps: `order[i]` becomes line i."""
        rank = torch.empty_like(order)
        rank[order] = torch.arange(order.shape[0], device=order.device)
        line = rank.index_select(0, self.line)
        return self._take(line.argsort(stable=True), line)

    def _take(self, points: Int[Tensor, " taken"], line: Int[Tensor, " points"]) -> "Polylines":
        # Indexing by brackets takes twice as long.
        return Polylines(xy=self.xy.index_select(0, points), line=line.index_select(0, points))

    def cut(self, longest_gap: float) -> tuple["Polylines", Int[Tensor, " pieces"]]:
        """Cuts between points that are farther apart than a gap (m).

        Returns:
            The pieces, numbered from 0, and the polyline that each was cut from.
        """
        starts = self.starts_line
        starts[1:] |= self.xy.diff(dim=0).norm(dim=-1) > longest_gap
        return Polylines(xy=self.xy, line=starts.cumsum(0) - 1), self.line[starts]


@dataclass(frozen=True, eq=False, kw_only=True)
class Windows:
    """Pieces of polylines, each told by begin, middle and end.

    Attributes:
        points: Begin, middle and end (m).
        heading: Direction at the begin (rad).
        line: The polyline that each window is of.
    """

    points: Float[Tensor, "windows 3 2"]
    heading: Float[Tensor, " windows"]
    line: Int[Tensor, " windows"]


def slide_windows(lines: Polylines, *, spacing: float, width: int) -> Windows:
    """Samples polylines evenly and takes one window behind the other.

    A polyline is sampled every `spacing` metres, and at its end. Full windows span `width`
    spacings. What is left over makes a shorter window, if it is more than two spacings behind
    another window, or more than one by itself.

    Args:
        lines: Polylines, numbered from 0 without gaps.
        spacing: Distance of the samples (m).
        width: Spacings in a window.
    """
    position = _arc_position(lines)
    begin, end = position[lines.starts_line], position[lines.ends_line]
    # Rounding must not make a sample of its own.
    num_steps = ((end - begin) / spacing - 1e-6).ceil().to(torch.int64)
    num_full = num_steps // width
    rest = num_steps - num_full * width
    has_rest = rest >= torch.where(num_full > 0, 3, 2)
    num_windows = num_full + has_rest
    line = torch.arange(begin.shape[0], device=begin.device).repeat_interleave(num_windows)
    first = (num_windows.cumsum(0) - num_windows)[line]
    rank = torch.arange(line.shape[0], device=line.device) - first
    steps = torch.where(rank < num_full[line], width, rest[line])
    # Begin, middle, end, and the sample that the begin is headed for.
    inside = [torch.zeros_like(steps), steps // 2, steps, torch.ones_like(steps)]
    samples = rank * width + torch.stack(inside)
    at = torch.minimum(begin[line] + samples * spacing, end[line])
    points = _interpolate(lines, position, at)
    ahead = points[3] - points[0]
    heading = torch.atan2(ahead[:, 1], ahead[:, 0])
    return Windows(points=points[:3].transpose(0, 1), heading=heading, line=line)


def _arc_position(lines: Polylines) -> Tensor:
    """Arc length along all polylines, laid one metre apart behind each other."""
    lengths = lines.xy.diff(dim=0).norm(dim=-1)
    lengths = torch.where(lines.starts_line[1:], 1.0, lengths)
    return torch.cat([lengths.new_zeros(lines.xy.shape[0] - lengths.shape[0]), lengths]).cumsum(0)


def _interpolate(lines: Polylines, position: Tensor, at: Tensor) -> Tensor:
    after = torch.searchsorted(position, at, right=True).clamp(max=position.shape[0] - 1)
    before = (after - 1).clamp(min=0)
    # At the very end of a polyline `after` may lie on the next one, but the weight is zero.
    gap = (position[after] - position[before]).clamp(min=1e-12)
    weight = ((at - position[before]) / gap)[..., None]
    return lines.xy[before] + weight * (lines.xy[after] - lines.xy[before])

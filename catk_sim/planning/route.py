"""Where the ego is to go."""

import math
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any, overload

import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from catk_sim.constants import CURRENT_STEP
from catk_sim.datatypes import RoadGraph, Scenario, TensorTree
from catk_sim.geometry.se2 import rotate, wrap_angle
from catk_sim.lane_following import MIN_COS, MPH, ROUTE_LENGTH, TURN_COST, Lanes
from catk_sim.planning import serve

OFF_LANE_OFFSET = 2.5
"""How far from every lane's centre the sdc is on no lane (m)."""

CHANGE_COST = 20.0
"""What it costs to leave a lane other than by its exits, in the choice of the lanes (m^2)."""

CHANGE_SLOPE = 10.0
"""Metres ahead for each metre aside where the route goes to a lane that is no exit of its lane."""

OFF_LANE_SLOPE = 4.0
"""The same where it goes from the log onto a lane, or back."""

ROUND_DISTANCE = 5.0
"""How near the way ahead must come to an earlier part of the route to end there (m)."""

ROUND_LENGTH = 20
"""Least length of a way round (m)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Route(TensorTree):
    """The way that the sdc took in the log, along the centres of its lanes, and on.

    It begins beside the sdc at the current step. Where the log ends it follows the lane graph with
    the least turn, to `ROUTE_LENGTH`. Where the sdc was on no lane it is the logged path itself,
    and straight on. Points are a metre apart.

    Attributes:
        xy: Points (m).
        heading: Directions there (rad), without jumps of a whole turn.
        speed_limit: Of the lane at each point (m/s); 0 where it is unknown.
        lane_id: WOMD's id of the lane at each point; -1 where there is none.
        valid: Whether the route gets there. It ends where the last lane ends; points beyond go
            straight on.

    Example:
        >>> from catk_sim.datasets import open_scenarios
        >>> route = Route.from_scenario(next(iter(open_scenarios("synthetic"))))
        >>> bool(route.length > 80)
        True
    """

    xy: Float[Tensor, "*batch arc 2"]
    heading: Float[Tensor, "*batch arc"]
    speed_limit: Float[Tensor, "*batch arc"]
    lane_id: Int[Tensor, "*batch arc"]
    valid: Bool[Tensor, "*batch arc"]

    @classmethod
    def from_scenario(cls, scenario: Scenario) -> "Route":
        """Lays the route of the sdc, in float32.

        Raises:
            ValueError: As for `ego_index`.
        """
        if scenario.agents.is_sdc.dim() > 1:
            members = range(scenario.batch_size)
            return Route.stack([cls.from_scenario(scenario.select(index)) for index in members])
        return _lay_route(scenario)

    @property
    def length(self) -> Float[Tensor, "*batch"]:
        """Arc length at which the route ends (m)."""
        return (self.valid.sum(dim=-1) - 1).to(self.xy)

    @overload
    def project(
        self, xy: Float[Tensor, "*batch points 2"]
    ) -> tuple[Float[Tensor, "*batch points"], Float[Tensor, "*batch points"]]: ...

    @overload
    def project(
        self, xy: Float[ndarray, "points 2"]
    ) -> tuple[Float[ndarray, " points"], Float[ndarray, " points"]]: ...

    def project(
        self, xy: Float[Tensor, "*batch points 2"] | Float[ndarray, "points 2"]
    ) -> tuple[Any, Any]:
        """Tells how far along the route points are, and how far to its left (m).

        The nearest point of the route decides. Before its start and past its end it goes straight
        on, so arc lengths may be negative or exceed its length. Points in an array, for a route
        without a batch, give arrays.
        """
        if isinstance(xy, ndarray):
            return self._of_arrays().project(xy)
        return serve.project(self, xy, torch, torch.take_along_dim)

    @overload
    def pose_at(
        self, arc: Float[Tensor, "*batch points"]
    ) -> tuple[Float[Tensor, "*batch points 2"], Float[Tensor, "*batch points"]]: ...

    @overload
    def pose_at(
        self, arc: Float[ndarray, " points"]
    ) -> tuple[Float[ndarray, "points 2"], Float[ndarray, " points"]]: ...

    def pose_at(
        self, arc: Float[Tensor, "*batch points"] | Float[ndarray, " points"]
    ) -> tuple[Any, Any]:
        """Tells position (m) and heading (rad) at arc lengths (m); straight on past both ends.

        Arc lengths in an array, for a route without a batch, give arrays.
        """
        if isinstance(arc, ndarray):
            return self._of_arrays().pose_at(arc)
        return serve.pose_at(self, arc, torch, torch.take_along_dim)

    def _of_arrays(self) -> serve.Route:
        """Makes of it what a planner in another process is given."""
        return serve.Route(
            **{field.name: getattr(self, field.name).numpy() for field in fields(self)}
        )


def ego_index(scenario: Scenario) -> int:
    """Finds the sdc of a scenario.

    Raises:
        ValueError: There is not exactly one, or it is absent at the current step.
    """
    is_sdc = scenario.agents.is_sdc & scenario.agents.valid
    present = is_sdc & scenario.log.valid[:, CURRENT_STEP]
    if int(is_sdc.sum()) != 1 or not present.any():
        raise ValueError(
            f"wanted one sdc that is present at the current step, got {int(is_sdc.sum())} of which "
            f"{int(present.sum())} are present, in scenario {scenario.scenario_id[0]!r}"
        )
    return int(is_sdc.nonzero()[0])


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """Part of a route, before it is brought to points a metre apart."""

    xy: Float[Tensor, "points 2"]
    heading: Float[Tensor, " points"]
    lane: Int[Tensor, " points"]
    """Index of the lane at each point; -1 where there is none."""

    @classmethod
    def join(cls, pieces: list["_Piece"]) -> "_Piece":
        return cls(
            xy=torch.cat([piece.xy for piece in pieces]),
            heading=torch.cat([piece.heading for piece in pieces]),
            lane=torch.cat([piece.lane for piece in pieces]),
        )

    def arc(self) -> Float[Tensor, " points"]:
        return torch.cat([self.xy.new_zeros(1), self.xy.diff(dim=0).norm(dim=-1).cumsum(0)])

    def keep(self, points: Bool[Tensor, " points"]) -> "_Piece":
        return _Piece(xy=self.xy[points], heading=self.heading[points], lane=self.lane[points])


def _lay_route(scenario: Scenario) -> Route:
    xy, heading = _logged_way(scenario)
    roadgraph = scenario.roadgraph.with_room_for_a_segment().to(torch.float64)
    lanes = Lanes.of(roadgraph)
    lane, arc = _match(xy, heading, lanes, roadgraph.feature)
    pieces = []
    for run in _runs(lane, lanes.exits):
        if lane[run[0]] < 0:
            pieces.append(_Piece(xy=xy[run], heading=heading[run], lane=lane[run]))
        else:
            pieces.append(_along_lanes(lane[run], arc[run], lanes))
    ahead = _ahead(lanes, lane[-1], arc[-1]) if lane[-1] >= 0 else _straight_on(pieces[-1])
    new = ~_comes_round(_Piece.join(pieces), ahead)
    pieces[-1] = _Piece.join([pieces[-1], ahead.keep(new)])
    return _by_the_metre(reduce(_change, pieces), roadgraph)


def _runs(
    lane: Int[Tensor, " samples"], exits: Int[Tensor, "exits 2"]
) -> tuple[Int[Tensor, " _"], ...]:
    """Splits samples, as indices, where a lane does not lead on to the next."""
    is_exit = (lane[:-1, None] == exits[:, 0]) & (lane[1:, None] == exits[:, 1])
    leaves = (lane[1:] != lane[:-1]) & ~is_exit.any(dim=1)
    index = torch.arange(len(lane), device=lane.device)
    return index.tensor_split((leaves.nonzero()[:, 0] + 1).cpu())


def _logged_way(
    scenario: Scenario,
) -> tuple[Float[Tensor, "samples 2"], Float[Tensor, " samples"]]:
    """Reads where the sdc is at the current step, and after each metre that it goes forward."""
    ego = ego_index(scenario)
    log = scenario.log.slice(CURRENT_STEP, scenario.log.num_steps)
    valid = log.valid[ego]
    xy, heading = log.xy[ego][valid].double(), log.heading[ego][valid].double()
    forward = rotate(xy.diff(dim=0), -heading[1:])[:, 0].cumsum(0).cummax(0).values.clamp(min=0)
    metres = forward.floor().long()
    starts = metres.diff(prepend=metres.new_zeros(1)) > 0
    taken = torch.cat([starts.new_ones(1), starts])
    return xy[taken], heading[taken]


def _match(
    xy: Float[Tensor, "samples 2"],
    heading: Float[Tensor, " samples"],
    lanes: Lanes,
    feature: Int[Tensor, " points"],
) -> tuple[Int[Tensor, " samples"], Float[Tensor, " samples"]]:
    """Chooses the lane of each sample, -1 for none, and tells the arc there.

    Of all sequences of lanes, the one of least cost: squared distances and turns, and
    `CHANGE_COST` wherever a lane is not an exit of the one before (Viterbi's algorithm).
    """
    distance, cos, arc = lanes.project(xy, heading)
    cost = distance.square() + (TURN_COST * (1 - cos)).square()
    cost = torch.where((distance <= 2 * OFF_LANE_OFFSET) & (cos >= MIN_COS), cost, math.inf)
    near = cost.isfinite().any(dim=0)
    if not near.any():
        return torch.full_like(heading, -1).long(), torch.zeros_like(heading)
    owner, candidate = feature[lanes.segment[near]].unique(return_inverse=True)
    cost, arc = cost[:, near], arc[:, near]
    # (samples, candidates); the last candidate is to be on no lane.
    by_lane = cost.new_full((len(xy), len(owner) + 1), math.inf)
    by_lane = by_lane.scatter_reduce(1, candidate.expand_as(cost), cost, "amin")
    by_lane[:, -1] = OFF_LANE_OFFSET**2
    owner = torch.cat([owner, owner.new_full((1,), -1)])
    chosen = _cheapest_path(by_lane, _transition_cost(owner, lanes.exits))
    here = torch.where(candidate == chosen[:, None], cost, math.inf)
    on_lane = owner[chosen] >= 0
    matched = torch.zeros_like(heading)
    matched[on_lane] = arc[on_lane].gather(1, here[on_lane].argmin(dim=1)[:, None])[:, 0]
    return owner[chosen], matched


def _transition_cost(
    lane: Int[Tensor, " candidates"], exits: Int[Tensor, "exits 2"]
) -> Float[Tensor, "candidates candidates"]:
    leaves = (lane[:, None] == exits[:, 0]).double()
    enters = (exits[:, 1, None] == lane).double()
    goes_on = (leaves @ enters > 0) | (lane[:, None] == lane)
    return torch.where(goes_on, 0.0, CHANGE_COST).double()


def _cheapest_path(
    cost: Float[Tensor, "samples candidates"],
    transition: Float[Tensor, "candidates candidates"],
) -> Int[Tensor, " samples"]:
    total, came_from = cost[0], []
    for own in cost[1:]:
        least, before = (total[:, None] + transition).min(dim=0)
        total = least + own
        came_from.append(before)
    path = [total.argmin()]
    for before in reversed(came_from):
        path.append(before[path[-1]])
    return torch.stack(path[::-1])


def _along_lanes(
    lane: Int[Tensor, " samples"], arc: Float[Tensor, " samples"], lanes: Lanes
) -> _Piece:
    """Goes from the first sample to the last along lanes that lead on to each other."""
    visited = lane.unique_consecutive()
    begin, end = lanes.arc[lanes.first[visited]], lanes.arc[lanes.last[visited]]
    begin[0], end[-1] = arc[0], arc[-1]
    count = (end - begin).clamp(min=0).floor().long() + 1
    counter = torch.arange(int(count.sum()), device=arc.device)
    within = counter - (count.cumsum(0) - count).repeat_interleave(count)
    return _on_lanes(
        visited.repeat_interleave(count), begin.repeat_interleave(count) + within, lanes
    )


def _on_lanes(lane: Int[Tensor, " points"], arc: Float[Tensor, " points"], lanes: Lanes) -> _Piece:
    step = lanes.points_at(lane, arc + 0.1) - lanes.points_at(lane, arc - 0.1)
    heading = torch.atan2(step[:, 1], step[:, 0])
    return _Piece(xy=lanes.points_at(lane, arc), heading=heading, lane=lane)


def _ahead(lanes: Lanes, lane: Int[Tensor, ""], arc: Float[Tensor, ""]) -> _Piece:
    chain, map_arc, length = (part[0] for part in lanes.chain(lane[None], arc[None]))
    reached = torch.arange(len(chain), device=arc.device) <= length
    return _on_lanes(chain[reached], map_arc[reached], lanes)


def _straight_on(piece: _Piece) -> _Piece:
    heading = piece.heading[-1]
    direction = torch.stack([heading.cos(), heading.sin()])
    metres = torch.arange(1.0, ROUTE_LENGTH + 1, device=heading.device, dtype=heading.dtype)
    xy = piece.xy[-1] + metres[:, None] * direction
    heading, lane = heading.expand(len(metres)), piece.lane[-1:].expand(len(metres))
    return _Piece(xy=xy, heading=heading, lane=lane)


def _comes_round(before: _Piece, ahead: _Piece) -> Bool[Tensor, " points"]:
    """Tells from where on a way comes back to where it was, as lanes do round a block."""
    whole = _Piece.join([before, ahead])
    order = torch.arange(len(whole.xy), device=whole.xy.device)
    is_near = torch.cdist(ahead.xy, whole.xy) < ROUND_DISTANCE
    is_along = (ahead.heading[:, None] - whole.heading).cos() >= MIN_COS
    is_earlier = order < order[len(before.xy) :, None] - ROUND_LENGTH
    return (is_near & is_along & is_earlier).any(dim=1).cumsum(0) > 0


def _change(one: _Piece, other: _Piece) -> _Piece:
    """Joins pieces that lie side by side by a smooth curve, a cubic of Hermite."""
    aside = rotate(other.xy[0] - one.xy[-1], -one.heading[-1])[1].abs()
    # Off the lanes the log itself is the way, to be kept where it can.
    on_lanes = (one.lane[-1] >= 0) & (other.lane[0] >= 0)
    room = torch.where(on_lanes, CHANGE_SLOPE, OFF_LANE_SLOPE) * aside / 2
    arc, other_arc = one.arc(), other.arc()
    keep = arc <= (arc[-1] - room).clamp(min=0)
    other_keep = other_arc >= room.minimum(other_arc[-1])
    one, other = one.keep(keep), other.keep(other_keep)
    start, end = one.xy[-1], other.xy[0]
    span = (end - start).norm()
    t = torch.arange(1, int(span) + 1, device=span.device) / (int(span) + 1)
    t = t.to(span)[:, None]
    leave = torch.stack([one.heading[-1].cos(), one.heading[-1].sin()]) * span
    arrive = torch.stack([other.heading[0].cos(), other.heading[0].sin()]) * span
    xy = (
        (1 + 2 * t) * (1 - t) ** 2 * start
        + t * (1 - t) ** 2 * leave
        + t**2 * (3 - 2 * t) * end
        + t**2 * (t - 1) * arrive
    )
    lane = torch.where(t[:, 0] < 0.5, one.lane[-1], other.lane[0])
    between = _Piece(xy=xy, heading=torch.zeros_like(t[:, 0]), lane=lane)
    return _Piece.join([one, between, other])


def _by_the_metre(piece: _Piece, roadgraph: RoadGraph) -> Route:
    """Takes points a metre apart, and goes straight on past the end."""
    moves = torch.cat([piece.lane.new_ones(1).bool(), piece.xy.diff(dim=0).norm(dim=-1) > 1e-6])
    piece = piece.keep(moves)
    length = piece.arc()[-1]
    heading = piece.heading[-1:]
    beyond = torch.stack([heading.cos(), heading.sin()], dim=-1) * (ROUTE_LENGTH + 2)
    end = _Piece(xy=piece.xy[-1:] + beyond, heading=heading, lane=piece.lane[-1:])
    piece = _Piece.join([piece, end])
    arc = piece.arc()
    metres = torch.arange(-1.0, ROUTE_LENGTH + 2, device=arc.device, dtype=arc.dtype)
    index = (torch.searchsorted(arc, metres, right=True) - 1).clamp(min=0)
    part = (metres - arc[index]) / (arc[index + 1] - arc[index])
    xy = piece.xy[index].lerp(piece.xy[index + 1], part[:, None])
    step = xy[2:] - xy[:-2]
    direction = torch.atan2(step[:, 1], step[:, 0])
    turns = wrap_angle(direction.diff()).cumsum(0)
    lane = piece.lane[index[1:-1]]
    on_lane = lane >= 0
    return Route(
        xy=xy[1:-1].float(),
        heading=(direction[0] + torch.cat([turns.new_zeros(1), turns])).float(),
        speed_limit=torch.where(on_lane, roadgraph.speed_limit[lane] * MPH, 0.0).float(),
        lane_id=torch.where(on_lane, roadgraph.feature_id[lane], -1),
        valid=metres[1:-1] <= length,
    )

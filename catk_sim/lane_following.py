"""Routes along the lane graph, for agents that stay in their lane."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.datatypes import (
    AgentType,
    LaneLinkType,
    MapFeatureType,
    RoadGraph,
    Scenario,
    SimState,
    TensorTree,
)
from catk_sim.geometry.se2 import wrap_angle

ROUTE_LENGTH = 400
"""How far ahead routes are laid (m). Their points are a metre apart."""

MAX_LANES = 64
"""Lanes that a route may run through."""

MAX_OFFSET = 2.0
"""How far from its lane's centre an agent may start (m). Those parked at the kerb are further."""

MIN_COS = 0.5
"""Least cosine of the angle between an agent and its lane."""

TURN_COST = 5.0
"""What the angle counts in the choice of the lane: metres of offset per (1 - cosine)."""

MERGE_LENGTH = 20.0
"""Within which an agent moves onto its lane's centre and turns into its direction (m)."""

STOP_TOLERANCE = 3.0
"""How far from a route a light's stop point may be (m). Further: the agent is past it."""

MPH = 0.44704
"""Miles per hour in m/s."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LaneRoutes(TensorTree):
    """The way ahead of every vehicle, from where it is when the route is laid.

    It leads onto the centre of the lane and along it, and on where lanes branch with the least
    turn. Points are a metre apart, so an index is an arc length.

    Attributes:
        xy: Points (m).
        heading: Directions there (rad), without jumps of a whole turn.
        speed_limit: Of the lane at each point (m/s); 0 where it is unknown.
        length: Arc length (m) at which the last lane ends, or the route.
        stop: Arc length (m) at which each light stops the agent; infinite off its route.
        valid: Whether the agent has a route: a vehicle that was on a lane.
    """

    xy: Float[Tensor, "*batch agents arc 2"]
    heading: Float[Tensor, "*batch agents arc"]
    speed_limit: Float[Tensor, "*batch agents arc"]
    length: Float[Tensor, "*batch agents"]
    stop: Float[Tensor, "*batch agents lights"]
    valid: Bool[Tensor, "*batch agents"]

    @classmethod
    def from_state(cls, state: SimState) -> "LaneRoutes":
        """Lays routes from where the agents are."""
        if state.controlled.dim() > 1:
            members = range(state.controlled.shape[0])
            return LaneRoutes.stack([cls.from_state(state.select(index)) for index in members])
        return _lay_routes(state)

    def pose_at(
        self, arc: Float[Tensor, "*batch agents"]
    ) -> tuple[Float[Tensor, "*batch agents 2"], Float[Tensor, "*batch agents"]]:
        """Tells position (m) and heading (rad) at an arc length (m) along each route."""
        index = arc.floor().clamp(0, self.heading.shape[-1] - 2)
        part = (arc - index)[..., None]
        ends = index.long()[..., None] + torch.arange(2, device=arc.device)
        xy = self.xy.gather(-2, ends[..., None].expand(*ends.shape, 2))
        heading = self.heading.gather(-1, ends)
        return (
            xy[..., 0, :].lerp(xy[..., 1, :], part),
            heading[..., 0].lerp(heading[..., 1], part[..., 0]),
        )


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """The drivable lanes of one map. Arc lengths run through all points of the map, in float64."""

    xy: Float[Tensor, "points 2"]
    arc: Float[Tensor, " points"]
    segment: Int[Tensor, " segments"]
    """Points from which a segment of a lane runs to the next point."""
    first: Int[Tensor, " features"]
    last: Int[Tensor, " features"]
    """First and last point of each feature."""
    exits: Int[Tensor, "exits 2"]
    """Lanes, and lanes that they lead on to."""
    following: Int[Tensor, " features"]
    """The lane that each lane goes on as with the least turn; -1 if it ends."""

    @classmethod
    def of(cls, roadgraph: RoadGraph) -> "Lanes":
        """Reads the lanes of a map, which is not batched and has room for a segment."""
        xy = roadgraph.xyz[:, :2]
        kind = roadgraph.feature_type
        is_lane = MapFeatureType.is_lane(kind) & (kind != MapFeatureType.LANE_BIKE_LANE)
        is_lane = is_lane & roadgraph.feature_valid
        step = xy.diff(dim=0)
        length = step.norm(dim=-1)
        on_lane = roadgraph.is_segment & is_lane[roadgraph.feature[:-1]] & (length > 0)
        # A metre from one feature to the next keeps the arc lengths of features apart.
        spans = torch.where(roadgraph.is_segment, length, 1.0)
        index = torch.arange(len(xy), device=xy.device)
        owner = torch.where(roadgraph.point_valid, roadgraph.feature, len(kind))
        ends = torch.zeros(len(kind) + 1, dtype=torch.int64, device=xy.device)
        first = ends.scatter_reduce(0, owner, index, "amin", include_self=False)[:-1]
        last = ends.scatter_reduce(0, owner, index, "amax", include_self=False)[:-1]
        exits = _exits(roadgraph, is_lane & (last > first))
        end = step[(last - 1).clamp(min=0)]
        heading = torch.atan2(end[:, 1], end[:, 0])
        zero = length.new_zeros(1)
        return cls(
            xy=xy,
            arc=torch.cat([zero.double(), spans.double().cumsum(0)]),
            segment=on_lane.nonzero()[:, 0],
            first=first,
            last=last,
            exits=exits,
            following=_following(exits, heading),
        )

    def chain(
        self, lane: Int[Tensor, " agents"], start_arc: Float[Tensor, " agents"]
    ) -> tuple[Int[Tensor, "agents arc"], Float[Tensor, "agents arc"], Float[Tensor, " agents"]]:
        """Goes from lane to lane. Tells lane and arc on the map at each metre, and the length.

        Beyond the length, the arc goes on past the end of the last lane.
        """
        chain, begins, enters = [lane], [torch.zeros_like(start_arc)], [start_arc]
        length = self.arc[self.last[lane]] - start_arc
        for _ in range(MAX_LANES - 1):
            following = self.following[lane]
            goes_on = following >= 0
            lane = torch.where(goes_on, following, lane)
            chain.append(lane)
            begins.append(torch.where(goes_on, length, math.inf))
            first, last = self.arc[self.first[lane]], self.arc[self.last[lane]]
            enters.append(first)
            length = torch.where(goes_on, length + last - first, length)
        metres = torch.arange(ROUTE_LENGTH + 1.0, device=start_arc.device, dtype=start_arc.dtype)
        starts = torch.stack(begins, dim=1)
        place = (starts[:, None] <= metres[:, None]).sum(dim=-1) - 1
        map_arc = torch.stack(enters, dim=1).gather(1, place) + metres - starts.gather(1, place)
        lanes = torch.stack(chain, dim=1).gather(1, place)
        return lanes, map_arc, length.clamp(max=ROUTE_LENGTH)

    def points_at(
        self, lane: Int[Tensor, "*shape"], map_arc: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape 2"]:
        """Finds where arcs lie on lanes. Beyond the end of a lane, it goes straight on."""
        index = torch.searchsorted(self.arc, map_arc.contiguous(), right=True) - 1
        index = torch.minimum(index, self.last[lane] - 1)
        index = torch.maximum(index, self.first[lane]).clamp(max=len(self.xy) - 2)
        span = self.arc[index + 1] - self.arc[index]
        part = (map_arc - self.arc[index]) / span.clamp(min=1e-6)
        return torch.lerp(self.xy[index], self.xy[index + 1], part[..., None].to(self.xy))

    def project(
        self, xy: Float[Tensor, "agents 2"], heading: Float[Tensor, " agents"]
    ) -> tuple[
        Float[Tensor, "agents segments"],
        Float[Tensor, "agents segments"],
        Float[Tensor, "agents segments"],
    ]:
        """Measures where poses are on each segment.

        Returns:
            The distance from it (m), the cosine of the angle with it, and the arc of its nearest
            point.
        """
        start = self.xy[self.segment]
        step = self.xy[self.segment + 1] - start
        length = step.norm(dim=-1)
        offset = xy[:, None] - start
        part = ((offset * step).sum(dim=-1) / length.square()).clamp(0, 1)
        distance = (offset - part[..., None] * step).norm(dim=-1)
        direction = torch.stack([heading.cos(), heading.sin()], dim=-1)
        cos = direction @ (step / length[:, None]).T
        return distance, cos, self.arc[self.segment] + part * length


def _exits(roadgraph: RoadGraph, is_lane: Bool[Tensor, " features"]) -> Int[Tensor, "exits 2"]:
    links = roadgraph.links
    # (links, features)
    same = (links.other_id[:, None] == roadgraph.feature_id) & is_lane
    leads_on = links.valid & (links.type == LaneLinkType.EXIT_LANE) & same.any(dim=1)
    other = same[leads_on].to(torch.uint8).argmax(dim=1)
    return torch.stack([links.feature[leads_on], other], dim=-1)


def _following(
    exits: Int[Tensor, "exits 2"], heading: Float[Tensor, " features"]
) -> Int[Tensor, " features"]:
    lane, other = exits.unbind(-1)
    turn = wrap_angle(heading[other] - heading[lane]).abs()
    least = torch.full_like(heading, math.inf).scatter_reduce(0, lane, turn, "amin")
    # Of equal turns, the first exit.
    index = torch.where(turn == least[lane], torch.arange(len(turn), device=turn.device), len(turn))
    never = torch.full(heading.shape, len(turn), device=turn.device)
    chosen = never.scatter_reduce(0, lane, index, "amin")
    return torch.where(chosen < len(turn), torch.cat([other, other.new_zeros(1)])[chosen], -1)


def _lay_routes(state: SimState) -> LaneRoutes:
    scenario, now = state.scenario, state.current
    xy, heading = now.xy[:, 0], now.heading[:, 0]
    drives = now.valid[:, 0] & (scenario.agents.type == AgentType.VEHICLE)
    roadgraph = scenario.roadgraph.with_room_for_a_segment()
    lanes = Lanes.of(roadgraph)
    segment, start_arc, on_lane = _nearest_segment(xy, heading, lanes)
    lane, map_arc, length = lanes.chain(roadgraph.feature[segment], start_arc)
    path, path_heading = _merge(lanes.points_at(lane, map_arc), xy, heading)
    return LaneRoutes(
        xy=path,
        heading=path_heading,
        speed_limit=roadgraph.speed_limit[lane] * MPH,
        length=length.to(xy),
        stop=_stops(path, lane, scenario),
        valid=drives & on_lane,
    )


def _nearest_segment(
    xy: Float[Tensor, "agents 2"], heading: Float[Tensor, " agents"], lanes: Lanes
) -> tuple[Int[Tensor, " agents"], Float[Tensor, " agents"], Bool[Tensor, " agents"]]:
    """Finds the lane segment that each agent is on, the arc length there, and whether there is."""
    if not len(lanes.segment):
        nowhere = torch.zeros_like(heading, dtype=torch.int64)
        return nowhere, torch.zeros_like(heading).double(), torch.zeros_like(heading).bool()
    distance, cos, arc = lanes.project(xy, heading)
    is_near = (distance <= MAX_OFFSET) & (cos >= MIN_COS)
    cost = torch.where(is_near, distance + TURN_COST * (1 - cos), math.inf)
    least, chosen = cost.min(dim=1)
    arc = arc.gather(1, chosen[:, None])[:, 0]
    return lanes.segment[chosen], arc, least.isfinite()


def _merge(
    path: Float[Tensor, "agents arc 2"],
    xy: Float[Tensor, "agents 2"],
    heading: Float[Tensor, " agents"],
) -> tuple[Float[Tensor, "agents arc 2"], Float[Tensor, "agents arc"]]:
    """Bends a path so that it starts at the agent, with its heading."""
    progress = torch.arange(path.shape[1], device=path.device).to(path) / MERGE_LENGTH
    fade = (1 - progress).clamp(min=0) ** 2 * (1 + 2 * progress)
    path = path + (xy - path[:, 0])[:, None] * fade[:, None]
    step = path.diff(dim=1)
    direction = torch.atan2(step[..., 1], step[..., 0])
    direction = torch.cat([direction, direction[:, -1:]], dim=1)
    turns = wrap_angle(direction.diff(dim=1)).cumsum(dim=1)
    direction = direction[:, :1] + torch.cat([torch.zeros_like(turns[:, :1]), turns], dim=1)
    return path, direction + wrap_angle(heading - direction[:, 0])[:, None] * fade


def _stops(
    path: Float[Tensor, "agents arc 2"], lane: Int[Tensor, "agents arc"], scenario: Scenario
) -> Float[Tensor, "agents lights"]:
    """Finds how far along its path each light stops an agent: where its lane's path is nearest."""
    lights = scenario.traffic_lights
    observed = lights.valid.any(dim=-1)
    step = lights.valid.to(torch.uint8).argmax(dim=-1)
    stop = lights.stop_xyz[torch.arange(len(step), device=step.device), step, :2]
    lane_id = scenario.roadgraph.feature_id[lane]
    # (agents, lights, arc)
    same = (lane_id[:, None] == lights.lane_id[:, None]) & observed[:, None]
    distance = (path[:, None] - stop[:, None]).norm(dim=-1)
    nearest, arc = torch.where(same, distance, math.inf).min(dim=-1)
    return torch.where(nearest < STOP_TOLERANCE, arc.to(path), math.inf)

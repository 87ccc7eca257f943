"""What users of the Gymnasium environment see: padded tensors of fixed size.

Every observation is a dictionary of agents, map and lights in one frame, the scenario's own
("scene") or that of the sdc at the current step ("sdc"):

    agents             (max_agents, 11, 6)   the last 11 steps, the current one last: x, y (m),
                                             cos and sin of the heading, velocity x, y (m/s)
    agents_valid       (max_agents, 11)
    agent_attributes   (max_agents, 9)       length, width, height (m); is it a vehicle, pedestrian,
                                             cyclist, other; the sdc; controlled
    map                (max_map_points, 12)  x, y (m); the direction of travel as a unit vector;
                                             one-hot of `MAP_CLASSES`
    map_valid          (max_map_points,)
    lights             (max_lights, 6)       x, y of the stop point (m); one-hot of `LIGHT_CLASSES`
    lights_valid       (max_lights,)

Row i of the agents is agent i of the state. Numbers are finite, zero where not valid, and at most
`LIMIT` in size. Map points lie about `POINT_SPACING` apart along their polylines, the nearest to
the origin of the frame first; so are lights.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from catk_sim.constants import HISTORY_STEPS
from catk_sim.datatypes import (
    AgentMetadata,
    AgentType,
    MapFeatureType,
    RoadGraph,
    SimState,
    TensorTree,
    TrafficLightState,
)
from catk_sim.geometry.se2 import rotate, to_local

LIMIT = 1e5
"""Largest size of an observed number; what lies beyond is cut off."""

POINT_SPACING = 2.0
"""Distance between observed points along a polyline (m)."""

MAP_CLASSES = (
    ("lane", (0, 1, 2)),
    ("bike lane", (3,)),
    ("road line", tuple(range(5, 14))),
    ("road edge", (14, 15, 16)),
    ("stop sign", (17,)),
    ("crosswalk", (18,)),
    ("speed bump", (19,)),
    ("driveway", (20,)),
)
"""Kinds of map points that an observation tells apart, and their `MapFeatureType` codes."""

LIGHT_CLASSES = (
    ("unknown", (0,)),
    ("stop", (1, 4, 7)),
    ("caution", (2, 5, 8)),
    ("go", (3, 6)),
)
"""States of lights that an observation tells apart, and their `TrafficLightState` codes."""

_TYPE_CLASSES = (("vehicle", (1,)), ("pedestrian", (2,)), ("cyclist", (3,)), ("other", (0, 4)))


@dataclass(frozen=True, kw_only=True)
class ObservationSizes:
    """How many of each thing an observation has room for."""

    max_agents: int
    """Agents; the first of the state."""
    max_map_points: int
    """Map points; the nearest."""
    max_lights: int
    """Traffic lights; the nearest."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MapPoints(TensorTree):
    """The points of a map that may be observed, the nearest to the scenario's origin first.

    Attributes:
        xy: Positions (m).
        direction: Unit vectors along the polyline; zero for lone points.
        one_hot: Class of each point, in the order of `MAP_CLASSES`.
        valid: False for padding.
        num_left_out: Points that there was no room for.
    """

    xy: Float[Tensor, "*batch candidates 2"]
    direction: Float[Tensor, "*batch candidates 2"]
    one_hot: Float[Tensor, "*batch candidates classes"]
    valid: Bool[Tensor, "*batch candidates"]
    num_left_out: Int[Tensor, "*batch"]


def observation_space(sizes: ObservationSizes) -> spaces.Space:
    """Describes the observation of one world."""

    def floats(*shape: int) -> spaces.Box:
        return spaces.Box(-LIMIT, LIMIT, shape, np.float32)

    def booleans(*shape: int) -> spaces.Box:
        dtype: Any = np.bool_  # Gymnasium takes it, but does not say so.
        return spaces.Box(0, 1, shape, dtype)

    return spaces.Dict(
        {
            "agents": floats(sizes.max_agents, HISTORY_STEPS, 6),
            "agents_valid": booleans(sizes.max_agents, HISTORY_STEPS),
            "agent_attributes": floats(sizes.max_agents, 5 + len(_TYPE_CLASSES)),
            "map": floats(sizes.max_map_points, 4 + len(MAP_CLASSES)),
            "map_valid": booleans(sizes.max_map_points),
            "lights": floats(sizes.max_lights, 2 + len(LIGHT_CLASSES)),
            "lights_valid": booleans(sizes.max_lights),
        }
    )


def observable_points(roadgraph: RoadGraph, num_candidates: int) -> MapPoints:
    """Thins a map once per episode, and keeps the points nearest to the scenario's origin."""
    xy = roadgraph.xyz[..., :2]
    kept = _every_so_often(roadgraph)
    index = _nearest(xy, kept, min(num_candidates, kept.shape[-1]))
    valid = kept.gather(-1, index)
    one_hot = _one_hot(roadgraph.point_type, MAP_CLASSES, xy.dtype)

    def chosen(values: Tensor) -> Tensor:
        return fit(_rows(values, index), index.dim() - 1, num_candidates)

    return MapPoints(
        xy=chosen(xy),
        direction=chosen(_directions(roadgraph)),
        one_hot=chosen(one_hot),
        valid=fit(valid, index.dim() - 1, num_candidates),
        num_left_out=kept.sum(-1) - valid.sum(-1),
    )


def observe(
    state: SimState, points: MapPoints, sizes: ObservationSizes, *, from_sdc: bool
) -> dict[str, Tensor]:
    """Describes a batch of worlds to a learner, as the module's docstring lays out.

    Args:
        state: The worlds, with one batch dimension.
        points: What may be seen of their maps.
        sizes: How much there is room for.
        from_sdc: Whether the frame is the sdc's; else it is the scenario's own.
    """
    frame = _sdc_pose(state) if from_sdc else _no_motion(state)
    agents, agents_valid = _agents(state, frame)
    seen, seen_valid = _map(points, frame, sizes.max_map_points)
    lights, lights_valid = _lights(state, frame, sizes.max_lights)
    return {
        "agents": fit(_finish(agents, agents_valid), 1, sizes.max_agents),
        # A copy: what a learner does to it must not change the state.
        "agents_valid": fit(agents_valid.clone(), 1, sizes.max_agents),
        "agent_attributes": fit(_attributes(state), 1, sizes.max_agents),
        "map": _finish(seen, seen_valid),
        "map_valid": seen_valid,
        "lights": _finish(lights, lights_valid),
        "lights_valid": lights_valid,
    }


def _every_so_often(roadgraph: RoadGraph) -> Bool[Tensor, "*batch points"]:
    """Keeps the ends of every polyline, and a point every `POINT_SPACING` between them."""
    goes_on, comes_on = pad(roadgraph.is_segment, (0, 1)), pad(roadgraph.is_segment, (1, 0))
    length = roadgraph.xyz[..., :2].diff(dim=-2).norm(dim=-1) * roadgraph.is_segment
    travelled = pad(length.cumsum(-1), (1, 0))
    # Off zero, as points are often whole or half metres apart, where rounding would decide.
    stretch = (travelled / POINT_SPACING + 0.3).floor()
    is_next = pad(stretch.diff(dim=-1) > 0, (1, 0))
    return roadgraph.point_valid & (is_next | ~goes_on | ~comes_on)


def _directions(roadgraph: RoadGraph) -> Float[Tensor, "*batch points 2"]:
    """Finds where each point's polyline leads; the last one looks where the one before it does."""
    move = roadgraph.xyz[..., :2].diff(dim=-2) * roadgraph.is_segment[..., None]
    unit = move / move.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    goes_on = pad(roadgraph.is_segment, (0, 1))
    return torch.where(goes_on[..., None], pad(unit, (0, 0, 0, 1)), pad(unit, (0, 0, 1, 0)))


@dataclass(frozen=True, eq=False, kw_only=True)
class _Frame(TensorTree):
    xy: Float[Tensor, "worlds 2"]
    heading: Float[Tensor, " worlds"]

    def points(self, xy: Float[Tensor, "worlds *rows 2"]) -> Float[Tensor, "worlds *rows 2"]:
        rows = (1,) * (xy.dim() - 2)
        return to_local(xy, self.xy.reshape(-1, *rows, 2), self.heading.reshape(-1, *rows))

    def vectors(self, xy: Float[Tensor, "worlds *rows 2"]) -> Float[Tensor, "worlds *rows 2"]:
        return rotate(xy, -self.heading.reshape(-1, *(1,) * (xy.dim() - 2)))


def _sdc_pose(state: SimState) -> _Frame:
    # The scenario's own frame where there is no sdc.
    current = state.current
    weight = (state.scenario.agents.is_sdc & current.valid[..., 0]).to(current.xy.dtype)
    return _Frame(
        xy=(weight[..., None] * current.xy[..., 0, :]).sum(-2),
        heading=(weight * current.heading[..., 0]).sum(-1),
    )


def _no_motion(state: SimState) -> _Frame:
    heading = torch.zeros(state.step.shape, dtype=state.history.xy.dtype, device=state.step.device)
    return _Frame(xy=torch.stack([heading, heading], dim=-1), heading=heading)


def _agents(
    state: SimState, frame: _Frame
) -> tuple[Float[Tensor, "worlds agents steps 6"], Bool[Tensor, "worlds agents steps"]]:
    history = state.history
    heading = history.heading - frame.heading[:, None, None]
    facing = torch.stack([heading.cos(), heading.sin()], dim=-1)
    features = [frame.points(history.xy), facing, frame.vectors(history.velocity)]
    return torch.cat(features, dim=-1), history.valid


def _attributes(state: SimState) -> Float[Tensor, "worlds agents features"]:
    agents: AgentMetadata = state.scenario.agents
    dtype = agents.size.dtype
    flags = torch.stack([agents.is_sdc, state.controlled], dim=-1).to(dtype)
    kind = type_one_hot(agents.type, dtype)
    return _finish(torch.cat([agents.size, kind, flags], dim=-1), agents.valid)


def _map(
    points: MapPoints, frame: _Frame, room: int
) -> tuple[Float[Tensor, "worlds points features"], Bool[Tensor, "worlds points"]]:
    if points.valid.shape[-1] > room:
        distance = (points.xy - frame.xy[:, None]).square().sum(-1)
        distance = distance.masked_fill(~points.valid, torch.inf)
        # There are always as many candidates, so padding decides nothing, and this is faster.
        index = distance.topk(room, largest=False).indices
        points = points.replace(
            xy=_rows(points.xy, index),
            direction=_rows(points.direction, index),
            one_hot=_rows(points.one_hot, index),
            valid=points.valid.gather(-1, index),
        )
    features = [frame.points(points.xy), frame.vectors(points.direction), points.one_hot]
    return torch.cat(features, dim=-1), points.valid


def _lights(
    state: SimState, frame: _Frame, room: int
) -> tuple[Float[Tensor, "worlds lights features"], Bool[Tensor, "worlds lights"]]:
    xy, kind, valid = current_lights(state)
    features = torch.cat([frame.points(xy), kind], dim=-1)
    if valid.shape[-1] > room:
        index = _nearest(xy - frame.xy[:, None], valid, room)
        features, valid = _rows(features, index), valid.gather(-1, index)
    return fit(features, 1, room), fit(valid, 1, room)


def current_lights(
    state: SimState,
) -> tuple[
    Float[Tensor, "worlds lights 2"],
    Float[Tensor, "worlds lights 4"],
    Bool[Tensor, "worlds lights"],
]:
    """Reads the lights of the current step: stop points (m), one-hot states, and which are seen."""
    lights = state.scenario.traffic_lights
    now = lights.at(state.step)
    xy = now.stop_xyz[..., 0, :2]
    valid = now.valid[..., 0] & (state.step < lights.valid.shape[-1])[:, None]
    return xy, _one_hot(now.state[..., 0], LIGHT_CLASSES, xy.dtype), valid


def type_one_hot(
    agent_type: Int[Tensor, "*shape"], dtype: torch.dtype
) -> Float[Tensor, "*shape 4"]:
    """Tells whether agents are vehicles, pedestrians, cyclists, or something else."""
    return _one_hot(agent_type, _TYPE_CLASSES, dtype)


def _nearest(
    offset: Float[Tensor, "*batch rows 2"], valid: Bool[Tensor, "*batch rows"], count: int
) -> Int[Tensor, "*batch count"]:
    distance = offset.square().sum(-1).masked_fill(~valid, torch.inf)
    # Stable, so that padding does not decide between points that are equally far.
    return distance.argsort(dim=-1, stable=True)[..., :count]


def _rows(
    values: Float[Tensor, "*batch rows features"], index: Int[Tensor, "*batch count"]
) -> Float[Tensor, "*batch count features"]:
    return torch.take_along_dim(values, index[..., None], dim=-2)


def _one_hot(
    code: Int[Tensor, "*shape"],
    classes: tuple[tuple[str, tuple[int, ...]], ...],
    dtype: torch.dtype,
) -> Float[Tensor, "*shape classes"]:
    table = torch.zeros(_NUM_CODES, len(classes))
    for row, (_, codes) in enumerate(classes):
        table[list(codes), row] = 1
    return table.to(code.device, dtype)[code]


_NUM_CODES = 1 + max(*MapFeatureType, *TrafficLightState, *AgentType)


def _finish(
    features: Float[Tensor, "*rows features"], valid: Bool[Tensor, "*rows"]
) -> Float[Tensor, "*rows features"]:
    return features.masked_fill(~valid[..., None], 0).clamp(-LIMIT, LIMIT).to(torch.float32)


def fit(values: Tensor, dim: int, length: int) -> Tensor:
    """Cuts one dimension to a length, or pads it with zeros. Returns what fits as it is."""
    if values.shape[dim] == length:
        return values
    values = values.narrow(dim, 0, min(length, values.shape[dim]))
    missing = length - values.shape[dim]
    after = values.dim() - 1 - dim
    return pad(values, (0, 0) * after + (0, missing))

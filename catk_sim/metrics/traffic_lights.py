"""Red lights that are run."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from catk_sim.datatypes import (
    MapFeatureType,
    RoadGraph,
    TensorTree,
    TrafficLights,
    TrafficLightState,
)
from catk_sim.metrics.box_trajectory import BoxTrajectory, take_agents

FAR = 1e9
"""Where padding lies (m): never nearest, so that no pass over the distances needs to mask it."""

SAMPLE_STRIDE = 16
"""One of so many segments is looked at before all are: it may be nearer than the lane asked for."""

MAX_PAIRS = 1 << 20
"""Pairs of a point and a segment that are looked at together, which bounds the memory."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SignalledLanes(TensorTree):
    """The surface streets of a map, and where and when signals forbid to go on.

    Only signals of surface streets that are red at some step are here; if there is none, one that
    never is. The stop segment of a signal is the segment of its lane nearest to its stop point.

    Attributes:
        segment: x, y of the start and from there to the end (m), in the order of the file. See
            `_lane_segments`. Padding lies `FAR` away.
        first: Index of the first segment of each signal's lane.
        num_segments: How many segments that lane has.
        stop_segment: x, y of the start and from there to the end (m) of each stop segment.
        stop_position: Where the stop point is along it, in lengths of the segment.
        is_red: Whether the signal forbids to go on. A flashing light does not.
    """

    segment: Float[Tensor, "*batch 4 segments"]
    first: Int[Tensor, "*batch signals"]
    num_segments: Int[Tensor, "*batch signals"]
    stop_segment: Float[Tensor, "*batch 4 signals steps"]
    stop_position: Float[Tensor, "*batch signals steps"]
    is_red: Bool[Tensor, "*batch signals steps"]

    @classmethod
    def from_map(cls, roadgraph: RoadGraph, lights: TrafficLights) -> "SignalledLanes":
        """Finds the stop segments on a map.

        A lane that is listed twice at a step has the state and the stop point that come last.

        Args:
            roadgraph: The map, float32, in the frame of the file. Its origin matters: WOSAC
                puts there what ends a short lane, and the stop points of unobserved signals.
            lights: The signals, in the same frame.
        """
        batch = lights.lane_id.shape[:-1]

        def flatten(tensor: Tensor) -> Tensor:
            return tensor.reshape(math.prod(batch), *tensor.shape[len(batch) :])

        lanes = cls._of_scenes(
            roadgraph.with_room_for_a_segment().map(flatten), _merge_rows(lights).map(flatten)
        )
        return lanes.map(lambda tensor: tensor.reshape(*batch, *tensor.shape[1:]))

    @classmethod
    def _of_scenes(cls, roadgraph: RoadGraph, lights: TrafficLights) -> "SignalledLanes":
        """Does the same for one batch dimension and lights that are listed once."""
        segment, first, num_segments = _lane_segments(roadgraph)
        on_street, feature = _find(lights.lane_id, roadgraph.feature_id, num_segments > 0)
        is_red = (lights.state == TrafficLightState.ARROW_STOP) | (
            lights.state == TrafficLightState.STOP
        )
        is_red &= lights.valid & on_street[..., None]
        stop_xy = torch.where(lights.valid[..., None], lights.stop_xyz[..., :2], 0.0)

        # The signals that matter, in order, and others to fill up.
        matters = is_red.any(-1)
        kept = matters.int().argsort(dim=1, descending=True, stable=True)
        kept = kept[:, : max(1, int(matters.sum(1).max()))]
        feature = feature.gather(1, kept)
        first, num_segments = first.gather(1, feature), num_segments.gather(1, feature)
        stop_xy = torch.take_along_dim(stop_xy, kept[..., None, None], dim=1)
        nearest = _nearest_in_lane(stop_xy, first, num_segments, segment)
        stop_segment = segment.gather(2, nearest.flatten(1)[:, None].expand(-1, 4, -1))
        stop_segment = stop_segment.unflatten(2, nearest.shape[1:])
        return cls(
            segment=segment,
            first=first,
            num_segments=num_segments,
            stop_segment=stop_segment,
            stop_position=_position(*stop_xy.unbind(-1), *stop_segment.unbind(1)),
            is_red=torch.take_along_dim(is_red, kept[..., None], dim=1),
        )

    def slice(self, start: int, stop: int | None = None) -> "SignalledLanes":
        """Returns the steps from `start` up to but not including `stop`; by default all others."""
        return self.replace(
            stop_segment=self.stop_segment[..., start:stop],
            stop_position=self.stop_position[..., start:stop],
            is_red=self.is_red[..., start:stop],
        )


def traffic_light_violation(
    boxes: BoxTrajectory, lanes: SignalledLanes, evaluated: Int[Tensor, "*scenes evaluated"]
) -> Bool[Tensor, "*batch evaluated steps"]:
    """Tells when agents run a red light.

    That is when the centre of a valid box was before a stop point one step ago and is beyond it
    now, on the lane of a signal that is red now. The measure of WOSAC 2025's
    `traffic_light_violation`, which asks neither where the agent heads nor whether it was valid.

    Args:
        boxes: Boxes at the steps of `lanes`. At the first of them nobody runs a light, since none
            is before it: slice both from the step before the first one that matters.
        lanes: The lanes and signals of each scenario.
        evaluated: Indices of the agents to judge. The batch may have further dimensions before the
            scenarios'.

    Raises:
        ValueError: If the steps differ in number.
    """
    if boxes.valid.shape[-1] != lanes.is_red.shape[-1]:
        raise ValueError(
            f"wanted boxes at the {lanes.is_red.shape[-1]} steps of the lanes, "
            f"got {boxes.valid.shape[-1]}"
        )
    x, y, valid = (take_agents(field, evaluated) for field in (boxes.x, boxes.y, boxes.valid))
    crosses = _crosses(x, y, lanes) & lanes.is_red[..., None, :] & valid[..., None, :, :]
    *_, num_signals, num_agents, num_steps = crosses.shape
    found = crosses.flatten().nonzero()[:, 0]
    row = num_agents * num_steps
    signal = found // row % lanes.first.numel()
    box = found // (num_signals * row) * row + found % row

    xy = torch.stack([x.flatten()[box], y.flatten()[box]], dim=-1)
    violation = torch.zeros(valid.numel(), dtype=torch.bool, device=valid.device)
    violation[box[_is_on_lane(xy, signal, lanes)]] = True
    return violation.reshape(valid.shape)


def _crosses(
    x: Float[Tensor, "*batch evaluated steps"],
    y: Float[Tensor, "*batch evaluated steps"],
    lanes: SignalledLanes,
) -> Bool[Tensor, "*batch signals evaluated steps"]:
    """Tells when agents pass the stop points of signals. Every step has its own stop segment."""
    segment = (part[..., None, :] for part in lanes.stop_segment.unbind(-3))
    position = _position(x[..., None, :, :], y[..., None, :, :], *segment)
    stop = lanes.stop_position[..., None, :]
    crosses = (position < stop).roll(1, dims=-1) & (position > stop)
    crosses[..., 0] = False
    return crosses


def _is_on_lane(
    xy: Float[Tensor, "points 2"], signal: Int[Tensor, " points"], lanes: SignalledLanes
) -> Bool[Tensor, " points"]:
    """Tells which points are on the lane of a signal: nearer to it than to any other lane.

    Args:
        xy: The points (m).
        signal: Index of a signal for each of them, counted through all scenarios.
        lanes: The lanes and signals of each scenario.
    """
    result = torch.zeros(len(xy), dtype=torch.bool, device=xy.device)
    if not len(xy):
        return result
    num_segments = lanes.segment.shape[-1]
    segment = lanes.segment.reshape(-1, 4, num_segments)
    first, num = lanes.first.flatten()[signal], lanes.num_segments.flatten()[signal]
    scene = signal // lanes.first.shape[-1]
    sample = segment[..., ::SAMPLE_STRIDE].contiguous()
    points = torch.arange(len(xy), device=xy.device)
    for some in points.split(max(1, MAX_PAIRS // num_segments)):
        own, _ = _squared_distances_in_lane(xy[some], first[some], num[some], scene[some], segment)
        sampled = _squared_distances(xy[some], sample[scene[some]])
        some = some[own.amin(-1) <= sampled.amin(-1)]
        nearest = _squared_distances(xy[some], segment[scene[some]]).argmin(-1)
        result[some] = (nearest >= first[some]) & (nearest < first[some] + num[some])
    return result


def _nearest_in_lane(
    xy: Float[Tensor, "scenes signals steps 2"],
    first: Int[Tensor, "scenes signals"],
    num_segments: Int[Tensor, "scenes signals"],
    segment: Float[Tensor, "scenes 4 segments"],
) -> Int[Tensor, "scenes signals steps"]:
    """Finds the segment of each signal's lane that is nearest to its stop point."""
    is_new = torch.ones(xy.shape[:-1], dtype=torch.bool, device=xy.device)
    is_new[..., 1:] = (xy[..., 1:, :] != xy[..., :-1, :]).any(-1)
    scene, signal, _ = is_new.nonzero().unbind(-1)
    lane = first[scene, signal], num_segments[scene, signal]
    distance, index = _squared_distances_in_lane(xy[is_new], *lane, scene, segment)
    nearest = index.gather(1, distance.argmin(-1, keepdim=True))[:, 0]
    # A stop point stays where it is for most of the time.
    return nearest[is_new.flatten().cumsum(0) - 1].reshape(is_new.shape)


def _squared_distances_in_lane(
    xy: Float[Tensor, "points 2"],
    first: Int[Tensor, " points"],
    num_segments: Int[Tensor, " points"],
    scene: Int[Tensor, " points"],
    segment: Float[Tensor, "scenes 4 segments"],
) -> tuple[Float[Tensor, "points places"], Int[Tensor, "points places"]]:
    """Measures how far points are from the segments of a lane (m^2). Returns these' indices too.

    Lanes have different numbers of segments; infinity and some index fill up.
    """
    place = torch.arange(max(1, int(num_segments.max())), device=xy.device)
    index = (first[:, None] + place).clamp(max=segment.shape[-1] - 1)
    distance = _squared_distances(xy, segment[scene[:, None], :, index].movedim(-1, 1))
    return distance.masked_fill(place >= num_segments[:, None], math.inf), index


def _squared_distances(
    xy: Float[Tensor, "points 2"], segment: Float[Tensor, "points 4 segments"]
) -> Float[Tensor, "points segments"]:
    """Measures how far points are from segments (m^2), as WOSAC does for lanes.

    That is not the distance. From the foot of the perpendicular one should go back to the start;
    WOSAC goes as far in the other direction. Within a segment a point counts for farther away.
    """
    start_x, start_y, along_x, along_y = segment.unbind(1)
    x, y = xy[:, :1] - start_x, xy[:, 1:] - start_y
    position = _position(xy[:, :1], xy[:, 1:], start_x, start_y, along_x, along_y).clamp(0, 1)
    x, y = x + position * along_x, y + position * along_y
    return x * x + y * y


def _position(
    x: Float[Tensor, "*#shape"],
    y: Float[Tensor, "*#shape"],
    start_x: Float[Tensor, "*#shape"],
    start_y: Float[Tensor, "*#shape"],
    along_x: Float[Tensor, "*#shape"],
    along_y: Float[Tensor, "*#shape"],
) -> Float[Tensor, "*shape"]:
    """Projects points on lines, in lengths of the segment; 0 on a segment without length."""
    squared = along_x * along_x + along_y * along_y
    dot = (x - start_x) * along_x + (y - start_y) * along_y
    return torch.where(squared == 0, 0.0, dot / squared)


def _lane_segments(
    roadgraph: RoadGraph,
) -> tuple[
    Float[Tensor, "scenes 4 segments"],
    Int[Tensor, "scenes features"],
    Int[Tensor, "scenes features"],
]:
    """Cuts surface streets into segments. Returns each feature's first one and their number too.

    WOSAC pads lanes with zeros to the length of the longest and takes for a segment whatever
    starts at a true point. So a lane that is not the longest goes on to the origin, and we keep
    that. The last point of the longest, which starts nothing, is `FAR` away here.
    """
    is_street = roadgraph.feature_type == MapFeatureType.LANE_SURFACE_STREET
    on_street = roadgraph.point_valid & is_street.gather(1, roadgraph.feature)
    num = torch.zeros_like(roadgraph.feature_id)
    num = num.scatter_add(1, roadgraph.feature, on_street.to(num.dtype))
    num = torch.where(num < 2, 0, num)
    on_street &= num.gather(1, roadgraph.feature) > 0

    kept = torch.where(on_street, roadgraph.feature, num.shape[1]).argsort(dim=1, stable=True)
    kept = kept[:, : max(1, int(num.sum(1).max()))]
    exists, feature = on_street.gather(1, kept), roadgraph.feature.gather(1, kept)
    start = torch.take_along_dim(roadgraph.xyz[..., :2], kept[..., None], dim=1)
    goes_on = pad((feature[:, 1:] == feature[:, :-1]) & exists[:, 1:], (0, 1))
    end = torch.where(goes_on[..., None], start.roll(-1, dims=1), 0.0)
    starts = exists & (goes_on | (num < num.amax(1, keepdim=True)).gather(1, feature))
    segment = torch.cat([start, end - start], dim=-1)
    segment = torch.where(starts[..., None], segment, segment.new_tensor([FAR, FAR, 0, 0]))
    return segment.transpose(1, 2).contiguous(), num.cumsum(1) - num, num


def _merge_rows(lights: TrafficLights) -> TrafficLights:
    """Gives all rows of a lane what the last of them says that is observed at the step.

    A signal remains a signal if it is here twice. Makes one row, never observed, if there is none.
    """
    if not lights.lane_id.shape[-1]:
        return lights.replace(
            lane_id=pad(lights.lane_id, (0, 1)),
            state=pad(lights.state, (0, 0, 0, 1)),
            stop_xyz=pad(lights.stop_xyz, (0, 0, 0, 0, 0, 1)),
            valid=pad(lights.valid, (0, 0, 0, 1)),
        )
    same = lights.lane_id[..., :, None] == lights.lane_id[..., None, :]
    observed = same[..., None] & lights.valid[..., None, :, :]
    row = torch.arange(same.shape[-1], device=same.device)
    last = torch.where(observed, row[:, None], -1).amax(-2)
    at = last.clamp(min=0)
    return lights.replace(
        state=lights.state.gather(-2, at),
        stop_xyz=torch.take_along_dim(lights.stop_xyz, at[..., None], dim=-3),
        valid=last >= 0,
    )


def _find(
    wanted: Int[Tensor, "scenes lights"],
    feature_id: Int[Tensor, "scenes features"],
    counts: Bool[Tensor, "scenes features"],
) -> tuple[Bool[Tensor, "scenes lights"], Int[Tensor, "scenes lights"]]:
    """Finds ids among those of the features that count: whether they are there, and where."""
    same = (wanted[..., None] == feature_id[:, None]) & counts[:, None]
    return same.any(-1), same.int().argmax(-1)

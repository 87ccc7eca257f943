"""Writing Waymo's `Scenario` protocol buffers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from catk_sim.constants import CURRENT_STEP
from catk_sim.datasets.protos import waymo_protos
from catk_sim.datasets.tfrecord import write_records
from catk_sim.datasets.womd_map import FEATURE_CODES, TYPED
from catk_sim.datasets.womd_schema import writing_class
from catk_sim.datatypes import LaneLinks, LaneLinkType, RoadGraph, Scenario

_STATE = ("length", "width", "height", "heading", "velocity_x", "velocity_y")
_PLAIN = {
    LaneLinkType.ENTRY_LANE: "entry_lanes",
    LaneLinkType.EXIT_LANE: "exit_lanes",
    LaneLinkType.STOP_SIGN_LANE: "lane",
}
_NEIGHBORS = {
    LaneLinkType.LEFT_NEIGHBOR: "left_neighbors",
    LaneLinkType.RIGHT_NEIGHBOR: "right_neighbors",
}
_BOUNDARIES = {
    LaneLinkType.LEFT_BOUNDARY: "left_boundaries",
    LaneLinkType.RIGHT_BOUNDARY: "right_boundaries",
}


def write_scenarios(
    path: str | Path, scenarios: Iterable[Scenario], *, compress: bool | None = None
) -> None:
    """Writes scenarios as a WOMD file, which appears whole or not at all.

    It takes none of Waymo's code. What `scenario_to_proto` says of precision holds.

    Args:
        path: The file to make or to replace.
        scenarios: At least one scenario; no batches.
        compress: Whether to compress with gzip; by default if the name ends in ".gz".
    """
    write_records(path, map(serialize_scenario, scenarios), compress=compress)


def serialize_scenario(scenario: Scenario) -> bytes:
    """Makes a record of a WOMD file: what `scenario_to_proto` makes, serialized."""
    return _fill(writing_class("Scenario")(), scenario).SerializeToString()


def scenario_to_proto(scenario: Scenario) -> Any:
    """Makes a `waymo_open_dataset.protos.scenario_pb2.Scenario`.

    Positions are in the source's frame again and padding is left out, as are lights that were
    never observed. The proto has no place for `lacks`, and holds sizes, headings and velocities in
    float32.

    Args:
        scenario: One scenario, not a batch, with exactly one sdc.

    Raises:
        ImportError: If Waymo's protocol buffers are not installed.
    """
    return _fill(waymo_protos("scenario_pb2").Scenario(), scenario)


def _fill(proto: Any, scenario: Scenario) -> Any:
    """Says in a proto, which may be Waymo's or ours, what a scenario says."""
    if scenario.log.valid.dim() != 2:
        batch = tuple(scenario.log.valid.shape[:-2])
        raise ValueError(f"wanted a single scenario, got a batch of shape {batch}")
    scenario = scenario.to("cpu").to(torch.float64)
    agents = scenario.agents
    kept = agents.valid.nonzero()[:, 0]
    sdc = agents.is_sdc[kept].nonzero()[:, 0].tolist()
    if len(sdc) != 1:
        raise ValueError(f"wanted a scenario with one sdc, got {len(sdc)}")
    proto.scenario_id = scenario.scenario_id[0]
    proto.timestamps_seconds.extend(scenario.timestamps.tolist())
    proto.current_time_index = CURRENT_STEP
    proto.sdc_track_index = sdc[0]
    proto.objects_of_interest.extend(agents.agent_id[agents.valid & agents.of_interest].tolist())
    for index in agents.to_predict[kept].nonzero()[:, 0].tolist():
        difficulty = int(agents.difficulty[kept[index]])
        proto.tracks_to_predict.add(track_index=index, difficulty=difficulty)
    for index in kept.tolist():
        _add_track(proto, scenario, index)
    _add_map(proto, scenario.roadgraph, scenario.origin)
    _add_lights(proto, scenario)
    return proto


def _add_track(proto: Any, scenario: Scenario, index: int) -> None:
    agents, log = scenario.agents, scenario.log
    track = proto.tracks.add(id=int(agents.agent_id[index]), object_type=int(agents.type[index]))
    xyz = torch.cat([log.xy[index], log.z[index, :, None]], dim=-1) + scenario.origin
    rest = torch.cat(
        [scenario.log_size[index], log.heading[index, :, None], log.velocity[index]], dim=-1
    )
    for valid, (x, y, z), numbers in zip(
        log.valid[index].tolist(), xyz.tolist(), rest.tolist(), strict=True
    ):
        state = {"center_x": x, "center_y": y, "center_z": z}
        state |= dict(zip(_STATE, numbers, strict=True))
        if not valid:
            # WOMD spells out zeros of present agents only.
            state = {name: number for name, number in state.items() if number}
        track.states.add(valid=valid, **state)


def _add_map(proto: Any, roadgraph: RoadGraph, origin: Tensor) -> None:
    xyz = (roadgraph.xyz + origin)[roadgraph.point_valid]
    owner = roadgraph.feature[roadgraph.point_valid]
    points = _grouped(xyz, owner, num_groups=len(roadgraph.feature_id))
    content: dict[int, Any] = {}
    for index in roadgraph.feature_valid.nonzero()[:, 0].tolist():
        feature = proto.map_features.add(id=int(roadgraph.feature_id[index]))
        content[index] = _add_feature(feature, int(roadgraph.feature_type[index]), points[index])
        if feature.HasField("lane"):
            feature.lane.speed_limit_mph = float(roadgraph.speed_limit[index])
            if roadgraph.interpolating[index]:
                feature.lane.interpolating = True
    _add_links(content, roadgraph.links)


def _grouped(
    xyz: Float[Tensor, "points 3"], owner: Int[Tensor, " points"], num_groups: int
) -> tuple[Float[Tensor, "_ 3"], ...]:
    order = owner.argsort(stable=True)
    return xyz[order].split(owner.bincount(minlength=num_groups).tolist())


def _add_feature(feature: Any, code: int, points: Float[Tensor, "points 3"]) -> Any:
    kind = _kind(code)
    content = getattr(feature, kind)
    content.SetInParent()
    if kind in TYPED:
        content.type = FEATURE_CODES[kind].index(code)
    if kind == "stop_sign":
        for x, y, z in points.tolist():
            content.position.x, content.position.y, content.position.z = x, y, z
        return content
    line = content.polyline if kind in TYPED else content.polygon
    for x, y, z in points.tolist():
        line.add(x=x, y=y, z=z)
    return content


def _kind(code: int) -> str:
    for kind, codes in FEATURE_CODES.items():
        if code in codes:
            return kind
    raise ValueError(f"wanted the code of a map feature, got {code}")


def _add_links(content: dict[int, Any], links: LaneLinks) -> None:
    neighbors: dict[int, Any] = {}
    rows = torch.cat(
        [
            torch.stack([links.feature, links.type, links.other_id], dim=-1),
            links.span,
            torch.stack([links.boundary_type, links.neighbor], dim=-1),
        ],
        dim=-1,
    ).tolist()
    for index in links.valid.nonzero()[:, 0].tolist():
        feature, kind, other, *span, boundary_type, neighbor = rows[index]
        if feature not in content:
            continue
        if kind in _PLAIN:
            getattr(content[feature], _PLAIN[kind]).append(other)
        elif kind in _NEIGHBORS:
            neighbors[index] = _add_neighbor(content[feature], _NEIGHBORS[kind], other, span)
        elif kind in _BOUNDARIES:
            _add_boundary(getattr(content[feature], _BOUNDARIES[kind]), other, span, boundary_type)
        else:
            _add_boundary(neighbors[neighbor].boundaries, other, span, boundary_type)


def _add_neighbor(lane: Any, side: str, other: int, span: list[int]) -> Any:
    return getattr(lane, side).add(
        feature_id=other,
        self_start_index=span[0],
        self_end_index=span[1],
        neighbor_start_index=span[2],
        neighbor_end_index=span[3],
    )


def _add_boundary(boundaries: Any, other: int, span: list[int], boundary_type: int) -> None:
    boundaries.add(
        boundary_feature_id=other,
        lane_start_index=span[0],
        lane_end_index=span[1],
        boundary_type=boundary_type,
    )


def _add_lights(proto: Any, scenario: Scenario) -> None:
    lights = scenario.traffic_lights
    lane_id, state = lights.lane_id.tolist(), lights.state.tolist()
    stop_xyz = (lights.stop_xyz + scenario.origin).tolist()
    for step in range(scenario.log.num_steps):
        now = proto.dynamic_map_states.add()
        for row in lights.valid[:, step].nonzero()[:, 0].tolist():
            lane_state = now.lane_states.add(lane=lane_id[row], state=state[row][step])
            x, y, z = stop_xyz[row][step]
            lane_state.stop_point.x, lane_state.stop_point.y, lane_state.stop_point.z = x, y, z

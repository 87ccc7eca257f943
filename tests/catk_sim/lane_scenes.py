"""Scenes with a lane graph, worked out by hand."""

import math

import torch

from catk_sim.datatypes import LaneLinks, LaneLinkType, RoadGraph, Scenario
from tests import scenes


def lane_map(
    lanes: dict[int, list[tuple[float, float]]],
    links: list[tuple[int, int]],
    *,
    kind: int = 2,
    speed_limit: dict[int, float] | None = None,
) -> RoadGraph:
    """A map of lanes: by id their points, which lead on to which, and limits (mph)."""
    xy = torch.tensor([point for lane in lanes.values() for point in lane])
    index = {lane: position for position, lane in enumerate(lanes)}
    num = len(links)
    return RoadGraph(
        xyz=torch.cat([xy, torch.zeros(len(xy), 1)], dim=-1),
        feature=torch.arange(len(lanes)).repeat_interleave(
            torch.tensor([len(lane) for lane in lanes.values()])
        ),
        point_valid=torch.ones(len(xy), dtype=torch.bool),
        feature_id=torch.tensor(list(lanes)),
        feature_type=torch.full((len(lanes),), kind),
        speed_limit=torch.tensor([(speed_limit or {}).get(lane, 25.0) for lane in lanes]),
        interpolating=torch.zeros(len(lanes), dtype=torch.bool),
        feature_valid=torch.ones(len(lanes), dtype=torch.bool),
        links=LaneLinks(
            feature=torch.tensor([index[one] for one, _ in links], dtype=torch.int64),
            type=torch.full((num,), int(LaneLinkType.EXIT_LANE)),
            other_id=torch.tensor([other for _, other in links], dtype=torch.int64),
            span=torch.zeros(num, 4, dtype=torch.int64),
            boundary_type=torch.zeros(num, dtype=torch.int64),
            neighbor=torch.zeros(num, dtype=torch.int64),
            valid=torch.ones(num, dtype=torch.bool),
        ),
    )


def fork(*, links: list[tuple[int, int]], kind: int = 2) -> Scenario:
    """Car A, at (-30, -2) and eastbound, before a fork.

                      __ lane 30: turns north at (0, -2), ends at (10, 28)
                     /
      lane 10 ------<___ lane 20: bends slightly south, from (0, -2) to (60, -8)

    Lanes are listed as 10, 20, 30 and start and end exactly there. The light at x = 2 is lane 20's.
    """
    scenario = scenes.straight_road()
    lanes = {
        10: [(-100.0 + 2 * i, -2.0) for i in range(51)],
        20: [(i * 6.0, -2.0 - 0.6 * i) for i in range(11)],
        30: [(10 * math.sin(t), 8 - 10 * math.cos(t)) for t in torch.linspace(0, math.pi / 2, 9)]
        + [(10.0, 8.0 + i) for i in range(1, 21)],
    }
    limits = {10: 25.0, 20: 35.0, 30: 15.0}
    lights = scenario.traffic_lights
    stop = lights.stop_xyz.clone()
    stop[..., 0] = 2.0
    return scenario.replace(
        roadgraph=lane_map(lanes, links, kind=kind, speed_limit=limits),
        traffic_lights=lights.replace(lane_id=torch.tensor([20]), stop_xyz=stop),
    )

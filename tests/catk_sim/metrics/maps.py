"""Maps that consist of given polylines."""

import torch
from torch import Tensor

from catk_sim.datatypes import LaneLinks, MapFeatureType, RoadGraph


def map_of(
    polylines: list[Tensor], feature_type: MapFeatureType = MapFeatureType.ROAD_EDGE_BOUNDARY
) -> RoadGraph:
    """A map whose features are polylines of one type."""
    num = len(polylines)
    lengths = torch.tensor([len(polyline) for polyline in polylines])
    return RoadGraph(
        xyz=torch.cat(polylines),
        feature=torch.arange(num).repeat_interleave(lengths),
        point_valid=torch.ones(int(lengths.sum()), dtype=torch.bool),
        feature_id=torch.arange(num),
        feature_type=torch.full((num,), int(feature_type)),
        speed_limit=torch.zeros(num).to(polylines[0]),
        interpolating=torch.zeros(num, dtype=torch.bool),
        feature_valid=torch.ones(num, dtype=torch.bool),
        links=LaneLinks(
            feature=torch.zeros(0, dtype=torch.int64),
            type=torch.zeros(0, dtype=torch.int64),
            other_id=torch.zeros(0, dtype=torch.int64),
            span=torch.zeros(0, 4, dtype=torch.int64),
            boundary_type=torch.zeros(0, dtype=torch.int64),
            neighbor=torch.zeros(0, dtype=torch.int64),
            valid=torch.zeros(0, dtype=torch.bool),
        ),
    )


def polyline(*xy: tuple[float, float], z: float = 0.0) -> Tensor:
    return torch.tensor([[x, y, z] for x, y in xy], dtype=torch.float64)


def random_polylines(seed: int, num: int = 12) -> list[Tensor]:
    """Open and closed lines of short and long steps, with repeated points, on hilly ground."""
    generator = torch.Generator().manual_seed(seed)
    lines = []
    for index in range(num):
        points = int(torch.randint(2, 40, (), generator=generator))
        step = torch.randn(points, 3, generator=generator, dtype=torch.float64)
        step[:, 2] *= 0.2
        step = step * (8.0 if index % 5 == 0 else 1.0)
        step[torch.rand(points, generator=generator) < 0.1] = 0
        line = step.cumsum(0) + 40 * torch.randn(3, generator=generator, dtype=torch.float64) * (
            torch.tensor([1.0, 1.0, 0.05], dtype=torch.float64)
        )
        lines.append(torch.cat([line, line[:1]]) if index % 3 == 0 else line)
    return lines

"""The route as a road: how it bends, and how fast it may be driven."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from catk_sim.datatypes import MapFeatureType, RoadGraph
from catk_sim.planning.route import Route

CURVE_SMOOTHING = 5
"""Metres over which curvature is averaged, odd. A car's axles are some metres apart."""

LATERAL_ACCELERATION = 2.5
"""How fast curves are driven (m/s^2)."""

CURVE_BRAKING = 1.5
"""How much the ego brakes ahead of curves (m/s^2)."""

FASTEST = 60.0
"""Speed where nothing bounds it (m/s)."""

BEHIND, AHEAD = 20, 180
"""How much of a road is looked at, before and past the ego (m)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Road:
    """A route, with what a driver reads off it at each metre.

    Attributes:
        route: The route.
        curvature: How it bends, positive to the left (1/m).
        curve_speed: Speed at which the curves here and ahead are driven (m/s).
        height: Of the lane (m), which tells roads that pass over each other apart.
    """

    route: Route
    curvature: Float[ndarray, " arc"]
    curve_speed: Float[ndarray, " arc"]
    height: Float[ndarray, " arc"]

    @classmethod
    def of(cls, route: Route, roadgraph: RoadGraph) -> "Road":
        """Measures a route, which is not batched."""
        bends = np.append(np.diff(route.heading.double().numpy()), 0.0)
        padded = np.pad(bends, CURVE_SMOOTHING // 2, mode="edge")
        curvature = np.convolve(padded, np.full(CURVE_SMOOTHING, 1 / CURVE_SMOOTHING), "valid")
        square = LATERAL_ACCELERATION / np.maximum(
            np.abs(curvature), LATERAL_ACCELERATION / FASTEST**2
        )
        # Whoever brakes evenly has a squared speed that falls evenly along the way.
        slope = 2 * CURVE_BRAKING * np.arange(len(square))
        square = np.minimum.accumulate((square + slope)[::-1])[::-1] - slope
        return cls(
            route=route,
            curvature=curvature,
            curve_speed=np.sqrt(square),
            height=_height(route, roadgraph),
        )

    def near(self, xy: Float[Tensor, "2"]) -> tuple["Road", float]:
        """Cuts out the part near a point, and tells where along that part the point is (m)."""
        arc = float(self.route.project(xy[None])[0])
        start = min(max(0, math.floor(arc) - BEHIND), len(self.curvature) - 2)
        part = slice(start, start + BEHIND + AHEAD)
        road = Road(
            route=self.route.map(lambda tensor: tensor[part]),
            curvature=self.curvature[part],
            curve_speed=self.curve_speed[part],
            height=self.height[part],
        )
        return road, arc - start


def _height(route: Route, roadgraph: RoadGraph) -> Float[ndarray, " arc"]:
    """Reads the height of the nearest point of each metre's own lane, or of any lane."""
    lanes = roadgraph.point_valid & MapFeatureType.is_lane(roadgraph.point_type)
    xyz = roadgraph.xyz[lanes]
    if not len(xyz):
        return np.zeros(len(route.heading))
    lane = roadgraph.feature_id[roadgraph.feature[lanes]]
    other = (lane != route.lane_id[:, None]) & (route.lane_id[:, None] >= 0)
    distance = torch.cdist(route.xy, xyz[:, :2]).masked_fill(other, torch.inf)
    return xyz[distance.argmin(dim=1), 2].double().numpy()

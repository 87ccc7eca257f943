"""The map as polylines, and how painted lines are cut from them."""

import numpy as np
from jaxtyping import Float

from catk_sim.datatypes import MapFeatureType, RoadGraph

Polyline = Float[np.ndarray, "_ 2"]


def features_by_type(roadgraph: RoadGraph) -> dict[MapFeatureType, list[Polyline]]:
    """Reads the points of every map feature (m), without padding.

    Args:
        roadgraph: The map of one scenario.

    Returns:
        For each type, a polyline or polygon for each feature, in the order of the map. A type
        that the map lacks has an empty list.
    """
    valid = roadgraph.point_valid.cpu().numpy()
    xy = roadgraph.xyz.cpu().numpy()[valid, :2].astype(np.float64)
    feature = roadgraph.feature.cpu().numpy()[valid]
    types = roadgraph.feature_type.cpu().numpy()
    found: dict[MapFeatureType, list[Polyline]] = {kind: [] for kind in MapFeatureType}
    if len(feature) == 0:
        return found
    starts = np.flatnonzero(np.diff(feature)) + 1
    for points, index in zip(np.split(xy, starts), feature[np.r_[0, starts]], strict=True):
        found[MapFeatureType(int(types[index]))].append(points)
    return found


def dashes(line: Polyline, on: float, off: float) -> Float[np.ndarray, "dashes 4 2"]:
    """Cuts a polyline into dashes of length `on` (m) with gaps of length `off` (m)."""
    along = _arc_length(line)
    starts = np.arange(0.0, along[-1], on + off)
    at = np.minimum(starts[:, None] + np.linspace(0.0, on, 4), along[-1])
    return np.stack([np.interp(at, along, line[:, axis]) for axis in (0, 1)], axis=-1)


def offset(line: Polyline, distance: float) -> Polyline:
    """Moves a polyline to its left (m); to its right if `distance` is negative."""
    if len(line) < 2:
        return line
    direction = np.gradient(line, axis=0)
    norm = np.linalg.norm(direction, axis=1, keepdims=True)
    unit = direction / np.maximum(norm, 1e-9)
    return line + distance * np.stack([-unit[:, 1], unit[:, 0]], axis=-1)


def _arc_length(line: Polyline) -> Float[np.ndarray, " points"]:
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])

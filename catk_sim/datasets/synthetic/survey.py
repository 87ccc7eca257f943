"""Puts a scene on the globe: heights, offsets and the rounding of a map survey."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from catk_sim.datasets.recording import LINK_COLUMNS, RecordedMap
from catk_sim.datasets.synthetic.road_network import RoadNetwork
from catk_sim.datatypes import LaneLinkType, MapFeatureType

RESOLUTION = 1 / 512
"""Positions are multiples of this (m), so that moving them by whole metres loses no bit."""

NUMBER_OF_FIRST_FEATURE = 1


@dataclass(frozen=True, eq=False)
class Terrain:
    """Where the scene lies and how the ground rises.

    Attributes:
        offset: Where the scene's origin is in the file's coordinates (m).
        slope: Rise of the ground along x and y.
        swell: Height (m), wavelength (m) and phase of a gentle wave.
    """

    offset: Float[np.ndarray, "3"]
    slope: Float[np.ndarray, "2"]
    swell: Float[np.ndarray, "3"]

    def locate(self, xy: Float[np.ndarray, "*shape 2"]) -> Float[np.ndarray, "*shape 3"]:
        """Returns the file's coordinates of points on the ground."""
        height, wavelength, phase = self.swell
        along = 2 * np.pi * (0.8 * xy[..., 0] + 0.6 * xy[..., 1]) / wavelength + phase
        rise = xy[..., 0] * self.slope[0] + xy[..., 1] * self.slope[1] + height * np.sin(along)
        return np.concatenate([xy, rise[..., None]], axis=-1) + self.offset


def draw_terrain(rng: np.random.Generator) -> Terrain:
    """Draws a place and its ground."""
    return Terrain(
        offset=np.array([*rng.uniform(-9000.0, 9000.0, size=2), rng.uniform(-30.0, 250.0)]),
        slope=rng.normal(0.0, 0.014, size=2),
        swell=np.array([rng.uniform(0.0, 0.4), rng.uniform(120.0, 300.0), rng.uniform(0.0, 6.3)]),
    )


def quantise(positions: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Rounds positions to `RESOLUTION`."""
    return np.round(positions / RESOLUTION) * RESOLUTION


def survey(network: RoadNetwork, terrain: Terrain) -> RecordedMap:
    """Lists the features of a road network: lanes first, so that a lane's id is its index + 1."""
    features = [(int(lane.type), lane.xy) for lane in network.lanes]
    features += [(int(kind), xy) for kind, xy in network.lines]
    features += [(int(MapFeatureType.ROAD_EDGE_BOUNDARY), xy) for xy in network.boundaries]
    features += [(int(MapFeatureType.ROAD_EDGE_MEDIAN), xy) for xy in network.medians]
    first_sign = len(features)
    signs = [sign.position[None] for sign in network.stop_signs]
    features += [(int(MapFeatureType.STOP_SIGN), xy) for xy in signs]
    features += [(int(MapFeatureType.CROSSWALK), walk.polygon) for walk in network.crosswalks]
    features += [(int(MapFeatureType.SPEED_BUMP), xy) for xy in network.speed_bumps]
    features += [(int(MapFeatureType.DRIVEWAY), xy) for xy in network.driveways]
    speed_limit, interpolating = np.zeros(len(features)), np.zeros(len(features), dtype=bool)
    for index, lane in enumerate(network.lanes):
        speed_limit[index], interpolating[index] = lane.speed_limit, lane.junction >= 0
    return RecordedMap(
        feature_id=np.arange(len(features)) + NUMBER_OF_FIRST_FEATURE,
        feature_type=np.array([kind for kind, _ in features], dtype=np.int64),
        speed_limit=speed_limit,
        interpolating=interpolating,
        num_points=np.array([len(xy) for _, xy in features], dtype=np.int64),
        xyz=quantise(terrain.locate(np.concatenate([xy for _, xy in features]))),
        links=_links(network, first_sign),
    )


def _links(network: RoadNetwork, first_sign: int) -> np.ndarray:
    rows = []
    for index, lane in enumerate(network.lanes):
        rows += [_link(index, LaneLinkType.ENTRY_LANE, other) for other in lane.entries]
        rows += [_link(index, LaneLinkType.EXIT_LANE, other) for other in lane.exits]
        for kind, other in (
            (LaneLinkType.LEFT_NEIGHBOR, lane.left),
            (LaneLinkType.RIGHT_NEIGHBOR, lane.right),
        ):
            if other >= 0:
                last, other_last = len(lane.xy) - 1, len(network.lanes[other].xy) - 1
                rows.append(_link(index, kind, other, (0, last, 0, other_last)))
    for number, sign in enumerate(network.stop_signs):
        rows += [
            _link(first_sign + number, LaneLinkType.STOP_SIGN_LANE, lane) for lane in sign.lanes
        ]
    return np.array(rows, dtype=np.int64).reshape(len(rows), LINK_COLUMNS)


def _link(
    feature: int, kind: LaneLinkType, lane: int, span: tuple[int, int, int, int] = (0, 0, 0, 0)
) -> tuple[int, ...]:
    return (feature, int(kind), lane + NUMBER_OF_FIRST_FEATURE, *span, 0, 0)

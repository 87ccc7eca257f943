"""The lane graph, for sources that do not tell it."""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from catk_sim.datasets.errors import DataError
from catk_sim.datasets.recording import LINK_COLUMNS
from catk_sim.datatypes import LaneLinkType

LANE_END_TOLERANCE = 0.1
"""How far apart the end of a lane and the start of the next may be (m)."""

MAX_PAIRS = 2**20
"""How many pairs of lanes are looked at, among those whose ends have nearly the same x."""


def connect_lanes(
    xyz: Float[ndarray, "points 3"],
    num_points: Int[ndarray, " features"],
    is_lane: Bool[ndarray, " features"],
    source: str = "",
) -> tuple[Int[ndarray, " connections"], Int[ndarray, " connections"]]:
    """Finds which lanes go on as which: those that end where others start.

    On nine WOMD scenarios whose graph is known, 0.998 of the connections were found (at worst
    0.994 of a scenario's) and 0.95 of those found were true (at worst 0.92); on the one in
    Waymo's own format both were 1. What is missed are jumps of metres. What is found wrongly are
    mostly bike lanes, which WOMD leaves unconnected though they meet.

    Args:
        xyz: The points of all map features, feature after feature (m).
        num_points: How many points each feature has.
        is_lane: Which features are lanes.
        source: The file, for errors.

    Returns:
        For each connection the index of the feature that ends and of the one that starts there,
        in order.

    Raises:
        DataError: If more lanes are in one place than a map can have.
    """
    lanes = np.flatnonzero(is_lane & (num_points > 0))
    stop = np.cumsum(num_points)[lanes]
    first, last = xyz[stop - num_points[lanes]], xyz[stop - 1]
    before, after = _pairs(first, last, source)
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.linalg.norm(last[before] - first[after], axis=-1) <= LANE_END_TOLERANCE
    # A lane of one point, or a ring, is not its own successor.
    near &= before != after
    return lanes[before[near]], lanes[after[near]]


def connection_links(
    before: Int[ndarray, " connections"],
    after: Int[ndarray, " connections"],
    feature_id: Int[ndarray, " features"],
) -> Int[ndarray, "links 9"]:
    """Tells each connection at both of its ends, in the order in which WOMD lists links."""
    feature, other = np.concatenate([after, before]), np.concatenate([before, after])
    kind = np.repeat([LaneLinkType.ENTRY_LANE, LaneLinkType.EXIT_LANE], len(before))
    links = np.zeros((len(feature), LINK_COLUMNS), np.int64)
    links[:, :3] = np.stack([feature, kind, feature_id[other]], axis=1)
    return links[np.lexsort([other, kind, feature])]


def _pairs(
    first: Float[ndarray, "lanes 3"], last: Float[ndarray, "lanes 3"], source: str
) -> tuple[Int[ndarray, " pairs"], Int[ndarray, " pairs"]]:
    """Lists, in order, the lanes that end about where others start, as far as x goes."""
    order = np.argsort(first[:, 0], kind="stable")
    x = first[order, 0]
    start = np.searchsorted(x, last[:, 0] - 2 * LANE_END_TOLERANCE, side="left")
    stop = np.searchsorted(x, last[:, 0] + 2 * LANE_END_TOLERANCE, side="right")
    count = np.maximum(stop - start, 0)
    if count.sum() > MAX_PAIRS:
        raise DataError(f"{len(first)} lanes are in one place, as on no map", source)
    before = np.arange(len(first)).repeat(count)
    within = np.arange(len(before)) - (count.cumsum() - count).repeat(count)
    after = order[start.repeat(count) + within]
    in_order = np.lexsort([after, before])
    return before[in_order], after[in_order]

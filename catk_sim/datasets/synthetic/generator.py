"""Makes scenarios from seeds."""

import numpy as np

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS, NUM_STEPS
from catk_sim.datasets.synthetic.layouts import LAYOUTS
from catk_sim.datasets.synthetic.observer import Observer
from catk_sim.datasets.synthetic.scene import Scene, start_scene
from catk_sim.datasets.synthetic.streams import Stream, random_stream
from catk_sim.datasets.synthetic.tracks import Tracks, overlapping_pairs
from catk_sim.datatypes import Scenario

KINDS = tuple(LAYOUTS)
"""The kinds of scene."""

_SHARES = {
    "signal": 0.30,
    "all_stop": 0.20,
    "tee": 0.18,
    "roundabout": 0.08,
    "midblock": 0.16,
    "merge": 0.08,
}
_TRIES = 40

LEAST_DIFFERENCE = 3.0
"""Two futures differ if somebody ends this far (m) from where they end in the other."""

MARGIN = 0.2
"""Boxes come no nearer to each other than this (m), so that a tracker's noise joins none."""


def generate_scenario(seed: int, kind: str | None = None) -> Scenario:
    """Makes a scenario. Equal arguments make equal bytes.

    Args:
        seed: Any number from 0 on.
        kind: One of `KINDS`; by default the seed chooses.

    Returns:
        One scenario in float64, without padding.

    Raises:
        ValueError: If the seed is negative or there is no such kind.
    """
    return generate_futures(seed, 1, kind)[0]


def generate_futures(seed: int, count: int, kind: str | None = None) -> list[Scenario]:
    """Makes scenarios with the same history, in which everyone then chooses anew.

    The first is that of `generate_scenario`. Up to and including the current step all agree on
    the lights and on everyone who was seen. Afterwards drivers may go faster or slower, take
    another way through a junction that they have not begun, or change lanes, and others arrive.

    Args:
        seed: Any number from 0 on.
        count: How many futures; at least 1.
        kind: One of `KINDS`; by default the seed chooses.

    Raises:
        RuntimeError: If too few futures differ.
        ValueError: If the seed is negative, there is no such kind, or `count` is not positive.
    """
    kind = _check(seed, count, kind)
    for attempt in range(_TRIES):
        observer = Observer(seed, attempt, f"synthetic-{kind}-{seed:06d}")
        rng = observer.stream(Stream.SCENE)
        scene = start_scene(kind, rng)
        scene.record(HISTORY_STEPS, rng)
        # The state is copied only if it is needed again.
        first = scene.branch() if count > 1 else scene
        first.record(NUM_STEPS, observer.stream(Stream.FUTURE, 0))
        tracks = _without_overlaps(first.tracks())
        sdc = _choose_sdc(tracks, observer.stream(Stream.DRIVER))
        if sdc is not None:
            scenario = observer.observe(first, tracks, sdc)
            return [scenario, *_other_futures(scene, tracks, sdc, observer, count - 1)]
    raise RuntimeError(f"no scene of kind {kind} came of seed {seed} in {_TRIES} tries")


def _check(seed: int, count: int, kind: str | None) -> str:
    if seed < 0:
        raise ValueError(f"wanted a seed from 0 on, got {seed}")
    if count < 1:
        raise ValueError(f"wanted at least one future, got {count}")
    if kind is None:
        shares = np.array([_SHARES[name] for name in KINDS])
        return KINDS[
            int(random_stream(seed, Stream.KIND).choice(len(KINDS), p=shares / shares.sum()))
        ]
    if kind not in KINDS:
        raise ValueError(f"wanted a kind out of {', '.join(KINDS)}, got {kind!r}")
    return kind


def _other_futures(
    scene: Scene, tracks: Tracks, sdc: int, observer: Observer, count: int
) -> list[Scenario]:
    """Plays a scene on until there are enough futures that differ, with the past of `tracks`."""
    scenarios: list[Scenario] = []
    known, past = [tracks], _past(tracks)
    for future in range(1, 1 + count * _TRIES):
        if len(scenarios) == count:
            break
        rng = observer.stream(Stream.FUTURE, future)
        branch = scene.branch()
        branch.traffic.reconsider(rng)
        branch.record(NUM_STEPS, rng)
        other = _with_past(branch.tracks(), past)
        stays = other.present[other.agent_id == sdc].all()
        has_past = np.array_equal(_past(other), past)
        if stays and has_past and all(_differ(other, one, past) for one in known):
            known.append(other)
            scenarios.append(observer.observe(branch, other, sdc, f"-{len(scenarios) + 1}"))
    if len(scenarios) < count:
        raise RuntimeError(f"found {len(scenarios)} of {count} more futures of {observer.name}")
    return scenarios


def _with_past(tracks: Tracks, past: np.ndarray) -> Tracks:
    """Leaves out whom the first future left out already, and whoever overlaps."""
    is_new = ~np.isin(tracks.agent_id, _past(tracks))
    return _without_overlaps(tracks.take(np.flatnonzero(is_new | np.isin(tracks.agent_id, past))))


def _differ(tracks: Tracks, other: Tracks, past: np.ndarray) -> bool:
    """Whether somebody who was there already ends elsewhere."""
    ends, other_ends = (
        each.pose[np.isin(each.agent_id, past), -1, :2]
        * each.present[np.isin(each.agent_id, past), -1:]
        for each in (tracks, other)
    )
    return bool(np.abs(ends - other_ends).max() > LEAST_DIFFERENCE)


def _past(tracks: Tracks) -> np.ndarray:
    """Lists who has been there by the current step."""
    return tracks.agent_id[tracks.present[:, :HISTORY_STEPS].any(1)]


def _without_overlaps(tracks: Tracks) -> Tracks:
    """Removes whoever overlaps most with others, until nobody does."""
    pairs = overlapping_pairs(tracks, MARGIN)
    removed: set[int] = set()
    while len(pairs):
        agents, times = np.unique(pairs, return_counts=True)
        # Rather a pedestrian or a parked car than somebody others react to.
        moves = (tracks.speed[agents].max(1) > 0) * tracks.is_vehicle[agents]
        worst = int(agents[np.lexsort((agents, moves, -times))[0]])
        removed.add(worst)
        pairs = pairs[(pairs != worst).all(1)]
    kept = [row for row in range(len(tracks.agent_id)) if row not in removed]
    return tracks.take(np.array(kept, dtype=np.int64))


def _choose_sdc(tracks: Tracks, rng: np.random.Generator) -> int | None:
    """Picks a car that stays, near the middle of the scene; returns its id."""
    place = tracks.pose[:, CURRENT_STEP, :2]
    away = np.hypot(place[:, 0], place[:, 1])
    moves = tracks.speed.max(1) > 0.5
    fits = tracks.is_vehicle & tracks.present.all(1) & moves & (away < 60.0)
    fits &= (tracks.size[:, 0] > 4.0) & (tracks.size[:, 0] < 6.0)
    rows = np.flatnonzero(fits)
    if not len(rows):
        return None
    # Rather one of those who wait and turn than one who drives through.
    weight = np.exp(-away[rows] / 25.0) / (2.0 + tracks.speed[rows].mean(1)) ** 2
    return int(tracks.agent_id[rows[int(rng.choice(len(rows), p=weight / weight.sum()))]])

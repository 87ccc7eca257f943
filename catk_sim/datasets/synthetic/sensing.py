"""What the self-driving car sees: range, occlusion and the noise of its tracker."""

import numpy as np
from jaxtyping import Bool, Float

from catk_sim.constants import HISTORY_STEPS
from catk_sim.datasets.synthetic.tracks import Tracks

STRIDE = 3
"""Visibility is worked out at every third step and held between."""

LONGEST_GAP = 8
"""A tracker bridges losses that are shorter than this (steps)."""

NEVER_SEEN = 3
"""Future tracks of fewer steps are dropped."""


def observe(tracks: Tracks, sdc: int, rng: np.random.Generator) -> Bool[np.ndarray, "agents steps"]:
    """Tells at which steps the self-driving car tracks each agent."""
    reach = rng.uniform(66.0, 80.0)
    seen = np.zeros_like(tracks.present)
    for step in range(0, seen.shape[1], STRIDE):
        seen[:, step : step + STRIDE] = _visible(tracks, sdc, step, reach)[:, None]
    bridged = _bridge(seen)
    # Whether someone was lost in the past must not depend on the future.
    bridged[:, :HISTORY_STEPS] = _bridge(seen[:, :HISTORY_STEPS])
    seen = bridged & tracks.present
    seen[(seen.sum(1) < NEVER_SEEN) & ~seen[:, :HISTORY_STEPS].any(1)] = False
    seen[sdc] = tracks.present[sdc]
    return seen


def _visible(tracks: Tracks, sdc: int, step: int, reach: float) -> np.ndarray:
    """Tells whose centre or either end has a free line of sight."""
    eye = tracks.pose[sdc, step, :2]
    x, y, heading = tracks.pose[:, step].T
    present = tracks.present[:, step]
    distance = np.hypot(x - eye[0], y - eye[1])
    tall = present & tracks.is_vehicle & (distance < 60.0)
    tall[sdc] = False
    walls = np.flatnonzero(tall)
    half = tracks.size[:, 0] * 0.48
    visible = np.zeros(len(x), dtype=bool)
    for end in (-1.0, 0.0, 1.0):
        target_x = x + end * half * np.cos(heading)
        target_y = y + end * half * np.sin(heading)
        hidden = _crosses_box(eye, target_x, target_y, tracks, walls, step)
        hidden[walls, np.arange(len(walls))] = False
        visible |= ~hidden.any(1)
    return visible & present & (distance < reach)


def _crosses_box(
    eye: np.ndarray,
    target_x: np.ndarray,
    target_y: np.ndarray,
    tracks: Tracks,
    walls: np.ndarray,
    step: int,
) -> np.ndarray:
    """Tells (targets, walls) whether the line from the eye meets a box; the slab method."""
    x, y, heading = tracks.pose[walls, step].T
    cosine, sine = np.cos(heading), np.sin(heading)
    eye_x = (eye[0] - x) * cosine + (eye[1] - y) * sine
    eye_y = -(eye[0] - x) * sine + (eye[1] - y) * cosine
    dx, dy = target_x[:, None] - x, target_y[:, None] - y
    along = dx * cosine + dy * sine - eye_x
    across = -dx * sine + dy * cosine - eye_y
    along = np.where(np.abs(along) < 1e-9, 1e-9, along)
    across = np.where(np.abs(across) < 1e-9, 1e-9, across)
    # A little smaller than the car: one sees over bonnets and through windows.
    half_length, half_width = 0.42 * tracks.size[walls, 0], 0.42 * tracks.size[walls, 1]
    x_in, x_out = (-half_length - eye_x) / along, (half_length - eye_x) / along
    y_in, y_out = (-half_width - eye_y) / across, (half_width - eye_y) / across
    first = np.maximum(np.minimum(x_in, x_out), np.minimum(y_in, y_out))
    last = np.minimum(np.maximum(x_in, x_out), np.maximum(y_in, y_out))
    return (first < last) & (last > 0.0) & (first < 1.0)


def _bridge(seen: np.ndarray) -> np.ndarray:
    """Fills short gaps between steps at which an agent is seen."""
    steps = np.arange(seen.shape[1])
    last = np.maximum.accumulate(np.where(seen, steps, -100), axis=1)
    following = np.minimum.accumulate(np.where(seen, steps, 10_000)[:, ::-1], axis=1)[:, ::-1]
    return seen | (following - last <= LONGEST_GAP)


def tracker_noise(steps: int, rng: np.random.Generator) -> Float[np.ndarray, "{steps} 3"]:
    """Draws an agent's errors of x, y (m) and heading (rad); some are tracked worse."""
    scale = np.minimum(np.exp(rng.normal(0.0, 0.8)), 5.0) * np.array([0.016, 0.016, 0.006])
    white = rng.normal(size=(steps + 2, 3)) * scale
    return (white[:-2] + 2 * white[1:-1] + white[2:]) / 4

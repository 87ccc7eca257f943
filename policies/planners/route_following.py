"""A driver who follows a route, simulated."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from catk_sim.constants import STEP_SECONDS
from policies.idm import IDM
from policies.planners.road import Road
from policies.planners.situation import Obstacles, Situation

MARGIN = 0.2
"""Free space to either side that the ego wants (m)."""

EASY_BRAKING = 3.0
"""Up to this braking (m/s^2) the ego is smooth, that is within `EASY_JERK`."""

EASY_JERK, HARD_JERK = 3.0, 30.0
"""How fast the acceleration changes, and how fast the brakes get hold (m/s^3)."""

MIN_STEERING_LENGTH, STEERING_TIME = 5.0, 1.0
"""Way (m), or at speed time (s), in which the ego comes nearer to where it wants to be."""

DAMPING = 0.9
"""Of the approach."""

MAX_APPROACH = 0.8
"""Greatest lateral error that counts, in steering lengths. It bounds the angle of approach."""

MAX_CURVATURE, MAX_CURVATURE_RATE = 0.2, 0.3
"""Bounds on the steering (1/m and 1/(m s))."""

MAX_YAW_ACCELERATION, MAX_LATERAL_JERK = 1.7, 7.0
"""Bounds on its rate when driving (rad/s^2, m/s^3)."""

PREVIEW = 0.2
"""How far ahead the road's curvature is read, as steering takes time (s)."""

MIN_STRETCH = 0.3
"""Least length of a metre of road where the ego drives on the inside of a curve (m)."""

SPEED_TIME = 0.5
"""Time in which the speed is brought down to that of a curve (s)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Wishes:
    """What drivers want.

    Attributes:
        offset: Where to drive, to the left of the road (m).
        speed: How fast, at each metre of the road (m/s).
        max_acceleration: What they do not accelerate beyond (m/s^2). If it is negative they brake.
    """

    offset: Float[ndarray, " drives"]
    speed: Float[ndarray, "drives arc"]
    max_acceleration: Float[ndarray, " drives"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Drives:
    """Ways to drive, simulated; the current step first.

    Attributes:
        arc: Along the road (m).
        lateral: To the left of it (m).
        angle: To the road (rad).
        speed: Speeds (m/s).
        acceleration: Accelerations that led there (m/s^2).
        curvature: Curvatures that led there (1/m).
        xy: Positions (m).
        heading: Directions (rad).
    """

    arc: Float[Tensor, "drives steps"]
    lateral: Float[Tensor, "drives steps"]
    angle: Float[Tensor, "drives steps"]
    speed: Float[Tensor, "drives steps"]
    acceleration: Float[Tensor, "drives steps"]
    curvature: Float[Tensor, "drives steps"]
    xy: Float[Tensor, "drives steps 2"]
    heading: Float[Tensor, "drives steps"]

    def plan(self, drive: int) -> Float[Tensor, "steps 5"]:
        """Returns a drive as positions, headings and velocities from the next step on."""
        heading, speed = self.heading[drive, 1:], self.speed[drive, 1:]
        velocity = speed[:, None] * torch.stack([heading.cos(), heading.sin()], dim=-1)
        return torch.cat([self.xy[drive, 1:], heading[:, None], velocity], dim=-1)


def simulate(situation: Situation, wishes: Wishes, idm: IDM) -> Drives:
    """Drives along a road, as a kinematic bicycle.

    Speed is the intelligent driver model's, behind whoever is in the way and before red lights,
    with the speeds of curves as a bound. Steering brings lateral error and angle down together, on
    top of the curvature of the road. All is told in the frame of the road.
    """
    ego, route = situation.ego, situation.road.route
    lateral = float(route.project(ego.xy[None])[1])
    angle = ego.heading - float(route.pose_at(torch.tensor([situation.arc]))[1])
    angle = math.remainder(angle, 2 * math.pi)
    start = [situation.arc, lateral, angle, ego.speed, ego.acceleration, ego.curvature]
    half_length, half_width = (ego.size[:2] / 2).tolist()
    obstacles = situation.obstacles.grown(along=half_length, aside=half_width + MARGIN)
    # (quantities, drives)
    states = [np.tile(np.array(start)[:, None], len(wishes.offset))]
    for step in range(1, len(obstacles.arc)):
        states.append(_step(states[-1], step, obstacles, situation.road, wishes, idm))
    quantities = torch.tensor(np.stack(states, axis=-1), dtype=torch.float32)
    arc, lateral, angle, speed, acceleration, curvature = quantities
    xy, along = (part.unflatten(0, arc.shape) for part in route.pose_at(arc.flatten()))
    left = torch.stack([-along.sin(), along.cos()], dim=-1)
    return Drives(
        arc=arc,
        lateral=lateral,
        angle=angle,
        speed=speed,
        acceleration=acceleration,
        curvature=curvature,
        xy=xy + lateral[..., None] * left,
        heading=along + angle,
    )


def _step(
    state: Float[ndarray, "6 drives"],
    step: int,
    obstacles: Obstacles,
    road: Road,
    wishes: Wishes,
    idm: IDM,
) -> Float[ndarray, "6 drives"]:
    arc, lateral, angle, speed, before, steered = state
    metre = np.minimum(np.maximum(arc.astype(np.int64), 0), len(road.curvature) - 1)
    free = _free(speed, metre, road, wishes, idm)
    held_up = _held_up(state, step, obstacles, wishes, idm)
    acceleration = np.minimum(np.minimum(free, held_up), wishes.max_acceleration)
    later = np.maximum(speed + _smooth(acceleration, before, speed) * STEP_SECONDS, 0)
    distance = (speed + later) / 2 * STEP_SECONDS
    bend, coming = road.curvature[metre], road.curvature[_later(metre, speed, PREVIEW, road)]
    curvature = _steer(lateral - wishes.offset, angle, speed, coming, steered)
    turn = curvature * distance
    middle = angle + turn / 2
    forward = distance * np.cos(middle) / np.maximum(1 - lateral * bend, MIN_STRETCH)
    return np.array(
        [
            arc + forward,
            lateral + distance * np.sin(middle),
            angle + turn - bend * forward,
            later,
            (later - speed) / STEP_SECONDS,
            curvature,
        ]
    )


def _free(
    speed: Float[ndarray, " drives"],
    metre: Int[ndarray, " drives"],
    road: Road,
    wishes: Wishes,
    idm: IDM,
) -> Float[ndarray, " drives"]:
    """Accelerates towards the speeds that are wanted, and allowed by the curves."""
    desired = wishes.speed[np.arange(len(metre)), metre]
    free = np.maximum(idm.free(speed, desired), -idm.comfortable_deceleration)
    soon = _later(metre, speed, SPEED_TIME, road)
    curve = np.maximum((road.curve_speed[soon] - speed) / SPEED_TIME, -EASY_BRAKING)
    return np.minimum(free, curve)


def _later(
    metre: Int[ndarray, " drives"], speed: Float[ndarray, " drives"], seconds: float, road: Road
) -> Int[ndarray, " drives"]:
    return np.minimum(metre + (speed * seconds).astype(np.int64), len(road.curvature) - 1)


def _held_up(
    state: Float[ndarray, "6 drives"], step: int, obstacles: Obstacles, wishes: Wishes, idm: IDM
) -> Float[ndarray, " drives"]:
    """Accelerates as much as the strictest of those in the way lets it."""
    # (quantities, drives, 1)
    arc, lateral, _, speed, _, _ = state[..., None]
    offset = wishes.offset[:, None]
    room, other = obstacles.aside[step], obstacles.lateral[step]
    distance = obstacles.arc[step] - arc
    blocks = (
        (other > np.minimum(lateral, offset) - room)
        & (other < np.maximum(lateral, offset) + room)
        & (distance > 0)
    )
    gap = np.where(blocks, distance - obstacles.along[step], math.inf)
    follow = idm.follow(speed, gap, speed - obstacles.speed[step]).min(axis=1)
    return np.maximum(idm.max_acceleration + follow, -idm.max_deceleration)


def _smooth(
    acceleration: Float[ndarray, " drives"],
    before: Float[ndarray, " drives"],
    speed: Float[ndarray, " drives"],
) -> Float[ndarray, " drives"]:
    """Bounds the jerk, also that of coming to a stop, unless the ego has to brake hard."""
    is_hard = acceleration < -EASY_BRAKING
    jerk = np.where(is_hard, HARD_JERK, EASY_JERK) * STEP_SECONDS
    # Whoever lets go of the brakes evenly from there stands when they are open.
    soft = -np.sqrt(2 * EASY_JERK * speed)
    acceleration = np.where(is_hard, acceleration, np.maximum(acceleration, soft))
    # Whoever has braked hard may let go at once, and who comes to a stop must.
    most = np.maximum(np.maximum(before, -EASY_BRAKING) + EASY_JERK * STEP_SECONDS, soft)
    return np.minimum(np.maximum(acceleration, before - jerk), most)


def _steer(
    error: Float[ndarray, " drives"],
    angle: Float[ndarray, " drives"],
    speed: Float[ndarray, " drives"],
    bend: Float[ndarray, " drives"],
    steered: Float[ndarray, " drives"],
) -> Float[ndarray, " drives"]:
    """Chooses a curvature: a damped oscillator in the way driven, with bounds."""
    length = np.maximum(speed * STEERING_TIME, MIN_STEERING_LENGTH)
    # Not `np.clip`, which is slow on few numbers.
    error = np.minimum(np.maximum(error / length, -MAX_APPROACH), MAX_APPROACH)
    wanted = bend - (error + 2 * DAMPING * np.sin(angle)) / length
    wanted = np.minimum(np.maximum(wanted, -MAX_CURVATURE), MAX_CURVATURE)
    fast = np.maximum(speed, 1)
    rate = np.minimum(MAX_YAW_ACCELERATION / fast, MAX_LATERAL_JERK / fast**2)
    rate = np.minimum(rate, MAX_CURVATURE_RATE) * STEP_SECONDS
    return np.minimum(np.maximum(wanted, steered - rate), steered + rate)

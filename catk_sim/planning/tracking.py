"""How the ego follows a plan for one step."""

import math
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from catk_sim.constants import STEP_SECONDS
from catk_sim.planning.planner import Controls, EgoHistory

LOOKAHEAD = 10
"""Poses of a plan that the bicycle tracks at a time."""

HEADING_COST = 0.1
"""What errors of heading cost beside errors of position (m^2 per rad^2)."""

ACCELERATION_COST = 1e-3
"""What changes of acceleration from step to step cost (m^2 per (m/s^2)^2)."""

CURVATURE_COST = 100.0
"""What changes of curvature from step to step cost (m^2 per (1/m)^2)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EgoState:
    """Where the ego is.

    Attributes:
        xy: Position of the centre of its box (m).
        heading: Direction (rad).
        velocity: Velocity (m/s).
    """

    xy: Float[ndarray, "2"]
    heading: float
    velocity: Float[ndarray, "2"]


@runtime_checkable
class Tracker(Protocol):
    """Moves the ego by a step, as a plan has it."""

    def track(self, ego: EgoHistory, plan: Float[ndarray, "steps features"] | Controls) -> EgoState:
        """Returns where the ego is a step later.

        Args:
            ego: Where it was until now.
            plan: What a planner returned, checked: finite, of 3 or 5 features a step.
        """
        ...


class Exact:
    """Puts the ego on the first pose of the plan, however far that is.

    The velocity is the plan's if it tells one, and else the difference of the positions. Controls
    are obeyed without limits.
    """

    def track(self, ego: EgoHistory, plan: Float[ndarray, "steps features"] | Controls) -> EgoState:
        """Returns the first pose of the plan."""
        if isinstance(plan, Controls):
            return bicycle_step(_now(ego), plan)
        first = plan[0]
        velocity = first[3:] if len(first) == 5 else (first[:2] - ego.xy[-1]) / STEP_SECONDS
        return EgoState(xy=first[:2], heading=float(first[2]), velocity=velocity)


@dataclass(frozen=True, kw_only=True)
class KinematicBicycle:
    """Follows the plan as closely as a car can: a kinematic bicycle with limits.

    A state is the centre of the box, its heading and a signed speed along it. A step is an arc of
    constant acceleration and curvature. Those of the next `LOOKAHEAD` steps are chosen so that the
    squared errors of position and heading, and the squared changes of the controls, are least
    together: a Gauss-Newton step from the controls that were driven last. The first of them is
    driven. The problem is that of nuPlan's trackers (Caesar et al., arXiv:2106.11810), which solve
    it by LQR. The plan's velocities are not read: its poses tell where to be and when. A shorter
    plan goes on as it ends; one of a single pose, which tells no speed, is followed less well.

    Controls are driven as they are, within the limits.
    """

    max_acceleration: float = 4.0
    """Bound on speeding up (m/s^2)."""
    max_deceleration: float = 8.0
    """Bound on braking (m/s^2): a full stop on a dry road."""
    max_jerk: float = 30.0
    """Bound on the change of acceleration (m/s^3): full brakes within 0.3 s."""
    max_curvature: float = 0.2
    """Bound on the curvature either way (1/m): a turning circle of 10 m across."""
    max_curvature_rate: float = 0.3
    """Bound on the change of curvature (1/(m s)): full lock within 0.7 s."""
    max_lateral_acceleration: float = 8.0
    """Bound on curvature times squared speed (m/s^2): what tyres hold."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < math.inf:
                raise ValueError(f"{field.name} must be above 0 and finite, got {value}")

    def track(self, ego: EgoHistory, plan: Float[ndarray, "steps features"] | Controls) -> EgoState:
        """Drives a step."""
        now, last = _now(ego), self._within_limits(_last_controls(ego))
        wanted = plan if isinstance(plan, Controls) else self._regulate(now, plan, last)
        jerk, rate = self.max_jerk * STEP_SECONDS, self.max_curvature_rate * STEP_SECONDS
        nearest = self._within_limits(
            Controls(
                acceleration=_near(wanted.acceleration, last.acceleration, jerk),
                curvature=_near(wanted.curvature, last.curvature, rate),
            )
        )
        grip = self.max_lateral_acceleration / max(_speed(now) ** 2, 1e-9)
        curvature = _near(nearest.curvature, 0.0, grip)
        return bicycle_step(now, Controls(acceleration=nearest.acceleration, curvature=curvature))

    def _within_limits(self, controls: Controls) -> Controls:
        acceleration = max(controls.acceleration, -self.max_deceleration)
        return Controls(
            acceleration=min(acceleration, self.max_acceleration),
            curvature=_near(controls.curvature, 0.0, self.max_curvature),
        )

    def _regulate(
        self, now: EgoState, plan: Float[ndarray, "steps features"], last: Controls
    ) -> Controls:
        """Finds the controls of the next step."""
        target = _extended(plan, _speed(now))
        acceleration = np.full(LOOKAHEAD, last.acceleration)
        curvature = np.full(LOOKAHEAD, last.curvature)
        residual, jacobian = _errors(now, target, acceleration, curvature, last)
        step = np.linalg.lstsq(jacobian, residual, rcond=None)[0]
        # Further steps help nothing near the plan, and far from it the ego swings: they know
        # nothing of the limits.
        return Controls(
            acceleration=float(acceleration[0] - step[0]),
            curvature=float(curvature[0] - step[LOOKAHEAD]),
        )


TRACKERS = {"exact": Exact, "bicycle": KinematicBicycle}
"""What makes each tracker."""


def bicycle_step(now: EgoState, controls: Controls) -> EgoState:
    """Drives along an arc for one step. The chord of an arc leads at half its turn."""
    speed = _speed(now)
    distance = speed * STEP_SECONDS + controls.acceleration * STEP_SECONDS**2 / 2
    turn = controls.curvature * distance
    chord = distance * float(np.sinc(turn / (2 * math.pi)))
    heading = _wrap(now.heading + turn)
    return EgoState(
        xy=now.xy + chord * _direction(now.heading + turn / 2),
        heading=heading,
        velocity=(speed + controls.acceleration * STEP_SECONDS) * _direction(heading),
    )


def brake(ego: EgoHistory, deceleration: float) -> EgoState:
    """Slows down, straight ahead, and then stands."""
    now = _now(ego)
    speed = _speed(now)
    slower = math.copysign(min(abs(speed), deceleration * STEP_SECONDS), speed)
    return bicycle_step(now, Controls(acceleration=-slower / STEP_SECONDS, curvature=0.0))


def _errors(
    now: EgoState,
    target: Float[ndarray, "steps 3"],
    acceleration: Float[ndarray, " steps"],
    curvature: Float[ndarray, " steps"],
    last: Controls,
) -> tuple[Float[ndarray, " residuals"], Float[ndarray, "residuals controls"]]:
    """Measures what controls cost, as roots of squares, and how they change that."""
    count = len(target)
    # Effect of each acceleration on the speed before each step, and on the distance within it.
    before = np.tri(count, k=-1) * STEP_SECONDS
    distance_by = (before + np.eye(count) * STEP_SECONDS / 2) * STEP_SECONDS
    distance = _speed(now) * STEP_SECONDS + distance_by @ acceleration
    turn = curvature * distance
    turn_by = np.hstack([curvature[:, None] * distance_by, np.diag(distance)])
    middle = now.heading + np.cumsum(turn) - turn / 2
    middle_by = np.cumsum(turn_by, axis=0) - turn_by / 2
    chord = distance * np.sinc(turn / (2 * math.pi))
    cos, sin = np.cos(middle), np.sin(middle)
    # The chord is shorter than the arc by less than a percent, so that one derivative serves both.
    chord_by = np.hstack([distance_by, np.zeros((count, count))])
    x_by = np.cumsum(cos[:, None] * chord_by - (chord * sin)[:, None] * middle_by, axis=0)
    y_by = np.cumsum(sin[:, None] * chord_by + (chord * cos)[:, None] * middle_by, axis=0)
    turned = now.heading + np.cumsum(turn) - target[:, 2]
    aim, smooth, straight = map(math.sqrt, (HEADING_COST, ACCELERATION_COST, CURVATURE_COST))
    change, nothing = np.eye(count) - np.eye(count, k=-1), np.zeros((count, count))
    residual = [
        now.xy[0] + np.cumsum(chord * cos) - target[:, 0],
        now.xy[1] + np.cumsum(chord * sin) - target[:, 1],
        aim * ((turned + math.pi) % (2 * math.pi) - math.pi),
        smooth * np.diff(acceleration, prepend=last.acceleration),
        straight * np.diff(curvature, prepend=last.curvature),
    ]
    jacobian = [
        x_by,
        y_by,
        aim * np.cumsum(turn_by, axis=0),
        smooth * np.hstack([change, nothing]),
        straight * np.hstack([nothing, change]),
    ]
    return np.concatenate(residual), np.vstack(jacobian)


def _extended(
    plan: Float[ndarray, "steps features"], speed: float
) -> Float[ndarray, "lookahead 3"]:
    """Lets a plan go on by the arc of its last step; a single pose at the ego's speed."""
    poses = list(plan[:LOOKAHEAD, :3])
    dx, dy = speed * STEP_SECONDS * _direction(float(plan[0, 2]))
    turn = 0.0
    if len(poses) > 1:
        dx, dy, turn = poses[-1] - poses[-2]
        turn = _wrap(float(turn))
    cos, sin = math.cos(turn), math.sin(turn)
    for _ in range(LOOKAHEAD - len(poses)):
        dx, dy = cos * dx - sin * dy, sin * dx + cos * dy
        poses.append(poses[-1] + np.array([dx, dy, turn]))
    return np.stack(poses)


def _now(ego: EgoHistory) -> EgoState:
    return EgoState(xy=ego.xy[-1], heading=float(ego.heading[-1]), velocity=ego.velocity[-1])


def _last_controls(ego: EgoHistory) -> Controls:
    """Tells what was driven last, from the last two states."""
    if len(ego.heading) < 2:
        return Controls(acceleration=0.0, curvature=0.0)
    before, after = (
        float(ego.velocity[step] @ _direction(float(ego.heading[step]))) for step in (-2, -1)
    )
    distance = (before + after) / 2 * STEP_SECONDS
    turn = _wrap(float(ego.heading[-1] - ego.heading[-2]))
    # Who hardly moves has not steered: the turn is noise.
    curvature = turn / distance if abs(distance) > 0.01 else 0.0
    return Controls(acceleration=(after - before) / STEP_SECONDS, curvature=curvature)


def _speed(now: EgoState) -> float:
    return float(now.velocity @ _direction(now.heading))


def _direction(heading: float) -> Float[ndarray, "2"]:
    return np.array([math.cos(heading), math.sin(heading)])


def _wrap(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi


def _near(value: float, center: float, reach: float) -> float:
    return min(max(value, center - reach), center + reach)

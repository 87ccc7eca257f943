"""How fast boxes move and turn, as WOSAC computes it."""

import math
from dataclasses import dataclass
from enum import Enum, auto

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from catk_sim.constants import STEP_SECONDS
from catk_sim.datatypes import TensorTree
from catk_sim.geometry.roots import rounded_sqrt
from catk_sim.geometry.se2 import wrap_angle
from catk_sim.metrics.box_trajectory import BoxTrajectory


class Differences(Enum):
    """Which steps a rate of change is told from."""

    CENTRAL = auto()
    """The one before and the one after; WOSAC since 2024."""

    BACKWARD = auto()
    """The one before and the step itself; WOSAC 2023."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Kinematics(TensorTree):
    """How fast boxes move and turn. NaN at steps too near to an end to tell.

    Attributes:
        linear_speed: In space (m/s).
        linear_acceleration: How fast the speed grows (m/s^2); negative when braking.
        angular_speed: How fast the heading turns (rad/s), counter-clockwise.
        angular_acceleration: How fast that grows (rad/s^2).
    """

    linear_speed: Float[Tensor, "*batch agents steps"]
    linear_acceleration: Float[Tensor, "*batch agents steps"]
    angular_speed: Float[Tensor, "*batch agents steps"]
    angular_acceleration: Float[Tensor, "*batch agents steps"]


def kinematics(boxes: BoxTrajectory, *, differences: Differences) -> Kinematics:
    """Measures speeds and accelerations by finite differences.

    Those of Montali et al., "The Waymo Open Sim Agents Challenge", arXiv:2305.12032, to the last
    bit. Validity counts for nothing: next to an absent box they are those of a jump to its numbers.
    See `kinematic_validity`.

    Args:
        boxes: Boxes at all steps, the history included.
        differences: Which steps to compare.
    """
    shifts = (_difference(values, differences) for values in (boxes.x, boxes.y, boxes.z))
    speed = _length(*shifts) / _seconds(boxes)
    angular_speed, angular_acceleration = _turning(boxes, differences)
    return Kinematics(
        linear_speed=speed,
        linear_acceleration=_difference(speed, differences) / _seconds(boxes),
        angular_speed=angular_speed,
        angular_acceleration=angular_acceleration,
    )


def planar_speed(
    boxes: BoxTrajectory, *, differences: Differences
) -> Float[Tensor, "*batch agents steps"]:
    """Measures speeds like `kinematics`, but in the plane (m/s): what time to collision reads."""
    shifts = (_difference(values, differences) for values in (boxes.x, boxes.y))
    return _length(*shifts) / _seconds(boxes)


def kinematic_validity(
    valid: Bool[Tensor, "*batch agents steps"], *, differences: Differences
) -> tuple[Bool[Tensor, "*batch agents steps"], Bool[Tensor, "*batch agents steps"]]:
    """Tells where speeds and where accelerations count: where all steps they are told from do.

    Central differences do not read the step itself, which may therefore be invalid.

    Args:
        valid: Validity of the steps that are scored. The first of them has none before it, even
            where the history gives it a speed.
        differences: Which steps the speeds compare.
    """
    speed = _compared(valid, differences)
    return speed, _compared(speed, differences)


def _turning(
    boxes: BoxTrajectory, differences: Differences
) -> tuple[Float[Tensor, "*batch agents steps"], Float[Tensor, "*batch agents steps"]]:
    """Measures angular speed and acceleration, of angles that start again after a full turn."""
    seconds, shift = _seconds(boxes), _difference(boxes.heading, differences)
    if differences is Differences.BACKWARD:
        speed = wrap_angle(shift) / seconds
        # WOSAC 2023 wraps the change of a speed, as if it were an angle.
        return speed, wrap_angle(_difference(speed, differences)) / seconds
    turn = wrap_angle(2 * shift) / 2
    change = wrap_angle(2 * _difference(turn, differences)) / 2
    return turn / seconds, change / _seconds(boxes, power=2)


def _difference(
    values: Float[Tensor, "*batch agents steps"], differences: Differences
) -> Float[Tensor, "*batch agents steps"]:
    """Returns the change within a step, or NaN."""
    result = torch.full_like(values, math.nan)
    if differences is Differences.BACKWARD:
        result[..., 1:] = values[..., 1:] - values[..., :-1]
    else:
        result[..., 1:-1] = (values[..., 2:] - values[..., :-2]) / 2
    return result


def _compared(
    valid: Bool[Tensor, "*batch agents steps"], differences: Differences
) -> Bool[Tensor, "*batch agents steps"]:
    result = torch.zeros_like(valid)
    if differences is Differences.BACKWARD:
        result[..., 1:] = valid[..., 1:] & valid[..., :-1]
    else:
        result[..., 1:-1] = valid[..., 2:] & valid[..., :-2]
    return result


def _length(*shifts: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    squared = sum((shift.square() for shift in shifts[1:]), shifts[0].square())
    return rounded_sqrt(squared)


def _seconds(boxes: BoxTrajectory, power: int = 1) -> Float[Tensor, ""]:
    # A tensor, since torch multiplies by the rounded inverse of a plain number on a GPU.
    return torch.full((), STEP_SECONDS**power, dtype=boxes.x.dtype, device=boxes.x.device)

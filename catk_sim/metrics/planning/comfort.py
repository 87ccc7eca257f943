"""Whether the ego drives comfortably."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from catk_sim.constants import HISTORY_STEPS, STEP_SECONDS
from catk_sim.datatypes import TensorTree
from catk_sim.geometry.se2 import rotate, wrap_angle

WINDOW = 15
"""Steps that a derivative is told from."""

ORDER = 3
"""Degree of the polynomials that are fitted to them."""

MIN_LONGITUDINAL_ACCELERATION = -4.05
"""m/s^2. This and the following are nuPlan's bounds."""

MAX_LONGITUDINAL_ACCELERATION = 2.40
"""m/s^2."""

MAX_LATERAL_ACCELERATION = 4.89
"""m/s^2, to either side."""

MAX_JERK = 8.37
"""m/s^3, in any direction."""

MAX_LONGITUDINAL_JERK = 4.13
"""m/s^3, forwards or backwards."""

MAX_YAW_RATE = 0.95
"""rad/s, to either side."""

MAX_YAW_ACCELERATION = 1.93
"""rad/s^2, to either side."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Comfort(TensorTree):
    """The extremes that an ego's comfort is judged by. NaN for an ego that is absent at a step.

    Attributes:
        min_longitudinal_acceleration: Along the heading (m/s^2).
        max_longitudinal_acceleration: Likewise.
        lateral_acceleration: Greatest across the heading (m/s^2).
        jerk: Greatest in any direction (m/s^3).
        longitudinal_jerk: Greatest along the heading (m/s^3).
        yaw_rate: Greatest (rad/s).
        yaw_acceleration: Greatest (rad/s^2).
    """

    min_longitudinal_acceleration: Float[Tensor, "*batch"]
    max_longitudinal_acceleration: Float[Tensor, "*batch"]
    lateral_acceleration: Float[Tensor, "*batch"]
    jerk: Float[Tensor, "*batch"]
    longitudinal_jerk: Float[Tensor, "*batch"]
    yaw_rate: Float[Tensor, "*batch"]
    yaw_acceleration: Float[Tensor, "*batch"]

    @property
    def score(self) -> Float[Tensor, "*batch"]:
        """Score of nuPlan: 1 if all are within bounds, else 0. NaN where they are."""
        within = (
            (self.min_longitudinal_acceleration > MIN_LONGITUDINAL_ACCELERATION)
            & (self.max_longitudinal_acceleration < MAX_LONGITUDINAL_ACCELERATION)
            & (self.lateral_acceleration < MAX_LATERAL_ACCELERATION)
            & (self.jerk < MAX_JERK)
            & (self.longitudinal_jerk < MAX_LONGITUDINAL_JERK)
            & (self.yaw_rate < MAX_YAW_RATE)
            & (self.yaw_acceleration < MAX_YAW_ACCELERATION)
        )
        return torch.where(self.jerk.isnan(), math.nan, within.to(self.jerk))


def comfort(
    xy: Float[Tensor, "*batch steps 2"],
    heading: Float[Tensor, "*batch steps"],
    valid: Bool[Tensor, "*batch steps"],
) -> Comfort:
    """Measures accelerations, jerks and turns after the current step.

    They are derivatives of a Savitzky-Golay filter: of cubics that are fitted to 1.5 s of motion,
    as logged positions are too noisy to be differentiated as they are. nuPlan filters likewise
    what its simulated car reports.

    Args:
        xy: Positions at all steps, the history included (m).
        heading: Directions (rad).
        valid: Where both are known.
    """
    step = heading.diff(dim=-1, prepend=heading[..., :1])
    # Without jumps of a whole turn.
    unwrapped = (heading[..., :1] + wrap_angle(step).cumsum(dim=-1)).double()
    facing = -heading.double()

    def derivative(values: Tensor, degree: int) -> Tensor:
        filtered = _derivative_filter(values.shape[-1], degree).to(values.device)
        return (values @ filtered.T)[..., HISTORY_STEPS:]

    def in_ego_frame(degree: int) -> Tensor:
        vector = derivative(xy.double().transpose(-1, -2), degree).transpose(-1, -2)
        return rotate(vector, facing[..., HISTORY_STEPS:]).to(xy)

    def worst(values: Tensor) -> Tensor:
        return torch.where(valid.all(dim=-1), values.amax(dim=-1), math.nan)

    acceleration, jerk = in_ego_frame(2), in_ego_frame(3)
    return Comfort(
        min_longitudinal_acceleration=-worst(-acceleration[..., 0]),
        max_longitudinal_acceleration=worst(acceleration[..., 0]),
        lateral_acceleration=worst(acceleration[..., 1].abs()),
        jerk=worst(jerk.norm(dim=-1)),
        longitudinal_jerk=worst(jerk[..., 0].abs()),
        yaw_rate=worst(derivative(unwrapped, 1).abs().to(xy)),
        yaw_acceleration=worst(derivative(unwrapped, 2).abs().to(xy)),
    )


def _derivative_filter(num_steps: int, degree: int) -> Float[Tensor, "steps steps"]:
    """Makes the Savitzky-Golay filter: each row weighs all steps for the derivative at one.

    Savitzky and Golay, Analytical Chemistry 36 (1964). Near the ends, where the window does not
    reach as far to both sides, the polynomial of the last whole window counts.
    """
    window, step = min(WINDOW, num_steps), torch.arange(num_steps)
    first = (step - window // 2).clamp(0, num_steps - window)
    member = first[:, None] + torch.arange(window)
    time = (member - step[:, None]).double() * STEP_SECONDS
    fit = torch.linalg.pinv(time[..., None] ** torch.arange(ORDER + 1))
    weight = fit[:, degree] * math.factorial(degree)
    return weight.new_zeros(num_steps, num_steps).scatter(1, member, weight)

"""Half-second motions cut out of logs: what a vocabulary is built from."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from catk_sim.constants import STEP_SECONDS, STEPS_PER_TOKEN
from catk_sim.datatypes import Scenario
from catk_sim.geometry import se2
from catk_sim.tokens import cleaning
from catk_sim.tokens.vocabulary import MotionVocabulary

MIN_VALID_STEPS = 30
"""Agents that were seen more briefly (steps) are tracked too poorly to learn from."""

SIDEWAYS_ACCELERATION = 5.0
"""Most that generated motions accelerate sideways (m/s^2); a car loses its grip near 8."""

SLIP = 0.2
"""Standard deviation of the angle (rad) at which generated motions leave their heading. A car that
turns swings its centre outwards, and tracked headings are often wrong by more than that."""


@dataclass(frozen=True, kw_only=True)
class MotionLimits:
    """What a type of agent can do. Motions beyond it are taken for tracking errors.

    A disk counts once however many motions it holds, so every glitch that is let in costs a token:
    one published vocabulary has a cyclist at 122 m/s.
    """

    max_speed: float
    """Speed (m/s) over any 0.1 s."""
    max_acceleration: float
    """Change of velocity between two 0.1 s moves, per second (m/s^2)."""
    max_turn_rate: float
    """Change of heading over any 0.1 s, per second (rad/s)."""
    max_curvature: float
    """Turn over distance travelled (1/m) when generated."""
    max_reverse_speed: float
    """Speed backwards (m/s) when generated."""


LIMITS = (
    MotionLimits(
        max_speed=40.0,
        max_acceleration=20.0,
        max_turn_rate=2.0,
        max_curvature=0.2,
        max_reverse_speed=4.0,
    ),
    MotionLimits(
        max_speed=6.0,
        max_acceleration=15.0,
        max_turn_rate=8.0,
        max_curvature=4.0,
        max_reverse_speed=0.5,
    ),
    MotionLimits(
        max_speed=16.0,
        max_acceleration=20.0,
        max_turn_rate=4.0,
        max_curvature=0.5,
        max_reverse_speed=1.0,
    ),
)
"""Limits of vehicles, pedestrians and cyclists."""


def cut_motions(
    scenario: Scenario, *, stride: int = STEPS_PER_TOKEN
) -> tuple[Float[Tensor, "_ 6 3"], ...]:
    """Cuts the half-second motions out of a scenario: of vehicles, of pedestrians, of cyclists.

    Each is in the frame of its first pose: x (m), y (m), heading (rad).

    Args:
        scenario: A single scenario.
        stride: Steps between the starts of two motions of an agent.
    """
    log = cleaning.clean_headings(cleaning.fill_gaps(scenario.log))
    long_seen = scenario.log.valid.sum(-1, keepdim=True) >= MIN_VALID_STEPS
    poses = torch.cat([log.xy, log.heading[..., None]], dim=-1)
    # (agents, starts, 3, steps), as `unfold` puts the window last.
    windows = poses.unfold(-2, STEPS_PER_TOKEN + 1, stride).transpose(-1, -2)
    seen = (log.valid & long_seen).unfold(-1, STEPS_PER_TOKEN + 1, stride).all(-1)
    rows = MotionVocabulary.type_index(scenario.agents.type)[..., None].expand(seen.shape)
    start = windows[..., :1, :]
    xy = se2.to_local(windows[..., :2], start[..., :2], start[..., 2])
    turn = se2.wrap_angle(windows[..., 2] - start[..., 2])
    motions = torch.cat([xy, turn[..., None]], dim=-1)
    return tuple(motions[seen & (rows == row)].float() for row in range(len(LIMITS)))


def is_plausible(
    motions: Float[Tensor, "motions 6 3"], limits: MotionLimits
) -> Bool[Tensor, " motions"]:
    """Tells which motions stay within the limits."""
    velocity = motions[..., :2].diff(dim=-2) / STEP_SECONDS
    speed = torch.linalg.vector_norm(velocity, dim=-1)
    acceleration = torch.linalg.vector_norm(velocity.diff(dim=-2), dim=-1) / STEP_SECONDS
    turn_rate = se2.wrap_angle(motions[..., 2].diff(dim=-1)).abs() / STEP_SECONDS
    return (
        (speed.amax(-1) <= limits.max_speed)
        & (acceleration.amax(-1) <= limits.max_acceleration)
        & (turn_rate.amax(-1) <= limits.max_turn_rate)
    )


def distinct_index(motions: Float[Tensor, "motions 6 3"]) -> Int[Tensor, " distinct"]:
    """Finds the first of all motions that agree to a millimetre and a milliradian.

    SMART compares each motion with all before it (a sum of absolute differences below 0.01); equal
    rounded numbers are found in linear time.
    """
    rounded = (motions * 1000).round().to(torch.int32).flatten(1)
    # One number for each motion. 64 random bits collide once in 10^8 tables of 200,000 motions.
    weight = torch.randint(2**62, (rounded.shape[1],), generator=Generator().manual_seed(0)) * 2 + 1
    _, group = torch.unique((rounded * weight).sum(-1), return_inverse=True)
    index = torch.arange(len(motions))
    first = index.new_full((len(motions),), len(motions)).scatter_reduce(0, group, index, "amin")
    return first[first < len(motions)].sort().values


def mirror(motions: Float[Tensor, "motions 6 3"]) -> Float[Tensor, "motions 6 3"]:
    """Swaps left and right."""
    return motions * motions.new_tensor([1.0, -1.0, -1.0])


def generate_motions(
    count: int, limits: MotionLimits, generator: Generator
) -> Float[Tensor, "count 6 3"]:
    """Makes motions up that an agent could do, spread evenly over what the limits allow.

    They cover what a small data set lacks: high speeds, hard braking, reversing, tight turns. Speed
    and curvature are drawn, and an acceleration that stays constant; the sideways acceleration is
    held below `SIDEWAYS_ACCELERATION` and the turn rate within its limit. The course may differ
    from the heading by about `SLIP`.

    Args:
        count: How many.
        limits: What the type of agent can do.
        generator: Source of randomness, on the cpu.
    """
    draw = torch.rand(3, count, generator=generator, dtype=torch.float64)
    fastest = 0.999 * limits.max_speed  # So that rounding carries nobody over the limit.
    first = -limits.max_reverse_speed + draw[0] * (fastest + limits.max_reverse_speed)
    acceleration = 6.0 * (2 * draw[1] - 1)
    time = STEP_SECONDS * torch.arange(STEPS_PER_TOKEN + 1, dtype=torch.float64)
    # An agent brakes to a stop and no further; the fastest accelerate no more.
    speed = first[:, None] + acceleration[:, None] * time
    speed = torch.where(first[:, None] >= 0, speed.clamp(0, fastest), speed.clamp_max(0))
    distance = (speed[:, 1:] + speed[:, :-1]) / 2 * STEP_SECONDS
    peak = speed.abs().amax(-1).clamp_min(1e-3)
    bound = torch.minimum(SIDEWAYS_ACCELERATION / peak**2, limits.max_turn_rate / peak)
    curvature = (2 * draw[2] - 1) * bound.clamp_max(limits.max_curvature)
    turn = torch.cat([torch.zeros(count, 1), curvature[:, None] * distance], dim=-1).cumsum(-1)
    middle = (turn[:, 1:] + turn[:, :-1]) / 2
    # Exact on an arc: the chord points along the heading half-way.
    chord = distance * torch.sinc(curvature[:, None] * distance / (2 * math.pi))
    moves = torch.stack([chord * middle.cos(), chord * middle.sin()], dim=-1)
    xy = torch.cat([torch.zeros(count, 1, 2), moves], dim=-2).cumsum(-2)
    slip = SLIP * torch.randn(count, 1, generator=generator, dtype=torch.float64)
    return torch.cat([se2.rotate(xy, slip), turn[..., None]], dim=-1).float()

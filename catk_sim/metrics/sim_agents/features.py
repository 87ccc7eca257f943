"""What the Sim Agents metric compares between simulated and logged agents."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from catk_sim.datatypes import TensorTree


@dataclass(frozen=True, eq=False, kw_only=True)
class SimAgentsFeatures(TensorTree):
    """What the evaluated agents do at every step, under Waymo's names.

    In float32, since bins and signs depend on the rounding. The batch is that of the scenarios for
    the log; for rollouts it has them as a further, first dimension.

    Attributes:
        linear_speed: In space (m/s). Like the next three, NaN where a step's neighbours are
            missing.
        linear_acceleration: How fast the speed grows (m/s^2).
        angular_speed: How fast the heading turns (rad/s).
        angular_acceleration: How fast that grows (rad/s^2).
        distance_to_nearest_object: Gap between the boxes (m); negative where they overlap.
        collision_per_step: Whether it overlaps another agent.
        time_to_collision: Until it would hit whom it follows (s), at most 5.
        distance_to_road_edge: Of the outermost corner (m); positive off the road.
        offroad_per_step: Whether a corner is off the road.
        traffic_light_violation_per_step: Whether it passes a red light. None for a version that
            does not look for that.
        average_displacement_error: Mean distance to the log (m). Zero in scenario generation.
    """

    linear_speed: Float[Tensor, "*batch agents steps"]
    linear_acceleration: Float[Tensor, "*batch agents steps"]
    angular_speed: Float[Tensor, "*batch agents steps"]
    angular_acceleration: Float[Tensor, "*batch agents steps"]
    distance_to_nearest_object: Float[Tensor, "*batch agents steps"]
    collision_per_step: Bool[Tensor, "*batch agents steps"]
    time_to_collision: Float[Tensor, "*batch agents steps"]
    distance_to_road_edge: Float[Tensor, "*batch agents steps"]
    offroad_per_step: Bool[Tensor, "*batch agents steps"]
    traffic_light_violation_per_step: Bool[Tensor, "*batch agents steps"] | None
    average_displacement_error: Float[Tensor, "*batch agents"]


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredAgents(TensorTree):
    """Which evaluated agents are scored, and at which steps.

    Attributes:
        scenario_id: WOMD's id of each scenario.
        valid: Where the log has the agent.
        speed_valid: Where its speeds count: see `kinematic_validity`.
        acceleration_valid: Where its accelerations count.
        is_vehicle: Whether it is a vehicle.
        counted: False for padding.
    """

    scenario_id: tuple[str, ...]
    valid: Bool[Tensor, "*batch agents steps"]
    speed_valid: Bool[Tensor, "*batch agents steps"]
    acceleration_valid: Bool[Tensor, "*batch agents steps"]
    is_vehicle: Bool[Tensor, "*batch agents"]
    counted: Bool[Tensor, "*batch agents"]

"""What a planner is: the interface that users implement."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from catk_sim.datatypes import RoadGraph, Scenario
from catk_sim.planning.route import Route


@dataclass(frozen=True, eq=False, kw_only=True)
class PlannerContext:
    """What does not change during an episode. nuPlan calls it `PlannerInitialization`.

    Positions are in the scenario's frame: metres, relative to where the ego was at the start, in
    WOMD's directions. Arrays and tensors are copies; arrays are float64, tensors float32.

    The route and the goal are those of the logged drive, as nuPlan gives them.

    Attributes:
        scenario_id: Which scenario it is.
        roadgraph: The map, unbatched, on the CPU.
        route: Where the ego is to go. Its methods take arrays or tensors, and return the same.
        goal: Where it is to be at the end: x, y (m) and heading (rad).
        ego_size: Its length, width and height (m).
        step_seconds: Time between two calls of `plan` (s), and between poses of a plan.
        horizon: Steps that will be driven.
        seed: For planners that draw random numbers. It differs between scenarios and rollouts.
        log: Everything that was logged, the future included. None unless the planner declares
            `requires_log`.
    """

    scenario_id: str
    roadgraph: RoadGraph
    route: Route
    goal: Float[ndarray, "3"]
    ego_size: Float[ndarray, "3"]
    step_seconds: float
    horizon: int
    seed: int = 0
    log: Scenario | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class EgoHistory:
    """Where the ego was, the current step last: as many steps as it was seen without a gap.

    At most `HISTORY_STEPS`.

    Attributes:
        xy: Positions of the centre of its box (m).
        heading: Directions (rad).
        velocity: Velocities (m/s).
    """

    xy: Float[ndarray, "history 2"]
    heading: Float[ndarray, " history"]
    velocity: Float[ndarray, "history 2"]


@dataclass(frozen=True, eq=False, kw_only=True)
class TrackedAgents:
    """Everybody else who was seen in the last `HISTORY_STEPS` steps, the current step last.

    Attributes:
        id: Their identifiers, as in the scenario.
        type: `AgentType` of each.
        size: Length, width and height (m).
        xy: Positions (m).
        heading: Directions (rad).
        velocity: Velocities (m/s).
        valid: Whether an agent was seen at a step. Where it was not, the other arrays are 0.
    """

    id: Int[ndarray, " agents"]
    type: Int[ndarray, " agents"]
    size: Float[ndarray, "agents 3"]
    xy: Float[ndarray, "agents history 2"]
    heading: Float[ndarray, "agents history"]
    velocity: Float[ndarray, "agents history 2"]
    valid: Bool[ndarray, "agents history"]


@dataclass(frozen=True, eq=False, kw_only=True)
class SeenLights:
    """Traffic lights at the current step; those that are seen, and no others.

    Attributes:
        lane: The id of the lane that each one governs.
        state: `TrafficLightState` of each.
        stop_point: Where to stop for it (m).
    """

    lane: Int[ndarray, " lights"]
    state: Int[ndarray, " lights"]
    stop_point: Float[ndarray, "lights 2"]


@dataclass(frozen=True, eq=False, kw_only=True)
class PlannerInput:
    """What a planner sees at a step.

    Attributes:
        step: Steps since the episode began.
        ego: The ego.
        agents: Everybody else.
        traffic_lights: The lights.
    """

    step: int
    ego: EgoHistory
    agents: TrackedAgents
    traffic_lights: SeenLights


@dataclass(frozen=True, kw_only=True)
class Controls:
    """What a driver does for one step, by a kinematic bicycle.

    Attributes:
        acceleration: Along the heading (m/s^2).
        curvature: Of the path, positive to the left (1/m).
    """

    acceleration: float
    curvature: float


Plan = np.ndarray | Controls
"""A trajectory of shape (steps, 3): x, y (m) and heading (rad) at each step from the next one on,
or (steps, 5) with the velocity (m/s) too; at least one step. Or what to do for one step."""


@runtime_checkable
class Planner(Protocol):
    """Drives the ego, after the manner of nuPlan's `AbstractPlanner`.

    One object drives one scenario after the other: `initialize`, then `plan` at every step.
    Scenarios that are driven side by side have an object each.
    """

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    @property
    def requires_log(self) -> bool:
        """Whether it must see the log, the future included. An oracle, not a planner to compare."""
        ...

    def initialize(self, context: PlannerContext) -> None:
        """Prepares for a scenario."""
        ...

    def plan(self, input: PlannerInput) -> Plan:
        """Plans from the current step on."""
        ...

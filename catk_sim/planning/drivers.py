"""Who moves the ego, scenario by scenario or all of a batch at once."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from catk_sim.datatypes import Scenario, SimState, Trajectory
from catk_sim.envs.background import Background
from catk_sim.planning.calls import Problem, timed_call
from catk_sim.planning.observing import ego_history, make_context, observe
from catk_sim.planning.planner import Controls, Planner
from catk_sim.planning.tracking import EgoState, Exact, Tracker
from catk_sim.rollout import Policy

FARTHEST = 1e6
"""Poses farther away than this (m) are taken for an error."""


@runtime_checkable
class EgoDriver(Protocol):
    """Moves the egos of scenarios that are driven side by side, its worlds.

    Attributes:
        name: What it is called in tables.
        seconds: How long each call since the start took (s).
        start_seconds: How long it took to prepare for each scenario (s).
    """

    name: str
    seconds: list[float]
    start_seconds: list[float]

    def start(
        self, scenarios: Sequence[Scenario], state: SimState, *, horizon: int, seed: int
    ) -> list[Problem | None]:
        """Prepares for scenarios, and tells where that failed.

        Args:
            scenarios: One for each world, in float32.
            state: All of them as a batch, at the start.
            horizon: Steps that will be driven.
            seed: Decides what is drawn at random.
        """
        ...

    def move(self, state: SimState, worlds: Sequence[int]) -> list[EgoState | Problem]:
        """Tells where the egos of some worlds are a step later. Called at every step."""
        ...


class PlannerDriver:
    """Lets planners drive, one for each world.

    Args:
        make: Makes a planner. It is called as often as there are worlds side by side.
        tracker: How plans are followed.
        time_limit: How long a call of `plan` may take (s).
    """

    def __init__(
        self,
        make: Callable[[], Planner],
        *,
        tracker: Tracker | None = None,
        time_limit: float | None = None,
    ) -> None:
        if time_limit is not None and not time_limit > 0:
            raise ValueError(f"the time limit must be above 0 s, got {time_limit}")
        self._make = make
        self._planners = [make()]
        self._tracker = Exact() if tracker is None else tracker
        self._time_limit = time_limit
        self._worlds: list[Scenario] = []
        self.name = self._planners[0].name
        self.seconds: list[float] = []
        self.start_seconds: list[float] = []

    def start(
        self, scenarios: Sequence[Scenario], state: SimState, *, horizon: int, seed: int
    ) -> list[Problem | None]:
        """Initializes a planner for each scenario."""
        self.seconds, self.start_seconds = [], []
        self._worlds = [scenario.to("cpu") for scenario in scenarios]
        while len(self._planners) < len(scenarios):
            self._planners.append(self._make())
        return [self._initialize(world, horizon, seed + world) for world in range(len(scenarios))]

    def move(self, state: SimState, worlds: Sequence[int]) -> list[EgoState | Problem]:
        """Lets planners plan, one after the other, and follows their plans."""
        history, steps = state.history.to("cpu"), state.step.tolist()
        return [self._move(history.select(world), steps[world], world) for world in worlds]

    def _initialize(self, world: int, horizon: int, seed: int) -> Problem | None:
        planner = self._planners[world]
        context = make_context(
            self._worlds[world], horizon=horizon, seed=seed, with_log=planner.requires_log
        )
        result, seconds = timed_call(lambda: planner.initialize(context))
        self.start_seconds.append(seconds)
        return result if isinstance(result, Problem) else None

    def _move(self, history: Trajectory, step: int, world: int) -> EgoState | Problem:
        planner, scenario = self._planners[world], self._worlds[world]
        # Without the padding of the batch.
        history = history.map(lambda tensor: tensor[: scenario.log.num_agents])
        seen = observe(scenario, history, step)
        # The planner may change the arrays that it is given.
        ego = ego_history(scenario, history)
        plan, seconds = timed_call(lambda: planner.plan(seen), self._time_limit)
        self.seconds.append(seconds)
        if isinstance(plan, Problem):
            return plan
        try:
            checked = checked_plan(plan)
        except ValueError as error:
            return Problem(reason=str(error))
        return self._tracker.track(ego, checked)


class PolicyDriver:
    """Lets a policy drive, all worlds in one call.

    The policy's actions may be longer than a step: they are played out step by step. Where it does
    not act, the ego follows the log.

    Args:
        policy: Who drives.
        name: What it is called.
    """

    def __init__(self, policy: Policy[Any], name: str) -> None:
        self.policy = policy
        self.name = name
        self.seconds: list[float] = []
        self.start_seconds: list[float] = []
        self._background: Background | None = None
        self._moves = 0

    @torch.no_grad()
    def start(
        self, scenarios: Sequence[Scenario], state: SimState, *, horizon: int, seed: int
    ) -> list[Problem | None]:
        """Prepares the policy for the batch."""
        background = Background(self.policy, state.step.device)
        background.seed(seed)
        self._background, self._moves, self.seconds = background, 0, []
        others = state.replace(controlled=~state.scenario.agents.is_sdc)
        result, seconds = timed_call(lambda: background.start(others, range(len(scenarios))))
        self.start_seconds = [seconds]
        return [result if isinstance(result, Problem) else None] * len(scenarios)

    @torch.no_grad()
    def move(self, state: SimState, worlds: Sequence[int]) -> list[EgoState | Problem]:
        """Lets the policy act, if what it did last is played out."""
        background = self._background
        if background is None:
            raise ValueError("start the driver before anything else")
        if not worlds:
            return []
        result, seconds = timed_call(lambda: _moved(background, state))
        if self._moves % self.policy.dynamics.steps_per_action == 0:
            self.seconds.append(seconds)
        self._moves += 1
        if isinstance(result, Problem):
            return [result] * len(worlds)
        return [_checked_state(result[world]) for world in worlds]


def checked_plan(plan: object) -> Float[ndarray, "steps features"] | Controls:
    """Checks what a planner returned.

    Raises:
        ValueError: It is no plan, or a number in it is not finite.
    """
    wanted = "wanted a trajectory of shape (steps, 3) or (steps, 5), or Controls, got"
    if isinstance(plan, Controls):
        if not np.isfinite([plan.acceleration, plan.curvature]).all():
            raise ValueError(f"the plan is not finite: {plan}")
        return plan
    try:
        poses = np.array(plan, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{wanted} {type(plan).__name__}") from error
    if poses.ndim != 2 or poses.shape[0] < 1 or poses.shape[1] not in (3, 5):
        raise ValueError(f"{wanted} an array of shape {poses.shape}")
    _check_pose(poses)
    return poses


def _check_pose(poses: Float[ndarray, "steps features"]) -> None:
    lost = ~np.isfinite(poses).all(axis=-1)
    if lost.any():
        raise ValueError(f"the plan is not finite: pose {lost.argmax()} is {poses[lost.argmax()]}")
    if np.abs(poses).max() > FARTHEST:
        raise ValueError(f"the plan leads more than {FARTHEST / 1000:g} km away")


def _moved(background: Background, state: SimState) -> Float[ndarray, "worlds 6"]:
    """Moves the sdc of every world, and reads x, y, heading, velocity and validity of it."""
    motion, acts = background.move(state, 1)
    motion = motion.where(acts, state.scenario.log.gather(state.step[..., None] + 1))
    parts = [
        motion.xy[:, :, 0],
        motion.heading,
        motion.velocity[:, :, 0],
        motion.valid.to(motion.xy),
    ]
    sdc = state.scenario.agents.sdc_index[:, None, None]
    ego = torch.take_along_dim(torch.cat(parts, dim=-1), sdc, dim=1)[:, 0]
    return ego.double().cpu().numpy()


def _checked_state(ego: Float[ndarray, "6"]) -> EgoState | Problem:
    if not ego[5]:
        return Problem(reason="the policy left the ego to the log, which ends here")
    if not np.isfinite(ego).all():
        return Problem(reason=f"the policy led to a state that is not finite: {ego[:5]}")
    return EgoState(xy=ego[:2], heading=float(ego[2]), velocity=ego[3:5])

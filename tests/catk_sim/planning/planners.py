"""Planners that tests drive with."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from catk_sim.planning.planner import PlannerContext, PlannerInput


def straight_on(input: PlannerInput) -> np.ndarray:
    """Keeps velocity and heading for two seconds."""
    ahead = 0.1 * np.arange(1, 21)[:, None]
    xy = input.ego.xy[-1] + ahead * input.ego.velocity[-1]
    return np.concatenate([xy, np.full((20, 1), input.ego.heading[-1])], axis=1)


def towards_goal(input: PlannerInput, context: PlannerContext) -> np.ndarray:
    """Goes straight to the goal, evenly."""
    steps = max(1, context.horizon - input.step)
    part = np.arange(1, steps + 1)[:, None] / steps
    now = np.array([*input.ego.xy[-1], input.ego.heading[-1]])
    return now + part * (context.goal - now)


class Recording:
    """Drives straight on, and keeps all that it is shown."""

    name = "recording"
    requires_log = False

    def __init__(self) -> None:
        self.contexts: list[PlannerContext] = []
        self.inputs: list[PlannerInput] = []

    def initialize(self, context: PlannerContext) -> None:
        self.contexts.append(context)

    def plan(self, input: PlannerInput) -> np.ndarray:
        self.inputs.append(input)
        return straight_on(input)


class Oracle(Recording):
    """Drives as was logged."""

    name = "oracle"
    requires_log = True

    def plan(self, input: PlannerInput) -> np.ndarray:
        log = self.contexts[-1].log
        assert log is not None
        ego = int(log.agents.is_sdc.nonzero()[0])
        step = 11 + input.step
        pose = [*log.log.xy[ego, step].tolist(), float(log.log.heading[ego, step])]
        return np.array([[*pose, *log.log.velocity[ego, step].tolist()]])


class Failing(Recording):
    """Does something wrong at a step.

    Args:
        step: When.
        what: What its plan is then, or the exception that it raises.
        only: Scenarios that it fails in, by their ids; empty for all.
    """

    name = "failing"

    def __init__(self, step: int, what: Any, only: Sequence[str] = ()) -> None:
        super().__init__()
        self.step, self.what, self.only = step, what, only

    def plan(self, input: PlannerInput) -> np.ndarray:
        plan = super().plan(input)
        meant = not self.only or self.contexts[-1].scenario_id in self.only
        if input.step != self.step or not meant:
            return plan
        if isinstance(self.what, BaseException):
            raise self.what
        return self.what


class Slow(Recording):
    """Thinks too long at a step, if it is not interrupted."""

    name = "slow"

    def plan(self, input: PlannerInput) -> np.ndarray:
        if input.step == 2:
            try:
                time.sleep(30)
            except Exception:  # Planners may well catch everything.
                return straight_on(input)
        return super().plan(input)

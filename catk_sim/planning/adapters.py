"""Planners made of plain functions."""

import inspect
from collections.abc import Callable
from typing import Any

from catk_sim.planning.planner import PlannerContext, PlannerInput


class FunctionPlanner:
    """Lets a function plan: `plan(input)`, or `plan(input, context)`.

    Args:
        function: Called at every step.
        name: What the planner is called; by default, as the function.

    Raises:
        ValueError: It takes neither one argument nor two.
    """

    requires_log = False

    def __init__(self, function: Callable[..., Any], name: str = "") -> None:
        self.name = name or getattr(function, "__name__", type(function).__name__)
        count = num_required(function)
        if count not in (1, 2):
            raise ValueError(
                f"wanted a function plan(input) or plan(input, context), but {self.name} has "
                f"{count} arguments to give"
            )
        self._function = function
        self._with_context = count == 2
        self._context: PlannerContext | None = None

    def initialize(self, context: PlannerContext) -> None:
        """Keeps the context."""
        self._context = context

    def plan(self, input: PlannerInput) -> Any:
        """Calls the function. What it returns is for the caller to check."""
        if self._with_context:
            return self._function(input, self._context)
        return self._function(input)


def num_required(function: Callable[..., Any]) -> int:
    """Counts the positional arguments of a function that have no default."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return sum(one.kind in positional and one.default is one.empty for one in parameters)

"""Every case that is compared with the official package."""

from collections.abc import Callable
from types import ModuleType

from tests.official import agent_cases, light_cases, map_cases, whole_cases
from tests.official.drawing import Case


def _cases_of(module: ModuleType) -> dict[str, Callable[[], Case]]:
    """Functions of no arguments that are annotated to return a case."""
    return {
        name: function
        for name, function in vars(module).items()
        if getattr(function, "__annotations__", None) == {"return": Case}
    }


CASES = {
    name: make
    for module in (agent_cases, map_cases, light_cases, whole_cases)
    for name, make in _cases_of(module).items()
}

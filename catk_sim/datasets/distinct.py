"""Scenarios whose ids come once."""

from collections.abc import Iterable, Iterator

from catk_sim.datasets.errors import DataError, OnError
from catk_sim.datatypes import Scenario


def distinct(
    scenarios: Iterable[tuple[str, Scenario]], places: dict[str, str], on_error: OnError
) -> Iterator[Scenario]:
    """Passes on the first scenario of each id.

    Args:
        scenarios: Each with the place where it was found.
        places: Where each id was found before. What is passed on is added.
        on_error: Told of each id that comes again.
    """
    for place, scenario in scenarios:
        if is_first(scenario.scenario_id[0], place, places, on_error):
            yield scenario


def is_first(scenario_id: str, place: str, places: dict[str, str], on_error: OnError) -> bool:
    """Tells whether an id has not come before, and remembers it in `places`. See `distinct`."""
    if scenario_id in places:
        problem = f"scenario {scenario_id} has come before, in {places[scenario_id]}"
        on_error(DataError(problem, place))
        return False
    places[scenario_id] = place
    return True

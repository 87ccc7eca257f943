import pytest

from tests import kills


@pytest.mark.slow
@pytest.mark.parametrize("name", list(kills.COMMANDS))
def test_a_command_that_was_killed_ends_as_one_that_was_not(name: str) -> None:
    kills.check(name, moments=1, seed=0)

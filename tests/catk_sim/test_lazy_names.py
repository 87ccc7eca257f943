"""Names that packages load when they are used."""

from types import ModuleType

import pytest

import catk_sim
from catk_sim import visualization


@pytest.mark.parametrize("package", [catk_sim, visualization])
def test_every_name_is_there_and_listed(package: ModuleType) -> None:
    homes: dict[str, str] = package._HOMES
    assert len(homes) > 5
    assert set(homes) <= set(dir(package))
    for name, home in homes.items():
        assert getattr(package, name).__module__.startswith(home)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match=r"'catk_sim' has no attribute 'nothing'"):
        _ = catk_sim.nothing

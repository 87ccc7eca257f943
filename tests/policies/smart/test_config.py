import pytest

from policies.smart.config import PRESETS, SMARTConfig


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_found_by_its_name(name: str) -> None:
    assert SMARTConfig.preset(name) is PRESETS[name]


def test_an_unknown_preset_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'huge'; there are micro, nano, mini, tiny, large"):
        SMARTConfig.preset("huge")


def test_a_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="hidden_dim must be positive, got 0"):
        SMARTConfig(hidden_dim=0)
    with pytest.raises(ValueError, match="num_heads must be positive, got -1"):
        SMARTConfig(num_heads=-1)
    with pytest.raises(ValueError, match="map_radius must be positive"):
        SMARTConfig(map_radius=0.0)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_dropout_must_be_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="dropout must be in"):
        SMARTConfig(dropout=share)

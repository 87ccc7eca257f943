import pytest

from trainers.configs import OptimizerConfig
from trainers.optimizer import learning_rate

CONFIG = OptimizerConfig(learning_rate=1.0, final_ratio=0.1, warmup_steps=4)


def test_the_rate_warms_up_to_its_peak() -> None:
    assert [learning_rate(step, 104, CONFIG) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_rate_is_half_way_at_half_time() -> None:
    assert learning_rate(54, 104, CONFIG) == pytest.approx(0.55)


def test_the_rate_ends_at_its_final_ratio() -> None:
    assert learning_rate(104, 104, CONFIG) == pytest.approx(0.1)


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_a_rate_that_cannot_learn_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        OptimizerConfig(learning_rate=rate)

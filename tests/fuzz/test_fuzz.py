"""A short run over damaged inputs. The long one is `python -m tests.fuzz`."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.campaign import run
from tests.fuzz.targets import Target, targets

INPUTS_PER_SHARE = 20


@functools.cache
def target(name: str) -> Target:
    return next(target for target in targets() if target.name == name)


DATASETS = [target.name for target in targets() if target.name != "checkpoint"]


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_a_damaged_input_raises_errors_of_ours_alone(name: str) -> None:
    outcome = run(target(name), range(INPUTS_PER_SHARE * target(name).share))
    assert outcome.faults == {}
    # Neither is every input refused at the door, nor does every one pass.
    assert outcome.counts["DataError"] > 0


@pytest.mark.parametrize("name", DATASETS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_any_damage_raises_errors_of_ours_alone(name: str, seed: int) -> None:
    assert run(target(name), [seed]).faults == {}


@pytest.mark.slow
def test_a_damaged_checkpoint_raises_errors_of_ours_alone() -> None:
    assert run(target("checkpoint"), range(40)).faults == {}


def test_the_same_seed_makes_the_same_input() -> None:
    first, again = (run(target("pickle"), range(50)) for _ in range(2))
    assert first.counts == again.counts


def test_what_is_not_ours_is_a_fault() -> None:
    def read(data: object, folder: object) -> object:
        raise KeyError(data)

    outcome = run(Target("some", 1, lambda chance: chance.random(), read), range(3))
    assert list(outcome.faults) == [0, 1, 2]
    assert "KeyError" in outcome.faults[0]


def test_what_takes_too_long_is_a_fault() -> None:
    def read(data: object, folder: object) -> object:
        while True:
            pass

    outcome = run(Target("some", 1, lambda chance: None, read), [0], limit_seconds=1)
    assert "TookTooLongError" in outcome.faults[0]

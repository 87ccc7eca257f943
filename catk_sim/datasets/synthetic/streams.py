"""Random numbers that follow from a seed."""

from enum import IntEnum

import numpy as np

GENERATOR_VERSION = 1
"""Grows whenever a seed means another scenario."""


class Stream(IntEnum):
    """What random numbers are for. Each purpose has its own, so that none disturbs another."""

    KIND = 0
    SCENE = 1
    FUTURE = 2
    PLACE = 3
    NOISE = 4
    SENSOR = 5
    DRIVER = 6


def random_stream(
    seed: int, purpose: Stream, attempt: int = 0, number: int = 0
) -> np.random.Generator:
    """Returns the random numbers of a scenario for a purpose.

    Args:
        seed: The scenario's seed.
        purpose: What they are for.
        attempt: Which scene of the seed they are for.
        number: Which of several futures or agents they are for.
    """
    return np.random.default_rng([GENERATOR_VERSION, seed, int(purpose), attempt, number])

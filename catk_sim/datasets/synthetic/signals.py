"""Traffic lights: a fixed cycle of phases."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from catk_sim.datasets.synthetic.road_network import Control, Movement, RoadNetwork

GO, CAUTION, STOP = 0, 1, 2
"""What a light says."""

CAUTION_SECONDS = 3.5
CLEARANCE_SECONDS = 1.5
"""For how long all lights are red between two phases (s)."""


@dataclass(frozen=True)
class Phase:
    """Who may go at the same time.

    Attributes:
        arms: The arms that have green.
        movements: The movements that have green.
        green: For how long (s).
    """

    arms: tuple[int, ...]
    movements: tuple[Movement, ...]
    green: float

    @property
    def seconds(self) -> float:
        """How long the phase lasts with caution and clearance (s)."""
        return self.green + CAUTION_SECONDS + CLEARANCE_SECONDS


@dataclass(frozen=True)
class SignalPlan:
    """The lights of one junction.

    Attributes:
        phases: In the order in which they come.
        shift: Where in the cycle time zero lies (s).
        num_arms: Arms of the junction.
        has_arrows: Whether left turns have a phase of their own.
    """

    phases: tuple[Phase, ...]
    shift: float
    num_arms: int
    has_arrows: bool

    @property
    def cycle(self) -> float:
        """How long all phases last together (s)."""
        return sum(phase.seconds for phase in self.phases)

    def lights(self, time: float) -> Int[np.ndarray, "arms movements"]:
        """Returns what the light says to each (arm, movement) at a time (s)."""
        state = np.full((self.num_arms, len(Movement)), STOP)
        into = (time + self.shift) % self.cycle
        for phase in self.phases:
            if 0.0 <= into < phase.green + CAUTION_SECONDS:
                says = GO if into < phase.green else CAUTION
                state[np.ix_(phase.arms, phase.movements)] = says
            into -= phase.seconds
        return state

    def seconds_of_red(self, time: float, arm: int) -> float:
        """Tells for how long nobody leaves an arm straight on or to the left (s)."""
        into = (time + self.shift) % self.cycle
        waits, start = [], 0.0
        for phase in self.phases:
            if arm in phase.arms and phase.movements != (Movement.RIGHT,):
                end = start + phase.green + CAUTION_SECONDS
                if start <= into < end:
                    return 0.0
                waits.append((start - into) % self.cycle)
            start += phase.seconds
        return min(waits)


def plan_signals(network: RoadNetwork, rng: np.random.Generator) -> dict[int, SignalPlan]:
    """Times the lights of every junction that has lights."""
    plans = {}
    for index, junction in enumerate(network.junctions):
        if junction.control is Control.SIGNAL:
            plans[index] = _plan(network, index, junction.num_arms, rng)
    return plans


def _plan(network: RoadNetwork, index: int, num_arms: int, rng: np.random.Generator) -> SignalPlan:
    groups = _opposite_arms(network, index, num_arms)
    has_arrows = bool(rng.random() < 0.5)
    phases = []
    for arms in groups:
        if has_arrows:
            phases.append(Phase(arms, (Movement.LEFT,), rng.uniform(5.0, 9.0)))
            moves = (Movement.STRAIGHT, Movement.RIGHT)
        else:
            moves = tuple(Movement)
        phases.append(Phase(arms, moves, rng.uniform(9.0, 22.0)))
    cycle = sum(phase.seconds for phase in phases)
    return SignalPlan(tuple(phases), rng.uniform(0.0, cycle), num_arms, has_arrows)


def _opposite_arms(network: RoadNetwork, index: int, num_arms: int) -> list[tuple[int, ...]]:
    """Groups the arms from which traffic comes in opposite directions."""
    headings = {}
    for lane in network.lanes:
        if lane.junction == index:
            ahead = lane.xy[1] - lane.xy[0]
            headings[lane.arm] = float(np.arctan2(ahead[1], ahead[0]))
    groups: dict[int, list[int]] = {}
    for arm in range(num_arms):
        opposite = (first for first in groups if np.cos(headings[arm] - headings[first]) < -0.7)
        groups.setdefault(next(opposite, arm), []).append(arm)
    return [tuple(arms) for arms in groups.values()]

"""What a report shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.datatypes import Scenario, TensorTree, Trajectory


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What a column of figures is.

    Attributes:
        title: Its name in tables.
        better: Which way is better: "up", "down", or "" if neither is.
        unit: Its unit, if it has one.
    """

    title: str
    better: str = ""
    unit: str = ""

    def __post_init__(self) -> None:
        if self.better not in ("up", "down", ""):
            raise ValueError(f'better must be "up", "down" or "", got {self.better!r}')


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A mean over all scenarios.

    Attributes:
        mean: The mean; NaN where it is not defined.
        low: Lower end of its confidence interval, if there is one.
        high: Upper end.
    """

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Histogram:
    """How often values of a feature were simulated, and how often they were logged.

    Attributes:
        title: The feature.
        edges: Limits of the bins.
        counts: For "log" and for each policy, how many values each bin has.
    """

    title: str
    edges: Float[np.ndarray, " bins_and_end"]
    counts: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False, kw_only=True)
class Choices(TensorTree):
    """What a policy found most likely at each decision: motion tokens, or modes of a mixture.

    Attributes:
        label: The token, or the mode.
        probability: How likely it was, the most likely first.
        offset: Where it leads (m), in the agent's frame.
    """

    label: Int[Tensor, "rollouts decisions agents top"]
    probability: Float[Tensor, "rollouts decisions agents top"]
    offset: Float[Tensor, "rollouts decisions agents top 2"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Drive:
    """What a policy did in a scenario.

    Attributes:
        simulated: Its rollouts, aligned with the log's steps: (rollouts, agents, steps).
        controlled: Agents that it drove.
        collided: Where agents collide.
        offroad: Where they are off the road.
        figures: Measures of the scenario, by their keys in `Report.measures`.
        choices: What it found most likely, if it tells. Decisions are equally spaced and begin at
            the current step.
    """

    simulated: Trajectory
    controlled: Bool[Tensor, " agents"]
    collided: Bool[Tensor, "rollouts agents steps"]
    offroad: Bool[Tensor, "rollouts agents steps"]
    figures: Mapping[str, float]
    choices: Choices | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class ReportScene:
    """A scenario that can be played.

    Attributes:
        scenario: What was logged; one scenario, without batch dimensions.
        drives: What policies did, by their names.
    """

    scenario: Scenario
    drives: Mapping[str, Drive]


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """An evaluation.

    Attributes:
        title: What was evaluated.
        facts: What a reader must know of how it was measured, such as data, seed and command.
        measures: The columns of all tables, by key, in their order.
        totals: Figures over all scenarios: policy, then measure.
        per_scenario: Figures of every scenario: scenario id, policy, measure.
        histograms: Features, simulated and logged.
        scenes: Scenarios that can be played.
        remarks: Further paragraphs, such as what was left out and why.
    """

    title: str
    facts: Mapping[str, str]
    measures: Mapping[str, Measure]
    totals: Mapping[str, Mapping[str, Figure]]
    per_scenario: Mapping[str, Mapping[str, Mapping[str, float]]]
    histograms: Sequence[Histogram] = ()
    scenes: Sequence[ReportScene] = ()
    remarks: Sequence[str] = field(default_factory=tuple)

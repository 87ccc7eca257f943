"""What the Sim Agents Challenge of each year measures, and how it weighs it.

Montali et al., "The Waymo Open Sim Agents Challenge", arXiv:2305.12032, section 3.3; the numbers
are those that Waymo's evaluation was published with each year.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from catk_sim.metrics.kinematics import Differences

INDICATIONS = {
    "collision_indication": "collision_per_step",
    "offroad_indication": "offroad_per_step",
    "traffic_light_violation": "traffic_light_violation_per_step",
}
"""Features that tell whether something happens to an agent at all, and the field of
`SimAgentsFeatures` that tells when."""

FEATURES = (
    "linear_speed",
    "linear_acceleration",
    "angular_speed",
    "angular_acceleration",
    "distance_to_nearest_object",
    "collision_indication",
    "time_to_collision",
    "distance_to_road_edge",
    "offroad_indication",
    "traffic_light_violation",
)
"""Waymo's names of what can be scored."""

RATES = {
    "simulated_collision_rate": "collision_per_step",
    "simulated_offroad_rate": "offroad_per_step",
    "simulated_traffic_light_violation_rate": "traffic_light_violation_per_step",
}
"""Waymo's names of the rates that are told beside the scores, and the field each is told from."""


class Bucket(StrEnum):
    """Waymo's groups of features."""

    KINEMATIC = "kinematic_metrics"
    INTERACTIVE = "interactive_metrics"
    MAP_BASED = "map_based_metrics"


@dataclass(frozen=True, kw_only=True)
class HistogramEstimate:
    """A probability for each of some bins of equal width."""

    low: float
    """Lower end of the first bin, in the feature's unit. What is lower falls in that bin."""
    high: float
    """Upper end of the last bin. What is higher, and what is NaN, falls in that bin."""
    num_bins: int
    """Bins between the two."""
    smoothing: float = 0.1
    """What is added to the count of every bin."""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, got {self.low} and {self.high}")
        if self.num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {self.num_bins}")
        _check_positive("smoothing", self.smoothing)


@dataclass(frozen=True, kw_only=True)
class BernoulliEstimate:
    """A probability for yes and one for no."""

    smoothing: float = 0.001
    """What is added to the count of either."""

    def __post_init__(self) -> None:
        _check_positive("smoothing", self.smoothing)


@dataclass(frozen=True, kw_only=True)
class KernelDensityEstimate:
    """A sum of Gaussians, scaled so that one of them alone has density 1 at its centre."""

    bandwidth: float
    """Their standard deviation, in the feature's unit."""

    def __post_init__(self) -> None:
        _check_positive("bandwidth", self.bandwidth)


Estimate = HistogramEstimate | BernoulliEstimate | KernelDensityEstimate


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """How the likelihood of a feature is estimated, and what it weighs."""

    estimator: Estimate
    """What is fitted to the simulated values."""
    weight: float
    """Of its likelihood in the meta-metric."""
    bucket: Bucket
    """The group it is reported in."""
    independent_timesteps: bool = True
    """Whether all steps share a distribution, instead of having one each."""
    aggregate_objects: bool = False
    """Whether all agents share a distribution, instead of having one each."""

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"weight must not be negative, got {self.weight}")


@dataclass(frozen=True, kw_only=True)
class SimAgentsConfig:
    """All rules of one version of the metric.

    `dataclasses.replace` makes variants. Name them: measures of different rules do not merge.
    """

    version: str
    """What the rules are called."""
    features: Mapping[str, FeatureConfig]
    """What is scored, by Waymo's names: some of `FEATURES`."""
    differences: Differences = Differences.CENTRAL
    """How speeds and accelerations are told from positions."""
    corner_rounding: float = 0.7
    """Radius of the corners of boxes that may collide, as a part of half their shorter side."""
    planar_road_edges: bool = False
    """Whether the distance to road edges knows no height."""
    ttc_vehicles_only: bool = True
    """Whether the time to collision is scored for vehicles only."""
    whole_scene: bool = False
    """Whether a scene is generated, not continued: 91 steps are scored, not 80, and all agents."""
    simulated_rates: tuple[str, ...] = tuple(RATES)
    """Which of `RATES` are told."""

    def __post_init__(self) -> None:
        if not self.features:
            raise ValueError("features must have at least one entry, got none")
        _check_names("features", tuple(self.features), FEATURES)
        _check_names("simulated_rates", self.simulated_rates, tuple(RATES))
        for name, feature in self.features.items():
            is_bernoulli = isinstance(feature.estimator, BernoulliEstimate)
            if is_bernoulli != (name in INDICATIONS):
                wanted = "a BernoulliEstimate" if name in INDICATIONS else "another estimate"
                raise ValueError(f"{name} wants {wanted}, got {feature.estimator}")
        if not 0 <= self.corner_rounding <= 1:
            raise ValueError(f"corner_rounding must be in [0, 1], got {self.corner_rounding}")


def sim_agents_config(version: str) -> SimAgentsConfig:
    """Returns the rules of a year: one of `VERSIONS`.

    Raises:
        ValueError: There is no such version.
    """
    if version not in VERSIONS:
        raise ValueError(f"version must be one of {', '.join(VERSIONS)}, got {version!r}")
    return VERSIONS[version]


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")


def _check_names(what: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"{what} must be among {', '.join(known)}, got {', '.join(unknown)}")


def _histogram(
    weight: float, bucket: Bucket, low: float, high: float, num_bins: int
) -> FeatureConfig:
    estimate = HistogramEstimate(low=low, high=high, num_bins=num_bins)
    return FeatureConfig(estimator=estimate, weight=weight, bucket=bucket)


def _bernoulli(weight: float, bucket: Bucket) -> FeatureConfig:
    return FeatureConfig(estimator=BernoulliEstimate(), weight=weight, bucket=bucket)


_2025 = SimAgentsConfig(
    version="2025",
    features={
        "linear_speed": _histogram(0.05, Bucket.KINEMATIC, 0.0, 25.0, 10),
        "linear_acceleration": _histogram(0.05, Bucket.KINEMATIC, -12.0, 12.0, 11),
        "angular_speed": _histogram(0.05, Bucket.KINEMATIC, -0.628, 0.628, 11),
        "angular_acceleration": _histogram(0.05, Bucket.KINEMATIC, -3.14, 3.14, 11),
        "distance_to_nearest_object": _histogram(0.1, Bucket.INTERACTIVE, -5.0, 40.0, 10),
        "collision_indication": _bernoulli(0.25, Bucket.INTERACTIVE),
        "time_to_collision": _histogram(0.1, Bucket.INTERACTIVE, 0.0, 5.0, 10),
        "distance_to_road_edge": _histogram(0.05, Bucket.MAP_BASED, -20.0, 40.0, 10),
        "offroad_indication": _bernoulli(0.25, Bucket.MAP_BASED),
        "traffic_light_violation": _bernoulli(0.05, Bucket.MAP_BASED),
    },
)

_2024 = replace(
    _2025,
    version="2024",
    features={
        **_2025.features,
        "distance_to_road_edge": replace(_2025.features["distance_to_road_edge"], weight=0.1),
        "traffic_light_violation": replace(_2025.features["traffic_light_violation"], weight=0.0),
    },
)

# Waymo's package of the 2024 challenge itself, 1.6.4. Later packages score its configuration as
# `_2024`.
_2024_PKG164 = replace(
    _2024,
    version="2024_pkg164",
    features={
        name: feature
        for name, feature in _2024.features.items()
        if name != "traffic_light_violation"
    },
    ttc_vehicles_only=False,
    simulated_rates=("simulated_collision_rate", "simulated_offroad_rate"),
)

_2023 = SimAgentsConfig(
    version="2023",
    # The weights sum to 0.99, as published.
    features={
        "linear_speed": _histogram(0.09, Bucket.KINEMATIC, 0.0, 35.0, 10),
        "linear_acceleration": _histogram(0.09, Bucket.KINEMATIC, -15.0, 15.0, 10),
        "angular_speed": _histogram(0.09, Bucket.KINEMATIC, -31.5, 31.5, 10),
        "angular_acceleration": _histogram(0.09, Bucket.KINEMATIC, -31.5, 31.5, 10),
        "distance_to_nearest_object": _histogram(0.09, Bucket.INTERACTIVE, -5.0, 40.0, 10),
        "collision_indication": _bernoulli(0.18, Bucket.INTERACTIVE),
        "time_to_collision": _histogram(0.09, Bucket.INTERACTIVE, 0.0, 5.0, 10),
        "distance_to_road_edge": _histogram(0.09, Bucket.MAP_BASED, -20.0, 40.0, 10),
        "offroad_indication": _bernoulli(0.18, Bucket.MAP_BASED),
    },
    differences=Differences.BACKWARD,
    corner_rounding=0.0,
    planar_road_edges=True,
    ttc_vehicles_only=False,
    simulated_rates=(),
)

_2025_SCENARIO_GEN = replace(
    _2025,
    version="2025_scenario_gen",
    features={
        name: replace(feature, aggregate_objects=name != "traffic_light_violation")
        for name, feature in _2025.features.items()
    },
    whole_scene=True,
)

VERSIONS: Mapping[str, SimAgentsConfig] = {
    config.version: config for config in (_2023, _2024, _2024_PKG164, _2025, _2025_SCENARIO_GEN)
}
"""The published rules, by name."""

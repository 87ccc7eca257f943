from dataclasses import replace

import pytest

from catk_sim.metrics.kinematics import Differences
from catk_sim.metrics.sim_agents.config import (
    FEATURES,
    VERSIONS,
    BernoulliEstimate,
    Bucket,
    FeatureConfig,
    HistogramEstimate,
    KernelDensityEstimate,
    SimAgentsConfig,
    sim_agents_config,
)

LATEST = sim_agents_config("2025")

RANGES = {
    "2023": {
        "linear_speed": (0, 35, 10),
        "linear_acceleration": (-15, 15, 10),
        "angular_speed": (-31.5, 31.5, 10),
        "angular_acceleration": (-31.5, 31.5, 10),
        "distance_to_nearest_object": (-5, 40, 10),
        "time_to_collision": (0, 5, 10),
        "distance_to_road_edge": (-20, 40, 10),
    },
    "2025": {
        "linear_speed": (0, 25, 10),
        "linear_acceleration": (-12, 12, 11),
        "angular_speed": (-0.628, 0.628, 11),
        "angular_acceleration": (-3.14, 3.14, 11),
        "distance_to_nearest_object": (-5, 40, 10),
        "time_to_collision": (0, 5, 10),
        "distance_to_road_edge": (-20, 40, 10),
    },
}
"""Lower and upper end and number of bins of the histograms."""


def weights(version: str) -> dict[str, float]:
    features = sim_agents_config(version).features
    return {name: feature.weight for name, feature in features.items()}


def test_every_version_bears_its_name() -> None:
    assert list(VERSIONS) == ["2023", "2024", "2024_pkg164", "2025", "2025_scenario_gen"]
    for version in VERSIONS:
        assert sim_agents_config(version).version == version


def test_an_unknown_version_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"2023, 2024, 2024_pkg164, 2025, .*got '2022'"):
        sim_agents_config("2022")


def test_histograms_are_as_published() -> None:
    for version in VERSIONS:
        estimates = {
            name: feature.estimator for name, feature in sim_agents_config(version).features.items()
        }
        ranges = {
            name: (estimate.low, estimate.high, estimate.num_bins)
            for name, estimate in estimates.items()
            if isinstance(estimate, HistogramEstimate)
        }
        assert ranges == RANGES["2023" if version == "2023" else "2025"]


@pytest.mark.parametrize("version", VERSIONS)
def test_weights_sum_to_one_except_in_2023(version: str) -> None:
    wanted = 0.99 if version == "2023" else 1.0
    assert sum(weights(version).values()) == pytest.approx(wanted)


def test_2025_moves_weight_from_road_edges_to_traffic_lights() -> None:
    before, after = weights("2024"), weights("2025")
    changed = {name: (before[name], after[name]) for name in after if before[name] != after[name]}
    assert changed == {
        "distance_to_road_edge": (0.1, 0.05),
        "traffic_light_violation": (0.0, 0.05),
    }
    assert weights("2025_scenario_gen") == after


def test_versions_score_what_they_knew() -> None:
    for version in ("2024", "2025", "2025_scenario_gen"):
        assert tuple(sim_agents_config(version).features) == FEATURES
        assert len(sim_agents_config(version).simulated_rates) == 3
    for version in ("2023", "2024_pkg164"):
        assert tuple(sim_agents_config(version).features) == FEATURES[:-1]
    assert sim_agents_config("2023").simulated_rates == ()
    assert sim_agents_config("2024_pkg164").simulated_rates == (
        "simulated_collision_rate",
        "simulated_offroad_rate",
    )


def test_only_2023_differs_in_how_features_are_computed() -> None:
    for version in ("2024", "2024_pkg164", "2025", "2025_scenario_gen"):
        config = sim_agents_config(version)
        assert config.differences is Differences.CENTRAL
        assert config.corner_rounding == 0.7
        assert not config.planar_road_edges
    first = sim_agents_config("2023")
    assert first.differences is Differences.BACKWARD
    assert first.corner_rounding == 0.0
    assert first.planar_road_edges


def test_time_to_collision_is_of_vehicles_since_the_later_packages_of_2024() -> None:
    only = {version: sim_agents_config(version).ttc_vehicles_only for version in VERSIONS}
    assert only == {
        "2023": False,
        "2024": True,
        "2024_pkg164": False,
        "2025": True,
        "2025_scenario_gen": True,
    }


def test_only_scenario_generation_is_whole_and_shares_distributions() -> None:
    for version in VERSIONS:
        config = sim_agents_config(version)
        is_generation = version == "2025_scenario_gen"
        assert config.whole_scene == is_generation
        for name, feature in config.features.items():
            shared = is_generation and name != "traffic_light_violation"
            assert feature.aggregate_objects == shared
            assert feature.independent_timesteps


@pytest.mark.parametrize("version", VERSIONS)
def test_smoothing_is_as_published(version: str) -> None:
    for feature in sim_agents_config(version).features.values():
        if isinstance(feature.estimator, HistogramEstimate):
            assert feature.estimator.smoothing == 0.1
        else:
            assert feature.estimator == BernoulliEstimate(smoothing=0.001)


def test_rules_of_ones_own_are_welcome() -> None:
    speed = replace(LATEST.features["linear_speed"], weight=1.0, independent_timesteps=False)
    config = SimAgentsConfig(version="mine", features={"linear_speed": speed}, simulated_rates=())
    assert config.features["linear_speed"].weight == 1.0
    assert config != replace(config, version="other")


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="low must be less than high, got 1"):
        HistogramEstimate(low=1.0, high=1.0, num_bins=10)
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        HistogramEstimate(low=0.0, high=1.0, num_bins=0)
    with pytest.raises(ValueError, match="smoothing must be positive, got 0"):
        HistogramEstimate(low=0.0, high=1.0, num_bins=2, smoothing=0.0)
    with pytest.raises(ValueError, match="smoothing must be positive, got nan"):
        BernoulliEstimate(smoothing=float("nan"))
    with pytest.raises(ValueError, match="bandwidth must be positive, got -1"):
        KernelDensityEstimate(bandwidth=-1.0)
    with pytest.raises(ValueError, match="weight must not be negative, got -1"):
        FeatureConfig(estimator=BernoulliEstimate(), weight=-1.0, bucket=Bucket.MAP_BASED)
    with pytest.raises(ValueError, match=r"corner_rounding must be in \[0, 1\], got 1.5"):
        replace(LATEST, corner_rounding=1.5)


def test_what_cannot_be_scored_is_refused() -> None:
    speed = LATEST.features["linear_speed"]
    with pytest.raises(ValueError, match=r"features must be among linear_speed, .*got speed"):
        replace(LATEST, features={"speed": speed})
    with pytest.raises(ValueError, match="at least one"):
        replace(LATEST, features={})
    with pytest.raises(ValueError, match=r"simulated_rates must be among .* got collision_rate"):
        replace(LATEST, simulated_rates=("collision_rate",))
    with pytest.raises(ValueError, match="offroad_indication wants a BernoulliEstimate, got Hist"):
        replace(LATEST, features={"offroad_indication": speed})
    with pytest.raises(ValueError, match="linear_speed wants another estimate, got Bernoulli"):
        replace(LATEST, features={"linear_speed": LATEST.features["offroad_indication"]})

import pytest
import torch

from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.metrics.sim_agents import JointScenes, SimAgentsMetric
from catk_sim.metrics.sim_agents.histograms import (
    NUM_BINS,
    FeatureCounts,
    add_counts,
    count_features,
)
from catk_sim.rollout import rollout
from policies.registry import make_policy


@pytest.fixture(scope="module")
def counts() -> dict[str, FeatureCounts]:
    scenario = generate_scenario(0)
    metric = SimAgentsMetric("2025")
    prepared = metric.prepare(scenario)
    driven = rollout(make_policy("constant_velocity"), scenario.to(torch.float32), num_rollouts=3)
    joint = JointScenes.from_rollout(driven.simulated, prepared.scene, hold_absent=True)
    features = metric.features(prepared, joint)
    counted = count_features(features, prepared.log, prepared.scored, metric.config)
    simulated, logged = (
        torch.histc(speed[~speed.isnan()], NUM_BINS, 0.0, 25.0).long()
        for speed in (
            features.linear_speed[:, prepared.scored.counted],
            prepared.log.linear_speed[
                prepared.scored.speed_valid & prepared.scored.counted[..., None]
            ],
        )
    )
    # No car of a generated scenario is faster than 25 m/s, or stands on the edge of a bin.
    assert torch.equal(counted["linear_speed"].simulated, simulated)
    assert torch.equal(counted["linear_speed"].log, logged)
    return counted


def test_features_with_a_histogram_are_counted(counts: dict[str, FeatureCounts]) -> None:
    assert "linear_speed" in counts
    assert "time_to_collision" in counts
    assert "collision_indication" not in counts


def test_edges_span_what_waymo_looks_at(counts: dict[str, FeatureCounts]) -> None:
    edges = counts["distance_to_road_edge"].edges

    assert len(edges) == NUM_BINS + 1
    assert edges[0] == -20
    assert edges[-1] == 40


def test_counts_of_batches_add_up(counts: dict[str, FeatureCounts]) -> None:
    both = add_counts([counts, counts])

    for name, one in counts.items():
        assert torch.equal(both[name].log, 2 * one.log)
        assert torch.equal(both[name].simulated, 2 * one.simulated)
        assert torch.equal(both[name].edges, one.edges)
    assert add_counts([]) == {}

from dataclasses import fields, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy import ndarray
from torch import Generator, Tensor

from catk_sim.constants import FUTURE_STEPS, HISTORY_STEPS, NUM_STEPS
from catk_sim.datasets.batching import collate
from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.datatypes import Scenario
from catk_sim.geometry.se2 import rotate
from catk_sim.metrics.box_trajectory import BoxTrajectory
from catk_sim.metrics.sim_agents.features import SimAgentsFeatures
from catk_sim.metrics.sim_agents.joint_scenes import JointScenes
from catk_sim.metrics.sim_agents.metric import BYTES_PER_PAIR, PreparedScene, SimAgentsMetric
from catk_sim.metrics.sim_agents.realism import SimAgentsMetrics
from catk_sim.metrics.sim_agents.scene import EvaluatedScene, UnscorableError
from tests.catk_sim.metrics.sim_agents.goldens import (
    CASES,
    GENERATED,
    VERSIONS,
    golden_arrays,
    golden_generated_scenes,
    golden_json,
    golden_rollouts,
    real_scenario,
)

FLAGS = ("collision_per_step", "offroad_per_step", "traffic_light_violation_per_step")


@cache
def real(version: str) -> tuple[SimAgentsMetric, PreparedScene]:
    metric = SimAgentsMetric(version)
    return metric, metric.prepare(real_scenario())


def assert_scores_equal(actual: dict, golden: dict) -> None:
    assert set(actual) == set(golden)
    for name, value in golden.items():
        expected = value if isinstance(value, str) else pytest.approx(value, abs=1e-5)
        assert actual[name] == expected, name


def assert_features_equal(
    actual: SimAgentsFeatures, golden: dict[str, ndarray], num_neighbors: int = 0
) -> None:
    """Compares features to 1e-4. Of road edges so many values may be 1e-3 m off.

    There a corner rounded to the neighbouring float32, half a millimetre away.
    """
    for field in fields(SimAgentsFeatures):
        value = getattr(actual, field.name)
        if value is None:
            continue
        expected = golden[field.name]
        if field.name in FLAGS:
            np.testing.assert_array_equal(value.numpy(), expected, err_msg=field.name)
            continue
        if field.name == "distance_to_road_edge":
            off = abs(value.numpy() - expected) > 1e-4 + 1e-7 * abs(expected)
            assert off.sum() <= num_neighbors
            assert (abs(value.numpy() - expected)[off] < 1e-3).all()
            expected = np.where(off, value.numpy(), expected)
        # Of 10 km, to which scenario generation leads, float32 resolves a millimetre.
        np.testing.assert_allclose(
            value.numpy(), expected, atol=1e-4, rtol=1e-7, err_msg=field.name
        )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("version", VERSIONS)
def test_scores_of_the_challenge_are_the_official_ones(version: str, case: str):
    metric, prepared = real(version)

    metrics = metric(prepared, golden_rollouts(case, prepared.scene))

    golden = golden_json(f"637f20cafde22ff8_{case}_metrics")[VERSIONS[version]]
    assert metrics.version == version
    assert_scores_equal(metrics.scenario_records()[0], golden["scenario"])
    assert_scores_equal(metrics.buckets(), golden["bucketed"])


@pytest.mark.slow
def test_scores_of_scenario_generation_are_the_official_ones():
    metric, prepared = real("2025_scenario_gen")

    metrics = metric(prepared, golden_generated_scenes(prepared.scene))

    golden = golden_json(f"637f20cafde22ff8_{GENERATED}_metrics")["2025_scenario_gen"]
    assert_scores_equal(metrics.scenario_records()[0], golden["scenario"])
    assert_scores_equal(metrics.buckets(), golden["bucketed"])


def test_scores_of_several_scenarios_are_averaged_as_officially():
    metric, prepared = real("2025")

    metrics = SimAgentsMetrics.stack(
        [metric(prepared, golden_rollouts(case, prepared.scene)) for case in CASES]
    )

    golden = golden_json("aggregate_public_cases")["2025"]
    assert_scores_equal(metrics.aggregate(), golden["aggregate"])
    assert_scores_equal(metrics.buckets(), golden["bucketed"])


@pytest.mark.parametrize(("version", "suffix"), [("2025", ""), ("2023", "_2023")])
@pytest.mark.parametrize("case", CASES)
def test_features_are_the_official_ones(version: str, suffix: str, case: str):
    metric, prepared = real(version)
    golden = golden_arrays(f"{case}_features{suffix}")
    shown = golden["rollout_index"].tolist()
    rollouts = golden_rollouts(case, prepared.scene).map(lambda tensor: tensor[shown])

    assert_features_equal(metric.features(prepared, rollouts), golden)


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("2025", "log_features"),
        ("2023", "log_features_2023"),
        ("2025_scenario_gen", f"{GENERATED}_log_features"),
    ],
)
def test_features_of_the_log_are_the_official_ones(version: str, name: str):
    _, prepared = real(version)

    golden = {name: array[0] for name, array in golden_arrays(name).items() if array.ndim > 1}
    np.testing.assert_array_equal(prepared.scored.valid.numpy(), golden["valid"])
    assert_features_equal(prepared.log, golden)


@pytest.mark.slow
def test_features_of_generated_scenes_are_the_official_ones():
    metric, prepared = real("2025_scenario_gen")
    golden = golden_arrays(f"{GENERATED}_features")
    shown = golden["rollout_index"].tolist()
    scenes = golden_generated_scenes(prepared.scene).map(lambda tensor: tensor[shown])

    assert_features_equal(metric.features(prepared, scenes), golden, num_neighbors=2)


# What follows holds on any scene.


def noisy_log(scene: EvaluatedScene, num_rollouts: int, seed: int = 0) -> JointScenes:
    """Agents that drive straight on with what speed they have, and shake."""
    generator = Generator().manual_seed(seed)
    step = torch.arange(1, FUTURE_STEPS + 1)
    now, before = scene.logged.slice(10, 11), scene.logged.slice(9, 10)
    still = ~(now.valid & before.valid)

    def driven(name: str, noise: float) -> Tensor:
        last, previous = getattr(now, name), getattr(before, name)
        change = torch.where(still, 0.0, last - previous)
        shape = (num_rollouts, *change.shape[:-1], FUTURE_STEPS)
        return last + change * step + noise * torch.randn(shape, generator=generator)

    return JointScenes(
        x=driven("x", 0.3), y=driven("y", 0.3), z=driven("z", 0.05), heading=driven("heading", 0.05)
    )


@pytest.fixture(scope="module")
def scenarios() -> list[Scenario]:
    return [generate_scenario(seed) for seed in (3, 4, 5)]


def scored(
    scenario: Scenario, rollouts: JointScenes | None = None, max_memory: int = 1 << 28
) -> SimAgentsMetrics:
    metric = SimAgentsMetric("2025", max_memory=max_memory)
    prepared = metric.prepare(scenario)
    return metric(prepared, rollouts or noisy_log(prepared.scene, 6))


def assert_same(actual: SimAgentsMetrics, expected: SimAgentsMetrics, tolerance: float = 0) -> None:
    assert actual.scenario_id == expected.scenario_id
    for one, other in zip(actual.scenario_records(), expected.scenario_records(), strict=True):
        assert one == {
            name: value
            if isinstance(value, str)
            else pytest.approx(value, abs=tolerance, nan_ok=True)
            for name, value in other.items()
        }


@pytest.mark.parametrize(
    ("pairs", "scenes", "rollouts"), [(0.5, 1, 1), (2.5, 2, 1), (7, 3, 2), (1000, 3, 6)]
)
def test_memory_limits_what_is_worked_on_at_once(
    scenarios: list[Scenario],
    monkeypatch: pytest.MonkeyPatch,
    pairs: float,
    scenes: int,
    rollouts: int,
):
    """`pairs` is how many rollouts of one scenario the memory holds."""
    batch = collate(scenarios)
    scene = EvaluatedScene.from_scenario(batch)
    one = scene.evaluated.shape[1] * scene.num_agents * NUM_STEPS * BYTES_PER_PAIR
    metric = SimAgentsMetric("2025", max_memory=int(pairs * one))
    shapes = []
    plain = metric._features

    def spy(boxes: BoxTrajectory, *records: Any) -> SimAgentsFeatures:
        shapes.append(tuple(boxes.x.shape[:2]))
        return plain(boxes, *records)

    monkeypatch.setattr(metric, "_features", spy)
    prepared = metric.prepare(batch)
    assert max(shapes) == (1, scenes)
    shapes.clear()
    metric(prepared, noisy_log(prepared.scene, 6))
    assert max(shapes) == (rollouts, scenes)
    assert sum(some * others for some, others in shapes) == 6 * len(scenarios)


def test_a_scene_prepared_by_other_rules_is_refused(scenarios: list[Scenario]):
    prepared = SimAgentsMetric("2025").prepare(scenarios[0])

    with pytest.raises(ValueError, match=r"version 2023, got one prepared by 2025"):
        SimAgentsMetric("2023")(prepared, noisy_log(prepared.scene, 2))


@pytest.mark.parametrize("max_memory", [1, 5_000_000, 40_000_000])
def test_less_memory_changes_nothing(scenarios: list[Scenario], max_memory: int):
    batch = collate(scenarios)

    assert_same(scored(batch, max_memory=max_memory), scored(batch))


def test_a_batch_is_its_scenarios(scenarios: list[Scenario]):
    metric = SimAgentsMetric("2025")
    one_by_one, rollouts = [], []
    for scenario in scenarios:
        prepared = metric.prepare(scenario)
        rollouts.append(noisy_log(prepared.scene, 4))
        one_by_one.append(metric(prepared, rollouts[-1]))
    together = metric.prepare(collate(scenarios))
    padded = JointScenes(
        **{
            name: torch.stack([pad_agents(getattr(one, name), together) for one in rollouts], dim=1)
            for name in ("x", "y", "z", "heading")
        }
    )

    assert_same(metric(together, padded), SimAgentsMetrics.stack(one_by_one))


def pad_agents(values: Tensor, prepared: PreparedScene) -> Tensor:
    missing = prepared.scene.num_agents - values.shape[1]
    return torch.nn.functional.pad(values, (0, 0, 0, missing))


def test_the_order_of_rollouts_does_not_matter(scenarios: list[Scenario]):
    metric = SimAgentsMetric("2025")
    prepared = metric.prepare(scenarios[0])
    rollouts = noisy_log(prepared.scene, 6)
    other_order = rollouts.map(lambda tensor: tensor[torch.tensor([3, 0, 5, 1, 2, 4])])

    assert_same(metric(prepared, other_order), metric(prepared, rollouts), tolerance=1e-6)


def test_the_order_of_agents_does_not_matter(scenarios: list[Scenario]):
    scenario = scenarios[1]
    num_agents = scenario.log.num_agents
    order = torch.randperm(num_agents, generator=Generator().manual_seed(0))
    shuffled = scenario.replace(
        log=scenario.log.map(lambda tensor: tensor[order]),
        log_size=scenario.log_size[order],
        agents=scenario.agents.map(lambda tensor: tensor[order]),
    )
    metric = SimAgentsMetric("2025")
    prepared, other = metric.prepare(scenario), metric.prepare(shuffled)
    rollouts = noisy_log(prepared.scene, 3)
    row = [prepared.scene.object_id.tolist().index(i) for i in other.scene.object_id.tolist()]

    assert_same(
        metric(other, rollouts.map(lambda tensor: tensor[:, row])), metric(prepared, rollouts)
    )


def test_moving_and_turning_the_world_changes_little(scenarios: list[Scenario]):
    scenario = scenarios[2]
    angle, shift = 0.7, torch.tensor([512.0, -256.0, 16.0], dtype=torch.float64)

    def turned(xy: Tensor) -> Tensor:
        return rotate(xy, xy.new_tensor(angle))

    def turned_xyz(xyz: Tensor) -> Tensor:
        return torch.cat([turned(xyz[..., :2]), xyz[..., 2:]], dim=-1)

    # All turns about the scenario's own origin; the file's coordinates move by the shift.
    elsewhere = scenario.replace(
        origin=scenario.origin + shift,
        log=scenario.log.replace(xy=turned(scenario.log.xy), heading=scenario.log.heading + angle),
        roadgraph=scenario.roadgraph.replace(xyz=turned_xyz(scenario.roadgraph.xyz)),
        traffic_lights=scenario.traffic_lights.replace(
            stop_xyz=turned_xyz(scenario.traffic_lights.stop_xyz)
        ),
    )
    metric = SimAgentsMetric("2025")
    prepared, other = metric.prepare(scenario), metric.prepare(elsewhere)
    here = noisy_log(prepared.scene, 8)
    local = torch.stack([here.x, here.y], dim=-1) - scenario.origin[:2].float()
    xy = turned(local) + (scenario.origin + shift)[:2].float()
    there = JointScenes(
        x=xy[..., 0], y=xy[..., 1], z=here.z + shift[2].float(), heading=here.heading + angle
    )

    # A value that crosses the border of a bin moves a likelihood a little.
    assert_same(metric(other, there), metric(prepared, here), tolerance=2e-3)


def test_a_rollout_that_repeats_the_log_scores_better_than_a_wild_one(scenarios: list[Scenario]):
    metric = SimAgentsMetric("2025")
    prepared = metric.prepare(scenarios[0])
    log = JointScenes.from_log(prepared.scene)
    wild = log.replace(x=log.x + 5 * torch.randn(log.x.shape, generator=Generator().manual_seed(1)))

    assert metric(prepared, log).metametric > metric(prepared, wild).metametric + 0.1


def test_what_a_rollout_adds_is_what_scoring_without_it_takes(scenarios: list[Scenario]):
    metric = SimAgentsMetric("2025")
    prepared = metric.prepare(scenarios[0])
    rollouts = noisy_log(prepared.scene, 4)

    result = metric.leave_one_out(prepared, rollouts)

    others = [
        metric(prepared, rollouts.map(lambda tensor, i=i: tensor[[j for j in range(4) if j != i]]))
        for i in range(4)
    ]
    expected = torch.stack([other.metametric for other in others])
    torch.testing.assert_close(result.without.float(), expected)
    torch.testing.assert_close(result.realism.float(), metric(prepared, rollouts).metametric)


@pytest.mark.parametrize("name", ["x", "y", "z", "heading"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_states_that_are_not_finite_are_refused(scenarios: list[Scenario], name: str, bad: float):
    metric = SimAgentsMetric("2025")
    prepared = metric.prepare(scenarios[0])
    rollouts = noisy_log(prepared.scene, 2)
    getattr(rollouts, name)[1, 2, 40] = bad

    with pytest.raises(ValueError, match=rf"\[{prepared.scene.object_id[2]}\].*not finite"):
        metric(prepared, rollouts)


def test_rollouts_of_other_agents_or_lengths_are_refused(scenarios: list[Scenario]):
    metric = SimAgentsMetric("2025")
    prepared = metric.prepare(scenarios[0])
    rollouts = noisy_log(prepared.scene, 2)

    with pytest.raises(ValueError, match="wanted at least one rollout of shape"):
        metric(prepared, rollouts.map(lambda tensor: tensor[:, :-1]))
    with pytest.raises(ValueError, match="wanted at least one rollout of shape"):
        metric(prepared, rollouts.map(lambda tensor: tensor[..., :-1]))
    with pytest.raises(ValueError, match="wanted at least one rollout"):
        metric(prepared, rollouts.map(lambda tensor: tensor[:0]))
    with pytest.raises(ValueError, match=r"wanted rollouts in float32, got torch\.float64"):
        metric(prepared, rollouts.to(torch.float64))
    with pytest.raises(ValueError, match="scores JointScenes, got a BoxTrajectory"):
        metric(prepared, rollouts.boxes(prepared.scene))


def test_a_map_without_road_edges_is_refused(scenarios: list[Scenario]):
    scenario = scenarios[0]
    bare = scenario.replace(
        roadgraph=scenario.roadgraph.replace(
            feature_type=torch.full_like(scenario.roadgraph.feature_type, 2)
        )
    )

    with pytest.raises(UnscorableError, match=f"{bare.scenario_id[0]}: the map has no road edge"):
        SimAgentsMetric("2025").prepare(collate([scenarios[1], bare]))


def test_sizes_of_generated_scenes_are_checked_too(scenarios: list[Scenario]):
    metric = SimAgentsMetric("2025_scenario_gen")
    prepared = metric.prepare(scenarios[0])
    boxes = prepared.scene.logged.repeat(2)
    bad = boxes.width.clone()
    bad[0, 3, 7] = torch.nan

    with pytest.raises(ValueError, match=rf"\[{prepared.scene.object_id[3]}\].*not finite"):
        metric(prepared, boxes.replace(width=bad))


def test_versions_are_named_and_may_be_ones_own(scenarios: list[Scenario]):
    with pytest.raises(ValueError, match=r"2025.*'2022'"):
        SimAgentsMetric("2022")
    with pytest.raises(ValueError, match="max_memory"):
        SimAgentsMetric("2025", max_memory=0)
    mine = replace(SimAgentsMetric("2025").config, version="mine", ttc_vehicles_only=False)
    metric = SimAgentsMetric(mine)
    prepared = metric.prepare(scenarios[0])
    assert metric(prepared, noisy_log(prepared.scene, 2)).version == "mine"


def test_history_is_shared_by_all_rollouts(scenarios: list[Scenario]):
    scene = EvaluatedScene.from_scenario(scenarios[0])
    boxes = noisy_log(scene, 3).boxes(scene)

    assert boxes.x.shape == (3, scene.num_agents, NUM_STEPS)
    for name in ("x", "y", "z", "heading"):
        history = getattr(boxes, name)[..., :HISTORY_STEPS]
        assert (history == getattr(scene.logged, name)[..., :HISTORY_STEPS]).all()
    assert (boxes.length == scene.logged.length[:, 10:11]).all()
    assert boxes.valid.all()

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.datatypes import AgentType
from catk_sim.datatypes.tensor_tree import Tree
from catk_sim.metrics.kinematics import kinematic_validity
from catk_sim.metrics.sim_agents.config import (
    VERSIONS,
    Bucket,
    KernelDensityEstimate,
    SimAgentsConfig,
    sim_agents_config,
)
from catk_sim.metrics.sim_agents.features import ScoredAgents, SimAgentsFeatures
from catk_sim.metrics.sim_agents.realism import SimAgentsMetrics, leave_one_out, score
from tests.catk_sim.metrics.sim_agents.reference import Case, random_case, realism
from tests.shared import shared_path

SCENARIO = "637f20cafde22ff8"
CASES = ["a_log_replay", "b_constant_velocity", "c_log_noise", "e_accelerate", "t_test_submission"]
EQUAL_ROLLOUTS = CASES[:2]
CHALLENGES = {"2023_pkg161": "2023", "2024": "2024", "2024_pkg164": "2024_pkg164", "2025": "2025"}
"""What the reference material calls the versions, and what we call them."""
GENERATED = {"2025_scenario_gen": "2025_scenario_gen"}
NUM_ROLLOUTS = 32

LATEST = sim_agents_config("2025")


def custom_rules() -> SimAgentsConfig:
    """Every kind of estimate, with every way of sharing it."""
    features = dict(LATEST.features)
    features["linear_speed"] = replace(features["linear_speed"], independent_timesteps=False)
    features["linear_acceleration"] = replace(
        features["linear_acceleration"], independent_timesteps=False, aggregate_objects=True
    )
    features["time_to_collision"] = replace(
        features["time_to_collision"], estimator=KernelDensityEstimate(bandwidth=2.0)
    )
    features["collision_indication"] = replace(
        features["collision_indication"], aggregate_objects=True, weight=0.75
    )
    return replace(LATEST, version="custom", features=features)


RULES = [*VERSIONS.values(), custom_rules()]
every_rule = pytest.mark.parametrize("config", RULES, ids=lambda config: config.version)


def scored(case: Case, config: SimAgentsConfig = LATEST) -> SimAgentsMetrics:
    return score(case.simulated, case.log, case.agents, config=config)


def only(metrics: SimAgentsMetrics) -> dict[str, float]:
    """The scores of a single scenario."""
    (record,) = metrics.scenario_records()
    return {name: value for name, value in record.items() if isinstance(value, float)}


def assert_same(metrics: SimAgentsMetrics, other: SimAgentsMetrics) -> None:
    for ours, theirs in zip(metrics.scenario_records(), other.scenario_records(), strict=True):
        assert ours.pop("scenario_id") == theirs.pop("scenario_id")
        # One rounding of float32: sums may run in another order.
        assert ours == pytest.approx(theirs, rel=2e-7, nan_ok=True)


@every_rule
@settings(max_examples=8)
@given(seed=st.integers(0, 10_000))
def test_scores_are_those_written_out_value_by_value(config: SimAgentsConfig, seed: int) -> None:
    case = random_case(seed)
    wanted = realism(case, config)
    assert only(scored(case, config)) == pytest.approx(wanted, rel=1e-6, nan_ok=True)


@every_rule
def test_leaving_one_out_is_scoring_the_others(config: SimAgentsConfig) -> None:
    case = random_case(1)
    result = leave_one_out(case.simulated, case.log, case.agents, config=config)
    assert result.realism.item() == pytest.approx(realism(case, config)["metametric"], rel=1e-9)
    assert result.without.shape == (5,)
    for i, without in enumerate(result.without):
        others = case.simulated.map(lambda values, i=i: torch.cat([values[:i], values[i + 1 :]]))
        wanted = realism(replace(case, simulated=others), config)["metametric"]
        assert without.item() == pytest.approx(wanted, rel=1e-9)
    assert torch.equal(result.contribution, result.realism - result.without)


def test_a_rollout_that_is_the_log_contributes_most() -> None:
    case = random_case(2)
    rollouts = [case.simulated.select(index) for index in range(5)]
    simulated = SimAgentsFeatures.stack([*rollouts[:3], case.log, *rollouts[3:]])
    result = leave_one_out(simulated, case.log, case.agents, config=LATEST)
    assert result.contribution.argmax() == 3
    assert result.contribution[3] > 0


def test_one_rollout_cannot_be_left_out() -> None:
    case = random_case(3, rollouts=1)
    with pytest.raises(ValueError, match="at least 2 rollouts, got 1"):
        leave_one_out(case.simulated, case.log, case.agents, config=LATEST)
    assert only(scored(case))["metametric"] > 0


def test_there_must_be_a_rollout() -> None:
    case = random_case(4)
    nothing = case.simulated.map(lambda values: values[:0])
    with pytest.raises(ValueError, match="at least 1 rollouts, got 0"):
        score(nothing, case.log, case.agents, config=LATEST)


def test_features_of_different_shapes_are_refused() -> None:
    case = random_case(5)
    shorter = case.log.map(lambda values: values[..., :6] if values.ndim == 2 else values)
    with pytest.raises(ValueError, match=r"\[5, 3, 12\], \[3, 6\] and \[3, 12\]"):
        score(case.simulated, shorter, case.agents, config=LATEST)
    fewer = case.agents.map(lambda values: values[:2])
    with pytest.raises(ValueError, match=r"\[5, 3, 12\], \[3, 12\] and \[2, 12\]"):
        score(case.simulated, case.log, fewer, config=LATEST)
    with pytest.raises(ValueError, match=r"\[3, 12\], \[3, 12\] and \[3, 12\]"):
        score(case.log, case.log, case.agents, config=LATEST)


def test_features_that_the_rules_want_must_be_there() -> None:
    case = random_case(6)
    simulated = case.simulated.replace(traffic_light_violation_per_step=None)
    log = case.log.replace(traffic_light_violation_per_step=None)
    with pytest.raises(ValueError, match="want traffic_light_violation_per_step, which is None"):
        score(simulated, log, case.agents, config=LATEST)
    old = sim_agents_config("2024_pkg164")
    assert_same(score(simulated, log, case.agents, config=old), scored(case, old))


def test_scores_without_anything_to_score_are_nan() -> None:
    case = random_case(7)
    nobody = torch.zeros(3, dtype=torch.bool)
    figures = only(scored(replace(case, agents=case.agents.replace(is_vehicle=nobody))))
    missing = {name for name, value in figures.items() if math.isnan(value)}
    assert missing == {"time_to_collision_likelihood", "metametric"}
    # Nobody can pass a red light, but the rate is of all agents.
    assert figures["traffic_light_violation_likelihood"] == pytest.approx(5.001 / 5.002)
    assert figures["simulated_traffic_light_violation_rate"] > 0


def test_what_the_log_does_not_have_does_not_count() -> None:
    case = random_case(8)
    wanted = only(scored(case))
    valid = case.agents.valid
    missing = [case.simulated, case.log]
    for name in ("collision_per_step", "offroad_per_step", "traffic_light_violation_per_step"):
        missing = [item.replace(**{name: getattr(item, name) | ~valid}) for item in missing]
    far = torch.where(valid, case.log.distance_to_road_edge, -1e10)
    log = missing[1].replace(distance_to_road_edge=far)
    assert only(scored(replace(case, simulated=missing[0], log=log))) == wanted


@every_rule
@settings(max_examples=8)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_rollouts_and_agents_does_not_matter(
    config: SimAgentsConfig, seed: int
) -> None:
    case = random_case(seed)
    generator = torch.Generator().manual_seed(seed)
    rollouts, agents = (torch.randperm(count, generator=generator) for count in (5, 3))
    other = replace(case, simulated=case.simulated.map(lambda values: values[rollouts]))

    def permuted(record: Tree, first: int) -> Tree:
        return record.map(lambda values: values.index_select(first, agents))

    other = Case(
        simulated=permuted(other.simulated, 1),
        log=permuted(other.log, 0),
        agents=permuted(other.agents, 0),
    )
    assert_same(scored(other, config), scored(case, config))
    without = leave_one_out(case.simulated, case.log, case.agents, config=config).without
    ours = leave_one_out(other.simulated, other.log, other.agents, config=config).without
    assert torch.allclose(ours, without[rollouts], rtol=1e-12, atol=0, equal_nan=True)


def padded(case: Case, agents: int) -> Case:
    """Adds agents who collide all the time, at speeds that are NaN, and are nobody."""

    def extended(record: Tree, dim: int) -> Tree:
        def fn(values: Tensor) -> Tensor:
            shape = list(values.shape)
            shape[dim] = agents - shape[dim]
            filler = values.new_full(shape, True if values.dtype == torch.bool else math.nan)
            return torch.cat([values, filler], dim=dim)

        return record.map(fn)

    counted = torch.arange(agents) < len(case.agents.counted)
    return Case(
        simulated=extended(case.simulated, 1),
        log=extended(case.log, 0),
        agents=extended(case.agents, 0).replace(counted=counted),
    )


@every_rule
@settings(max_examples=8)
@given(seeds=st.lists(st.integers(0, 10_000), min_size=2, max_size=4, unique=True))
def test_scenarios_of_a_batch_are_scored_as_if_alone(
    config: SimAgentsConfig, seeds: list[int]
) -> None:
    sizes = [2 + index for index in range(len(seeds))]
    cases = [random_case(seed, agents=agents) for seed, agents in zip(seeds, sizes, strict=True)]
    cases = [
        replace(case, agents=case.agents.replace(scenario_id=(str(seed),)))
        for seed, case in zip(seeds, cases, strict=True)
    ]
    padding = [padded(case, sizes[-1]) for case in cases]
    simulated = SimAgentsFeatures.stack([case.simulated for case in padding])
    batch = Case(
        simulated=simulated.map(lambda values: values.transpose(0, 1)),
        log=SimAgentsFeatures.stack([case.log for case in padding]),
        agents=ScoredAgents.stack([case.agents for case in padding]),
    )
    alone = SimAgentsMetrics.stack([scored(case, config) for case in cases])
    together = scored(batch, config)
    assert_same(together, alone)
    ids = [record["scenario_id"] for record in together.scenario_records()]
    assert ids == [str(seed) for seed in seeds]
    assert together.buckets() == pytest.approx(alone.buckets(), rel=1e-6, nan_ok=True)
    without = leave_one_out(batch.simulated, batch.log, batch.agents, config=config).without
    for index, case in enumerate(cases):
        wanted = leave_one_out(case.simulated, case.log, case.agents, config=config).without
        assert torch.allclose(without[:, index], wanted, rtol=1e-12, atol=0, equal_nan=True)


def test_metrics_of_parts_merge_to_those_of_the_whole() -> None:
    parts = [scored(random_case(seed)) for seed in range(5)]
    whole = SimAgentsMetrics.stack(parts)
    merged = SimAgentsMetrics.cat(
        [SimAgentsMetrics.stack(parts[:2]), SimAgentsMetrics.stack(parts[2:])]
    )
    assert_same(merged, whole)
    assert merged.version == "2025"
    mean = np.mean([part.metametric.item() for part in parts])
    assert merged.aggregate()["metametric"] == pytest.approx(mean, rel=1e-6)
    assert merged.buckets()["realism_meta_metric"] == merged.aggregate()["metametric"]


def test_buckets_of_scenarios_average_to_those_of_all() -> None:
    parts = [scored(random_case(seed)) for seed in range(3)]
    together = SimAgentsMetrics.stack(parts)
    for bucket in Bucket:
        each = together.bucket(bucket)
        assert each.dtype == torch.float64
        alone = [part.buckets()[bucket] for part in parts]
        assert each.tolist() == pytest.approx(alone, rel=1e-6)
        assert together.buckets()[bucket] == pytest.approx(each.mean().item(), rel=1e-6)


def test_metrics_of_different_rules_do_not_merge() -> None:
    case = random_case(0)
    ours, theirs = scored(case), scored(case, sim_agents_config("2024"))
    with pytest.raises(ValueError, match="those of '2025' and different ones of '2024'"):
        SimAgentsMetrics.stack([ours, theirs])
    batches = [SimAgentsMetrics.stack([metrics]) for metrics in (ours, theirs)]
    with pytest.raises(ValueError, match="those of '2025' and different ones of '2024'"):
        SimAgentsMetrics.cat(batches)


def test_a_bucket_without_weight_is_nan() -> None:
    speed = {"linear_speed": LATEST.features["linear_speed"]}
    config = replace(LATEST, version="speed", features=speed, simulated_rates=())
    metrics = scored(random_case(9), config)
    buckets = metrics.buckets()
    likelihood = metrics.aggregate()["linear_speed_likelihood"]
    assert buckets["kinematic_metrics"] == pytest.approx(likelihood)
    assert buckets["realism_meta_metric"] == pytest.approx(0.05 * likelihood)
    assert math.isnan(buckets[Bucket.INTERACTIVE])
    assert math.isnan(buckets[Bucket.MAP_BASED])
    assert "simulated_collision_rate" not in buckets


def golden_metrics(case: str) -> dict:
    return json.loads(shared_path(f"golden/wosac/{SCENARIO}_{case}_metrics.json").read_text())


def from_record(record: dict, version: str) -> SimAgentsMetrics:
    figures = dict(record)
    return SimAgentsMetrics(
        config=sim_agents_config(version),
        scenario_id=(figures.pop("scenario_id"),),
        **{name: torch.tensor(value) for name, value in figures.items()},
    )


@pytest.mark.parametrize("case", [*CASES, "g_scenario_gen"])
def test_buckets_are_those_of_the_official_evaluation(case: str) -> None:
    versions = CHALLENGES if case in CASES else GENERATED
    for name, golden in golden_metrics(case).items():
        metrics = from_record(golden["scenario"], versions[name])
        assert metrics.buckets() == pytest.approx(golden["bucketed"], rel=1e-6)
        assert list(metrics.buckets()) == list(golden["bucketed"])
        assert metrics.scenario_records() == [golden["scenario"]]


def test_a_data_set_is_aggregated_as_by_the_official_evaluation() -> None:
    golden = json.loads(shared_path("golden/wosac/aggregate_public_cases.json").read_text())
    members = [name.removeprefix(f"{SCENARIO}_") for name in golden["members"]]
    for name, version in CHALLENGES.items():
        records = [golden_metrics(member)[name]["scenario"] for member in members]
        metrics = SimAgentsMetrics.stack([from_record(record, version) for record in records])
        assert metrics.aggregate() == pytest.approx(golden[name]["aggregate"], rel=1e-6)
        assert metrics.buckets() == pytest.approx(golden[name]["bucketed"], rel=1e-6)


def golden_features(case: str, suffix: str) -> SimAgentsFeatures:
    path = shared_path(f"golden/wosac/{SCENARIO}_{case}features{suffix}.npz")
    with np.load(path) as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    lights = "traffic_light_violation_per_step"
    names = SimAgentsFeatures.__dataclass_fields__.keys() - {lights}
    return SimAgentsFeatures(
        **{name: arrays[name] for name in names},
        traffic_light_violation_per_step=arrays.get(lights),
    )


def golden_agents(config: SimAgentsConfig) -> ScoredAgents:
    with np.load(shared_path(f"golden/wosac/{SCENARIO}_log_features.npz")) as file:
        valid, kind = torch.from_numpy(file["valid"][0]), torch.from_numpy(file["object_type"][0])
    speed_valid, acceleration_valid = kinematic_validity(valid, differences=config.differences)
    return ScoredAgents(
        scenario_id=(SCENARIO,),
        valid=valid,
        speed_valid=speed_valid,
        acceleration_valid=acceleration_valid,
        is_vehicle=kind == AgentType.VEHICLE,
        counted=torch.ones(len(kind), dtype=torch.bool),
    )


@pytest.mark.parametrize("case", EQUAL_ROLLOUTS)
@pytest.mark.parametrize("name", CHALLENGES)
def test_official_features_have_the_official_scores(case: str, name: str) -> None:
    """Of the cases whose 32 rollouts are equal: the material has the features of two."""
    config = sim_agents_config(CHALLENGES[name])
    suffix = "_2023" if name == "2023_pkg161" else ""
    first = golden_features(f"{case}_", suffix).select(0)
    metrics = score(
        first.repeat(NUM_ROLLOUTS),
        golden_features("log_", suffix).select(0),
        golden_agents(config),
        config=config,
    )
    golden = golden_metrics(case)[name]
    (record,) = metrics.scenario_records()
    assert list(record) == list(golden["scenario"])
    assert record.pop("scenario_id") == golden["scenario"].pop("scenario_id")
    assert record == pytest.approx(golden["scenario"], rel=1e-6)
    assert metrics.buckets() == pytest.approx(golden["bucketed"], rel=1e-6)

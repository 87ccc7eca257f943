"""The ego policy's protocol: who moves how, and what is counted."""

import json
from pathlib import Path

import pytest
import torch

from catk_sim.constants import HISTORY_STEPS, STEPS_PER_TOKEN
from catk_sim.datatypes import Scenario, Trajectory
from catk_sim.rollout import rollout
from catk_sim.tokens import MotionVocabulary, match_trajectory
from catk_sim.tokens.matching import prepare
from policies.checkpoint import load_ego_gmm, save_checkpoint
from policies.constant_velocity import ConstantVelocity
from policies.ego_gmm.config import MixtureConfig
from policies.ego_gmm.model import EgoGMM
from policies.log_replay import LogReplay
from policies.smart.config import SMARTConfig
from policies.smart.model import SMART
from tests import scenes
from trainers import bc, catk
from trainers.benchmark import Benchmark
from trainers.configs import RolloutConfig
from trainers.ego_benchmark import EgoOutcome, measure_ego, replay_in_tokens

ROAD = scenes.straight_road()


def drive(move: torch.Tensor, scenario: Scenario = ROAD) -> Trajectory:
    """Two rollouts: the log, and one in which the sdc is moved after the current step (m)."""
    driven = rollout(LogReplay(), scenario, num_rollouts=2).simulated
    xy = driven.xy.clone()
    xy[1, 0, HISTORY_STEPS:] += move
    return driven.replace(xy=xy)


def test_displacement_is_that_of_the_sdc() -> None:
    outcome = EgoOutcome.of(drive(torch.tensor([3.0, 4.0])), ROAD)
    torch.testing.assert_close(outcome.ade, torch.tensor([0.0, 5.0]), atol=1e-5, rtol=0)


def test_leaving_the_road_counts() -> None:
    # The lane is 2 m from the edge, and the car 2 m wide.
    for move, offroad in ((-0.9, 0.0), (-1.1, 1.0)):
        outcome = EgoOutcome.of(drive(torch.tensor([0.0, move])), ROAD)
        assert outcome.offroad.tolist() == [0.0, offroad]


def test_hitting_somebody_counts_and_the_others_collisions_do_not() -> None:
    # C stands at (40, -2) until step 60; the sdc passes it at step 80.
    assert EgoOutcome.of(drive(torch.tensor([0.0, 0.0])), ROAD).collision.tolist() == [0.0, 0.0]
    assert EgoOutcome.of(drive(torch.tensor([25.0, 0.0])), ROAD).collision.tolist() == [0.0, 1.0]
    xy = ROAD.log.xy.clone()
    xy[1, :61] = xy[2, :61]  # B stands where C does, as long as C is there.
    crash = ROAD.replace(log=ROAD.log.replace(xy=xy))
    assert EgoOutcome.of(drive(torch.zeros(2), crash), crash).collision.tolist() == [0.0, 0.0]


def test_what_happened_before_the_current_step_does_not_count() -> None:
    driven = drive(torch.zeros(2))
    xy = driven.xy.clone()
    xy[:, 0, :HISTORY_STEPS] = torch.tensor([40.0, -20.0])
    outcome = EgoOutcome.of(driven.replace(xy=xy), ROAD)
    assert outcome.offroad.sum() == outcome.ade.sum() == 0


def test_records_are_means_over_rollouts_and_the_least_displacement() -> None:
    outcome = EgoOutcome(
        collision=torch.tensor([[1.0, 0.0], [0.0, 0.0]]),
        offroad=torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
        ade=torch.tensor([[1.0, 4.0], [3.0, 2.0]]),
    )
    first, second = outcome.records(("a", "b"))
    assert first == {
        "scenario_id": "a",
        "collision": 0.5,
        "offroad": 1.0,
        "ade": 2.0,
        "min_ade": 1.0,
    }
    assert second == {
        "scenario_id": "b",
        "collision": 0.0,
        "offroad": 0.5,
        "ade": 3.0,
        "min_ade": 2.0,
    }


def test_others_replay_their_tokens_and_the_sdc_its_log(vocabulary: MotionVocabulary) -> None:
    # The sdc's pace is that of no token.
    log = ROAD.log.replace(xy=ROAD.log.xy * torch.tensor([0.93, 1.0]))
    road = ROAD.replace(log=log)
    world = replay_in_tokens(road, vocabulary)
    assert torch.equal(world.log.xy[0], log.xy[0])
    prepared = prepare(log, ROAD.agents)
    tokens = match_trajectory(prepared, ROAD.agents, vocabulary).tokens
    at_marks = slice(STEPS_PER_TOKEN, None, STEPS_PER_TOKEN)
    for agent in (1, 2):
        there = tokens.valid[agent]
        assert there.sum() >= 10
        told = world.log.xy[agent, at_marks][there]
        torch.testing.assert_close(told, tokens.xy[agent][there], atol=1e-5, rtol=0)
    # Who leaves with the log leaves here too.
    assert not world.log.valid[2, 61:].any()


def test_agents_that_are_not_simulated_follow_the_raw_log(vocabulary: MotionVocabulary) -> None:
    valid = ROAD.log.valid.clone()
    valid[2, 10] = False
    late = ROAD.replace(log=ROAD.log.replace(valid=valid))
    world = replay_in_tokens(late, vocabulary)
    assert torch.equal(world.log.valid[2], valid[2])
    assert torch.equal(world.log.xy[2], ROAD.log.xy[2])


def benchmark(num_rollouts: int = 2) -> Benchmark:
    # B is logged to stand. At its velocity it would be hit.
    velocity = ROAD.log.velocity.clone()
    velocity[1] = torch.tensor([0.0, -2.0])
    log = ROAD.log.replace(velocity=velocity)
    steady = ROAD.replace(scenario_id=("steady",), log=log)
    gone = log.xy.clone()
    gone[0, HISTORY_STEPS:] = gone[0, HISTORY_STEPS - 1]
    stops = ROAD.replace(scenario_id=("stops",), log=log.replace(xy=gone))
    return Benchmark(
        scenarios=[steady, stops],
        indices=[0, 1],
        rollouts=RolloutConfig(num_rollouts=num_rollouts, batch_size=1),
        seed=0,
        device=torch.device("cpu"),
    )


def test_every_scenario_of_a_benchmark_is_measured(vocabulary: MotionVocabulary) -> None:
    steady, stops = measure_ego(ConstantVelocity(), vocabulary, benchmark())
    assert (steady["scenario_id"], stops["scenario_id"]) == ("steady", "stops")
    assert steady["ade"] == pytest.approx(0, abs=1e-4)
    assert steady["collision"] == 0
    # It goes on at 10 m/s for 8 s: 40.5 m on average.
    assert stops["ade"] == pytest.approx(40.5, rel=1e-3)


@pytest.mark.slow
def test_the_debug_presets_train_resume_and_compare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--cache", str(tmp_path / "cache"), "--data", "synthetic:3"]
    run = tmp_path / "run"
    catk.main(["ego_gmm_debug_catk", "--output", str(run), "--bc.num-steps", "2", *common])
    printed = capsys.readouterr().out
    assert "CAT-K" in printed
    assert "difference" in printed
    assert (run / "metrics.json").exists()
    assert "ego_offroad" in (run / "log.jsonl").read_text()
    bc.main(
        [
            "ego_gmm_debug_bc",
            "--output",
            str(tmp_path / "longer"),
            "--checkpoint",
            str(run / "bc"),
            "--bc.num-steps",
            "2",
            *common,
        ]
    )
    assert (tmp_path / "longer" / "bc" / "model.safetensors").exists()
    with pytest.raises(ValueError, match="wanted a policy smart"):
        bc.main(
            ["debug", "--output", str(tmp_path / "other"), "--checkpoint", str(run / "bc"), *common]
        )
    with pytest.raises(ValueError, match="k must be at most 16, the modes there are, got 17"):
        catk.main(["ego_gmm_debug_catk", "--output", str(tmp_path / "k"), "--k", "17", *common])


@pytest.mark.slow
def test_a_run_learns_from_whom_and_what_it_is_told(tmp_path: Path) -> None:
    common = [
        *("ego_gmm_debug_catk", "--cache", str(tmp_path / "cache"), "--data", "synthetic:3"),
        *("--catk.num-steps", "1", "--rollouts.max-scenarios", "1"),
    ]
    ego = EgoGMM(SMARTConfig.preset("micro"), MixtureConfig(), MotionVocabulary.default())
    save_checkpoint(tmp_path / "ego", ego, ego.vocabulary)

    def first_step(name: str, *options: str) -> dict[str, float]:
        run = tmp_path / name
        catk.main([*common, "--checkpoint", str(tmp_path / "ego"), "--output", str(run), *options])
        return json.loads((run / "log.jsonl").read_text().splitlines()[0])

    paper, everybody = first_step("paper"), first_step("all", "--learners", "vehicles")
    way, near = (
        first_step(name, "--learners", "vehicles", *options)
        for name, options in (
            ("way", ("--recovery", "way")),
            ("near", ("--max-deviation", "0.1")),
        )
    )
    assert paper["moves"] == 2 * 16
    assert everybody["moves"] == way["moves"] > near["moves"] > 0
    assert everybody["moves"] > paper["moves"]
    assert everybody["loss"] != pytest.approx(way["loss"], rel=1e-3)


@pytest.mark.slow
def test_the_encoder_starts_as_the_smart_that_is_named(tmp_path: Path) -> None:
    smart = SMART(SMARTConfig.preset("micro"), MotionVocabulary.default())
    save_checkpoint(tmp_path / "smart", smart, smart.vocabulary)
    bc.main(
        [
            *("ego_gmm_debug_bc", "--encoder", str(tmp_path / "smart"), "--data", "synthetic:2"),
            *("--output", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")),
            *("--bc.num-steps", "1", "--bc.optimizer.learning-rate", "1e-12"),
        ]
    )
    model, trained = load_ego_gmm(tmp_path / "run/bc"), smart.state_dict()
    assert model.config == smart.config
    for name, weight in model.encoder.state_dict().items():
        torch.testing.assert_close(weight, trained[name], atol=1e-6, rtol=0)

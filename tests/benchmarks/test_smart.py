"""CPU seconds of SMART nano, in float32 on one core, beside the reference's: `make benchmark`.

The reference is NVlabs/catk at commit d238867 with torch 2.13 on one thread of an x86-64 machine:
another machine makes another ratio.

Its scene is 637f20cafde22ff8 of WOMD: 50 agents at the current step, 32 of which are trained, and
692 (agent, mark) states. Edges are pairs of a state or map token and a neighbour within the radius,
both valid and not the same: in the reference 63,912 between 2,121 map tokens, and in an open-loop
pass over 18 marks 2,275 temporal, 2,874 between agents and 68,004 from the map. From these tokens
we make the same edges (`tests/policies/smart/test_golden.py`). But what is timed here reads the map
itself, into 2,129 tokens: 64,996, 2,275, 2,876 and 68,165 edges, so at most 2 % more work.

A generated scene is timed too, which everyone has. Weights are random.
"""

import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from catk_sim.datasets import open_scenarios
from catk_sim.datatypes import Scenario
from catk_sim.rollout import rollout, sim_agents
from catk_sim.tokens import MotionVocabulary
from policies.smart.config import SMARTConfig
from policies.smart.model import SMART
from policies.smart.policy import SMARTPolicy
from tests.shared import shared_path
from trainers.bc import behavior_cloning_loss
from trainers.catk import RolloutOracle, catk_loss
from trainers.configs import FitConfig
from trainers.optimizer import make_optimizer
from trainers.scenes import Scene, collate_scenes, make_scene

pytestmark = pytest.mark.benchmark(timer=time.process_time)

CONFIG = FitConfig(label_smoothing=0.1)
SCENE = "637f20cafde22ff8"
FILE = "data/womd_scenario_proto/motion_data_one_scenario.tfrecord"


@pytest.fixture(scope="module", params=["womd", "generated"])
def scenario(request: pytest.FixtureRequest) -> Scenario:
    data = shared_path(FILE) if request.param == "womd" else "synthetic:1"
    return next(iter(open_scenarios(data))).to(torch.float32)


@pytest.fixture(scope="module")
def vocabulary() -> MotionVocabulary:
    return MotionVocabulary.default()


@pytest.fixture(scope="module")
def scene(scenario: Scenario, vocabulary: MotionVocabulary) -> Scene:
    return collate_scenes([make_scene(scenario, vocabulary)])


@pytest.fixture
def model(vocabulary: MotionVocabulary) -> SMART:
    torch.manual_seed(0)
    return SMART(SMARTConfig.preset("nano"), vocabulary)


def compare(benchmark: BenchmarkFixture, scenario: Scenario, reference: float) -> None:
    """Notes CPU seconds, and what part they are of the reference's."""
    assert benchmark.stats is not None
    seconds = benchmark.stats["median"]
    benchmark.extra_info["cpu_seconds"] = seconds
    benchmark.extra_info["agents"] = int(sim_agents(scenario).sum())
    if scenario.scenario_id == (SCENE,):
        benchmark.extra_info["reference_cpu_seconds"] = reference
        benchmark.extra_info["part_of_reference"] = seconds / reference


def training_step(
    model: SMART, parameters: list[nn.Parameter], loss: Callable[[], Tensor]
) -> Callable[[], None]:
    optimizer = make_optimizer(parameters, CONFIG.optimizer)
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        nn.utils.clip_grad_norm_(parameters, CONFIG.optimizer.gradient_clip)
        optimizer.step()

    return step


def test_tokenising_a_scene(
    benchmark: BenchmarkFixture, scenario: Scenario, vocabulary: MotionVocabulary
) -> None:
    """Training does it once for a scene, so the steps below do not include it."""
    scene = benchmark.pedantic(make_scene, (scenario, vocabulary), rounds=3, warmup_rounds=1)
    benchmark.extra_info["map_tokens"] = int(scene.map_tokens.valid.sum())
    benchmark.extra_info["states"] = int(scene.tokenized.tokens.valid.sum())


def test_a_bc_step(
    benchmark: BenchmarkFixture, scenario: Scenario, scene: Scene, model: SMART
) -> None:
    """Forward, loss, backward, clipping and AdamW."""
    step = training_step(
        model, list(model.parameters()), lambda: behavior_cloning_loss(model, scene, CONFIG)[0]
    )
    benchmark.pedantic(step, rounds=3, warmup_rounds=1)
    compare(benchmark, scenario, reference=2.31)


def test_a_catk_step(
    benchmark: BenchmarkFixture, scenario: Scenario, scene: Scene, model: SMART
) -> None:
    """The same on the states of a rollout (K = 32), which is included; the rest is frozen."""
    oracle = RolloutOracle(model.vocabulary, 32, torch.device("cpu"))
    trained = model.fine_tuning_parameters()
    model.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    step = training_step(model, trained, lambda: catk_loss(model, scene, oracle, CONFIG)[0])
    benchmark.pedantic(step, rounds=3, warmup_rounds=1)
    compare(benchmark, scenario, reference=1.93)


@pytest.mark.parametrize("num_rollouts", [1, 32])
def test_rollouts(
    benchmark: BenchmarkFixture, scenario: Scenario, model: SMART, num_rollouts: int
) -> None:
    """Eight seconds at 10 Hz, sampled among the top k; the reading of the map included.

    The reference drives rollouts one after the other.
    """
    policy = SMARTPolicy(model.eval(), model.vocabulary)
    generator = torch.Generator().manual_seed(0)

    def drive() -> None:
        rollout(policy, scenario, num_rollouts=num_rollouts, generator=generator)

    benchmark.pedantic(drive, rounds=3 if num_rollouts == 1 else 2, warmup_rounds=1)
    compare(benchmark, scenario, reference=1.07 * num_rollouts)

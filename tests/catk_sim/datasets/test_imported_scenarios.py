"""The environment, the metrics and CAT-K run on scenarios of every source."""

from pathlib import Path

import gymnasium
import pytest
import torch

import catk_sim  # noqa: F401  (registers the environment)
from catk_sim.datasets import open_scenarios
from catk_sim.datatypes import Scenario
from catk_sim.metrics.sim_agents import JointScenes, SimAgentsMetric
from catk_sim.metrics.summary import summarize_rollouts
from catk_sim.rollout import rollout
from policies.registry import make_policy
from policies.smart.config import SMARTConfig
from policies.smart.model import SMART
from tests import scenes
from tests.catk_sim.datasets.foreign import nuscenes_log, womd_log, write_argoverse, write_pickle
from tests.shared import shared_path
from trainers.catk import RolloutOracle, catk_loss
from trainers.configs import FitConfig
from trainers.scenes import collate_scenes, make_scene

REAL = {
    "real womd": "womd_scenarionet_pkl/*eb4b91b10ca94ff2*",
    "real nuscenes": "nuscenes_scenarionet_pkl/*0757*",
    "real argoverse": "av2_motion_forecasting/**/*",
}
MADE = ["womd", "nuscenes", "argoverse"]
SOURCES = [*MADE, *(pytest.param(name, marks=pytest.mark.slow) for name in REAL)]


def make(name: str, folder: Path) -> Path:
    if name == "argoverse":
        pytest.importorskip("pyarrow")
        return write_argoverse(folder)
    log = womd_log(182) if name == "womd" else nuscenes_log()
    return write_pickle(folder / "sd_a.pkl", log)


@pytest.fixture(params=SOURCES)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name = request.param
    return shared_path("data") / REAL[name] if name in REAL else make(name, tmp_path)


def read(data: Path) -> list[Scenario]:
    return list(open_scenarios(data))


def test_the_environment_runs(data: Path) -> None:
    env = gymnasium.make("CatK-Waymo-v0", data=str(data), controlled="all", action="delta")
    env.reset(seed=0)
    for _ in range(3):
        _, reward, terminated, _, _ = env.step(env.action_space.sample())
        assert reward == reward
        assert not terminated
    env.close()


def test_the_sim_agents_metric_scores_the_log(data: Path) -> None:
    metric = SimAgentsMetric("2025")
    for scenario in read(data):
        prepared = metric.prepare(scenario)
        # The sdc and those to predict.
        assert int(prepared.scene.is_evaluated.sum()) >= 2
        scores = metric(prepared, JointScenes.from_log(prepared.scene))
        assert 0.5 < float(scores.metametric) <= 1.0
        moved = scenario.to(torch.float32)
        driven = rollout(make_policy("constant_velocity"), moved)
        simulated = JointScenes.from_rollout(driven.simulated, prepared.scene)
        assert 0.0 < float(metric(prepared, simulated).metametric) <= 1.0


def test_displacement_and_collisions_are_measured(data: Path) -> None:
    scenario = read(data)[0].to(torch.float32)
    driven = rollout(make_policy("log_replay"), scenario)
    table = summarize_rollouts(driven.simulated, scenario).table()["all"]
    assert table["ade"] == pytest.approx(0.0, abs=1e-5)
    assert 0.0 <= table["collision_rate"] < 0.5


def test_cat_k_learns_from_it(data: Path) -> None:
    torch.manual_seed(0)
    vocabulary = scenes.arc_vocabulary()
    model = SMART(SMARTConfig.preset("micro"), vocabulary)
    batch = collate_scenes([make_scene(scenario, vocabulary) for scenario in read(data)])
    oracle = RolloutOracle(vocabulary, 4, torch.device("cpu"))
    loss, told = catk_loss(model, batch, oracle, FitConfig())
    assert loss.isfinite()
    assert told["moves"] > 0
    loss.backward()
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)

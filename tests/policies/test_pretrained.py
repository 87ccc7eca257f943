from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Generator

from catk_sim.datasets import open_scenarios
from catk_sim.datasets.batching import collate
from catk_sim.metrics.summary import summarize_rollouts
from catk_sim.rollout import rollout, without_late_agents
from catk_sim.tokens import MotionVocabulary
from policies.checkpoint import describe_checkpoint
from policies.pretrained import PRETRAINED, folder_of, smart_nano
from policies.registry import make_policy
from policies.smart.config import SMARTConfig
from policies.smart.policy import GREEDY, SMARTPolicy, TopK
from trainers.configs import RolloutConfig
from trainers.evaluate import load_policy
from trainers.presets import CATK_PRESETS

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(PRETRAINED)


def pretrained(name: str) -> SMARTPolicy:
    policy = make_policy(name)
    assert isinstance(policy, SMARTPolicy)
    return policy


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_the_vocabulary_that_ships_and_drops_nothing_out(name: str) -> None:
    policy = pretrained(name)
    assert policy.vocabulary.digest == MotionVocabulary.default().digest
    assert not policy.model.training


def test_it_is_what_its_preset_trains() -> None:
    model = pretrained("smart_nano").model
    assert model.config == CATK_PRESETS["pretrained"]().model == SMARTConfig.preset("nano")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_at_most_8_megabytes(name: str) -> None:
    files = [file for file in PRETRAINED[name].iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 8_000_000


@pytest.mark.parametrize("name", NAMES)
def test_the_page_that_tells_how_it_was_made_is_about_these_weights(name: str) -> None:
    page = (ROOT / "policies/pretrained/README.md").read_text()
    assert describe_checkpoint(PRETRAINED[name])["weights_sha256"] in page


@pytest.mark.parametrize("name", NAMES)
def test_it_drives_scenes_that_it_has_not_seen_better_than_constant_velocity(name: str) -> None:
    """On one scene of each kind of the benchmark that ships, whose seeds nobody trains on."""
    scenarios = islice(open_scenarios("synthetic"), 3, None, 6)
    batch = without_late_agents(collate(list(scenarios)).to(torch.float32))
    figures = {}
    for driver in (name, "constant_velocity"):
        generator = Generator().manual_seed(0)
        driven = rollout(make_policy(driver), batch, num_rollouts=2, generator=generator)
        figures[driver] = summarize_rollouts(driven.simulated, batch).table()["vehicle"]
    for measure in ("ade", "min_ade", "collision_rate", "offroad_rate"):
        assert figures[name][measure] < 0.9 * figures["constant_velocity"][measure]


def test_its_folder_is_found_by_its_name_and_any_other_stays_as_it_is(tmp_path: Path) -> None:
    assert folder_of("smart_nano") == folder_of(Path("smart_nano")) == PRETRAINED["smart_nano"]
    assert folder_of(tmp_path) == tmp_path
    assert folder_of("no/such/folder") == Path("no/such/folder")


def test_a_sampler_may_be_chosen() -> None:
    assert smart_nano(sampler=GREEDY).sampler is GREEDY


def test_evaluation_samples_as_it_is_told() -> None:
    config = RolloutConfig(top_k=7, temperature=0.5)
    policy = load_policy("smart_nano", config, torch.device("cpu"))
    assert isinstance(policy, SMARTPolicy)
    assert policy.sampler == TopK(k=7, temperature=0.5)

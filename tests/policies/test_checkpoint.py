import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from catk_sim.tokens import MotionVocabulary
from policies import checkpoint
from policies.checkpoint import (
    describe_checkpoint,
    load_any_checkpoint,
    load_checkpoint,
    load_ego_gmm,
    save_checkpoint,
)
from policies.ego_gmm.config import MixtureConfig
from policies.ego_gmm.model import EgoGMM
from policies.smart.config import SMARTConfig
from policies.smart.model import SMART
from tests import scenes
from tests.policies.smart.examples import random_scene

VOCABULARY = scenes.arc_vocabulary()


@pytest.fixture
def model() -> SMART:
    torch.manual_seed(0)
    return SMART(SMARTConfig.preset("micro"), VOCABULARY)


@pytest.fixture
def folder(tmp_path: Path, model: SMART) -> Path:
    save_checkpoint(tmp_path / "run", model, VOCABULARY, {"note": "for a test", "step": 7})
    return tmp_path / "run"


def rewrite(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_loaded_model_scores_as_the_saved_one(folder: Path, model: SMART) -> None:
    scene = random_scene(0, dtype=torch.float32)
    loaded = load_checkpoint(folder)
    assert not loaded.training
    assert loaded.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(*scene), model.eval()(*scene))


def test_a_checkpoint_carries_its_vocabulary(folder: Path) -> None:
    loaded = load_checkpoint(folder).vocabulary
    assert loaded.digest == VOCABULARY.digest
    assert torch.equal(loaded.poses, VOCABULARY.poses)
    assert torch.equal(loaded.size, VOCABULARY.size)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_checkpoint_is_found_by_any_of_its_files(folder: Path, name: str) -> None:
    assert load_checkpoint(folder / name, vocabulary=VOCABULARY).config.hidden_dim == 32


def test_a_checkpoint_says_where_it_comes_from(folder: Path) -> None:
    description = describe_checkpoint(folder)
    assert description["extra"] == {"note": "for a test", "step": 7}
    assert description["vocabulary_digest"] == VOCABULARY.digest
    assert {"version", "git_commit", "map_vocabulary_digest"} <= set(description)


def test_saving_again_replaces_the_checkpoint(folder: Path, model: SMART) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    save_checkpoint(folder, model, VOCABULARY)
    loaded = load_checkpoint(folder)
    for mine, theirs in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_another_vocabulary_is_refused(folder: Path) -> None:
    other = MotionVocabulary(poses=VOCABULARY.poses, size=VOCABULARY.size, digest="other")
    with pytest.raises(ValueError, match="trained with the motion vocabulary arcs, got other"):
        load_checkpoint(folder, vocabulary=other)


def test_another_map_vocabulary_is_refused(folder: Path) -> None:
    rewrite(folder, map_vocabulary_digest="older")
    with pytest.raises(ValueError, match="trained with the map vocabulary older, and this"):
        load_checkpoint(folder)


def test_an_unknown_kind_of_policy_is_refused(folder: Path) -> None:
    rewrite(folder, policy="magic")
    with pytest.raises(ValueError, match="must be of policy smart or ego_gmm, got magic"):
        load_any_checkpoint(folder)


def test_another_format_is_refused(folder: Path) -> None:
    rewrite(folder, format=2)
    with pytest.raises(ValueError, match="must be of format 1, got 2"):
        load_checkpoint(folder)


@pytest.fixture
def ego_folder(tmp_path: Path) -> Path:
    mixture = MixtureConfig(num_modes=4, position_std=0.5, learn_std=True, assignment="hard")
    ego = EgoGMM(SMARTConfig.preset("micro"), mixture, VOCABULARY)
    with torch.no_grad():
        ego.head.log_std.add_(0.1)
    save_checkpoint(tmp_path / "ego", ego, VOCABULARY)
    return tmp_path / "ego"


def test_a_loaded_ego_policy_is_the_saved_one(ego_folder: Path) -> None:
    loaded = load_ego_gmm(ego_folder, vocabulary=VOCABULARY)
    assert not loaded.training
    assert loaded.config == SMARTConfig.preset("micro")
    assert loaded.mixture_config == MixtureConfig(
        num_modes=4, position_std=0.5, learn_std=True, assignment="hard"
    )
    std = loaded.head(torch.zeros(1, 32)).std[0]
    torch.testing.assert_close(
        std, 0.1 ** torch.tensor([0.0, 1.0]) * 2.718282**0.1 * torch.tensor([0.5, 1])
    )
    saved = load_file(ego_folder / "model.safetensors")
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, saved[name])


def test_a_checkpoint_of_any_kind_tells_its_kind(folder: Path, ego_folder: Path) -> None:
    assert isinstance(load_any_checkpoint(folder), SMART)
    assert isinstance(load_any_checkpoint(ego_folder), EgoGMM)
    assert describe_checkpoint(ego_folder)["policy"] == "ego_gmm"


def test_the_other_kind_of_policy_is_refused(folder: Path, ego_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"wanted a policy smart.* has an ego_gmm"):
        load_checkpoint(ego_folder)
    with pytest.raises(ValueError, match=r"wanted a policy ego_gmm.* has a smart"):
        load_ego_gmm(folder)


def test_a_changed_byte_is_noticed(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model.safetensors is damaged: its SHA-256"):
        load_checkpoint(folder)


def test_a_truncated_note_is_noticed(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text()[:100])
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        load_checkpoint(folder)
    file.write_text("{}")
    with pytest.raises(ValueError, match="it lacks format, map_vocabulary_digest, model"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_checkpoint(folder)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint at"):
        load_checkpoint(tmp_path / "nowhere")


def change_weights(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Changes weights so that only the check of the weights can notice."""
    file = folder / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if name not in change}
    save_file(tensors | {k: v for k, v in change.items() if v is not None}, file)
    rewrite(folder, weights_sha256=checkpoint._sha256(file))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"head.0.bias": None}, "lacks head.0.bias"),
        ({"head.9.bias": torch.ones(1)}, "has head.9.bias, which is unknown"),
        ({"head.0.bias": torch.ones(5)}, r"head.0.bias must be \(32,\), got \(5,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    folder: Path, change: dict[str, torch.Tensor | None], complaint: str
) -> None:
    change_weights(folder, change)
    with pytest.raises(ValueError, match=complaint):
        load_checkpoint(folder)


def test_weights_of_another_size_are_refused_briefly(folder: Path) -> None:
    rewrite(
        folder, model=json.loads((folder / "config.json").read_text())["model"] | {"hidden_dim": 64}
    )
    with pytest.raises(ValueError, match=r"do not fit: .* and \d+ more"):
        load_checkpoint(folder)


def test_nothing_is_pickled(folder: Path) -> None:
    for file in folder.iterdir():
        assert b"torch" not in file.read_bytes()[:64]
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".safetensors"]

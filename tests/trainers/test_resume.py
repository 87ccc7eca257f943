"""A killed run that is resumed, against one that was not."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from policies.smart.model import SMART
from tests.trainers.test_cli import TINY
from trainers import catk
from trainers.cli import parse_preset
from trainers.configs import CatKConfig, FitConfig, OptimizerConfig
from trainers.losses import score_moves
from trainers.optimizer import AdamW
from trainers.presets import CATK_PRESETS
from trainers.resume import Progress, load_training_state, save_training_state


class KilledError(Exception):
    """Stands for SIGKILL: nothing after it runs."""


def config(folder: Path, *, resume: bool = False) -> CatKConfig:
    args = [
        *TINY,
        *("--bc.num-steps", "5", "--bc.save-every", "2", "--bc.validate-every", "5"),
        *("--catk.num-steps", "5", "--catk.save-every", "2", "--catk.validate-every", "5"),
        *("--output", str(folder), "--cache", str(folder.parent / "cache")),
    ]
    return parse_preset(CATK_PRESETS, "demo", [*args, "--resume"] if resume else args)


def killed_after(losses: int, monkeypatch: pytest.MonkeyPatch, config: CatKConfig) -> None:
    """Runs until the losses of both stages were asked for so many times."""
    left = [losses]

    def loss(*args: Any, **options: Any) -> tuple[Tensor, dict[str, float]]:
        left[0] -= 1
        if left[0] < 0:
            raise KilledError
        return score_moves(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr("trainers.bc.score_moves", loss)
        patch.setattr("trainers.catk.score_moves", loss)
        with pytest.raises(KilledError):
            catk.train(config)


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catk.train(config(tmp_path / "whole"))
    # Once within behavior cloning, once within fine-tuning.
    killed_after(3, monkeypatch, config(tmp_path / "killed"))
    killed_after(6, monkeypatch, config(tmp_path / "killed", resume=True))
    catk.train(config(tmp_path / "killed", resume=True))
    for stage in ("bc", "catk"):
        name = f"{stage}/model.safetensors"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_a_state_of_another_run_is_refused(model: SMART, tmp_path: Path) -> None:
    optimizer = AdamW(model.parameters(), OptimizerConfig())
    save_training_state(tmp_path, model, optimizer, Progress(step=3, fingerprint="one"))
    assert load_training_state(tmp_path, model, optimizer, "one") == 3
    with pytest.raises(ValueError, match="other settings: wanted fingerprint two, got one"):
        load_training_state(tmp_path, model, optimizer, "two")


def test_a_stage_without_a_state_starts_at_its_beginning(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)
    optimizer = AdamW(network.parameters(), OptimizerConfig())
    assert load_training_state(tmp_path, network, optimizer, "") == 0


def test_a_state_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)
    optimizer = AdamW(network.parameters(), OptimizerConfig())
    save_training_state(tmp_path, network, optimizer, Progress(step=1, fingerprint=""))
    path = tmp_path / "training_state.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="is damaged"):
        load_training_state(tmp_path, network, optimizer, "")


def test_the_batch_size_of_a_stage_is_checked() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        FitConfig(batch_size=0)

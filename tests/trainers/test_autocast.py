"""Losses in bfloat16, by the same autocast as on a GPU, against float32."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from policies.smart.model import SMART
from trainers.bc import behavior_cloning_loss
from trainers.catk import RolloutOracle, catk_loss
from trainers.configs import FitConfig, OptimizerConfig
from trainers.loop import Stage, fit
from trainers.run_log import read_log
from trainers.scenes import Scene

Loss = Callable[[SMART, Scene], tuple[Tensor, dict[str, float]]]

CONFIG = FitConfig(
    num_steps=6,
    label_smoothing=0.1,
    validate_every=6,
    save_every=6,
    optimizer=OptimizerConfig(learning_rate=2e-2),
)


def bc(model: SMART, scene: Scene) -> tuple[Tensor, dict[str, float]]:
    return behavior_cloning_loss(model, scene, CONFIG)


def catk(model: SMART, scene: Scene) -> tuple[Tensor, dict[str, float]]:
    # With all tokens to choose from, both precisions choose the same.
    oracle = RolloutOracle(model.vocabulary, model.vocabulary.num_tokens, torch.device("cpu"))
    return catk_loss(model, scene, oracle, CONFIG)


@pytest.mark.parametrize("loss", [bc, catk])
def test_losses_agree(loss: Loss, model: SMART, batch: Scene) -> None:
    model.eval()
    exact, _ = loss(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse, numbers = loss(model, batch)
    assert numbers["moves"] > 0
    # bfloat16 has 8 bits; errors of single logits average out over hundreds of moves.
    assert coarse.item() == pytest.approx(exact.item(), rel=2e-3)
    assert coarse.item() != exact.item()


def curve(
    folder: Path, model: SMART, batch: Scene, loss: Loss, autocast: torch.dtype | None
) -> list[float]:
    """Trains, and returns the loss at each step."""
    stage = Stage(
        name="stage",
        config=CONFIG,
        folder=folder / "stage",
        loss=lambda scene: loss(model, scene),
        batches=lambda first: iter([[batch]] * CONFIG.num_steps),
        parameters=model.parameters,
        validate=lambda: {},
        seed=0,
        autocast=autocast,
        fingerprint="",
    )
    fit(model, stage)
    return [record["loss"] for record in read_log(folder / "log.jsonl") if "loss" in record]


@pytest.mark.slow
@pytest.mark.parametrize("loss", [bc, catk])
def test_training_in_bfloat16_follows_float32(
    loss: Loss, model: SMART, batch: Scene, tmp_path: Path
) -> None:
    start = {name: value.clone() for name, value in model.state_dict().items()}
    exact = curve(tmp_path / "exact", model, batch, loss, None)
    model.load_state_dict(start)
    # A loss or gradient that is not finite would raise.
    coarse = curve(tmp_path / "coarse", model, batch, loss, torch.bfloat16)
    assert coarse == pytest.approx(exact, rel=0.03)
    assert exact[-1] < 0.95 * exact[0]

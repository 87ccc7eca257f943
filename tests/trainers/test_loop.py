"""The loop on a model so small that its steps can be followed."""

import dataclasses
import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainers.configs import FitConfig, OptimizerConfig
from trainers.loop import Stage, fit, pick_device
from trainers.run_log import read_log
from trainers.seeds import seed_of


class KilledError(Exception):
    """Stands for SIGKILL: nothing after it runs."""


def batches(first: int) -> Iterator[list[Tensor]]:
    for step in itertools.count(first):
        yield [torch.randn(8, 3, generator=torch.Generator().manual_seed(step))]


def cut_batches(first: int) -> Iterator[list[Tensor]]:
    """The same in parts of 5, 2 and 1."""
    for [batch] in batches(first):
        yield list(batch.split([5, 2, 1]))


def model(*, dropout: float = 0.5) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(dropout), nn.Linear(4, 1))


def stage(
    folder: Path,
    network: nn.Module,
    *,
    killed_at: int = -1,
    interrupted_at: int = -1,
    seed: int = 0,
    batches: Callable[[int], Iterator[list[Tensor]]] = batches,
) -> Stage[Tensor]:
    calls = itertools.count()

    def loss(batch: Tensor) -> tuple[Tensor, dict[str, float]]:
        call = next(calls)
        if call == killed_at:
            raise KilledError
        if call == interrupted_at:
            signal.raise_signal(signal.SIGINT)
        error = (network(batch) - batch.sum(-1, keepdim=True)).square().mean()
        return error, {"moves": float(len(batch)), "height": batch.mean().item()}

    return Stage(
        name="toy",
        config=FitConfig(num_steps=12, save_every=4, validate_every=6, optimizer=OptimizerConfig()),
        folder=folder / "toy",
        loss=loss,
        batches=batches,
        parameters=network.parameters,
        validate=lambda: {"validated": 1.0},
        seed=seed,
        autocast=None,
        fingerprint=str(seed),
    )


def curve(run: Path, name: str) -> list[float]:
    """A number of each step."""
    return [record[name] for record in read_log(run / "log.jsonl") if "loss" in record]


def weights(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, killed, resumed = model(), model(), model()
    fit(whole, stage(tmp_path / "whole", whole))
    with pytest.raises(KilledError):
        fit(killed, stage(tmp_path / "killed", killed, killed_at=6))
    fit(resumed, stage(tmp_path / "killed", resumed))
    assert torch.equal(weights(resumed), weights(whole))
    assert read_log(tmp_path / "killed/log.jsonl") == read_log(tmp_path / "whole/log.jsonl")


def test_a_batch_in_parts_teaches_what_it_teaches_whole(tmp_path: Path) -> None:
    whole, parted = model(dropout=0.0), model(dropout=0.0)
    fit(whole, stage(tmp_path / "whole", whole))
    fit(parted, stage(tmp_path / "parted", parted, batches=cut_batches))
    # The order of sums differs.
    torch.testing.assert_close(weights(parted), weights(whole), rtol=1e-5, atol=1e-6)
    for name in ("loss", "height", "moves", "gradient_norm"):
        whole_curve = curve(tmp_path / "whole", name)
        assert curve(tmp_path / "parted", name) == pytest.approx(whole_curve, rel=1e-5)


def test_a_finished_stage_has_nothing_left_to_do(tmp_path: Path) -> None:
    first, again = model(), model()
    fit(first, stage(tmp_path, first))
    fit(again, stage(tmp_path, again, killed_at=0))
    assert torch.equal(weights(again), weights(first))


def test_other_settings_cannot_go_on_with_a_run(tmp_path: Path) -> None:
    network = model()
    fit(network, stage(tmp_path, network))
    with pytest.raises(ValueError, match="other settings: wanted fingerprint 1, got 0"):
        fit(network, stage(tmp_path, network, seed=1))


def test_the_log_has_every_step_and_every_validation(tmp_path: Path) -> None:
    network = model()
    fit(network, stage(tmp_path, network))
    records = read_log(tmp_path / "log.jsonl")
    assert [record["step"] for record in records if "loss" in record] == list(range(1, 13))
    assert [record["step"] for record in records if "validated" in record] == [6, 12]


def test_validation_has_the_memory_of_the_gradients(tmp_path: Path) -> None:
    network, kept = model(), []

    def validate() -> dict[str, float]:
        kept.append([parameter.grad for parameter in network.parameters()])
        return {}

    fit(network, dataclasses.replace(stage(tmp_path, network), validate=validate))
    assert kept == [[None] * 4] * 2


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    network = model()
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="toy step 0: wanted a finite gradient"):
        fit(network, stage(tmp_path, network))


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"stage": "bc", "step": 1}\n{"stage": "b')
    assert read_log(path) == [{"stage": "bc", "step": 1}]


def test_seeds_differ_by_every_part() -> None:
    assert (
        len({seed_of(0, "bc", 1), seed_of(1, "bc", 1), seed_of(0, "bc", 2), seed_of(0, "x", 1)})
        == 4
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no GPU that torch can use"):
        pick_device("cuda")


def test_control_c_stops_between_two_steps(tmp_path: Path) -> None:
    whole, stopped, resumed = model(), model(), model()
    fit(whole, stage(tmp_path / "whole", whole))
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, stage(tmp_path / "stopped", stopped, interrupted_at=6))
    fit(resumed, stage(tmp_path / "stopped", resumed, killed_at=5))
    assert torch.equal(weights(resumed), weights(whole))


def test_a_name_that_is_no_device_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted a device such as cpu or cuda:0, got 'foo'"):
        pick_device("foo")

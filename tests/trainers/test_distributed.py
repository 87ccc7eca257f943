"""Two processes against one."""

import itertools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests import scenes
from tests.trainers.test_cli import TINY, TINY_BC
from tests.trainers.two_processes import TwoProcesses
from trainers import catk
from trainers.cli import parse_preset
from trainers.configs import CatKConfig, FitConfig, OptimizerConfig
from trainers.distributed import (
    from_main,
    gather_shares,
    local_device,
    rank,
    share,
    sum_over_ranks,
)
from trainers.loop import Stage, fit
from trainers.presets import CATK_PRESETS
from trainers.run_log import read_log
from trainers.scenes import BatchPlan, SceneDataset, batches


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoProcesses]:
    processes = TwoProcesses(tmp_path_factory.mktemp("both"))
    yield processes
    processes.close()


def curves(run: Path) -> list[tuple[float, ...]]:
    """Step, loss, norm of the gradient and number of moves of each step."""
    return [
        tuple(record[name] for name in ("step", "loss", "gradient_norm", "moves"))
        for record in read_log(run / "log.jsonl")
        if "loss" in record
    ]


def assert_same_curves(run: Path, other: Path) -> None:
    for one, two in zip(curves(run), curves(other), strict=True):
        # Two shares are rounded otherwise than one batch, in float32.
        assert one == pytest.approx(two, rel=1e-5)


# Items, numbers, words


def deal_and_collect(count: int) -> tuple[list[int], list[int]]:
    mine = share(range(count))
    return mine, gather_shares([item * item for item in mine])


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_shares_are_collected_in_the_order_of_all_items(both: TwoProcesses, count: int) -> None:
    squares = [item * item for item in range(count)]
    assert both(deal_and_collect, count) == [
        (list(range(0, count, 2)), squares),
        (list(range(1, count, 2)), squares),
    ]
    assert deal_and_collect(count) == (list(range(count)), squares)


def add_up() -> list[float]:
    return sum_over_ranks([1.0, 10.0 * rank()])


def test_numbers_are_added_up_over_all(both: TwoProcesses) -> None:
    assert both(add_up) == [[2.0, 10.0], [2.0, 10.0]]
    assert add_up() == [1.0, 0.0]


def tell_rank() -> int:
    return from_main(rank)


def fail_in_main() -> None:
    from_main(_refuse)


def _refuse() -> None:
    raise ValueError(f"refused by {rank()}")


def test_what_the_main_process_finds_all_know(both: TwoProcesses) -> None:
    assert both(tell_rank) == [0, 0]


def test_where_the_main_process_fails_the_others_end_quietly(both: TwoProcesses) -> None:
    main, other = both.outcomes(fail_in_main)
    assert "ValueError: refused by 0" in main.error
    assert "SystemExit: 2" in other.error
    assert "ValueError" not in other.error


# Devices


def test_processes_on_a_machine_have_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert local_device(torch.device("cuda")) == torch.device("cuda:1")
    assert local_device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(ValueError, match="a GPU for each of the 2 processes, got cuda:0"):
        local_device(torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        ValueError, match="a GPU for each of the 2 processes on this machine, got 1"
    ):
        local_device(torch.device("cuda"))


def test_a_process_alone_may_choose_its_gpu() -> None:
    assert local_device(torch.device("cuda:3")) == torch.device("cuda:3")


# The loop


class Branching(nn.Module):
    """A network with a layer that only some batches use."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(rank())  # All must take the weights of the main process.
        self.every = nn.Linear(3, 4)
        self.some = nn.Linear(4, 4)
        self.last = nn.Linear(4, 1)

    def forward(self, batch: Tensor) -> Tensor:
        hidden = self.every(batch)
        if batch[0, 0] > 0:
            hidden = hidden + self.some(hidden)
        return self.last(hidden)


def toy_batches(first: int) -> Iterator[list[Tensor]]:
    """A step's six rows in parts of five and one, of which one leaves a layer unused."""
    for step in itertools.count(first):
        generator = torch.Generator().manual_seed(step)
        rows = torch.rand(6, 3, generator=generator)
        yield share([rows[:5], -rows[5:]])


def fit_toy(folder: Path, interrupted_rank: int = -1) -> dict[str, Tensor]:
    network = Branching()
    calls = itertools.count()

    def loss(batch: Tensor) -> tuple[Tensor, dict[str, float]]:
        if next(calls) == 2 and rank() == interrupted_rank:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        error = (network(batch) - batch.sum(-1, keepdim=True)).square().mean()
        return error, {"moves": float(len(batch))}

    fit(network, toy_stage(folder, network, loss))
    return network.state_dict()


def toy_stage(
    folder: Path, network: nn.Module, loss: Callable[[Tensor], tuple[Tensor, dict[str, float]]]
) -> Stage[Tensor]:
    return Stage(
        name="toy",
        config=FitConfig(num_steps=6, validate_every=3, save_every=6, optimizer=OptimizerConfig()),
        folder=folder / "toy",
        loss=loss,
        batches=toy_batches,
        parameters=network.parameters,
        validate=lambda: {},
        seed=0,
        autocast=None,
        fingerprint="",
    )


def test_two_processes_follow_the_curve_of_one(both: TwoProcesses, tmp_path: Path) -> None:
    alone = fit_toy(tmp_path / "alone")
    for weights in both(fit_toy, tmp_path / "both"):
        torch.testing.assert_close(weights, alone, rtol=1e-5, atol=1e-6)
    assert_same_curves(tmp_path / "both", tmp_path / "alone")


def test_both_stop_after_the_same_step_and_one_goes_on(both: TwoProcesses, tmp_path: Path) -> None:
    outcomes = both.outcomes(fit_toy, tmp_path / "stopped", 1)
    assert ["KeyboardInterrupt" in outcome.error for outcome in outcomes] == [True, True]
    assert [step for step, *_ in curves(tmp_path / "stopped")] == [1, 2, 3]
    resumed = fit_toy(tmp_path / "stopped")
    torch.testing.assert_close(resumed, fit_toy(tmp_path / "alone"), rtol=1e-5, atol=1e-6)
    assert_same_curves(tmp_path / "stopped", tmp_path / "alone")


def fit_elsewhere(folder: Path) -> None:
    fit_toy(folder / "elsewhere" if rank() else folder)


def test_processes_that_share_no_disk_are_told_so(both: TwoProcesses, tmp_path: Path) -> None:
    fit_toy(tmp_path)
    for outcome in both.outcomes(fit_elsewhere, tmp_path):
        assert "wanted all processes to find the same state" in outcome.error
        assert "got steps [6, 0]" in outcome.error


def draw_in_step(folder: Path) -> list[float]:
    """Trains, and returns what is drawn at random meanwhile."""
    draws = []

    def loss(batch: Tensor) -> tuple[Tensor, dict[str, float]]:
        draws.append(torch.rand(()).item())
        return network(batch).mean(), {"moves": float(len(batch))}

    network = Branching()
    fit(network, toy_stage(folder, network, loss))
    return draws


def test_each_process_drops_other_units(both: TwoProcesses, tmp_path: Path) -> None:
    one, other = both(draw_in_step, tmp_path)
    assert not set(one) & set(other)


# Whole runs


def config(folder: Path, *changes: str) -> CatKConfig:
    args = [
        *TINY,
        *(
            "--data",
            "synthetic:5",
            "--output",
            str(folder),
            "--cache",
            str(folder.parent / "cache"),
        ),
        *("--bc.num-steps", "2", "--catk.num-steps", "2"),
        # Shares of 2 and 1.
        *("--bc.batch-size", "3", "--catk.batch-size", "3"),
        # Dropped units depend on the rank.
        *("--model.dropout", "0", "--model.history-dropout", "0"),
    ]
    return parse_preset(CATK_PRESETS, "demo", [*args, *changes])


def train(folder: Path, *changes: str) -> None:
    catk.train(config(folder, *changes))


def first_batch() -> None:
    data = SceneDataset([scenes.straight_road()] * 3, range(3), scenes.arc_vocabulary())
    next(batches(data, BatchPlan(batch_size=1, seed=0)))


def test_a_batch_has_a_scene_for_each_process(both: TwoProcesses) -> None:
    first_batch()
    for outcome in both.outcomes(first_batch):
        assert "wanted a scene in each batch for each of 2 processes, got 1 in all" in outcome.error


@pytest.mark.slow
def test_two_processes_train_what_one_trains(both: TwoProcesses, tmp_path: Path) -> None:
    train(tmp_path / "alone")
    both(train, tmp_path / "both", "--max-scenarios-at-once", "1")
    assert_same_curves(tmp_path / "both", tmp_path / "alone")
    for stage in ("bc", "catk"):
        one, two = (
            load_file(tmp_path / run / stage / "model.safetensors") for run in ("alone", "both")
        )
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


# The launcher

ONE_FAILS = """
import torch
from trainers.distributed import join, rank, wait_for_all

join(torch.device("cpu"))
if rank() == 1:
    raise ValueError("rank 1 fails")
wait_for_all()
"""


def torchrun(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Starts two processes. It finds a free port."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [sys.executable, *launcher, *command], capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_a_process_that_fails_ends_all(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(ONE_FAILS)
    done = torchrun(script)
    assert done.returncode != 0
    assert "ValueError: rank 1 fails" in done.stderr


@pytest.mark.slow
def test_the_command_trains_once_for_all(tmp_path: Path) -> None:
    folder, cache = tmp_path / "run", tmp_path / "cache"
    args = [*TINY_BC, "--output", folder, "--cache", cache, "--bc.batch-size", "2"]
    done = torchrun("-m", "trainers.bc", *args)
    assert done.returncode == 0, done.stderr
    assert [step for step, *_ in curves(folder)] == [1, 2]
    assert load_file(folder / "bc/model.safetensors")

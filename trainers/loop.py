"""The loop that every trainer shares: batches, steps, validation, checkpoints."""

import math
import signal
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from trainers.configs import FitConfig
from trainers.optimizer import learning_rate, make_optimizer, set_learning_rate
from trainers.resume import Progress, load_training_state, save_training_state
from trainers.run_log import RunLog

Batch = TypeVar("Batch")


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[Batch]):
    """One stage of training.

    Attributes:
        name: Its name in logs and folders, e.g. "bc".
        config: Steps, batches and optimiser.
        folder: Where its state and log go.
        loss: The loss of a batch, and further numbers to log.
        batches: All batches from a step on; what comes at a step depends on nothing else.
        parameters: What is trained.
        validate: Numbers that tell how good the model is.
        seed: Seed of every random draw.
        autocast: The dtype of automatic mixed precision, or None for float32.
        fingerprint: Identifies everything that the steps depend on.
    """

    name: str
    config: FitConfig
    folder: Path
    loss: Callable[[Batch], tuple[Tensor, dict[str, float]]]
    batches: Callable[[int], Iterator[Batch]]
    parameters: Callable[[], Iterable[nn.Parameter]]
    validate: Callable[[], dict[str, float]]
    seed: int
    autocast: torch.dtype | None
    fingerprint: str


def fit(model: nn.Module, stage: Stage[Batch]) -> None:
    """Trains a model for the steps of a stage, from where its folder says it got to.

    A stage that was killed and is started again ends with the same weights, bit for bit on a CPU,
    as one that was not: batches and random draws are functions of the step alone.

    Raises:
        KeyboardInterrupt: Passed on after the state was saved.
        FloatingPointError: The loss is not finite.
    """
    optimizer = make_optimizer(stage.parameters(), stage.config.optimizer)
    first = load_training_state(stage.folder, model, optimizer, stage.fingerprint)
    log = RunLog(stage.folder.parent, stage.name, step=first)
    step = first

    def save() -> None:
        progress = Progress(step=step, fingerprint=stage.fingerprint)
        save_training_state(stage.folder, model, optimizer, progress)

    bar = tqdm(total=stage.config.num_steps, initial=first, desc=stage.name, unit="step")
    stop = _StopRequest()
    try:
        for batch in stage.batches(first):
            if step >= stage.config.num_steps:
                break
            if stop.requested:
                save()
                raise KeyboardInterrupt
            numbers = _train_step(model, optimizer, batch, stage, step)
            step += 1
            bar.update()
            bar.set_postfix(loss=f"{numbers['loss']:.3f}")
            log.write(step, **numbers)
            last = step == stage.config.num_steps
            if last or step % stage.config.validate_every == 0:
                log.write(step, **stage.validate())
            if last or step % stage.config.save_every == 0:
                save()
    except KeyboardInterrupt:
        bar.write(f"stopped after step {step} of {stage.name}; --resume goes on from there")
        raise
    finally:
        stop.close()
        bar.close()
        log.close()


def _train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    stage: Stage[Batch],
    step: int,
) -> dict[str, float]:
    # Seeded by the step, so that a resumed run draws what an uninterrupted one would have.
    torch.manual_seed(seed_of(stage.seed, stage.name, step))
    rate = learning_rate(step, stage.config.num_steps, stage.config.optimizer)
    set_learning_rate(optimizer, rate)
    model.train()
    device = next(model.parameters()).device.type
    with torch.autocast(device, dtype=stage.autocast, enabled=stage.autocast is not None):
        loss, numbers = stage.loss(batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(trained, stage.config.optimizer.gradient_clip)
    if not math.isfinite(norm.item()):
        raise FloatingPointError(
            f"{stage.name} step {step}: wanted a finite gradient, got norm {norm.item()} "
            f"with loss {loss.item()}"
        )
    optimizer.step()
    return {
        "loss": loss.item(),
        "gradient_norm": norm.item(),
        "learning_rate": rate,
        **numbers,
    }


class _StopRequest:
    """Turns Ctrl-C into a wish to stop between two steps, where the state is whole."""

    def __init__(self) -> None:
        self.requested = False
        # Python lets only the main thread listen to signals.
        self._listens = threading.current_thread() is threading.main_thread()
        if self._listens:
            self._before = signal.signal(signal.SIGINT, self._ask)

    def close(self) -> None:
        if self._listens:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, *_: object) -> None:
        if self.requested:
            # Asked twice: now, without saving.
            raise KeyboardInterrupt
        self.requested = True


def seed_of(*parts: int | str) -> int:
    """Derives a seed from a run's seed and whatever tells one draw from another."""
    # A fixed digest: Python's own hash of text differs between processes.
    return zlib.crc32(repr(parts).encode())


def pick_device(name: str) -> torch.device:
    """Turns a device's name into a device. `auto` is the first GPU if there is one.

    Raises:
        ValueError: The device does not exist here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"wanted a device such as cpu or cuda:0, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"wanted device {name}, but this machine has no GPU that torch can use")
    return device


def pick_autocast(precision: str, device: torch.device) -> torch.dtype | None:
    """Turns a precision's name into the dtype of autocast; None is plain float32."""
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else "float32"
    return torch.bfloat16 if precision == "bfloat16" else None

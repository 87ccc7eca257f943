"""The loop that every trainer shares: batches, steps, validation, checkpoints."""

import math
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from trainers.configs import FitConfig
from trainers.distributed import (
    from_main,
    gather_shares,
    is_main,
    local_device,
    rank,
    sum_over_ranks,
    world_size,
)
from trainers.optimizer import AdamW, learning_rate
from trainers.resume import Progress, load_training_state, save_training_state
from trainers.run_log import RunLog
from trainers.seeds import seed_of

Batch = TypeVar("Batch")


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[Batch]):
    """One stage of training.

    Attributes:
        name: Its name in logs and folders, e.g. "bc".
        config: Steps, batches and optimiser.
        folder: Where its state and log go.
        loss: The loss of a part of a batch and further numbers to log. `moves` among them is how
            many moves the part has; the loss and the others are means over these.
        batches: All batches from a step on, of each this process's share, in parts; what comes at a
            step depends on nothing else.
        parameters: What is trained.
        validate: Numbers that tell how good the model is. Every process calls it.
        seed: Seed of every random draw.
        autocast: The dtype of automatic mixed precision, or None for float32.
        fingerprint: Identifies everything that the steps depend on.
    """

    name: str
    config: FitConfig
    folder: Path
    loss: Callable[[Batch], tuple[Tensor, dict[str, float]]]
    batches: Callable[[int], Iterator[Sequence[Batch]]]
    parameters: Callable[[], Iterable[nn.Parameter]]
    validate: Callable[[], dict[str, float]]
    seed: int
    autocast: torch.dtype | None
    fingerprint: str


def fit(model: nn.Module, stage: Stage[Batch]) -> None:
    """Trains a model for the steps of a stage, from where its folder says it got to.

    A step learns from the mean over all moves of its batch, however many processes share the batch
    and whatever parts they cut their shares into. These only decide how sums are rounded, and which
    units dropout drops.

    A stage that was killed and is started again ends with the same weights, bit for bit on a CPU,
    as one that was not: batches and random draws are functions of the step and the rank alone.

    Raises:
        KeyboardInterrupt: Passed on after the state was saved.
        FloatingPointError: The loss is not finite.
        ValueError: The processes do not find the same state.
    """
    optimizer = AdamW(stage.parameters(), stage.config.optimizer)
    first = step = _restore(model, optimizer, stage)
    objective = _objective(model, stage)
    batches = stage.batches(first)
    with closing(_Journal(stage, first)) as journal, closing(_StopRequest()) as stop:
        while step < stage.config.num_steps:
            numbers = _train_step(objective, optimizer, next(batches), stage, step)
            step += 1
            journal.tell_step(step, numbers)
            last = step == stage.config.num_steps
            if last or step % stage.config.validate_every == 0:
                journal.write(step, stage.validate())
            stopping = stop.agreed()
            if last or stopping or step % stage.config.save_every == 0:
                progress = Progress(step=step, fingerprint=stage.fingerprint)
                from_main(lambda p=progress: save_training_state(stage.folder, model, optimizer, p))
            if stopping and not last:
                journal.tell_stop(step)
                raise KeyboardInterrupt


def _restore(model: nn.Module, optimizer: AdamW, stage: Stage[Batch]) -> int:
    step = load_training_state(stage.folder, model, optimizer, stage.fingerprint)
    steps = gather_shares([step])
    if len(set(steps)) > 1:
        raise ValueError(
            f"wanted all processes to find the same state in {stage.folder}, a folder that they "
            f"share, got steps {steps}"
        )
    return step


class _Objective(nn.Module):
    """The loss of a model as a module, which is what `DistributedDataParallel` wraps."""

    def __init__(self, model: nn.Module, loss: Callable[[Any], tuple[Tensor, dict[str, float]]]):
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, part: Any) -> tuple[Tensor, dict[str, float]]:
        loss, numbers = self._loss(part)
        if world_size() > 1:
            # DistributedDataParallel waits for the gradient of every parameter, and a part may
            # leave some unused, such as the attention among agents where each is alone.
            trained = [value.sum() for value in self.parameters() if value.requires_grad]
            loss = loss + 0 * torch.stack(trained).sum()
        return loss, numbers


def _objective(model: nn.Module, stage: Stage[Batch]) -> nn.Module:
    objective = _Objective(model, stage.loss)
    if world_size() == 1:
        return objective
    # All start from the weights of the main process.
    return DistributedDataParallel(objective)


def _train_step(
    objective: nn.Module,
    optimizer: AdamW,
    parts: Sequence[Batch],
    stage: Stage[Batch],
    step: int,
) -> dict[str, float]:
    # Seeded by the step, so that a resumed run draws what an uninterrupted one would have, and by
    # the rank, so that each process drops other units.
    torch.manual_seed(seed_of(stage.seed, stage.name, step) + rank())
    rate = learning_rate(step, stage.config.num_steps, stage.config.optimizer)
    optimizer.learning_rate = rate
    objective.train()
    numbers = _add_gradients(objective, parts, stage.autocast)
    trained = optimizer.parameters
    for parameter in trained:
        if parameter.grad is not None:
            # A sum over moves, divided by the world size, becomes their mean.
            parameter.grad.mul_(world_size() / max(1.0, numbers["moves"]))
    norm = nn.utils.clip_grad_norm_(trained, stage.config.optimizer.gradient_clip)
    if not math.isfinite(norm.item()):
        raise FloatingPointError(
            f"{stage.name} step {step}: wanted a finite gradient, got norm {norm.item()} "
            f"with loss {numbers['loss']}"
        )
    optimizer.step()
    # Validation has better use for the memory.
    optimizer.zero_grad()
    return {"gradient_norm": norm.item(), "learning_rate": rate, **numbers}


def _add_gradients(
    objective: nn.Module, parts: Sequence[Batch], autocast: torch.dtype | None
) -> dict[str, float]:
    """Adds up the gradients of the loss of every move, and averages the numbers of all processes.

    Gradients are divided by the world size.
    """
    device = next(objective.parameters()).device.type
    sums: Counter[str] = Counter()
    for index, part in enumerate(parts):
        with ExitStack() as stack:
            if isinstance(objective, DistributedDataParallel) and index < len(parts) - 1:
                # Only the last part's backward pass sends gradients: those of all parts.
                stack.enter_context(objective.no_sync())
            with torch.autocast(device, dtype=autocast, enabled=autocast is not None):
                loss, numbers = objective(part)
            moves = numbers["moves"]
            (loss * moves).backward()
        for name, value in {"loss": loss.item(), **numbers}.items():
            sums[name] += value if name == "moves" else value * moves
    totals = dict(zip(sums, sum_over_ranks(list(sums.values())), strict=True))
    moves = totals.pop("moves")
    return {**{name: total / max(1.0, moves) for name, total in totals.items()}, "moves": moves}


class _Journal:
    """What the main process shows and logs of a stage. The others are quiet."""

    def __init__(self, stage: Stage[Any], first: int) -> None:
        self._name = stage.name
        self._log = RunLog(stage.folder.parent, stage.name, step=first) if is_main() else None
        self._bar = tqdm(
            total=stage.config.num_steps,
            initial=first,
            desc=stage.name,
            unit="step",
            disable=not is_main(),
        )

    def write(self, step: int, numbers: dict[str, float]) -> None:
        if self._log is not None:
            self._log.write(step, **numbers)

    def tell_step(self, step: int, numbers: dict[str, float]) -> None:
        self._bar.update()
        self._bar.set_postfix(loss=f"{numbers['loss']:.3f}")
        self.write(step, numbers)

    def tell_stop(self, step: int) -> None:
        if self._log is not None:
            self._bar.write(
                f"stopped after step {step} of {self._name}; --resume goes on from there"
            )

    def close(self) -> None:
        self._bar.close()
        if self._log is not None:
            self._log.close()


class _StopRequest:
    """Turns Ctrl-C into a wish to stop between two steps, where the state is whole."""

    def __init__(self) -> None:
        self.requested = False
        # Python lets only the main thread listen to signals.
        self._listens = threading.current_thread() is threading.main_thread()
        if self._listens:
            self._before = signal.signal(signal.SIGINT, self._ask)

    def agreed(self) -> bool:
        """Tells whether any process was asked, so that all stop after the same step."""
        return sum_over_ranks([float(self.requested)]) != [0.0]

    def close(self) -> None:
        if self._listens:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, *_: object) -> None:
        if self.requested and world_size() == 1:
            # Asked twice: now, without saving. Launchers ask a second time of their own.
            raise KeyboardInterrupt
        self.requested = True


def pick_device(name: str) -> torch.device:
    """Turns a device's name into a device. `auto` is a GPU if there is one, else the CPU.

    Raises:
        ValueError: The device does not exist here, or processes would share it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"wanted a device such as cpu or cuda:0, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"wanted device {name}, but this machine has no GPU that torch can use")
    return local_device(device)


def pick_autocast(precision: str, device: torch.device) -> torch.dtype | None:
    """Turns a precision's name into the dtype of autocast; None is plain float32."""
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else "float32"
    return torch.bfloat16 if precision == "bfloat16" else None

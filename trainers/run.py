"""What a training run works on: its folder, device, vocabulary and scenarios."""

import dataclasses
import json
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch

from catk_sim.datasets.scenario_dataset import ScenarioDataset, prepare_if_needed
from catk_sim.datasets.whole_file import whole_file
from catk_sim.tokens import MotionVocabulary
from policies.checkpoint import save_checkpoint
from policies.ego_gmm.model import EgoGMM
from policies.smart.model import SMART
from trainers.configs import RunConfig
from trainers.distributed import from_main, is_main, join
from trainers.loop import pick_autocast, pick_device
from trainers.resume import fingerprint_of
from trainers.scenes import SceneDataset


@dataclass(frozen=True, kw_only=True)
class Run:
    """An opened run.

    Attributes:
        config: Its settings.
        folder: Where it writes.
        device: Where it computes.
        autocast: The dtype of automatic mixed precision, or None.
        vocabulary: The motion tokens.
        train: Scenes to learn from.
        held_out: Scenarios to measure on, with their maps.
        fingerprint: Identifies all settings that steps depend on.
    """

    config: RunConfig
    folder: Path
    device: torch.device
    autocast: torch.dtype | None
    vocabulary: MotionVocabulary
    train: SceneDataset
    held_out: "HeldOut"
    fingerprint: str

    def save(self, name: str, model: SMART | EgoGMM) -> None:
        """Saves a policy in a folder of the run, once for all processes."""
        from_main(lambda: save_checkpoint(self.folder / name, model, self.vocabulary))


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Scenarios to measure on: some of a data set, in its order.

    They are never learned from, unless there is only one scenario in all.
    """

    scenarios: ScenarioDataset
    indices: list[int]


def open_run(config: RunConfig, name: str) -> Run:
    """Opens the data and makes or finds the folder of a run, together with all other processes.

    Args:
        config: The settings.
        name: What a new folder below `runs` is called.

    Raises:
        ValueError: The folder has a run in it that is not to be resumed, or there is too little
            data.
    """
    torch.set_num_threads(config.cpu_threads)
    device = pick_device(config.device)
    join(device)
    vocabulary = (
        MotionVocabulary.load(config.vocabulary)
        if config.vocabulary
        else MotionVocabulary.default()
    )
    dataset = _open_data(config.data, config)
    train, held_out = _split(dataset, config)
    folder = from_main(lambda: _claim_folder(config, name))
    autocast = pick_autocast(config.precision, device)
    return Run(
        config=config,
        folder=folder,
        device=device,
        autocast=autocast,
        vocabulary=vocabulary,
        train=SceneDataset(
            dataset, train, vocabulary, sizes=[dataset.sizes[index] for index in train]
        ),
        held_out=held_out,
        fingerprint=fingerprint_of(
            dataclasses.replace(
                config,
                output=None,
                resume=False,
                cache=Path(),
                device="",
                cpu_threads=1,
                workers=0,
                max_scenarios_at_once=None,
                gradient_checkpointing=False,
            ),
            device.type,
            autocast,
            vocabulary.digest,
            [dataset.scenario_ids[index] for index in train],
        ),
    )


def _open_data(data: str, config: RunConfig) -> ScenarioDataset:
    # Metrics read the numbers of the file, which float32 would round.
    dtype = torch.float64
    return from_main(
        lambda: prepare_if_needed(data, config.cache, on_error=config.on_error, dtype=dtype)
    )


def _split(dataset: ScenarioDataset, config: RunConfig) -> tuple[list[int], HeldOut]:
    everything = list(range(len(dataset)))
    if config.validation_data:
        other = _open_data(config.validation_data, config)
        both = sorted(set(dataset.scenario_ids) & set(other.scenario_ids))
        if both:
            raise ValueError(
                f"{len(both)} scenarios of --validation-data are in --data too, such as {both[0]}"
            )
        return everything, HeldOut(scenarios=other, indices=list(range(len(other))))
    if len(everything) < 2:
        # One scenario can be learnt by heart, and that is what a first look at a file asks for.
        if is_main():
            sys.stderr.write(f"{config.data} has one scenario: it is both learnt and measured on\n")
        return everything, HeldOut(scenarios=dataset, indices=everything)
    # Ordered by a digest of the id, so that a scenario stays held out when others are added.
    by_lot = sorted(everything, key=lambda index: zlib.crc32(dataset.scenario_ids[index].encode()))
    count = max(1, round(config.holdout * len(everything)))
    held_out = sorted(by_lot[:count])
    return sorted(by_lot[count:]), HeldOut(scenarios=dataset, indices=held_out)


def _claim_folder(config: RunConfig, name: str) -> Path:
    folder = _find_folder(config, name)
    note = folder / "config.json"
    if not note.exists():
        with whole_file(note) as unfinished:
            unfinished.write_text(
                json.dumps(dataclasses.asdict(config), indent=2, default=str) + "\n"
            )
    return folder


def _find_folder(config: RunConfig, name: str) -> Path:
    if config.output is None:
        if config.resume:
            raise ValueError("--resume needs --output: the folder of the run to go on with")
        return _new_folder(Path("runs"), name)
    has_run = (config.output / "config.json").exists()
    if config.resume and not has_run:
        raise ValueError(f"there is no run to resume in {config.output}")
    if has_run and not config.resume:
        raise ValueError(
            f"{config.output} has a run in it: pass --resume to go on with it, or another --output"
        )
    config.output.mkdir(parents=True, exist_ok=True)
    return config.output


def _new_folder(parent: Path, name: str) -> Path:
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder

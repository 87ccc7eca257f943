"""Policies on disk: weights, sizes, vocabulary, and where they come from. Nothing is pickled."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from catk_sim.constants import STEPS_PER_TOKEN
from catk_sim.datasets.whole_file import whole_file
from catk_sim.tokens import MotionVocabulary
from policies.ego_gmm.config import MixtureConfig
from policies.ego_gmm.model import EgoGMM
from policies.smart.config import SMARTConfig
from policies.smart.map_vocabulary import map_vocabulary, map_vocabulary_digest
from policies.smart.model import SMART

_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_VOCABULARY = "vocabulary."
_FORMAT = 1
_NOTED = {
    "format",
    "policy",
    "model",
    "weights_sha256",
    "vocabulary_digest",
    "map_vocabulary_digest",
}
_POLICIES = ("smart", "ego_gmm")

Config = TypeVar("Config", SMARTConfig, MixtureConfig)


def save_checkpoint(
    folder: Path | str,
    model: SMART | EgoGMM,
    vocabulary: MotionVocabulary,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Writes a folder with `model.safetensors` and `config.json`.

    Args:
        folder: Is made if it does not exist.
        model: The policy's network.
        vocabulary: The motion vocabulary that it was trained with; it is written too.
        extra: More to note, of JSON types.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    tensors[_VOCABULARY + "poses"] = vocabulary.poses.contiguous()
    tensors[_VOCABULARY + "size"] = vocabulary.size.contiguous()
    with whole_file(folder / _CONFIG) as note, whole_file(folder / _WEIGHTS) as weights:
        save_file(tensors, weights)
        description = {
            "format": _FORMAT,
            **_description_of(model),
            "weights_sha256": _sha256(weights),
            "vocabulary_digest": vocabulary.digest,
            "map_vocabulary_digest": map_vocabulary_digest(model.curves),
            "version": version("catk-sim"),
            "git_commit": _git_commit(),
            "extra": dict(extra or {}),
        }
        note.write_text(json.dumps(description, indent=2) + "\n")


def load_checkpoint(path: Path | str, *, vocabulary: MotionVocabulary | None = None) -> SMART:
    """Reads a policy's network, on the CPU and in evaluation mode.

    Args:
        path: The folder, or one of the files in it.
        vocabulary: The motion vocabulary that it is going to be used with, if that is known. The
            one it was trained with is `SMART.vocabulary`.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If a file is damaged, the checkpoint is of another kind of policy, it was
            trained with another motion or map vocabulary, or its weights are not those of the
            network.
    """
    model = load_any_checkpoint(path, vocabulary=vocabulary)
    if not isinstance(model, SMART):
        raise ValueError(
            f"wanted a policy smart, that drives everybody; {path} has an ego_gmm, that drives the "
            "sdc alone"
        )
    return model


def load_ego_gmm(path: Path | str, *, vocabulary: MotionVocabulary | None = None) -> EgoGMM:
    """Reads the network of an ego policy; otherwise like `load_checkpoint`."""
    model = load_any_checkpoint(path, vocabulary=vocabulary)
    if not isinstance(model, EgoGMM):
        raise ValueError(
            f"wanted a policy ego_gmm, that drives the sdc alone; {path} has a smart, that drives "
            "everybody"
        )
    return model


def load_any_checkpoint(
    path: Path | str, *, vocabulary: MotionVocabulary | None = None
) -> SMART | EgoGMM:
    """Reads the network of a policy of any kind; otherwise like `load_checkpoint`."""
    folder = _folder_of(path)
    description = describe_checkpoint(folder)
    _check_vocabularies(folder, description, vocabulary)
    tensors = _read_weights(folder / _WEIGHTS, description["weights_sha256"])
    trained_with = _pop_vocabulary(folder, tensors, description["vocabulary_digest"])
    configs = _configs_of(folder, description)
    _check_sizes(folder, configs, tensors)
    # Without memory at first: a damaged note may ask for more than there is.
    with torch.device("meta"):
        wanted = _make_model(configs, trained_with).state_dict()
    _check_weights(folder, wanted=wanted, found=tensors)
    model = _make_model(configs, trained_with)
    model.load_state_dict(tensors)
    return model.eval()


def _description_of(model: SMART | EgoGMM) -> dict[str, Any]:
    if isinstance(model, SMART):
        return {"policy": "smart", "model": asdict(model.config)}
    config = {**asdict(model.config), "mixture": asdict(model.mixture_config)}
    return {"policy": "ego_gmm", "model": config}


_Configs = tuple[SMARTConfig, MixtureConfig | None]


def _make_model(configs: _Configs, vocabulary: MotionVocabulary) -> SMART | EgoGMM:
    config, mixture = configs
    if mixture is None:
        return SMART(config, vocabulary)
    return EgoGMM(config, mixture, vocabulary)


def _configs_of(folder: Path, description: dict[str, Any]) -> _Configs:
    try:
        noted = dict(description["model"])
        mixture = None
        if description["policy"] == "ego_gmm":
            mixture = _config_of(MixtureConfig, dict(noted.pop("mixture", {})))
        return _config_of(SMARTConfig, noted), mixture
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / _CONFIG} is damaged, or of another version: its model is no such: {error}"
        ) from error


def _config_of(kind: type[Config], noted: dict[str, Any]) -> Config:
    """Makes a configuration of what is noted: each of its fields, of its type, and no other."""
    types = {field.name: type(field.default) for field in fields(kind)}
    if set(types) != set(noted):
        raise ValueError(f"wanted {', '.join(sorted(types))}, got {', '.join(sorted(noted))}")
    for name, wanted in types.items():
        given = type(noted[name])
        if given is not wanted and not (wanted is float and given is int):
            raise ValueError(f"{name} must be of type {wanted.__name__}, got {noted[name]!r:.80}")
    return kind(**noted)


def _check_sizes(folder: Path, configs: _Configs, tensors: dict[str, Tensor]) -> None:
    """Refuses sizes that are larger than all weights: making such a network might never end."""
    most = sum(tensor.numel() for tensor in tensors.values())
    for config in filter(None, configs):
        for name, value in asdict(config).items():
            layers = name.startswith("num_") and name.endswith("_layers")
            if isinstance(value, int) and value > (len(tensors) if layers else most):
                raise ValueError(f"the weights of {folder} do not fit: {name} is noted as {value}")


def _pop_vocabulary(folder: Path, tensors: dict[str, Tensor], digest: str) -> MotionVocabulary:
    parts = {name: tensors.pop(_VOCABULARY + name, None) for name in ("poses", "size")}
    poses, size = parts["poses"], parts["size"]
    if poses is None or size is None:
        raise ValueError(f"the weights of {folder} lack the motion vocabulary")
    if poses.dim() != 4 or poses.shape[2:] != (STEPS_PER_TOKEN + 1, 3) or poses.numel() == 0:
        raise ValueError(
            f"the motion vocabulary of {folder} must be types x tokens x {STEPS_PER_TOKEN + 1} x "
            f"3, got {tuple(poses.shape)}"
        )
    if size.shape != (len(poses), 2):
        raise ValueError(
            f"the motion vocabulary of {folder} must have {len(poses)} x 2 sizes, got "
            f"{tuple(size.shape)}"
        )
    return MotionVocabulary(poses=poses, size=size, digest=digest)


def _folder_of(path: Path | str) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint at {path}: it does not exist")
    return path if path.is_dir() else path.parent


def describe_checkpoint(path: Path | str) -> dict[str, Any]:
    """Reads what is noted of a checkpoint: sizes, digests, version, commit, and the extra notes.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If the note is damaged, or is that of an unknown kind of policy.
    """
    file = _folder_of(path) / _CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}: {file} does not exist")
    description = _read_note(file)
    if description["format"] != _FORMAT:
        raise ValueError(f"{file} must be of format {_FORMAT}, got {description['format']}")
    if description["policy"] not in _POLICIES:
        known = " or ".join(_POLICIES)
        raise ValueError(f"{file} must be of policy {known}, got {description['policy']}")
    return description


def _read_note(file: Path) -> dict[str, Any]:
    try:
        description = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(description, dict):
        raise ValueError(f"{file} must hold a JSON object, got {type(description).__name__}")
    missing = _NOTED - set(description)
    if missing:
        raise ValueError(f"{file} is no checkpoint's: it lacks {', '.join(sorted(missing))}")
    for name in ("weights_sha256", "vocabulary_digest", "map_vocabulary_digest"):
        if not isinstance(description[name], str):
            raise ValueError(f"{name} in {file} must be a string, got {description[name]!r:.80}")
    return description


def _check_vocabularies(
    folder: Path, description: dict[str, Any], vocabulary: MotionVocabulary | None
) -> None:
    trained = description["vocabulary_digest"]
    if vocabulary is not None and vocabulary.digest != trained:
        raise ValueError(
            f"the checkpoint {folder} was trained with the motion vocabulary {trained}, "
            f"got {vocabulary.digest}"
        )
    trained, ours = description["map_vocabulary_digest"], map_vocabulary_digest(map_vocabulary())
    if trained != ours:
        raise ValueError(
            f"the checkpoint {folder} was trained with the map vocabulary {trained}, "
            f"and this version has {ours}"
        )


def _read_weights(file: Path, sha256: str) -> dict[str, Tensor]:
    if not file.is_file():
        raise FileNotFoundError(f"the checkpoint lacks {file}")
    found = _sha256(file)
    if found != sha256:
        raise ValueError(f"{file} is damaged: its SHA-256 should be {sha256} and is {found}")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is not a safetensors file: {error}") from error


def _check_weights(folder: Path, *, wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    problems = [f"lacks {name}" for name in wanted if name not in found]
    problems += [f"has {name}, which is unknown" for name in found if name not in wanted]
    problems += [
        f"{name} must be {tuple(wanted[name].shape)}, got {tuple(found[name].shape)}"
        for name in wanted
        if name in found and wanted[name].shape != found[name].shape
    ]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"the weights of {folder} do not fit: {'; '.join(problems[:5])}{more}")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _git_commit() -> str | None:
    """Names the commit of the code, where it runs from a repository."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

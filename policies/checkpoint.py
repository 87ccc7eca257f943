"""Policies on disk: weights, sizes, vocabulary, and where they come from. Nothing is pickled."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from catk_sim.tokens import MotionVocabulary
from policies.smart.config import SMARTConfig
from policies.smart.map_vocabulary import map_vocabulary, map_vocabulary_digest
from policies.smart.model import SMART

_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_VOCABULARY = "vocabulary."
_FORMAT = 1
_POLICY = "smart"
_NOTED = {
    "format",
    "policy",
    "model",
    "weights_sha256",
    "vocabulary_digest",
    "map_vocabulary_digest",
}


def save_checkpoint(
    folder: Path | str,
    model: SMART,
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
    # Renaming is atomic: a killed run leaves whole files.
    unfinished = folder / f"{_WEIGHTS}.part"
    save_file(tensors, unfinished)
    description = {
        "format": _FORMAT,
        "policy": _POLICY,
        "model": asdict(model.config),
        "weights_sha256": _sha256(unfinished),
        "vocabulary_digest": vocabulary.digest,
        "map_vocabulary_digest": map_vocabulary_digest(model.curves),
        "version": version("catk-sim"),
        "git_commit": _git_commit(),
        "extra": dict(extra or {}),
    }
    unfinished.replace(folder / _WEIGHTS)
    unfinished = folder / f"{_CONFIG}.part"
    unfinished.write_text(json.dumps(description, indent=2) + "\n")
    unfinished.replace(folder / _CONFIG)


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
    folder = _folder_of(path)
    description = describe_checkpoint(folder)
    _check_vocabularies(folder, description, vocabulary)
    tensors = _read_weights(folder / _WEIGHTS, description["weights_sha256"])
    trained_with = MotionVocabulary(
        poses=tensors.pop(_VOCABULARY + "poses"),
        size=tensors.pop(_VOCABULARY + "size"),
        digest=description["vocabulary_digest"],
    )
    model = SMART(SMARTConfig(**description["model"]), trained_with)
    _check_weights(folder, wanted=model.state_dict(), found=tensors)
    model.load_state_dict(tensors)
    return model.eval()


def _folder_of(path: Path | str) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint at {path}: it does not exist")
    return path if path.is_dir() else path.parent


def describe_checkpoint(path: Path | str) -> dict[str, Any]:
    """Reads what is noted of a checkpoint: sizes, digests, version, commit, and the extra notes.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If the note is damaged, or is that of another kind of policy.
    """
    file = _folder_of(path) / _CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}: {file} does not exist")
    try:
        description = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    missing = _NOTED - set(description)
    if missing:
        raise ValueError(f"{file} is no checkpoint's: it lacks {', '.join(sorted(missing))}")
    kind = (description["format"], description["policy"])
    if kind != (_FORMAT, _POLICY):
        raise ValueError(f"{file} must be of format {_FORMAT} and policy {_POLICY}, got {kind}")
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
    return load_file(file)


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

"""The motion vocabulary: half-second moves that agents choose from."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from catk_sim.constants import STEPS_PER_TOKEN
from catk_sim.datatypes import AgentType, TensorTree
from catk_sim.geometry.boxes import box_corners

CLASS_SIZE = ((4.8, 2.0), (1.0, 1.0), (2.0, 1.0))
"""Length and width (m) of the boxes that SMART compares the motions of vehicles, pedestrians and
cyclists by (arXiv:2405.15677)."""

STANDSTILL = 0.05
"""How far token 0 may move or turn (m, rad): in some vocabularies it is the mean of a disk."""

_METADATA = "vocabulary"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a vocabulary comes from."""

    source: str
    """The data, in words or as a path."""
    num_motions: tuple[int, ...]
    """Distinct motions of vehicles, pedestrians and cyclists that it was built from."""
    num_generated: tuple[int, ...]
    """How many of these were not logged but generated."""
    tolerance: tuple[float, ...]
    """Radius of the disks (m) of vehicles, pedestrians and cyclists."""
    seed: int
    """Seed of the draws."""
    command: str
    """What was run."""
    version: str
    """Version of this package that ran it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MotionVocabulary(TensorTree):
    """Half-second moves for each type of agent, in the frame of the pose they start from.

    Rows of the first dimension are vehicles, pedestrians, cyclists: `type_index` maps `AgentType`
    to them. Token 0 of each type stands still.

    Attributes:
        poses: x (m, forward), y (m, left), heading (rad) at 10 Hz. The first is the start, all
            zeros; the last is half a second later.
        size: Length and width (m) of the box that stands for all agents of a type when motions are
            compared.
        digest: Identifies the contents; a checkpoint names the digest it was trained with.

    Example:
        >>> MotionVocabulary.default().poses.shape
        torch.Size([3, 2048, 6, 3])
    """

    poses: Float[Tensor, "types tokens 6 3"]
    size: Float[Tensor, "types 2"]
    digest: str

    @classmethod
    def from_poses(
        cls, poses: Float[Tensor, "types tokens 6 3"], size: Float[Tensor, "types 2"]
    ) -> "MotionVocabulary":
        """Makes a vocabulary with the digest that its contents have.

        Raises:
            ValueError: If the poses are not finite, do not start at zero, or token 0 of a type
                moves.
        """
        if not (poses.isfinite().all() and size.isfinite().all()):
            raise ValueError("the poses and sizes of a vocabulary must be finite")
        if poses[:, :, 0].any():
            raise ValueError("every token must start from the pose (0, 0, 0)")
        drift = poses[:, 0].abs().max()
        if drift > STANDSTILL:
            raise ValueError(
                f"token 0 of every type must stand still, to {STANDSTILL} m and rad; "
                f"it moves by {drift:.3g}"
            )
        return cls(poses=poses, size=size, digest=contents_digest(poses, size))

    @classmethod
    def default(cls) -> "MotionVocabulary":
        """Loads the vocabulary that ships with the package, built from synthetic traffic."""
        shipped = resources.files("catk_sim.tokens") / "data" / "synthetic.safetensors"
        with resources.as_file(shipped) as path:
            return cls.load(path)

    @classmethod
    def load(cls, path: Path | str) -> "MotionVocabulary":
        """Reads a vocabulary.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a vocabulary, or its digest is not that of its contents.
        """
        tensors, described = _read(path)
        vocabulary = cls.from_poses(tensors["poses"], tensors["size"])
        if vocabulary.digest != described["digest"]:
            raise ValueError(
                f"{path} names the digest {described['digest']}, "
                f"but its contents have {vocabulary.digest}: it was changed or damaged"
            )
        return vocabulary

    def save(self, path: Path | str, provenance: Provenance) -> None:
        """Writes the vocabulary as safetensors, with its digest and where it comes from.

        Raises:
            ValueError: If the digest is not that of the contents.
        """
        contents = contents_digest(self.poses, self.size)
        if contents != self.digest:
            raise ValueError(
                f"the vocabulary names the digest {self.digest}, but its contents have {contents}: "
                "make vocabularies with MotionVocabulary.from_poses"
            )
        content = serialize(
            {"poses": _canonical(self.poses), "size": _canonical(self.size)},
            # One entry: safetensors writes several in any order.
            metadata={_METADATA: json.dumps({"digest": self.digest, **asdict(provenance)})},
        )
        # safetensors' own writer leaves files that only their owner may read.
        Path(path).write_bytes(content)

    @staticmethod
    def type_index(agent_type: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Finds the row of each `AgentType`. Agents of other and unset types move as vehicles."""
        return (agent_type == AgentType.PEDESTRIAN) + 2 * (agent_type == AgentType.CYCLIST)

    @cached_property
    def row_of_type(self) -> Int[Tensor, " kinds"]:
        """The row of each `AgentType`: `type_index` as a table, for who asks at every step."""
        return self.type_index(torch.arange(len(AgentType), device=self.poses.device))

    @property
    def num_tokens(self) -> int:
        """Tokens of each type."""
        return self.poses.shape[1]

    @property
    def end_poses(self) -> Float[Tensor, "types tokens 3"]:
        """Where each token leads: x (m), y (m), heading (rad)."""
        return self.poses[:, :, -1]

    @cached_property
    def end_placements(self) -> Float[Tensor, "4 types tokens"]:
        """Where each token leads: x (m), y (m), cosine and sine of the heading."""
        x, y, heading = self.end_poses.unbind(-1)
        return torch.stack([x, y, heading.cos(), heading.sin()])

    @cached_property
    def box_corners(self) -> Float[Tensor, "2 4 types"]:
        """Where the corners of each type's box are, seen from its centre: ahead and left (m).

        In the order of `end_corners`.
        """
        center = torch.zeros_like(self.size)
        return box_corners(center, center[:, 0], self.size).permute(2, 1, 0).contiguous()

    @property
    def end_corners(self) -> Float[Tensor, "types tokens 4 2"]:
        """Corners (m) of the type's box at the end of each token.

        In the order left-front, right-front, right-back, left-back.
        """
        xy, heading = self.end_poses[..., :2], self.end_poses[..., 2]
        return box_corners(xy, heading, self.size[:, None].expand_as(xy))

    @cached_property
    def end_corners_by_axis(self) -> Float[Tensor, "types 2 4 tokens"]:
        """`end_corners` with tokens last, so that arithmetic on them runs along memory."""
        return self.end_corners.permute(0, 3, 2, 1).contiguous()


def read_provenance(path: Path | str) -> Provenance:
    """Reads where the vocabulary in a file comes from."""
    fields = _read(path)[1]
    del fields["digest"]
    for name in ("num_motions", "num_generated", "tolerance"):
        fields[name] = tuple(fields[name])
    return Provenance(**fields)


def contents_digest(
    poses: Float[Tensor, "types tokens 6 3"], size: Float[Tensor, "types 2"]
) -> str:
    """Hashes the contents of a vocabulary: SHA-256 over the shape and the float32 numbers."""
    content = hashlib.sha256(str(tuple(poses.shape)).encode())
    for tensor in (poses, size):
        content.update(_canonical(tensor).numpy().astype("<f4").tobytes())
    return content.hexdigest()


def _canonical(tensor: Tensor) -> Tensor:
    # Adding zero turns -0.0 into 0.0, so that equal numbers have equal bytes.
    return tensor.detach().to("cpu", torch.float32).contiguous() + 0.0


def _read(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no vocabulary at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Clones: the file's own tensors are windows on the disk, and change with it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if set(tensors) != {"poses", "size"} or _METADATA not in metadata:
        raise ValueError(
            f"{path} is not a motion vocabulary: wanted tensors poses and size, and metadata "
            f"{_METADATA}; it has {sorted(tensors)} and {sorted(metadata)}"
        )
    _check_shape(path, tensors["poses"])
    return tensors, json.loads(metadata[_METADATA])


def _check_shape(path: Path | str, poses: Tensor) -> None:
    shape = tuple(poses.shape)
    if len(shape) != 4 or shape[2:] != (STEPS_PER_TOKEN + 1, 3) or shape[0] != len(CLASS_SIZE):
        raise ValueError(
            f"the poses in {path} must be {len(CLASS_SIZE)} types x tokens x "
            f"{STEPS_PER_TOKEN + 1} steps x 3, got {shape}"
        )

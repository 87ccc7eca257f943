"""What agents attend to again and again: the map, and their own last marks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.datatypes import TensorTree
from catk_sim.tokens import MotionTokens
from policies.smart.graph import Poses
from policies.smart.nodes import DistinctEntries


@dataclass(frozen=True, eq=False, kw_only=True)
class MapMemory(TensorTree):
    """What agents need of a map.

    Attributes:
        xy: Where map tokens begin (m).
        heading: Their directions there (rad).
        valid: False for padding.
        features: Their features.
        keys_values: The keys and values of these in each block of the decoder.
    """

    xy: Float[Tensor, "*batch map_tokens 2"]
    heading: Float[Tensor, "*batch map_tokens"]
    valid: Bool[Tensor, "*batch map_tokens"]
    features: Float[Tensor, "*batch map_tokens hidden"]
    keys_values: Float[Tensor, "*batch map_tokens blocks keys_values"]

    @cached_property
    def poses(self) -> tuple[Poses, Int[Tensor, " valid_tokens"]]:
        """The valid tokens of a batch of maps, and their places in its flat list."""
        scene, place = self.valid.nonzero(as_tuple=True)
        poses = Poses(xy=self.xy[scene, place], heading=self.heading[scene, place], group=scene)
        return poses, scene * self.valid.shape[1] + place

    @cached_property
    def distinct(self) -> tuple[DistinctEntries, "MapMemory"]:
        """The maps without the copies that `repeat` made, along one dimension."""
        maps = DistinctEntries(self.valid.dim() - 1, self)
        return maps, maps.flatten(self)


class Sources(NamedTuple):
    """Keys and values of marks in one list, in which some places may belong to nobody."""

    keys_values: Float[Tensor, "places blocks keys_values"]
    """Those of each place."""

    span: int
    """Marks of an agent."""

    pitch: int
    """Places from an agent's first mark to the next agent's."""

    def place(self, mark: Int[Tensor, " marks"]) -> Int[Tensor, " marks"]:
        """Tells the places of marks, which are numbered agent by agent without gaps."""
        return mark + mark // self.span * (self.pitch - self.span)


class Room:
    """Places for marks, written one after the other, so that appending seldom copies.

    What has been written is not changed any more, so that the memory before an appended mark stays
    as it was. Who appends to that memory again finds the place taken, and begins a room anew.

    Args:
        keys_values: Those of the marks so far. The earliest is left out.
    """

    def __init__(self, keys_values: Float[Tensor, "*batch agents span blocks keys_values"]) -> None:
        *batch, self._span, blocks, width = keys_values.shape
        self._num_written = self._span - 1
        # (batch, agents, places, blocks, keys and values)
        # Padding of an attention may look where nobody was, and then must find numbers.
        self._places = keys_values.new_zeros(*batch, self._span + self._span // 2, blocks, width)
        self._places[..., : self._num_written, :, :] = keys_values[..., 1:, :, :]

    def ends_with(
        self, keys_values: Float[Tensor, "*batch agents span blocks keys_values"]
    ) -> bool:
        """Tells whether these are its last marks, and one more can be written behind them."""
        last = self._last()
        return (
            self._num_written < self._places.shape[-3]
            # What a gradient has yet to go through must not be written into.
            and not self._places.requires_grad
            and keys_values.shape == last.shape
            and keys_values.stride() == last.stride()
            and keys_values.data_ptr() == last.data_ptr()
        )

    def append(
        self,
        valid: Bool[Tensor, "*batch agents"],
        keys_values: Sequence[Float[Tensor, "_ blocks keys_values"]],
    ) -> Float[Tensor, "*batch agents span blocks keys_values"]:
        """Writes one more mark, and returns the last ones.

        Args:
            valid: Who is there.
            keys_values: Those of the valid agents, in several parts.
        """
        places = self._places.flatten(0, -3)
        first = torch.arange(valid.numel(), device=valid.device) * self._places.shape[-3]
        place = (first + self._num_written)[valid.flatten()]
        counts = [len(part) for part in keys_values]
        for rows, values in zip(place.split(counts), keys_values, strict=True):
            places.index_copy_(0, rows, values.to(places.dtype))
        self._num_written += 1
        return self._last()

    def _last(self) -> Float[Tensor, "*batch agents span blocks keys_values"]:
        return self._places[..., self._num_written - self._span : self._num_written, :, :]


@dataclass(frozen=True, eq=False, kw_only=True)
class Past(TensorTree):
    """What agents remember of their last marks.

    Attributes:
        xy: Where they were (m), the latest last.
        heading: Their directions then (rad).
        valid: Whether they were there.
        keys_values: Keys and values of each block's temporal attention.
        room: What these are a part of, if further marks can be written behind them.
    """

    xy: Float[Tensor, "*batch agents span 2"]
    heading: Float[Tensor, "*batch agents span"]
    valid: Bool[Tensor, "*batch agents span"]
    keys_values: Float[Tensor, "*batch agents span blocks keys_values"]
    room: Room | None = None

    def append(
        self, tokens: MotionTokens, keys_values: Sequence[Float[Tensor, "_ blocks keys_values"]]
    ) -> "Past":
        """Forgets the earliest mark and remembers one more.

        Args:
            tokens: The agents at that mark.
            keys_values: Those of the valid agents, in several parts.
        """
        dtype = torch.promote_types(self.keys_values.dtype, keys_values[0].dtype)
        earlier, room = self.keys_values.to(dtype), self.room
        if room is None or not room.ends_with(earlier):
            room = Room(earlier)
        return Past(
            xy=torch.cat([self.xy[..., 1:, :], tokens.xy], dim=-2),
            heading=torch.cat([self.heading[..., 1:], tokens.heading], dim=-1),
            valid=torch.cat([self.valid[..., 1:], tokens.valid], dim=-1),
            keys_values=room.append(tokens.valid[..., 0], keys_values),
            room=room,
        )

    @cached_property
    def sources(self) -> Sources:
        """Keys and values in one list."""
        rows = self.keys_values.flatten(0, -4)
        count, span = rows.shape[:2]
        pitch = rows.stride(0) // rows.stride(1)
        places = (count - 1) * pitch + span if count else 0
        return Sources(rows.as_strided((places, *rows.shape[2:]), rows.stride()[1:]), span, pitch)

"""Batches of scenarios of like size, so that little of a batch is padding."""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Sampler

from catk_sim.datasets.schema import ScenarioSize


class BucketBatchSampler(Sampler[list[int]]):
    """Draws batches for a `DataLoader`: random, but of scenarios of like size.

    An epoch shuffles the scenarios, cuts them into pools of `batches_per_pool` batches, cuts each
    pool by agents and map points into batches, and shuffles all batches. It depends on the seed and
    the epoch alone. One iteration is one epoch, or the rest of it after `seek`; the next one is the
    next epoch.

    Args:
        sizes: Size of each scenario, as `ScenarioDataset.sizes` tells.
        batch_size: Scenarios in a batch. The last one may have fewer.
        seed: Of the shuffling.
        batches_per_pool: The more, the less padding, and the less random the batches.
        drop_last: Whether to leave out, each epoch, the few scenarios that fill no batch.
    """

    def __init__(
        self,
        sizes: Sequence[ScenarioSize],
        batch_size: int,
        *,
        seed: int,
        batches_per_pool: int = 64,
        drop_last: bool = False,
    ) -> None:
        if batch_size < 1 or batches_per_pool < 1:
            raise ValueError(
                f"wanted at least one scenario per batch and one batch per pool, got {batch_size} "
                f"and {batches_per_pool}"
            )
        self._points = torch.tensor([size.points for size in sizes])
        self._agents = torch.tensor([size.agents for size in sizes])
        self._batch_size = batch_size
        self._seed = seed
        self._batches_per_pool = batches_per_pool
        self._count = len(sizes) - len(sizes) % batch_size if drop_last else len(sizes)
        self._epoch = 0
        self._position = 0

    def seek(self, epoch: int, position: int = 0) -> None:
        """Makes the next iteration begin at a batch of an epoch, counted from 0.

        A `DataLoader` with workers asks for batches ahead of time, so whoever wants to resume
        counts the batches that were used, and seeks to that count.
        """
        if epoch < 0 or not 0 <= position <= self.batches_per_epoch:
            raise ValueError(
                f"wanted an epoch from 0 and a position in [0, {self.batches_per_epoch}], got "
                f"{epoch} and {position}"
            )
        self._epoch, self._position = epoch, position

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches(self._epoch)[self._position :]
        self._epoch, self._position = self._epoch + 1, 0

    def __len__(self) -> int:
        return self.batches_per_epoch - self._position

    @property
    def batches_per_epoch(self) -> int:
        """Batches in a whole epoch."""
        return math.ceil(self._count / self._batch_size)

    def batches(self, epoch: int) -> list[list[int]]:
        """Returns all batches of an epoch, in order."""
        generator = torch.Generator().manual_seed(_mix(self._seed, epoch))
        shuffled = torch.randperm(len(self._points), generator=generator)[: self._count]
        pool_size = self._batch_size * self._batches_per_pool
        batches = [batch for pool in shuffled.split(pool_size) for batch in self._cut(pool)]
        order = torch.randperm(len(batches), generator=generator)
        return [batches[index].tolist() for index in order]

    def _cut(self, pool: Int[Tensor, " scenarios"]) -> list[Int[Tensor, " _"]]:
        """Halves a pool by the measure that would be padded most, until the halves are batches."""
        batches = math.ceil(len(pool) / self._batch_size)
        if batches <= 1:
            return [pool] if len(pool) else []
        measure = max((self._agents[pool], self._points[pool]), key=_padding)
        ordered = pool[measure.argsort(stable=True)]
        middle = batches // 2 * self._batch_size
        return self._cut(ordered[:middle]) + self._cut(ordered[middle:])


def _padding(lengths: Int[Tensor, " scenarios"]) -> float:
    """Computes the share of padding in a batch of these lengths."""
    return 1 - float(lengths.sum()) / max(1, len(lengths) * int(lengths.max()))


def _mix(seed: int, epoch: int) -> int:
    """Makes one seed of two, so that neighbouring seeds share no epochs."""
    return seed * 1_000_003 + epoch
